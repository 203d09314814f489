//! How many jobs of which class to ask for: `(event, now) -> pulls`, pure.
//!
//! Interactive jobs are asked for as far as there is room. Batch jobs are asked for while the interactive queue is seen
//! to be empty, and once after every so many interactive ones, so that they are never forgotten.

use std::time::Duration;

use halm_protocol::Class;

use crate::dispatcher::Room;
use crate::moment::Moment;

/// An interactive pull that has waited for this long found an empty queue. A broker answers one within a millisecond.
const DRY_AFTER: Duration = Duration::from_millis(50);
/// Interactive jobs that may pass a batch job which waits.
const PASSED_MAX: u32 = 8;

/// Jobs to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// Of this class,
    pub class: Class,
    /// so many.
    pub jobs: usize,
}

/// What a consumer may ask for, and what it has asked for.
#[derive(Debug, Default)]
pub struct Credit {
    /// Jobs that the dispatcher had room for when it had seen `received` deliveries.
    room: Room,
    received: u64,
    /// Deliveries handed to the dispatcher. Invariant: `received <= delivered`, within one life of the dispatcher.
    delivered: u64,
    interactive: usize,
    batch: usize,
    /// Since when the interactive pulls wait. Invariant: `Some` exactly while there are any.
    waiting_since: Option<Moment>,
    /// Interactive jobs that came since a batch job was asked for.
    passed: u32,
    closed: bool,
}

impl Credit {
    /// The dispatcher has so much room, having seen so many deliveries.
    pub fn demand(&mut self, room: Room, received: u64) {
        (self.room, self.received) = (room, received);
    }

    /// A job came.
    pub fn came(&mut self, class: Class, now: Moment) {
        self.delivered += 1;
        match class {
            Class::Interactive => {
                self.interactive = self.interactive.saturating_sub(1);
                self.passed = self.passed.saturating_add(1);
                self.waiting_since = (self.interactive > 0).then_some(now);
            }
            Class::Batch => self.batch = self.batch.saturating_sub(1),
        }
    }

    /// A pull ended, and so many of its jobs did not come.
    pub fn ended(&mut self, class: Class, missing: usize) {
        let outstanding = match class {
            Class::Interactive => &mut self.interactive,
            Class::Batch => &mut self.batch,
        };
        *outstanding = outstanding.saturating_sub(missing);
        if self.interactive == 0 {
            self.waiting_since = None;
        }
    }

    /// Ask for no more.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether no more will come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed && self.interactive + self.batch == 0
    }

    /// What to ask for now; it counts as asked for.
    pub fn pulls(&mut self, now: Moment) -> Vec<Pull> {
        let mut pulls = Vec::new();
        if self.closed {
            return pulls;
        }
        let jobs = self.room.jobs.saturating_sub(self.unseen()).saturating_sub(self.interactive);
        if jobs > 0 {
            self.interactive += jobs;
            self.waiting_since.get_or_insert(now);
            pulls.push(Pull { class: Class::Interactive, jobs });
        }
        let room = self.room_for_batch();
        let dry = self.waiting_since.is_some_and(|since| now - since >= DRY_AFTER);
        let owed = self.passed >= PASSED_MAX && self.batch == 0;
        let jobs = if dry { room } else { room.min(usize::from(owed)) };
        if jobs > 0 {
            self.batch += jobs;
            self.passed = 0;
            pulls.push(Pull { class: Class::Batch, jobs });
        }
        pulls
    }

    /// Deliveries that the dispatcher has not seen yet; they took their room.
    fn unseen(&self) -> usize {
        usize::try_from(self.delivered.saturating_sub(self.received)).unwrap_or(usize::MAX)
    }

    fn room_for_batch(&self) -> usize {
        self.room.batch.saturating_sub(self.unseen()).saturating_sub(self.batch)
    }

    /// When to look again, if nothing else happens before.
    #[must_use]
    pub fn next_look(&self) -> Option<Moment> {
        let wanted = !self.closed && self.room_for_batch() > 0;
        self.waiting_since.filter(|_| wanted).map(|since| since + DRY_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::after(Duration::from_millis(ms))
    }

    fn interactive(jobs: usize) -> Pull {
        Pull { class: Class::Interactive, jobs }
    }

    fn batch(jobs: usize) -> Pull {
        Pull { class: Class::Batch, jobs }
    }

    #[test]
    fn batch_jobs_are_asked_for_when_the_interactive_queue_is_seen_to_be_empty() {
        let mut credit = Credit::default();
        credit.demand(Room { jobs: 4, batch: 3 }, 0);
        assert_eq!(credit.pulls(at(0)), [interactive(4)]);
        assert_eq!(credit.next_look(), Some(at(50)));
        assert_eq!(credit.pulls(at(49)), []);
        assert_eq!(credit.pulls(at(50)), [batch(3)]);
        credit.came(Class::Batch, at(51));
        assert_eq!(credit.pulls(at(52)), [], "the dispatcher has not said what room is left");
        assert_eq!(credit.next_look(), None, "there is nothing to look for before it has");
        credit.demand(Room { jobs: 3, batch: 2 }, 1);
        assert_eq!(credit.pulls(at(53)), []);
    }

    #[test]
    fn a_busy_interactive_queue_lets_a_batch_job_through_after_eight() {
        let mut credit = Credit::default();
        credit.demand(Room { jobs: 1, batch: 1 }, 0);
        for job in 1..=8 {
            assert_eq!(credit.pulls(at(job)), [interactive(1)]);
            credit.came(Class::Interactive, at(job));
            credit.demand(Room { jobs: 1, batch: 1 }, job);
        }
        assert_eq!(credit.pulls(at(9)), [interactive(1), batch(1)]);
        credit.came(Class::Interactive, at(10));
        credit.came(Class::Batch, at(10));
        credit.demand(Room::default(), 10);
        assert_eq!(credit.pulls(at(11)), []);
    }

    #[test]
    fn what_did_not_come_is_asked_for_again_and_a_closed_one_waits_for_what_is_under_way() {
        let mut credit = Credit::default();
        credit.demand(Room { jobs: 2, batch: 0 }, 0);
        assert_eq!(credit.pulls(at(0)), [interactive(2)]);
        credit.ended(Class::Interactive, 2);
        assert_eq!(credit.pulls(at(1)), [interactive(2)]);
        credit.close();
        assert!(!credit.is_over());
        credit.came(Class::Interactive, at(2));
        credit.ended(Class::Interactive, 1);
        assert!(credit.is_over());
        assert_eq!(credit.pulls(at(3)), []);
    }
}
