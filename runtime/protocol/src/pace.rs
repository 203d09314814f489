//! How fast jobs of a model are computed.

use serde::{Deserialize, Serialize};

/// Jobs that are computed together, and how long each of them takes: of one replica, or of several together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Jobs computed together.
    pub slots: u32,
    /// How long a job took lately, in milliseconds from its first worker to its last token.
    pub job_ms: u32,
}

impl Pace {
    /// That of all of them together; `None` if no slot is known.
    ///
    /// Slots that finish jobs at different rates finish together at the sum of the rates; the time of a job is what
    /// gives that sum.
    #[must_use]
    pub fn together(paces: impl IntoIterator<Item = Self>) -> Option<Self> {
        let (mut slots, mut per_ms) = (0_u32, 0.0);
        for pace in paces.into_iter().filter(|pace| pace.slots > 0) {
            slots = slots.saturating_add(pace.slots);
            per_ms += f64::from(pace.slots) / f64::from(pace.job_ms.max(1));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of what fits is no larger")]
        let job_ms = (f64::from(slots) / per_ms).round() as u32;
        (slots > 0).then_some(Self { slots, job_ms })
    }

    /// How long it takes until so many jobs are begun, in milliseconds, when every slot is taken.
    #[must_use]
    pub fn wait_ms(&self, jobs: u64) -> u64 {
        jobs.saturating_mul(u64::from(self.job_ms)) / u64::from(self.slots.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_are_as_fast_wait_half_as_long_and_a_slow_one_hardly_helps() {
        let (fast, slow) = (Pace { slots: 4, job_ms: 400 }, Pace { slots: 4, job_ms: 4000 });
        assert_eq!(fast.wait_ms(8), 800);
        let both = Pace::together([fast, fast]).expect("slots");
        assert_eq!((both, both.wait_ms(8)), (Pace { slots: 8, job_ms: 400 }, 400));
        let uneven = Pace::together([fast, slow]).expect("slots");
        assert_eq!(uneven.wait_ms(11), 999, "eleven jobs a second and not ten");
        assert_eq!(Pace::together([Pace { slots: 0, job_ms: 1 }]), None);
    }
}
