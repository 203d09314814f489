//! What the dispatcher's core is told.

use halm_protocol::worker::{Lease, Piece};
use halm_protocol::{ErrorCode, FinishReason, JobId, Outcome};

use super::{Op, WorkerId};
use crate::moment::Moment;
use crate::ports::{Delivery, Fence, FenceRecord, JobSpec, LogRecord, Offered, ReadFault, WriteFault};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The queue delivered a job, perhaps again.
    Received {
        /// The job.
        spec: Box<JobSpec>,
        /// This delivery of it.
        delivery: Delivery,
        /// Its deadline on the shell's clock.
        deadline: Moment,
    },
    /// A port call ended.
    Finished {
        /// Which call.
        op: Op,
        /// What came of it.
        result: OpResult,
    },
    /// A worker has loaded its model.
    WorkerReady {
        /// Which.
        worker: WorkerId,
    },
    /// A worker's process is gone.
    WorkerGone {
        /// Which.
        worker: WorkerId,
    },
    /// A worker made tokens.
    Tokens {
        /// Under which lease.
        lease: Lease,
        /// Index of the first in the whole answer.
        offset: u32,
        /// The tokens.
        pieces: Vec<Piece>,
    },
    /// A worker completed a text.
    Done {
        /// Under which lease.
        lease: Lease,
        /// Text held back until now.
        tail: String,
        /// Why it ended.
        reason: FinishReason,
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
    /// A worker could not go on with a job, and lives.
    Failed {
        /// Under which lease.
        lease: Lease,
        /// The code for the client, if nothing else can be done.
        code: ErrorCode,
        /// For people.
        message: String,
        /// The request's field that is wrong.
        param: Option<String>,
        /// True if another worker may succeed.
        retry: bool,
    },
    /// A job is to end as cancelled, if it is held here.
    Cancelled {
        /// Which.
        job: JobId,
    },
    /// The connection to the broker was lost and is back, perhaps to another server.
    ConnectionRestored,
    /// Take no more work.
    Drain,
    /// Give every job back to the queue, now.
    HandOver,
    /// Time passed.
    Tick,
}

/// What came of a port call.
#[derive(Debug, Clone, PartialEq)]
pub enum OpResult {
    /// Of reading the fence.
    FenceRead(Result<Option<FenceRecord>, ReadFault>),
    /// Of writing a claim.
    FenceWritten(Result<Fence, WriteFault>),
    /// Of looking for an outcome.
    OutcomeRead(Result<Option<Outcome>, ReadFault>),
    /// Of reading the log.
    LogRead(Result<Vec<LogRecord>, ReadFault>),
    /// Of appending a record.
    Appended(Result<(), WriteFault>),
    /// Of keeping a quarantined job.
    Buried(Result<(), WriteFault>),
    /// Of storing an outcome.
    OutcomeStored(Result<(), WriteFault>),
    /// Of offering the final record.
    Offered(Offered),
}
