//! A worker process, as its owner sees it.

use halm_protocol::worker::{Command, Event};

use super::PortFuture;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit status, if it exited.
    pub code: Option<i32>,
    /// Signal, if one killed it.
    pub signal: Option<i32>,
    /// Its last lines on standard error.
    pub stderr_tail: Vec<String>,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.signal, self.code) {
            (Some(signal), _) => write!(f, "killed by signal {signal}"),
            (None, Some(code)) => write!(f, "exited with status {code}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

/// What a process did.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessEvent {
    /// It said something.
    Said(Event),
    /// It said something that is not of the protocol; nothing more will be read from it.
    Garbage(String),
    /// It is gone and reaped. The last event.
    Exited(Exit),
}

/// A running process. Dropping it kills the process.
pub trait ProcessHandle: Send + 'static {
    /// The operating system's id of it.
    fn pid(&self) -> u32;

    /// Queues a command for its standard input; false if it does not take any more.
    fn send(&self, command: Command) -> bool;

    /// SIGKILL.
    fn kill(&self);
}

/// A process, and the future that carries what goes in and out of it. The owner runs the future as a task of its own;
/// it ends after [`ProcessEvent::Exited`], and dropping it kills the process.
pub struct StartedProcess {
    /// For the owner.
    pub handle: Box<dyn ProcessHandle>,
    /// To be run.
    pub run: PortFuture<()>,
}

/// Starts worker processes of one model.
pub trait WorkerProcess: Send + Sync + 'static {
    /// Starts a process; `event` is called for each thing that it does, in order, [`ProcessEvent::Exited`] last.
    fn start(&self, event: Box<dyn Fn(ProcessEvent) + Send + Sync>) -> Result<StartedProcess, String>;
}
