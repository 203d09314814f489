//! Performs what the dispatcher's core decides.
//!
//! Messages: [`DispatcherMsg`]. It never waits for a port in its mailbox: each call is a task of its own that sends its
//! result back, so that a slow broker delays nobody's tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use halm_protocol::{DeadLetter, JobStatus, Outcome};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use super::{Core, Effect, Event, OpResult, Settings, WorkerId};
use crate::address::Address;
use crate::consumer::ConsumerMsg;
use crate::crash_report::{CrashHistory, CrashReport, in_ms};
use crate::mailbox::Mailbox;
use crate::moment::{Clock, Moment};
use crate::peers::PeersMsg;
use crate::ports::{DeadLetters, Delivery, Inboxes, JobQueue, JobSpec, OutcomeStore, TokenLog, WriteFault};
use crate::tasks::{Tasks, TooManyTasks};
use crate::worker::WorkerMsg;

/// How long the crash report of a worker that just died is waited for.
const REPORTED_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks for it.
const REPORTED_EVERY: Duration = Duration::from_millis(10);

/// Port calls and timers under way: a few for each job, those on offer included.
const TASKS_MAX: usize = 4096;

/// What the dispatcher calls.
#[derive(Clone)]
pub struct DispatcherPorts {
    /// Fences and records.
    pub log: Arc<dyn TokenLog>,
    /// Outcomes.
    pub outcomes: Arc<dyn OutcomeStore>,
    /// Quarantined jobs.
    pub dead: Arc<dyn DeadLetters>,
    /// Acknowledgements.
    pub queue: Arc<dyn JobQueue>,
    /// Direct delivery.
    pub inboxes: Arc<dyn Inboxes>,
}

/// What a dispatcher is started with.
#[derive(Clone)]
pub struct DispatcherStart {
    /// For the core.
    pub settings: Settings,
    /// The outside.
    pub ports: DispatcherPorts,
    /// The replica's clock.
    pub clock: Clock,
    /// The pool's workers.
    pub workers: BTreeMap<WorkerId, Address<WorkerMsg>>,
    /// Who pulls jobs for it.
    pub consumer: Address<ConsumerMsg>,
    /// Who tells other replicas what is held.
    pub peers: Address<PeersMsg>,
    /// What is known of workers that died.
    pub crashes: CrashHistory,
}

/// What a dispatcher is told.
pub enum DispatcherMsg {
    /// A fact for the core.
    Happened(Event),
    /// The queue delivered a job.
    Received(Box<JobSpec>, Delivery),
    /// A consumer began: tell it how many jobs there is room for.
    ConsumerBegan,
    /// How are the jobs?
    Status(RpcReplyPort<Vec<JobStatus>>),
    /// Take no more work; answer when every job is settled.
    Drain(RpcReplyPort<()>),
    /// The timer set for this moment.
    TimerFired(Moment),
}

/// The actor.
pub struct Dispatcher;

/// Its state.
pub struct DispatcherState {
    core: Core,
    start: DispatcherStart,
    tasks: Tasks,
    timer: Option<Moment>,
    drained: Vec<RpcReplyPort<()>>,
    is_drained: bool,
    /// Deliveries seen since the consumer began.
    received: u64,
    demand_changed: bool,
}

impl Actor for Dispatcher {
    type Msg = DispatcherMsg;
    type State = DispatcherState;
    type Arguments = DispatcherStart;

