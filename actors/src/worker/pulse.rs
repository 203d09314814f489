//! Whether a worker process still gets anywhere. Pure: told of beats, asked with a time.

use std::time::Duration;

use halm_protocol::worker::StepPulse;

use crate::moment::Moment;

/// No silence shorter than this is a hang: a busy machine may well not run a process for half a second.
const STALL_MIN: Duration = Duration::from_secs(1);
/// A row that takes this many times its own recent time is stuck.
const ROW_TIMES_MAX: u64 = 20;
/// Before the first row was measured: a slow machine's time for one.
const ROW_US_ASSUMED: u64 = 100_000;
/// A process that never beat has not begun; reading its own binary from a cold disk takes a while.
const FIRST_BEAT_WITHIN: Duration = Duration::from_secs(30);

/// Longer between two looks than this, and it was we who hung.
const LOOKED_AWAY: Duration = Duration::from_millis(800);

/// A hang, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stall {
    /// No beat came.
    Silent {
        /// For how long.
        silent_for: Duration,
    },
    /// It beats, and its forward pass does not end.
    Stuck {
        /// For how long the pass has run.
        running_for: Duration,
        /// Rows of that pass.
        rows: u32,
    },
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent { silent_for } => write!(f, "no beat for {} ms", silent_for.as_millis()),
            Self::Stuck { running_for, rows } => {
                write!(f, "a pass over {rows} rows ran for {} ms", running_for.as_millis())
            }
        }
    }
}

/// What is known of a worker's progress.
#[derive(Debug)]
pub(super) struct Pulse {
    heard_at: Moment,
    looked_at: Moment,
    last: Option<StepPulse>,
}

impl Pulse {
    pub(super) fn new(now: Moment) -> Self {
        Self { heard_at: now, looked_at: now, last: None }
    }

    pub(super) fn heard(&mut self, pulse: StepPulse, now: Moment) {
        self.heard_at = now;
        self.last = Some(pulse);
    }

    /// The hang that there is, if there is one.
    pub(super) fn stall(&mut self, now: Moment) -> Option<Stall> {
        if now - self.looked_at > LOOKED_AWAY {
            // We were stopped ourselves; what the worker said meanwhile waits in the mailbox.
            self.heard_at = now;
        }
        self.looked_at = now;
        let silent_for = now - self.heard_at;
        let Some(last) = self.last else {
            return (silent_for > FIRST_BEAT_WITHIN).then_some(Stall::Silent { silent_for });
        };
        if silent_for > STALL_MIN {
            return Some(Stall::Silent { silent_for });
        }
        let row_us = if last.row_us == 0 { ROW_US_ASSUMED } else { last.row_us };
        let bound = Duration::from_micros(row_us.saturating_mul(u64::from(last.rows)).saturating_mul(ROW_TIMES_MAX));
        let running_for = Duration::from_micros(last.running_us) + silent_for;
        (last.rows > 0 && running_for > bound.max(STALL_MIN)).then_some(Stall::Stuck { running_for, rows: last.rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::after(Duration::from_millis(ms))
    }

    #[test]
    fn silence_of_more_than_a_second_is_a_hang_but_not_before_the_first_beat() {
        let mut pulse = Pulse::new(at(0));
        for ms in (0..=30_000).step_by(200) {
            assert_eq!(pulse.stall(at(ms)), None);
        }
        assert!(pulse.stall(at(30_200)).is_some());
        pulse.heard(StepPulse { steps: 0, rows: 0, running_us: 0, row_us: 0 }, at(30_200));
        for ms in (30_400..=31_200).step_by(200) {
            assert_eq!(pulse.stall(at(ms)), None);
        }
        assert_eq!(pulse.stall(at(31_201)), Some(Stall::Silent { silent_for: Duration::from_millis(1001) }));
    }

    #[test]
    fn a_replica_that_was_stopped_itself_does_not_call_its_workers_hung() {
        let mut pulse = Pulse::new(at(0));
        pulse.heard(StepPulse { steps: 0, rows: 0, running_us: 0, row_us: 0 }, at(0));
        assert_eq!(pulse.stall(at(100)), None);
        assert_eq!(pulse.stall(at(60_000)), None, "it looked away for a minute");
        assert_eq!(pulse.stall(at(60_200)), None);
    }

    #[test]
    fn a_long_prompt_may_take_its_time_and_a_single_row_may_not() {
        let mut pulse = Pulse::new(at(0));
        pulse.heard(StepPulse { steps: 9, rows: 1000, running_us: 15_000_000, row_us: 10_000 }, at(0));
        assert_eq!(pulse.stall(at(100)), None, "a thousand rows at 10 ms each are 10 s");
        pulse.heard(StepPulse { steps: 9, rows: 1, running_us: 1_500_000, row_us: 10_000 }, at(0));
        assert!(matches!(pulse.stall(at(100)), Some(Stall::Stuck { rows: 1, .. })));
    }
}
