//! What the actors need from outside, as traits: the broker and the worker process.
//!
//! `runtime` implements them over NATS and operating-system processes; tests implement them in memory. Futures are
//! `'static`, so that a shell can hand them to a task and go on. No port retries: what to do after a fault is decided
//! in a core.

mod broker;
mod dead_letter;
mod inbox;
mod outcome;
mod peer;
mod queue;
mod token_log;
mod worker_process;

use futures_util::future::BoxFuture;

pub use broker::{
    Admitted, Broker, BrokerProcess, ConnectionEvent, Ears, IntakeFault, JobIntake, JobStream, QueueLength, Requests,
    StartedBroker,
};
pub use dead_letter::DeadLetters;
pub use inbox::{Inboxes, Offered};
pub use outcome::OutcomeStore;
pub use peer::PeerBus;
pub use queue::{AckSubject, Delivery, JobQueue, JobSpec, Pulled};
pub use token_log::{Connection, Fence, FenceRecord, LogRecord, LogTarget, Record, Sequence, TokenLog};
pub use worker_process::{Exit, ProcessEvent, ProcessHandle, StartedProcess, WorkerProcess};

/// A port's answer, to be awaited anywhere.
pub type PortFuture<T> = BoxFuture<'static, T>;

/// A read that failed; it changed nothing and may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReadFault(pub String);

/// A write that did not succeed, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteFault {
    /// The broker compared and refused: what was expected to be last is not.
    #[error("the compared sequence is not the last one")]
    Superseded,
    /// No answer came: it may or may not have happened.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The broker refused; nothing was written.
    #[error("refused: {0}")]
    Refused(String),
}
