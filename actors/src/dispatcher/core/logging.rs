//! A job and the broker: claim, look for an outcome, read, append one record at a time, store.
//!
//! Whatever leaves doubt (an append without an answer, a connection that was lost) leads back to the claim: only after
//! a new fence is stored does what is read stay true.

use std::time::Duration;

use halm_protocol::{CancelledBy, Claim, ErrorCode, JobId, Nonce, Outcome, Refusal};

use super::super::job::{Compute, InFlight, InFlightKind, LogState, Merged, Mode, Written};
use super::super::suspicion::Suspicion;
use super::super::{Effect, Op, OpResult};
use super::Core;
use crate::moment::Moment;
use crate::ports::{Fence, FenceRecord, LogRecord, WriteFault};

/// First wait after a fault of the broker; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest wait between tries: what a client notices after the broker is back.
const RETRY_MAX: Duration = Duration::from_secs(1);

impl Core {
    /// Claims a job's log again, whatever was under way.
    pub(super) fn renew(&mut self, id: &JobId, out: &mut Vec<Effect>) {
        self.ops.retain(|_, of| of != id);
        let op = self.op(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.log = LogState::ReadingFence { op };
        out.push(Effect::ReadFence { op, job: id.clone() });
    }

    /// Claims again at once after the first fault in a row, for most often that mends it, and else after a wait.
    pub(super) fn renew_soon(&mut self, id: &JobId, now: Moment, out: &mut Vec<Effect>) {
        match self.jobs.get_mut(id) {
            Some(job) if job.faults == 0 => {
                job.faults = 1;
                self.renew(id, out);
            }
            Some(_) => self.renew_later(id, now),
            None => {}
        }
    }

    /// Claims again after a wait that grows with the number of faults in a row.
    pub(super) fn renew_later(&mut self, id: &JobId, now: Moment) {
        self.ops.retain(|_, of| of != id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let wait = RETRY_FIRST.saturating_mul(1 << job.faults.min(8)).min(RETRY_MAX);
        job.faults = job.faults.saturating_add(1);
        job.log = LogState::Waiting { until: now + wait };
    }

    pub(super) fn finished(&mut self, op: Op, result: OpResult, now: Moment, out: &mut Vec<Effect>) {
        let Some(id) = self.ops.remove(&op) else { return };
        match result {
            OpResult::FenceRead(Ok(record)) => self.fence_read(&id, record, out),
            OpResult::OutcomeRead(Ok(outcome)) => self.outcome_read(&id, outcome, out),
            OpResult::LogRead(Ok(records)) => self.log_read(&id, records, out),
            OpResult::FenceRead(Err(_)) | OpResult::OutcomeRead(Err(_)) | OpResult::LogRead(Err(_)) => {
                self.renew_later(&id, now);
            }
            OpResult::FenceWritten(result) => self.fence_written(&id, result, now, out),
            OpResult::Appended(result) => self.appended(&id, result, now, out),
            OpResult::Buried(result) => self.buried(&id, result, now, out),
            OpResult::OutcomeStored(result) => self.outcome_stored(&id, result, now, out),
            OpResult::Offered(offered) => self.offered(&id, offered, now, out),
        }
    }

    pub(super) fn fence_read(&mut self, id: &JobId, record: Option<FenceRecord>, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        if let Some(record) = &record {
            if job.wrote(record, &self.settings.incarnation) {
                self.fenced(id, record.fence, out);
                return;
            }
            let ours = record.claim.incarnation == self.settings.incarnation;
            // Whoever cancels holds nothing.
            let ours = ours || record.claim.cancelled == Some(CancelledBy::Bystander);
            match job.mode {
                // An older claim than ours is no later holder: the stream lost its tail, ours with it.
                Mode::Renew if !ours && Some(record.fence.sequence) > job.claimed_at => {
                    self.lose(id, out);
                    return;
                }
                Mode::Renew => {}
                Mode::TakeOver => {
                    job.attempts = job.attempts.max(record.claim.attempts);
                    job.suspicion = Suspicion::told(&record.claim);
                }
            }
            if record.claim.cancelled.is_some() {
                self.cancel(id, out);
            }
        }
        let (number, op) = (self.number(), self.op(id));
        let Some(job) = self.jobs.get_mut(id) else { return };
        let expected = record.map(|record| record.fence.sequence);
        job.written = Some(Written { number, expected });
        job.told = job.suspicion;
        let upcoming = u32::from(matches!(job.compute, Compute::Unread | Compute::Queued));
        let mut claim = Claim {
            replica: self.settings.replica.clone(),
            incarnation: self.settings.incarnation.clone(),
            nonce: Nonce::new(&self.settings.incarnation, number),
            attempts: job.attempts + upcoming,
            deaths: 0,
            strikes: 0,
            trial_until: None,
            cancelled: job.cancelled.then_some(CancelledBy::Holder),
        };
        job.suspicion.tell(&mut claim);
        job.log = LogState::WritingFence { op };
        out.push(Effect::WriteFence { op, job: id.clone(), expected, claim });
    }

    pub(super) fn fence_written(
        &mut self,
        id: &JobId,
        result: Result<Fence, WriteFault>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(fence) => self.fenced(id, fence, out),
            // Read again: it is ours by its nonce, or another's, or still to be written.
            Err(WriteFault::Superseded | WriteFault::Unknown(_) | WriteFault::Refused(_)) => {
                self.renew_later(id, now);
            }
        }
    }

    pub(super) fn fenced(&mut self, id: &JobId, fence: Fence, out: &mut Vec<Effect>) {
        let op = self.op(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.written = None;
        job.claimed_at = Some(fence.sequence);
        job.mode = Mode::Renew;
        job.log = LogState::ReadingOutcome { op, fence };
        out.push(Effect::ReadOutcome { op, job: id.clone() });
    }

    pub(super) fn outcome_read(&mut self, id: &JobId, outcome: Option<Outcome>, out: &mut Vec<Effect>) {
        if let Some(outcome) = outcome {
            // Settled before, by us or by another; only the acknowledgement was missing.
            self.offer(id, outcome, out);
            return;
        }
        let op = self.op(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let LogState::ReadingOutcome { fence, .. } = job.log else { return };
        job.log = LogState::ReadingLog { op, fence };
        out.push(Effect::ReadLog { op, target: job.target() });
    }

    pub(super) fn log_read(&mut self, id: &JobId, records: Vec<LogRecord>, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let LogState::ReadingLog { fence, .. } = job.log else { return };
        job.log = LogState::Open { fence, in_flight: None };
        let unread = matches!(job.compute, Compute::Unread);
        match job.merge(records) {
            Merged::Behind => {}
            Merged::Ahead => {
                let running = matches!(job.compute, Compute::Running { .. });
                if (unread || running) && !self.quarantine(id, out) {
                    self.stop_computing(id, out);
                    self.enqueue(id);
                }
            }
            Merged::Ended(outcome) => {
                self.stop_computing(id, out);
                self.store(id, outcome, out);
                return;
            }
            Merged::Forked(seen) => {
                out.push(Effect::Broken { job: id.clone(), invariant: "INV-2", seen });
                // Nothing can be added to a damaged log but its end.
                job.appended = job.made.len();
                job.tail_appended = true;
                let message = "the job's token log is damaged; ask again";
                self.complete(id, Outcome::Refusal(Refusal::new(ErrorCode::Internal, message)), out);
            }
        }
        self.append_next(id, out);
    }

    pub(super) fn append_next(&mut self, id: &JobId, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(id) else { return };
        let LogState::Open { fence, in_flight: None } = job.log else { return };
        if job.suspicion.is_news(job.told) && !job.is_complete() {
            // A death is written down before anything else: the count must outlive this replica too.
            self.renew(id, out);
            return;
        }
        let Some((kind, record)) = job.next_record() else { return };
        let target = job.target();
        let op = self.op(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.log = LogState::Open { fence, in_flight: Some(InFlight { op, kind }) };
        out.push(Effect::Append { op, target, fence, record });
    }

    pub(super) fn appended(&mut self, id: &JobId, result: Result<(), WriteFault>, now: Moment, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let LogState::Open { fence, in_flight: Some(InFlight { kind, .. }) } = job.log else { return };
        match result {
            Ok(()) => {
                job.log = LogState::Open { fence, in_flight: None };
                job.faults = 0;
                match kind {
                    InFlightKind::Tokens(tokens) => job.appended += tokens,
                    InFlightKind::Tail => job.tail_appended = true,
                    InFlightKind::Final => {
                        let Compute::Complete(outcome) = job.compute.clone() else { return };
                        self.store(id, outcome, out);
                        return;
                    }
                }
                self.append_next(id, out);
            }
            Err(WriteFault::Superseded | WriteFault::Unknown(_)) => self.renew_soon(id, now, out),
            Err(WriteFault::Refused(_)) => self.renew_later(id, now),
        }
    }

    /// The end is in the log: store it, and before that what people should look into.
    pub(super) fn store(&mut self, id: &JobId, outcome: Outcome, out: &mut Vec<Effect>) {
        let op = self.op(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.compute = Compute::Complete(outcome.clone());
        if let Outcome::Refusal(refusal) = &outcome
            && refusal.code == ErrorCode::Poison
        {
            let letter = job.letter(refusal.clone(), self.settings.replica.clone());
            job.log = LogState::Burying { op };
            out.push(Effect::Bury { op, letter: Box::new(letter) });
            return;
        }
        job.log = LogState::Storing { op };
        out.push(Effect::StoreOutcome { op, job: id.clone(), outcome });
    }

    fn buried(&mut self, id: &JobId, result: Result<(), WriteFault>, now: Moment, out: &mut Vec<Effect>) {
        if let Err(WriteFault::Unknown(_)) = result {
            self.renew_later(id, now);
            return;
        }
        // A broker that refuses the letter must not keep the job from its end.
        let op = self.op(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Compute::Complete(outcome) = job.compute.clone() else { return };
        job.log = LogState::Storing { op };
        out.push(Effect::StoreOutcome { op, job: id.clone(), outcome });
    }

    pub(super) fn outcome_stored(
        &mut self,
        id: &JobId,
        result: Result<(), WriteFault>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        match result {
            Ok(()) => {
                let Compute::Complete(outcome) = job.compute.clone() else { return };
                self.offer(id, outcome, out);
            }
            // It has an outcome: read which, deliver that one, and acknowledge.
            Err(WriteFault::Superseded) => self.renew_soon(id, now, out),
            Err(WriteFault::Unknown(_) | WriteFault::Refused(_)) => self.renew_later(id, now),
        }
    }

    pub(super) fn connection_restored(&mut self, out: &mut Vec<Effect>) {
        // What is only offered has its outcome, and no more to do with its log.
        let open = self.jobs.iter().filter(|(_, job)| !job.is_offered());
        for id in open.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.renew(&id, out);
        }
    }
}
