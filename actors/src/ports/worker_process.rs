//! A worker process, as its owner sees it.

use halm_protocol::worker::{Command, Event};

use super::PortFuture;
use crate::supervisor::ProcessEnd;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// By itself, or by which signal.
    pub end: ProcessEnd,
    /// Its last lines on standard error, oldest first.
    pub stderr_tail: Vec<String>,
}

/// What a process did.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessEvent {
    /// It said something.
    Said(Event),
    /// It said something that is not of the protocol; nothing more will be read from it.
    Garbage(String),
    /// It closed its standard output and still lives some time later.
    PipeClosed,
    /// It is gone and reaped. The last event.
    Exited(Exit),
}

/// A running process. Dropping it kills the process.
pub trait ProcessHandle: Send + 'static {
    /// The operating system's id of it.
    fn pid(&self) -> u32;

    /// Queues a command for its standard input; false if it does not take any more.
    fn send(&self, command: Command) -> bool;

    /// Asks it to end; if it takes too long, with SIGTERM, and then with SIGKILL.
    fn stop(&mut self);

    /// SIGKILL, to it and to whatever it started.
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
