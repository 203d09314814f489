//! A worker: the actor that owns one worker process.
//!
//! States: *starting* (no process yet), *loading* (a process that beats), *ready* (it takes work). It is started by the
//! pool's `workers` supervisor. Its process's end is its own end: it fails with the exit as its reason, is restarted
//! with back-off, and the dispatcher hears [`Event::WorkerGone`] whichever way it ended, panic and kill included.
//! Messages: [`WorkerMsg`].

mod pulse;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use halm_protocol::worker::{Command, Event as Said, Lease, Work};
use halm_protocol::{Activity, Digest, WorkerStatus};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use crate::address::Address;
use crate::crash_report::{Crash, Evidence};
use crate::dispatcher::{DispatcherMsg, Event, WorkerId};
use crate::mailbox::Mailbox;
use crate::moment::{Clock, Moment};
use crate::ports::{Exit, ProcessEvent, ProcessHandle, WorkerProcess};
use crate::supervisor::{ChildPath, ExitReason, ProcessEnd};
use crate::tasks::{Tasks, TooManyTasks};
use pulse::Pulse;

/// How often a worker's pulse is looked at: a fraction of the shortest stall that counts.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a worker is started with.
#[derive(Clone)]
pub struct WorkerStart {
    /// Its number.
    pub worker: WorkerId,
    /// Starts its process.
    pub process: Arc<dyn WorkerProcess>,
    /// Its place in the tree.
    pub path: ChildPath,
    /// The weights that it must have loaded.
    pub digest: Digest,
    /// How long loading them may take.
    pub ready_within: Duration,
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
    Start {
        /// What.
        work: Box<Work>,
        /// The job has killed a worker before: if the process dies now, it was the job.
        alone: bool,
    },
    /// Forget this.
    Cancel(Lease),
    /// Look at its pulse.
    Look,
    /// How is it?
    Status(RpcReplyPort<WorkerStatus>),
}

/// The actor.
pub struct Worker;

