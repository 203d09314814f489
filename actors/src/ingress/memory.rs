//! Accepted jobs, kept until they are settled: should the broker forget its queue, they are stored again. Pure.
//!
//! Every replica that heard a request keeps its job, so that any one of them is enough. Storing it twice does no harm:
//! the queue knows its id, and whoever has run it already finds its outcome.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use halm_protocol::JobId;

use crate::moment::Moment;
use crate::ports::{Admitted, IntakeFault, JobSpec};

/// Jobs kept at once; past it the oldest are forgotten. As many as four full queues of interactive jobs hold.
const JOBS_MAX: usize = 4096;
/// What they may add up to.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Between two tries to store one again.
const AGAIN_EVERY: Duration = Duration::from_millis(500);

/// A job, and what becomes of it.
#[derive(Debug)]
struct Kept {
    spec: JobSpec,
    bytes: usize,
    /// Its deadline: nobody waits for it after that.
    until: Moment,
    /// It is to be stored again at this time.
    due: Option<Moment>,
}

/// The jobs that are kept.
#[derive(Debug, Default)]
pub(super) struct Memory {
    jobs: BTreeMap<JobId, Kept>,
    /// Oldest first; those that were forgotten since are skipped. Invariant: every job is in it.
    order: VecDeque<JobId>,
    bytes: usize,
}

impl Memory {
    /// A job was accepted.
    pub(super) fn keep(&mut self, spec: &JobSpec, until: Moment) {
        if self.jobs.contains_key(&spec.id) {
            return;
        }
        let bytes = spec.request.to_bytes().len();
        let kept = Kept { spec: spec.clone(), bytes, until, due: None };
        self.bytes += bytes;
        self.jobs.insert(spec.id.clone(), kept);
        self.order.push_back(spec.id.clone());
        while self.jobs.len() > JOBS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.forget(&oldest);
        }
        if self.order.len() > 2 * JOBS_MAX {
            self.order.retain(|id| self.jobs.contains_key(id));
        }
    }

    /// Whether this job was accepted, and is not known to be settled.
    pub(super) fn has(&self, id: &JobId) -> bool {
        self.jobs.contains_key(id)
    }

    /// A job was settled.
    pub(super) fn forget(&mut self, id: &JobId) {
        if let Some(kept) = self.jobs.remove(id) {
            self.bytes -= kept.bytes;
        }
    }

    /// The broker has another queue than before: all of them are to be stored again. How many those are.
    pub(super) fn queue_lost(&mut self, now: Moment) -> usize {
        self.jobs.values_mut().for_each(|kept| kept.due = Some(now));
        self.jobs.len()
    }

    /// When [`Self::due`] has something.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.jobs.values().filter_map(|kept| kept.due).min()
    }

    /// What is to be stored now; each counts as under way until [`Self::stored`].
    pub(super) fn due(&mut self, now: Moment) -> Vec<JobSpec> {
        let mut due = Vec::new();
        let mut late = Vec::new();
        for (id, kept) in &mut self.jobs {
            if kept.due.is_none_or(|at| at > now) {
                continue;
            }
            kept.due = None;
            if kept.until > now { due.push(kept.spec.clone()) } else { late.push(id.clone()) }
        }
        late.iter().for_each(|id| self.forget(id));
        due
    }

    /// What came of it.
    pub(super) fn stored(&mut self, id: &JobId, result: &Result<Admitted, IntakeFault>, now: Moment) {
        match result {
            Ok(_) => {}
            // It was accepted: a queue that has no room for it now must have some later.
            Err(IntakeFault::Unavailable(_) | IntakeFault::Full) => {
                if let Some(kept) = self.jobs.get_mut(id) {
                    kept.due = Some(now + AGAIN_EVERY);
                }
            }
            Err(IntakeFault::Refused(_)) => self.forget(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use halm_protocol::subject::Inbox;
    use halm_protocol::{Digest, ModelToken, Request};

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::after(Duration::from_millis(ms))
    }

    fn spec(number: usize) -> JobSpec {
        JobSpec {
            id: JobId::try_from(format!("j{number}")).expect("a plain name"),
            model: ModelToken::try_from("m").expect("a plain name"),
            request: Request::prompt("go on"),
            seed: 7,
            digest: Digest::try_from("0".repeat(64)).expect("64 hexadecimal digits"),
            inbox: Inbox::try_from("_INBOX.j").expect("a plain inbox"),
            deadline_unix_ms: 0,
            traceparent: None,
        }
    }

    #[test]
    fn what_is_not_settled_is_stored_again_until_it_is_and_not_after_its_deadline() {
        let mut memory = Memory::default();
        for number in 0..3 {
            memory.keep(&spec(number), at(if number == 2 { 50 } else { 60_000 }));
        }
        memory.forget(&spec(0).id);
        assert_eq!(memory.next_due(), None);
        assert_eq!(memory.queue_lost(at(100)), 2);
        assert_eq!(memory.next_due(), Some(at(100)));
        let due = memory.due(at(100));
        assert_eq!(due.iter().map(|spec| spec.id.as_str()).collect::<Vec<_>>(), ["j1"], "j2 is too late");
        assert!(memory.due(at(10_000)).is_empty(), "it is under way");
        memory.stored(&spec(1).id, &Err(IntakeFault::Full), at(10_000));
        assert_eq!((memory.next_due(), memory.due(at(10_500)).len()), (Some(at(10_500)), 1));
        memory.stored(&spec(1).id, &Ok(Admitted::Stored), at(10_501));
        assert_eq!(memory.next_due(), None);
        assert_eq!(memory.queue_lost(at(20_000)), 1, "it may be forgotten again");
    }

    #[test]
    fn only_so_many_are_kept_and_the_oldest_go_first() {
        let mut memory = Memory::default();
        for number in 0..3 * JOBS_MAX {
            memory.keep(&spec(number), at(60_000));
            memory.keep(&spec(number), at(60_000));
        }
        assert_eq!((memory.jobs.len(), memory.order.len() <= 2 * JOBS_MAX + 1), (JOBS_MAX, true));
        assert!(!memory.jobs.contains_key(&spec(2 * JOBS_MAX - 1).id));
        (0..3 * JOBS_MAX).for_each(|number| memory.forget(&spec(number).id));
        assert_eq!((memory.jobs.len(), memory.bytes), (0, 0));
    }
}
