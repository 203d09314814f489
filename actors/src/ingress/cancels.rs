//! Cancelling: a mark on a job's fence, which whoever holds the job next finds: `(event, now) -> Effects`.
//!
//! The mark is a claim by one who computes nothing. It takes the fence from the holder, who finds out with its next
//! append, ends the job as cancelled and tells its client; a job that waits in the queue ends so when it is delivered.

use std::collections::BTreeMap;
use std::time::Duration;

use halm_protocol::subject::Inbox;
use halm_protocol::{CancelState, Cancellation, CancelledBy, Claim, Incarnation, JobId, Nonce, Outcome, ReplicaName};

use super::core::Op;
use crate::moment::Moment;
use crate::ports::{Fence, FenceRecord, ReadFault, Sequence, WriteFault};

/// Cancellations at once; more are answered `unavailable`.
const CANCELLING_MAX: usize = 256;
/// How long a broker that does not answer is asked again.
const TRY_FOR: Duration = Duration::from_secs(10);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum CancelEffect {
    /// Look for the outcome of a job.
    Look(Op, JobId),
    /// Read the last claim on a job.
    ReadFence(Op, JobId),
    /// Put the mark there.
    WriteFence(Op, JobId, Option<Sequence>, Claim),
    /// Tell whoever asked.
    Tell(Inbox, Cancellation),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Looking,
    Reading,
    Writing,
    Waiting { again_at: Moment },
}

#[derive(Debug)]
struct Cancel {
    inbox: Option<Inbox>,
    stage: Stage,
    until: Moment,
}

/// The cancellations under way.
#[derive(Debug)]
pub struct Cancels {
    replica: ReplicaName,
    incarnation: Incarnation,
    jobs: BTreeMap<JobId, Cancel>,
    ops: BTreeMap<Op, JobId>,
    last_number: u64,
}

impl Cancels {
    /// None yet, of this replica.
    #[must_use]
    pub fn new(replica: ReplicaName, incarnation: Incarnation) -> Self {
        Self { replica, incarnation, jobs: BTreeMap::new(), ops: BTreeMap::new(), last_number: 0 }
    }

    /// When [`Cancels::tick`] is due.
    #[must_use]
    pub fn next_tick(&self) -> Option<Moment> {
        let due = |cancel: &Cancel| if let Stage::Waiting { again_at } = cancel.stage { Some(again_at) } else { None };
        self.jobs.values().filter_map(due).min()
    }

    /// Somebody wants a job cancelled, and to be told at this inbox, if at any.
    pub fn ask(&mut self, job: JobId, inbox: Option<Inbox>, now: Moment) -> Vec<CancelEffect> {
        let mut out = Vec::new();
        if self.jobs.len() >= CANCELLING_MAX && !self.jobs.contains_key(&job) {
            out.extend(inbox.map(|inbox| tell(inbox, job, CancelState::Unavailable)));
            return out;
        }
        let cancel = Cancel { inbox, stage: Stage::Looking, until: now + TRY_FOR };
        self.jobs.insert(job.clone(), cancel);
        self.look(&job, &mut out);
        out
    }

    /// An outcome was looked for.
    pub fn looked(&mut self, op: Op, outcome: Result<Option<Outcome>, ReadFault>, now: Moment) -> Vec<CancelEffect> {
        let mut out = Vec::new();
        let Some(job) = self.at(op, |stage| stage == Stage::Looking) else { return out };
        match outcome {
            Ok(Some(_)) => self.end(&job, CancelState::Ended, &mut out),
            Ok(None) => self.read(&job, &mut out),
            Err(_) => self.wait(&job, now, &mut out),
        }
        out
    }

