//! What waits in a model's queue, as far as an ingress knows: whether a job that is stored now would be in time. Pure.
//!
//! The broker is asked how many wait; what is stored between two answers is counted as it is heard of, whoever stored
//! it, and what peers store in the same moment is taken to be as much as we do. Too much is refused rather than too
//! little: an answer that comes too late is work for nobody.

use std::time::Duration;

use halm_protocol::{Class, Pace};

use crate::moment::Moment;
use crate::ports::QueueLength;

/// A count is asked for again after this: a fraction of the shortest deadline that a model can meet.
const COUNT_EVERY: Duration = Duration::from_millis(250);
/// A count that is older says nothing any more.
const COUNT_GOOD_FOR: Duration = Duration::from_secs(2);
/// What the wait is reckoned longer than it should be, in percent: jobs are not all alike, and the pace is that of the
/// last few.
const MARGIN_PERCENT: u64 = 130;
/// Earliest and latest time after which to ask again, in milliseconds.
const RETRY_AFTER_MS: (u64, u64) = (100, 60_000);
/// Without a pace to reckon with.
const RETRY_AFTER_UNKNOWN_MS: u64 = 1000;

/// The queue of one model.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pace: Option<Pace>,
    counted: QueueLength,
    /// When that was, or when nothing is known to have waited.
    counted_at: Moment,
    /// Stored since, of each class.
    since: Stored,
    /// A count is under way; stored since it was asked for.
    counting: Option<Stored>,
}

/// Jobs of each class.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    by_us: [u64; Class::ALL.len()],
    by_peers: [u64; Class::ALL.len()],
}

impl Stored {
    fn add(&mut self, class: Class, by_us: bool) {
        let stored = if by_us { &mut self.by_us } else { &mut self.by_peers };
        stored[class as usize] += 1;
    }

    /// So many at least: the broker gives every replica an equal share of requests, and what the others do with theirs
    /// may not have been heard yet.
    fn of(&self, class: Class, peers: u64) -> u64 {
        let (ours, theirs) = (self.by_us[class as usize], self.by_peers[class as usize]);
        ours + theirs.max(ours * peers)
    }
}

/// A job that could not be begun in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLate {
    /// When it would be done, in milliseconds from now.
    pub(super) done_in_ms: u64,
    /// When a job like it would be in time again.
    pub(super) retry_after_ms: u64,
}

impl Backlog {
    pub(super) fn set_pace(&mut self, pace: Option<Pace>) {
        self.pace = pace;
    }

    /// Whether to ask for a count, which is then under way.
    pub(super) fn ask(&mut self, now: Moment) -> bool {
        let due = self.pace.is_some() && self.counting.is_none() && now - self.counted_at >= COUNT_EVERY;
        if due {
            self.counting = Some(Stored::default());
        }
        due
    }

    /// A count came, or none could be had.
    pub(super) fn counted(&mut self, length: Option<QueueLength>, now: Moment) {
        let since = self.counting.take().unwrap_or_default();
        if let Some(length) = length {
            self.counted = length;
            self.counted_at = now;
            self.since = since;
        }
    }

    /// A job was stored, by whomever.
    pub(super) fn stored(&mut self, class: Class, by_us: bool) {
        self.since.add(class, by_us);
        if let Some(counting) = &mut self.counting {
            counting.add(class, by_us);
        }
    }

    /// Jobs that come before one of this class.
    fn ahead(&self, class: Class, pace: Pace, peers: u64) -> u64 {
        let before: (u64, u64) = (self.counted.interactive, self.since.of(Class::Interactive, peers));
        let (counted, since) = match class {
            Class::Interactive => before,
            Class::Batch => (before.0 + self.counted.batch, before.1 + self.since.of(Class::Batch, peers)),
        };
        // What was stored since the count finds the places that were free then.
        let free = u64::from(pace.slots).saturating_sub(self.counted.held + counted);
        counted + since.saturating_sub(free)
    }

    /// Whether a job that is stored now would be too late for its deadline, because of those that wait before it.
    pub(super) fn too_late(&mut self, class: Class, deadline: Duration, peers: u64, now: Moment) -> Option<TooLate> {
        if now - self.counted_at > COUNT_GOOD_FOR {
            (self.counted, self.since, self.counted_at) = (QueueLength::default(), Stored::default(), now);
        }
        let pace = self.pace?;
        let ahead = self.ahead(class, pace, peers);
        let done_in_ms = pace.wait_ms(ahead).saturating_mul(MARGIN_PERCENT) / 100 + u64::from(pace.job_ms);
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        // Alone it is tried, however short its time is: nobody knows before how long its answer will be.
        let late = ahead > 0 && done_in_ms > deadline_ms;
        late.then(|| TooLate { done_in_ms, retry_after_ms: within_reason(done_in_ms - deadline_ms) })
    }

