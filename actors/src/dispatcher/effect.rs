//! What the dispatcher's core wants done.

use halm_protocol::subject::Inbox;
use halm_protocol::worker::{Lease, Work};
use halm_protocol::{Claim, DeadLetter, JobId, Outcome, Pace};

use super::WorkerId;
use crate::ports::{AckSubject, Delivery, Fence, LogTarget, Record, Sequence};

/// One port call. Its result counts only while its job still waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op(pub u64);

/// How many more jobs a dispatcher has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Of any class.
    pub jobs: usize,
    /// How many of them may be of the batch class. Invariant: `batch <= jobs`.
    pub batch: usize,
}

/// Something to do. Those with an [`Op`] are answered by an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the last claim on a job.
    ReadFence {
        /// Answer to.
        op: Op,
        /// The job.
        job: JobId,
    },
    /// Claim a job.
    WriteFence {
        /// Answer to.
        op: Op,
        /// The job.
        job: JobId,
        /// The last claim that we know of.
        expected: Option<Sequence>,
        /// Ours.
        claim: Claim,
    },
    /// Look for a stored outcome.
    ReadOutcome {
        /// Answer to.
        op: Op,
        /// The job.
        job: JobId,
    },
    /// Read a job's records.
    ReadLog {
        /// Answer to.
        op: Op,
        /// Where they are.
        target: LogTarget,
    },
    /// Append a record under a fence.
    Append {
        /// Answer to.
        op: Op,
        /// Where to.
        target: LogTarget,
        /// Our fencing token.
        fence: Fence,
        /// What.
        record: Record,
    },
    /// Keep a quarantined job for people. The time and the crash reports are to be filled in.
    Bury {
        /// Answer to.
        op: Op,
        /// The job and its deeds.
        letter: Box<DeadLetter>,
    },
    /// Store the outcome.
    StoreOutcome {
        /// Answer to.
        op: Op,
        /// The job.
        job: JobId,
        /// Its outcome.
        outcome: Outcome,
    },
    /// Remove a settled job from the queue.
    Ack(Delivery),
    /// Keep a delivery.
    Progress(Delivery),
    /// Give a delivery back.
    Nak(AckSubject),
    /// Remove a settled job's fence and records.
    Purge(LogTarget),
    /// Send the final record directly, and tell whether anybody listened.
    Offer {
        /// Answer to.
        op: Op,
        /// Where to.
        inbox: Inbox,
        /// What.
        outcome: Outcome,
    },
    /// Tell peers that we hold this delivery.
    Hold {
        /// The job.
        job: JobId,
        /// The delivery.
        ack: AckSubject,
    },
    /// Tell peers that we hold this job no more.
    Release(JobId),
    /// Let a worker compute.
    Start {
        /// Which.
        worker: WorkerId,
        /// What.
        work: Box<Work>,
        /// The job has killed a worker before, and is to have this one for itself.
        alone: bool,
    },
    /// Let a worker forget a lease.
    Cancel {
        /// Which.
        worker: WorkerId,
        /// The lease.
        lease: Lease,
    },
    /// The consumer may have this many jobs on their way here, in all.
    Demand(Room),
    /// Tell peers how fast jobs are computed here.
    Pace(Pace),
    /// Every job is settled, and no more will come.
    Drained,
    /// A promise was broken: for the log, at ERROR.
    Broken {
        /// The job.
        job: JobId,
        /// Which guarantee.
        invariant: &'static str,
        /// What was seen.
        seen: String,
    },
}