    /// The last claim was read.
    pub fn fence_read(
        &mut self,
        op: Op,
        record: Result<Option<FenceRecord>, ReadFault>,
        now: Moment,
    ) -> Vec<CancelEffect> {
        let mut out = Vec::new();
        let Some(job) = self.at(op, |stage| stage == Stage::Reading) else { return out };
        match record {
            Err(_) => self.wait(&job, now, &mut out),
            Ok(Some(record)) if record.claim.cancelled.is_some() => self.end(&job, CancelState::Cancelled, &mut out),
            Ok(record) => {
                let op = self.op(&job, Stage::Writing);
                let last = record.as_ref().map(|record| &record.claim);
                let claim = Claim {
                    replica: self.replica.clone(),
                    incarnation: self.incarnation.clone(),
                    nonce: Nonce::of_cancel(&self.incarnation, op.0),
                    attempts: last.map_or(0, |claim| claim.attempts),
                    deaths: last.map_or(0, |claim| claim.deaths),
                    strikes: last.map_or(0, |claim| claim.strikes),
                    trial_until: last.and_then(|claim| claim.trial_until),
                    cancelled: Some(CancelledBy::Bystander),
                };
                let expected = record.map(|record| record.fence.sequence);
                out.push(CancelEffect::WriteFence(op, job, expected, claim));
            }
        }
        out
    }

    /// The mark was to be written.
    pub fn fence_written(&mut self, op: Op, result: Result<Fence, WriteFault>, now: Moment) -> Vec<CancelEffect> {
        let mut out = Vec::new();
        let Some(job) = self.at(op, |stage| stage == Stage::Writing) else { return out };
        match result {
            Ok(_) => self.end(&job, CancelState::Cancelled, &mut out),
            // Somebody claimed in between, or the mark is there already: the next look tells.
            Err(WriteFault::Superseded | WriteFault::Unknown(_) | WriteFault::Refused(_)) => {
                self.wait(&job, now, &mut out);
            }
        }
        out
    }

    /// Time passed.
    pub fn tick(&mut self, now: Moment) -> Vec<CancelEffect> {
        let mut out = Vec::new();
        let due = |cancel: &Cancel| matches!(cancel.stage, Stage::Waiting { again_at } if now >= again_at);
        let due: Vec<JobId> = self.jobs.iter().filter(|(_, of)| due(of)).map(|(job, _)| job.clone()).collect();
        for job in due {
            self.look(&job, &mut out);
        }
        out
    }

    fn look(&mut self, job: &JobId, out: &mut Vec<CancelEffect>) {
        let op = self.op(job, Stage::Looking);
        out.push(CancelEffect::Look(op, job.clone()));
    }

    fn read(&mut self, job: &JobId, out: &mut Vec<CancelEffect>) {
        let op = self.op(job, Stage::Reading);
        out.push(CancelEffect::ReadFence(op, job.clone()));
    }

    fn wait(&mut self, job: &JobId, now: Moment, out: &mut Vec<CancelEffect>) {
        let Some(cancel) = self.jobs.get_mut(job) else { return };
        if now >= cancel.until {
            self.end(job, CancelState::Unavailable, out);
        } else {
            cancel.stage = Stage::Waiting { again_at: now + TRY_EVERY };
        }
    }

    fn end(&mut self, job: &JobId, state: CancelState, out: &mut Vec<CancelEffect>) {
        let Some(cancel) = self.jobs.remove(job) else { return };
        out.extend(cancel.inbox.map(|inbox| tell(inbox, job.clone(), state)));
    }

    fn op(&mut self, job: &JobId, stage: Stage) -> Op {
        self.last_number += 1;
        let op = Op(self.last_number);
        // One call at a time: an answer to an earlier one is late.
        self.ops.retain(|_, of| of != job);
        self.ops.insert(op, job.clone());
        if let Some(cancel) = self.jobs.get_mut(job) {
            cancel.stage = stage;
        }
        op
    }

    fn at(&mut self, op: Op, is: impl Fn(Stage) -> bool) -> Option<JobId> {
        let job = self.ops.remove(&op)?;
        self.jobs.get(&job).is_some_and(|cancel| is(cancel.stage)).then_some(job)
    }
}

fn tell(inbox: Inbox, job: JobId, state: CancelState) -> CancelEffect {
    CancelEffect::Tell(inbox, Cancellation { job, state })
}

#[cfg(test)]
mod tests {
    use halm_protocol::{ErrorCode, Refusal};

    use super::*;
    use crate::ports::Connection;

    fn at(ms: u64) -> Moment {
        Moment::after(Duration::from_millis(ms))
    }

    fn job() -> JobId {
        JobId::try_from("j").expect("a plain name")
    }

