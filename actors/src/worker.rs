//! A worker: the actor that owns one worker process.
//!
//! States: *starting* (no process yet), *loading* (a process that beats), *ready* (it takes work). It is started by the
//! pool's `workers` supervisor. Its process's end is its own end: it fails with the exit as its reason, is restarted
//! with back-off, and the dispatcher hears [`Event::WorkerGone`] whichever way it ended, panic and kill included.
//! Messages: [`WorkerMsg`].

mod pulse;

use std::sync::Arc;
use std::time::Duration;

use halm_protocol::worker::{Command, Event as Said, Lease, Work};
use halm_protocol::{Digest, WorkerStatus};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::address::Address;
use crate::dispatcher::{DispatcherMsg, Event, WorkerId};
use crate::moment::Clock;
use crate::ports::{Exit, ProcessEvent, ProcessHandle, WorkerProcess};
use crate::tasks::Tasks;
use pulse::{Pulse, Stall};

/// How often a worker's pulse is looked at: a fraction of the shortest stall that counts.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a worker is started with.
#[derive(Clone)]
pub struct WorkerStart {
    /// Its number.
    pub worker: WorkerId,
    /// Starts its process.
    pub process: Arc<dyn WorkerProcess>,
    /// The weights that it must have loaded.
    pub digest: Digest,
    /// Who gives it work.
    pub dispatcher: Address<DispatcherMsg>,
    /// The replica's clock.
    pub clock: Clock,
}

/// What a worker is told.
pub enum WorkerMsg {
    /// Start the process.
    Load,
    /// The process did something.
    Did(ProcessEvent),
    /// Compute this.
    Start(Box<Work>),
    /// Forget this.
    Cancel(Lease),
    /// Look at its pulse.
    Look,
    /// How is it?
    Status(RpcReplyPort<WorkerStatus>),
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerEnded {
    /// The process could not be started.
    #[error("worker process did not start: {0}")]
    NotStarted(String),
    /// The process ended by itself, or by somebody's signal.
    #[error("worker process {exit}{}", tail(.exit))]
    Exited {
        /// How.
        exit: Exit,
    },
    /// The process hung and was killed.
    #[error("worker process hung ({stall}) and was killed")]
    Stalled {
        /// What was seen.
        stall: Stall,
    },
    /// The process broke the protocol and was killed.
    #[error("worker process sent garbage ({0}) and was killed")]
    Garbage(String),
}

fn tail(exit: &Exit) -> String {
    exit.stderr_tail.last().map(|line| format!("; its last words: {line}")).unwrap_or_default()
}

/// The actor.
pub struct Worker;

/// Its state.
pub struct WorkerState {
    start: WorkerStart,
    tasks: Tasks,
    process: Option<Box<dyn ProcessHandle>>,
    pulse: Pulse,
    ready: bool,
    /// Why we killed it, if we did.
    killed: Option<WorkerEnded>,
}

impl Drop for WorkerState {
    fn drop(&mut self) {
        // Also when the actor is killed or panics. The process dies with its handle.
        let gone = Event::WorkerGone { worker: self.start.worker };
        let _ = self.start.dispatcher.send(DispatcherMsg::Happened(gone));
    }
}

impl Actor for Worker {
    type Msg = WorkerMsg;
    type State = WorkerState;
    type Arguments = WorkerStart;

    async fn pre_start(
        &self,
        myself: ActorRef<WorkerMsg>,
        start: WorkerStart,
    ) -> Result<WorkerState, ActorProcessingErr> {
        let pulse = Pulse::new(start.clock.now());
        let tasks = Tasks::new(myself.get_cell());
        myself.cast(WorkerMsg::Load)?;
        Ok(WorkerState { start, tasks, process: None, pulse, ready: false, killed: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<WorkerMsg>,
        message: WorkerMsg,
        state: &mut WorkerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WorkerMsg::Load => state.load(&myself)?,
            WorkerMsg::Did(ProcessEvent::Said(said)) => state.hear(said),
            WorkerMsg::Did(ProcessEvent::Garbage(seen)) => state.kill(WorkerEnded::Garbage(seen)),
            WorkerMsg::Did(ProcessEvent::Exited(exit)) => {
                state.process = None;
                return Err(state.killed.take().unwrap_or(WorkerEnded::Exited { exit }).into());
            }
            WorkerMsg::Start(work) => state.send(Command::Start(work)),
            WorkerMsg::Cancel(lease) => state.send(Command::Cancel { lease }),
            WorkerMsg::Look => {
                if let Some(stall) = state.pulse.stall(state.start.clock.now()) {
                    state.kill(WorkerEnded::Stalled { stall });
                }
                myself.send_after(LOOK_EVERY, || WorkerMsg::Look);
            }
            WorkerMsg::Status(reply) => {
                let pid = state.process.as_ref().map(|process| process.pid());
                let status = WorkerStatus { worker: state.start.worker.0, pid, ready: state.ready, jobs: Vec::new() };
                let _ = reply.send(status);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<WorkerMsg>,
        _event: ractor::SupervisionEvent,
        _state: &mut WorkerState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children that are actors.
        Ok(())
    }
}

impl WorkerState {
    fn load(&mut self, myself: &ActorRef<WorkerMsg>) -> Result<(), ActorProcessingErr> {
        let to = myself.clone();
        let event = Box::new(move |did| {
            let _ = to.cast(WorkerMsg::Did(did));
        });
        let started = self.start.process.start(event).map_err(WorkerEnded::NotStarted)?;
        tracing::debug!(worker = self.start.worker.0, pid = started.handle.pid(), "worker process started");
        self.process = Some(started.handle);
        self.pulse = Pulse::new(self.start.clock.now());
        self.tasks.spawn(started.run)?;
        myself.cast(WorkerMsg::Look)?;
        Ok(())
    }

    fn send(&mut self, command: Command) {
        // If the pipe is closed the process is gone, and its exit is on its way.
        if let Some(process) = &self.process {
            process.send(command);
        }
    }

    fn kill(&mut self, why: WorkerEnded) {
        if let Some(process) = &self.process
            && self.killed.is_none()
        {
            process.kill();
            self.killed = Some(why);
        }
    }

    fn hear(&mut self, said: Said) {
        let event = match said {
            Said::Beat { pulse, digest, .. } => {
                if digest != self.start.digest {
                    self.kill(WorkerEnded::Garbage(format!("it runs the weights {}", digest.short())));
                }
                self.pulse.heard(pulse, self.start.clock.now());
                return;
            }
            Said::Ready { context_tokens, load_ms } => {
                self.ready = true;
                tracing::info!(worker = self.start.worker.0, load_ms, context_tokens, "worker ready");
                Event::WorkerReady { worker: self.start.worker }
            }
            Said::Tokens { lease, offset, pieces } => Event::Tokens { lease, offset, pieces },
            Said::Done { lease, text, reason, prompt_tokens } => {
                Event::Done { lease, tail: text, reason, prompt_tokens }
            }
            Said::Failed { lease, code, message, param, retry } => Event::Failed { lease, code, message, param, retry },
        };
        let _ = self.start.dispatcher.send(DispatcherMsg::Happened(event));
    }
}
