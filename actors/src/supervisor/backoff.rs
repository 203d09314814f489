//! How long a restart waits: exponential, with full jitter.
//!
//! Owns the delay before a restart. It must never read a clock or a generator: its randomness is a hash of a seed and
//! the restart's number, so that a sequence of events replays exactly. The core calls it.

use std::time::Duration;

/// Delay before the `n`th consecutive restart: uniform in `[0, min(max, first * 2^(n-1))]`, which is "full jitter"
/// (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first delay.
    pub first: Duration,
    /// Bound of every delay.
    pub max: Duration,
    /// A child that ran this long before it ended starts over with the first delay.
    pub reset_after: Duration,
}

impl Backoff {
    /// Restart at once, always: what OTP does.
    pub const NONE: Self = Self { first: Duration::ZERO, max: Duration::ZERO, reset_after: Duration::ZERO };

    /// The bound of the delay before the `failures`th consecutive restart, `failures` counting from 1.
    pub fn bound(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }

    /// The delay itself, the same for the same arguments.
    pub fn delay(&self, failures: u32, seed: u64, restart_number: u64) -> Duration {
        let bound_us = u64::try_from(self.bound(failures).as_micros()).unwrap_or(u64::MAX - 1);
        if bound_us == 0 {
            return Duration::ZERO;
        }
        let draw = mix(seed ^ mix(restart_number));
        let scaled = (u128::from(draw) * (u128::from(bound_us) + 1)) >> 64;
        Duration::from_micros(u64::try_from(scaled).unwrap_or(bound_us))
    }
}

impl Default for Backoff {
    /// First bound 50 ms, so that one crash is repaired before anybody notices; at most 5 s; forgotten after a quiet
    /// minute.
    fn default() -> Self {
        Self { first: Duration::from_millis(50), max: Duration::from_secs(5), reset_after: Duration::from_secs(60) }
    }
}

/// SplitMix64's output function (Steele, Lea, Flood, OOPSLA 2014).
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(100),
        max: Duration::from_secs(1),
        reset_after: Duration::from_secs(60),
    };

    #[test]
    fn the_bound_doubles_up_to_its_maximum() {
        let bounds: Vec<u128> = (1..=6).map(|failures| BACKOFF.bound(failures).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(BACKOFF.bound(u32::MAX), BACKOFF.max);
    }

    #[test]
    fn delays_replay_and_fill_the_whole_range() {
        let draw = |number| BACKOFF.delay(5, 7, number);
        assert_eq!(draw(3), draw(3));
        let delays: Vec<Duration> = (0..1000).map(draw).collect();
        assert!(delays.iter().all(|delay| *delay <= BACKOFF.max));
        for tenth in 0..10 {
            let (low, high) = (BACKOFF.max * tenth / 10, BACKOFF.max * (tenth + 1) / 10);
            assert!(delays.iter().any(|delay| (low..=high).contains(delay)), "no delay between {low:?} and {high:?}");
        }
    }

    #[test]
    fn no_backoff_is_no_delay() {
        assert_eq!(Backoff::NONE.delay(40, 1, 1), Duration::ZERO);
    }
}