/// Its state.
pub struct WorkerState {
    start: WorkerStart,
    tasks: Tasks,
    process: Option<Box<dyn ProcessHandle>>,
    /// Told when the process is gone and reaped.
    gone: Option<oneshot::Receiver<()>>,
    pulse: Pulse,
    ready: bool,
    ready_by: Moment,
    /// What it computes, for its crash report.
    doing: BTreeMap<Lease, Activity>,
    /// The last lease that it was given, if its job killed a worker before.
    alone: Option<Lease>,
    /// Why we killed it, if we did.
    killed: Option<ProcessEnd>,
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
        let now = start.clock.now();
        let tasks = Tasks::new(myself.get_cell());
        Mailbox::of(&myself).send(WorkerMsg::Load)?;
        Ok(WorkerState {
            ready_by: now + start.ready_within,
            start,
            tasks,
            process: None,
            gone: None,
            pulse: Pulse::new(now),
            ready: false,
            doing: BTreeMap::new(),
            alone: None,
            killed: None,
        })
    }

    /// Ends the process in order, before the actor is gone.
    async fn post_stop(&self, _myself: ActorRef<WorkerMsg>, state: &mut WorkerState) -> Result<(), ActorProcessingErr> {
        if let (Some(process), Some(gone)) = (&mut state.process, state.gone.take()) {
            process.stop();
            let _ = gone.await;
        }
        Ok(())
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
            WorkerMsg::Did(ProcessEvent::Garbage(seen)) => state.kill(ProcessEnd::Garbage { seen }),
            WorkerMsg::Did(ProcessEvent::PipeClosed) => state.kill(ProcessEnd::PipeClosed),
            WorkerMsg::Did(ProcessEvent::Exited(exit)) => return Err(state.crash(exit).into()),
            WorkerMsg::Start { work, alone } => state.start_work(work, alone),
            WorkerMsg::Cancel(lease) => {
                state.doing.remove(&lease);
                state.send(Command::Cancel { lease });
            }
            WorkerMsg::Look => state.look(&myself)?,
            WorkerMsg::Status(reply) => {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(state.status());
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
        let mailbox = Mailbox::of(myself);
        let to = mailbox.clone();
        let event = Box::new(move |did| {
            let _ = to.send(WorkerMsg::Did(did));
        });
        let not_started = |message| Crash::from(ExitReason::Process(ProcessEnd::NotStarted { message }));
        let started = self.start.process.start(event).map_err(not_started)?;
        tracing::debug!(worker = self.start.worker.0, pid = started.handle.pid(), "worker process started");
        self.process = Some(started.handle);
        self.pulse = Pulse::new(self.start.clock.now());
        let (tell_gone, gone) = oneshot::channel();
        self.gone = Some(gone);
        self.tasks.spawn(async move {
            started.run.await;
            let _ = tell_gone.send(());
        })?;
        mailbox.send(WorkerMsg::Look)?;
        Ok(())
    }

    fn look(&mut self, myself: &ActorRef<WorkerMsg>) -> Result<(), TooManyTasks> {
        let now = self.start.clock.now();
        if let Some(stall) = self.pulse.stall(now) {
            self.kill(ProcessEnd::Hung { seen: stall.to_string() });
        } else if !self.ready && now > self.ready_by {
            self.kill(ProcessEnd::NotReady { within: self.start.ready_within });
        }
        self.tasks.send_after(LOOK_EVERY, myself, WorkerMsg::Look).map(drop)
    }

    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            path: self.start.path.to_string(),
            worker: self.start.worker.0,
            pid: self.process.as_ref().map(|process| process.pid()),
            ready: self.ready,
            jobs: self.doing.values().cloned().collect(),
        }
    }

    fn start_work(&mut self, work: Box<Work>, alone: bool) {
        let offset = u32::try_from(work.generated.len()).unwrap_or(u32::MAX);
        self.alone = alone.then_some(work.lease);
        self.doing.insert(work.lease, Activity { job: work.job.clone(), attempt: work.attempt, offset });
        self.send(Command::Start(work));
    }

    fn send(&mut self, command: Command) {
        // If the pipe is closed the process is gone, and its exit is on its way.
        if let Some(process) = &self.process {
            process.send(command);
        }
    }

    fn kill(&mut self, why: ProcessEnd) {
        if let Some(process) = &self.process
            && self.killed.is_none()
        {
            process.kill();
            self.killed = Some(why);
        }
    }

    /// The process is gone; so is the actor, with this reason.
    fn crash(&mut self, exit: Exit) -> Crash {
        self.process = None;
        let end = self.killed.take().unwrap_or(exit.end);
        let blamed = self.alone.and_then(|lease| self.doing.get(&lease)).map(|doing| format!("job {}", doing.job));
        let reason = match blamed {
            Some(to) => ExitReason::Attributed { to, reason: Box::new(ExitReason::Process(end)) },
            None => ExitReason::Process(end),
        };
        let doing = std::mem::take(&mut self.doing).into_values().collect();
        Crash::new(reason, Evidence { stderr_tail: exit.stderr_tail, doing, ..Evidence::default() })
    }

    fn hear(&mut self, said: Said) {
        let event = match said {
            Said::Beat { pulse, digest, .. } => {
                if digest != self.start.digest {
                    self.kill(ProcessEnd::Garbage { seen: format!("it runs the weights {}", digest.short()) });
                }
                self.pulse.heard(pulse, self.start.clock.now());
                return;
            }
            Said::Ready { context_tokens, load_ms } => {
                self.ready = true;
                tracing::info!(worker = self.start.worker.0, load_ms, context_tokens, "worker ready");
                Event::WorkerReady { worker: self.start.worker }
            }
            Said::Tokens { lease, offset, pieces } => {
                if let Some(activity) = self.doing.get_mut(&lease) {
                    activity.offset = offset.saturating_add(u32::try_from(pieces.len()).unwrap_or(u32::MAX));
                }
                Event::Tokens { lease, offset, pieces }
            }
            Said::Done { lease, text, reason, prompt_tokens } => {
                self.doing.remove(&lease);
                Event::Done { lease, tail: text, reason, prompt_tokens }
            }
            Said::Failed { lease, code, message, param, retry } => {
                self.doing.remove(&lease);
                Event::Failed { lease, code, message, param, retry }
            }
        };
        let _ = self.start.dispatcher.send(DispatcherMsg::Happened(event));
    }
}