    fn cancels() -> Cancels {
        let replica = ReplicaName::try_from("a").expect("a plain name");
        Cancels::new(replica, Incarnation::try_from("a-1").expect("a plain name"))
    }

    fn claim(attempts: u32) -> FenceRecord {
        let incarnation = Incarnation::try_from("b-1").expect("a plain name");
        let claim = Claim {
            replica: ReplicaName::try_from("b").expect("a plain name"),
            nonce: Nonce::new(&incarnation, 1),
            incarnation,
            attempts,
            deaths: 1,
            strikes: 1,
            trial_until: Some(8),
            cancelled: None,
        };
        FenceRecord { fence: Fence { sequence: Sequence(7), over: Connection(0) }, claim }
    }

    fn told(effects: &[CancelEffect]) -> Option<CancelState> {
        effects.iter().find_map(|effect| if let CancelEffect::Tell(_, told) = effect { Some(told.state) } else { None })
    }

    /// Asked for, and found to have no outcome.
    fn reading() -> (Cancels, Op) {
        let mut cancels = cancels();
        let inbox = Inbox::try_from("_INBOX.c").expect("a plain inbox");
        let effects = cancels.ask(job(), Some(inbox), at(0));
        let [CancelEffect::Look(op, _)] = effects[..] else { panic!("{effects:?}") };
        let effects = cancels.looked(op, Ok(None), at(1));
        let [CancelEffect::ReadFence(op, _)] = effects[..] else { panic!("{effects:?}") };
        (cancels, op)
    }

    #[test]
    fn the_mark_takes_the_fence_and_keeps_what_is_known_of_the_job() {
        let (mut cancels, op) = reading();
        let effects = cancels.fence_read(op, Ok(Some(claim(3))), at(2));
        let [CancelEffect::WriteFence(op, _, Some(Sequence(7)), claim)] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!((claim.attempts, claim.deaths, claim.strikes, claim.trial_until), (3, 1, 1, Some(8)));
        assert_eq!(claim.cancelled, Some(CancelledBy::Bystander));
        let effects = cancels.fence_written(*op, Ok(Fence { sequence: Sequence(8), over: Connection(0) }), at(3));
        assert_eq!((told(&effects), cancels.next_tick()), (Some(CancelState::Cancelled), None));
    }

    #[test]
    fn a_job_that_has_ended_is_not_marked() {
        let mut cancels = cancels();
        let inbox = Inbox::try_from("_INBOX.c").expect("a plain inbox");
        let effects = cancels.ask(job(), Some(inbox), at(0));
        let [CancelEffect::Look(op, _)] = effects[..] else { panic!("{effects:?}") };
        let outcome = Outcome::Refusal(Refusal::new(ErrorCode::Poison, "stored"));
        assert_eq!(told(&cancels.looked(op, Ok(Some(outcome)), at(1))), Some(CancelState::Ended));
    }

    #[test]
    fn a_claim_that_came_in_between_is_read_again_and_a_broker_that_is_away_is_waited_for() {
        let (mut cancels, mut op) = reading();
        let mut ms = 2;
        loop {
            let effects = cancels.fence_read(op, Ok(None), at(ms));
            let [CancelEffect::WriteFence(written, ..)] = effects[..] else { panic!("{effects:?}") };
            let effects = cancels.fence_written(written, Err(WriteFault::Superseded), at(ms));
            if ms >= 10_000 {
                assert_eq!(told(&effects), Some(CancelState::Unavailable));
                return;
            }
            ms += 3000;
            let effects = cancels.tick(at(ms));
            let [CancelEffect::Look(looked, _)] = effects[..] else { panic!("{effects:?}") };
            let effects = cancels.looked(looked, Ok(None), at(ms));
            let [CancelEffect::ReadFence(again, _)] = effects[..] else { panic!("{effects:?}") };
            op = again;
        }
    }

    #[test]
    fn a_mark_that_is_there_is_not_written_again() {
        let (mut cancels, op) = reading();
        let mut marked = claim(0);
        marked.claim.cancelled = Some(CancelledBy::Holder);
        assert_eq!(told(&cancels.fence_read(op, Ok(Some(marked)), at(2))), Some(CancelState::Cancelled));
    }
}