    /// When to ask again after the queue was full: when an eighth of it is done.
    pub(super) fn retry_after_full_ms(&self) -> u64 {
        let since: u64 = Class::ALL.iter().map(|class| self.since.of(*class, 0)).sum();
        let waiting = self.counted.interactive + self.counted.batch + since;
        self.pace.map_or(RETRY_AFTER_UNKNOWN_MS, |pace| within_reason(pace.wait_ms(waiting.div_ceil(8))))
    }
}

fn within_reason(ms: u64) -> u64 {
    ms.clamp(RETRY_AFTER_MS.0, RETRY_AFTER_MS.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::after(Duration::from_millis(ms))
    }

    /// Four at once, each 400 ms: ten a second.
    fn backlog(length: QueueLength) -> Backlog {
        let mut backlog = Backlog::default();
        backlog.set_pace(Some(Pace { slots: 4, job_ms: 400 }));
        assert!(backlog.ask(at(1_000)));
        backlog.counted(Some(length), at(1_000));
        backlog
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_job_is_refused_when_those_before_it_take_too_long_and_told_when_to_come_again() {
        let mut backlog = backlog(QueueLength { interactive: 30, batch: 500, held: 4 });
        assert_eq!(backlog.too_late(Class::Interactive, seconds(5), 1, at(1_001)), None, "4.3 s");
        let late = backlog.too_late(Class::Interactive, seconds(4), 1, at(1_001)).expect("4.3 s are more than 4");
        assert_eq!(late, TooLate { done_in_ms: 4_300, retry_after_ms: 300 });
        assert!(backlog.too_late(Class::Batch, seconds(60), 1, at(1_001)).is_some(), "after all of them");
    }

    #[test]
    fn what_is_stored_after_a_count_is_counted_until_the_next() {
        let mut backlog = backlog(QueueLength { interactive: 0, batch: 0, held: 2 });
        for _ in 0..2 {
            backlog.stored(Class::Interactive, false);
            assert_eq!(
                backlog.too_late(Class::Interactive, Duration::from_millis(1), 1, at(1_100)),
                None,
                "a free place"
            );
        }
        backlog.stored(Class::Interactive, false);
        assert!(backlog.too_late(Class::Interactive, Duration::from_millis(500), 1, at(1_100)).is_some());
        assert!(backlog.ask(at(1_250)) && !backlog.ask(at(1_251)), "one count at a time");
        backlog.stored(Class::Interactive, false);
        backlog.counted(Some(QueueLength { interactive: 0, batch: 0, held: 4 }), at(1_300));
        assert!(backlog.too_late(Class::Interactive, Duration::from_millis(500), 1, at(1_301)).is_some());
    }

    #[test]
    fn without_a_pace_or_with_an_old_count_nobody_is_refused() {
        let mut fresh = Backlog::default();
        assert!(!fresh.ask(at(9_000)));
        assert_eq!(fresh.too_late(Class::Interactive, Duration::from_millis(1), 1, at(9_000)), None);
        assert_eq!(fresh.retry_after_full_ms(), 1000);
        let mut old = backlog(QueueLength { interactive: 1_000, batch: 0, held: 4 });
        assert_eq!(old.retry_after_full_ms(), 12_500);
        assert_eq!(old.too_late(Class::Interactive, seconds(1), 1, at(4_000)), None);
    }

    #[test]
    fn peers_are_taken_to_store_as_much_as_we_do_until_they_are_heard() {
        let mut backlog = backlog(QueueLength { interactive: 0, batch: 0, held: 4 });
        for _ in 0..3 {
            backlog.stored(Class::Interactive, true);
        }
        let in_time = |backlog: &mut Backlog, peers| {
            backlog.too_late(Class::Interactive, Duration::from_millis(800), peers, at(1_100)).is_none()
        };
        assert!(in_time(&mut backlog, 0), "three before it, 300 ms reckoned as 390, and its own 400");
        assert!(!in_time(&mut backlog, 1), "six before it");
    }
}
