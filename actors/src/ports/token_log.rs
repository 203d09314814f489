//! The token log of a job: a fence, and records appended under it.

use halm_protocol::subject::Inbox;
use halm_protocol::{Chunk, Claim, JobId, Outcome};

use super::{PortFuture, ReadFault, WriteFault};

/// A sequence of the log's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// One connection to the broker, told from those before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// A fencing token: where a claim is stored, and the connection that said so. It is void over any other: a server that
/// was killed may have lost the claim, and given its sequence to another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Where the claim is stored.
    pub sequence: Sequence,
    /// Over which connection that was said.
    pub over: Connection,
}

/// The last claim on a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceRecord {
    /// Where it is stored, and who said so.
    pub fence: Fence,
    /// Whose it is.
    pub claim: Claim,
}

/// Which subjects a job's records go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTarget {
    /// The job.
    pub job: JobId,
    /// The client's inbox, to which records on `tok` are republished.
    pub inbox: Inbox,
    /// Whether chunks are for the client (on `tok`) or for a successor only (on `log`).
    pub streamed: bool,
    /// The request's trace context, given back with the final record.
    pub traceparent: Option<String>,
}

/// What is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// New tokens, written by the `attempt`-th lease.
    Chunk {
        /// The tokens.
        chunk: Chunk,
        /// Which lease, counted from 1.
        attempt: u32,
    },
    /// The end.
    Final(Outcome),
}

/// What is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it is stored.
    pub sequence: Sequence,
    /// What it says.
    pub record: Record,
}

/// `HALM_LOG`.
pub trait TokenLog: Send + Sync + 'static {
    /// The last claim, from the stream's leader.
    fn read_fence(&self, job: &JobId) -> PortFuture<Result<Option<FenceRecord>, ReadFault>>;

    /// Stores a claim if the last one is at `expected` (`None`: if there is none).
    fn write_fence(
        &self,
        job: &JobId,
        expected: Option<Sequence>,
        claim: &Claim,
    ) -> PortFuture<Result<Fence, WriteFault>>;

    /// All records of a job in order, complete up to the last that the stream's leader has.
    fn read(&self, target: &LogTarget) -> PortFuture<Result<Vec<LogRecord>, ReadFault>>;

    /// Appends a record if the last claim on the job is the one at `fence`. Over another connection than that of the
    /// fence nothing is sent, and the outcome is unknown.
    fn append(&self, target: &LogTarget, fence: Fence, record: &Record) -> PortFuture<Result<(), WriteFault>>;

    /// Removes a settled job's fence and records.
    fn purge(&self, target: &LogTarget) -> PortFuture<Result<(), ReadFault>>;
}
