//! The broker itself: connecting to it, preparing it, and running one when none is given.

use halm_protocol::subject::Inbox;
use halm_protocol::{Cancellation, JobId, ModelToken, Notice, Refusal};
use tokio::sync::{oneshot, watch};

use super::{Exit, JobSpec, PortFuture, ReadFault};
use crate::ingress::{CancelHeard, Heard};

/// The connection.
pub trait Broker: Send + Sync + 'static {
    /// Connects, checks that the server can do what is needed, and makes streams and consumers that are missing.
    fn open(&self, event: Box<dyn Fn(ConnectionEvent) + Send + Sync>) -> PortFuture<Result<(), String>>;

    /// Makes streams and consumers that are missing, over the open connection.
    fn prepare(&self) -> PortFuture<Result<JobStream, String>>;
}

/// Which job stream it is, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStream {
    /// When it was made, in the broker's words.
    pub made: String,
    /// The sequence of the last job that was ever in it.
    pub last: u64,
}

impl JobStream {
    /// Whether a stream that was like this and is like `now` has lost jobs.
    #[must_use]
    pub fn was_lost(&self, now: &Self) -> bool {
        self.made != now.made || self.last > now.last
    }
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// It is lost; the client library connects again by itself.
    Lost,
    /// It is back, perhaps to another server.
    Restored,
}

/// The broker process that a replica runs itself when no other is given.
pub trait BrokerProcess: Send + Sync + 'static {
    /// Starts it and waits until it takes connections.
    fn start(&self) -> PortFuture<Result<StartedBroker, String>>;
}

/// A broker process that takes connections.
pub struct StartedBroker {
    /// The operating system's id of it.
    pub pid: u32,
    /// Asks it to end: its store is closed, and `run` ends soon after.
    pub stop: oneshot::Sender<()>,
    /// To be run as a task: ends when the process has ended and is reaped, with how; dropping it kills the process.
    pub run: PortFuture<Exit>,
}

/// Whom an ingress hears.
pub struct Ears {
    /// Requests.
    pub heard: Box<dyn Fn(Heard) + Send + Sync>,
    /// What replicas say of them.
    pub noticed: Box<dyn Fn(Notice) + Send + Sync>,
    /// Cancellations.
    pub cancelled: Box<dyn Fn(CancelHeard) + Send + Sync>,
    /// Outcomes of jobs, perhaps more than once.
    pub settled: Box<dyn Fn(JobId) + Send + Sync>,
}

/// Requests, as they come in.
pub trait Requests: Send + Sync + 'static {
    /// Hands out each request, once as a witness and once more if the broker picked this replica for it, and what other
    /// replicas say of requests, and cancellations and outcomes alike, until `closing` becomes true and what was under way
    /// has come (`Ok`), or until listening ends by itself, which is a fault.
    fn listen(&self, ears: Ears, closing: watch::Receiver<bool>) -> PortFuture<Result<(), String>>;

    /// Says to the other replicas what this one does with a request. What is said before an answer is heard before it.
    fn tell(&self, notice: &Notice) -> PortFuture<()>;

    /// Answers who asked for a cancellation.
    fn confirm(&self, inbox: &Inbox, told: &Cancellation) -> PortFuture<()>;
}

/// Where accepted jobs are put.
pub trait JobIntake: Send + Sync + 'static {
    /// Stores a job. Its acknowledgement is the acceptance.
    fn admit(&self, job: &JobSpec) -> PortFuture<Result<Admitted, IntakeFault>>;

    /// Counts what stands in a model's queue.
    fn count(&self, model: &ModelToken) -> PortFuture<Result<QueueLength, ReadFault>>;
}

/// What stands in a model's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueLength {
    /// Interactive jobs that no replica has.
    pub interactive: u64,
    /// Batch jobs that no replica has.
    pub batch: u64,
    /// Jobs that replicas have.
    pub held: u64,
}

/// How a job was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// It is new.
    Stored,
    /// The queue has seen its id lately. Where the job of that id is to be answered, if it is still in the queue.
    Duplicate(Option<Inbox>),
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeFault {
    /// It can never be stored.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The queue of this model is full.
    #[error("the queue is full")]
    Full,
    /// The broker did not answer, or cannot store now.
    #[error("the broker does not store jobs now: {0}")]
    Unavailable(String),
}