    async fn pre_start(
        &self,
        myself: ActorRef<DispatcherMsg>,
        start: DispatcherStart,
    ) -> Result<DispatcherState, ActorProcessingErr> {
        // What an earlier incarnation held is nobody's now.
        let _ = start.peers.send(PeersMsg::Abandon(start.settings.model.clone()));
        Ok(DispatcherState {
            core: Core::new(start.settings.clone()),
            start,
            tasks: Tasks::with_limit(myself.get_cell(), TASKS_MAX),
            timer: None,
            drained: Vec::new(),
            is_drained: false,
            received: 0,
            demand_changed: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<DispatcherMsg>,
        message: DispatcherMsg,
        state: &mut DispatcherState,
    ) -> Result<(), ActorProcessingErr> {
        let event = match message {
            DispatcherMsg::Happened(event) => event,
            DispatcherMsg::Received(spec, delivery) => {
                state.received += 1;
                state.demand_changed = true;
                let deadline = state.start.clock.now() + until_unix(spec.deadline_unix_ms);
                Event::Received { spec, delivery, deadline }
            }
            DispatcherMsg::ConsumerBegan => {
                // A new consumer counts from nothing, and so must we.
                state.received = 0;
                let _ = state.start.consumer.send(state.demand());
                return Ok(());
            }
            DispatcherMsg::Status(reply) => {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(state.core.status());
                return Ok(());
            }
            DispatcherMsg::Drain(reply) => {
                state.drained.push(reply);
                Event::Drain
            }
            DispatcherMsg::TimerFired(at) => {
                if state.timer == Some(at) {
                    state.timer = None;
                }
                Event::Tick
            }
        };
        let effects = state.core.handle(event, state.start.clock.now());
        for effect in effects {
            state.perform(effect, &myself)?;
        }
        if std::mem::take(&mut state.demand_changed) {
            // A consumer that is being restarted asks for the demand itself.
            let _ = state.start.consumer.send(state.demand());
        }
        if state.is_drained {
            for reply in state.drained.drain(..) {
                let _ = reply.send(());
            }
        }
        state.set_timer(&myself)?;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<DispatcherMsg>,
        _event: ractor::SupervisionEvent,
        _state: &mut DispatcherState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children.
        Ok(())
    }
}

impl DispatcherState {
    fn set_timer(&mut self, myself: &ActorRef<DispatcherMsg>) -> Result<(), TooManyTasks> {
        let Some(next) = self.core.next_tick() else { return Ok(()) };
        if self.timer.is_some_and(|set| set <= next) {
            return Ok(());
        }
        self.timer = Some(next);
        let after = next - self.start.clock.now();
        self.tasks.send_after(after, myself, DispatcherMsg::TimerFired(next)).map(drop)
    }

    fn perform(&mut self, effect: Effect, myself: &ActorRef<DispatcherMsg>) -> Result<(), TooManyTasks> {
        let ports = self.start.ports.clone();
        match effect {
            Effect::ReadFence { op, job } => {
                let call = ports.log.read_fence(&job);
                self.call(myself, op, async { OpResult::FenceRead(call.await) })?;
            }
            Effect::WriteFence { op, job, expected, claim } => {
                let call = ports.log.write_fence(&job, expected, &claim);
                self.call(myself, op, async { OpResult::FenceWritten(call.await) })?;
            }
            Effect::ReadOutcome { op, job } => {
                let call = ports.outcomes.read(&job);
                self.call(myself, op, async { OpResult::OutcomeRead(call.await) })?;
            }
            Effect::ReadLog { op, target } => {
                let call = ports.log.read(&target);
                self.call(myself, op, async { OpResult::LogRead(call.await) })?;
            }
            Effect::Append { op, target, fence, record } => {
                let call = ports.log.append(&target, fence, &record);
                self.call(myself, op, async { OpResult::Appended(call.await) })?;
            }
            Effect::Bury { op, letter } => {
                let call = bury(ports.dead, *letter, self.start.crashes.clone());
                self.call(myself, op, async { OpResult::Buried(call.await) })?;
            }
            Effect::StoreOutcome { op, job, outcome } => {
                tracing::debug!(job = %job, outcome = kind(&outcome), "job settled");
                let call = ports.outcomes.store(&job, &outcome);
                self.call(myself, op, async { OpResult::OutcomeStored(call.await) })?;
            }
            Effect::Ack(delivery) => self.tasks.spawn(ports.queue.ack(&delivery))?,
            Effect::Progress(delivery) => self.tasks.spawn(ports.queue.progress(&delivery))?,
            Effect::Nak(ack) => self.tasks.spawn(ports.queue.nak(&ack))?,
            Effect::Purge(target) => self.tasks.spawn(async move {
                if let Err(fault) = ports.log.purge(&target).await {
                    tracing::debug!(job = %target.job, %fault, "settled job's log was not purged");
                }
            })?,
            Effect::Offer { op, inbox, outcome } => {
                let call = ports.inboxes.offer(&inbox, &outcome);
                self.call(myself, op, async { OpResult::Offered(call.await) })?;
            }
            Effect::Hold { job, ack } => {
                self.tell_peers(PeersMsg::Hold { pool: self.start.settings.model.clone(), job, ack });
            }
            Effect::Release(job) => self.tell_peers(PeersMsg::Release(job)),
            Effect::Pace(pace) => self.tell_peers(PeersMsg::Pace { pool: self.start.settings.model.clone(), pace }),
            Effect::Start { worker, work, alone } => {
                tracing::debug!(job = %work.job, worker = worker.0, offset = work.generated.len(), "job started");
                self.tell_worker(worker, WorkerMsg::Start { work, alone });
            }
            Effect::Cancel { worker, lease } => self.tell_worker(worker, WorkerMsg::Cancel(lease)),
            // Told after the whole event, with the deliveries that it accounts for.
            Effect::Demand(_) => self.demand_changed = true,
            Effect::Drained => self.is_drained = true,
            Effect::Broken { job, invariant, seen } => {
                tracing::error!(job = %job, invariant, seen, "guarantee broken");
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        myself: &ActorRef<DispatcherMsg>,
        op: super::Op,
        call: impl Future<Output = OpResult> + Send + 'static,
    ) -> Result<(), TooManyTasks> {
        let myself = Mailbox::of(myself);
        self.tasks.spawn(async move {
            let result = call.await;
            let _ = myself.send(DispatcherMsg::Happened(Event::Finished { op, result }));
        })
    }

    fn tell_worker(&self, worker: WorkerId, message: WorkerMsg) {
        if let Some(address) = self.start.workers.get(&worker) {
            // A worker that just died says so itself.
            let _ = address.send(message);
        }
    }

    fn demand(&self) -> ConsumerMsg {
        ConsumerMsg::Demand { room: self.core.demand(), received: self.received }
    }

    fn tell_peers(&self, message: PeersMsg) {
        // A restarted `peers` begins with nothing held; the queue's ack wait is the backstop.
        let _ = self.start.peers.send(message);
    }
}

/// Completes a letter and keeps it.
async fn bury(dead: Arc<dyn DeadLetters>, letter: DeadLetter, crashes: CrashHistory) -> Result<(), WriteFault> {
    // The word of a worker's death comes here and to its supervisor, who writes the report, in either order.
    let until = tokio::time::Instant::now() + REPORTED_WITHIN;
    let of_job = |report: &CrashReport| report.evidence.doing.iter().any(|doing| doing.job == letter.job);
    let of_last = |report: &CrashReport| {
        report.evidence.doing.iter().any(|doing| doing.job == letter.job && doing.attempt == letter.attempts)
    };
    while !crashes.reports().iter().any(of_last) && tokio::time::Instant::now() < until {
        tokio::time::sleep(REPORTED_EVERY).await;
    }
    let reports = crashes.reports();
    let crash_reports = reports.iter().filter(|report| of_job(report)).map(CrashReport::record).collect();
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, in_ms);
    let result = dead.bury(&DeadLetter { at_ms, crash_reports, ..letter.clone() }).await;
    match &result {
        Err(WriteFault::Refused(cause)) => {
            tracing::error!(job = %letter.job, cause, "quarantined job was not kept");
        }
        Ok(()) => tracing::warn!(job = %letter.job, deaths = letter.deaths, "job quarantined"),
        Err(WriteFault::Superseded | WriteFault::Unknown(_)) => {}
    }
    result
}

fn until_unix(unix_ms: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(unix_ms).saturating_sub(now)
}

fn kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Reply(_) => "reply",
        Outcome::Refusal(refusal) => refusal.code.as_str(),
    }
}
