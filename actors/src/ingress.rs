//! The ingress: turns requests into jobs, or into typed refusals.
//!
//! What a request becomes is decided in [`admission`], pure; who stores it and what is said of it in [`core`], pure too.
//! The actor looks up stored outcomes, stores jobs, and answers what is refused; the answer to a job comes from the token
//! log, not from here. When it dies with its replica, the ingresses of others store at once what it had heard; when it dies
//! alone, after fifteen seconds. Messages: [`IngressMsg`].

mod admission;
mod backlog;
mod cancels;
mod core;
mod follower;
mod following;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use halm_protocol::subject::Inbox;
use halm_protocol::{Incarnation, Notice, Outcome, ReplicaName, RunsModel};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;

pub use admission::{CancelHeard, Heard, read};
pub use cancels::{CancelEffect, Cancels};
pub use core::{Asked, Core, Effect, Event, Following, Op};
pub use follower::{Follower, Shown};

use crate::address::Address;
use crate::dispatcher::{self, DispatcherMsg};
use crate::mailbox::Mailbox;
use crate::moment::{Clock, Moment};
use crate::peers::Known;
use crate::ports::{
    Ears, Fence, FenceRecord, Inboxes, JobIntake, OutcomeStore, PortFuture, ReadFault, Requests, TokenLog, WriteFault,
};
use crate::tasks::{Tasks, TooManyTasks};

/// Requests being stored, notices and answers on their way out.
const TASKS_MAX: usize = 8192;

/// What an ingress is started with.
#[derive(Clone)]
pub struct IngressStart {
    /// This replica.
    pub replica: ReplicaName,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Models that this replica runs.
    pub models: Vec<RunsModel>,
    /// What other replicas run, and who they are.
    pub known: watch::Receiver<Known>,
    /// Where requests come from, and what others say of them.
    pub requests: Arc<dyn Requests>,
    /// Where jobs are put.
    pub intake: Arc<dyn JobIntake>,
    /// Outcomes of jobs that were asked for before.
    pub outcomes: Arc<dyn OutcomeStore>,
    /// Where cancelled jobs are marked.
    pub log: Arc<dyn TokenLog>,
    /// Who may hold a job that is cancelled.
    pub dispatchers: Vec<Address<DispatcherMsg>>,
    /// For refusals.
    pub inboxes: Arc<dyn Inboxes>,
    /// For requests that name no deadline.
    pub deadline_default: Duration,
    /// The replica's clock.
    pub clock: Clock,
}

/// What an ingress is told.
pub enum IngressMsg {
    /// A request came.
    Heard(Box<Heard>),
    /// A fact for the core.
    Happened(Event),
    /// A cancellation came.
    CancelHeard(CancelHeard),
    /// A call that a cancellation waits for ended.
    CancelCalled(CancelCall),
    /// What is known of other replicas changed.
    PeersChanged,
    /// No more requests will be taken: after [`IngressMsg::Drain`], or as a fault.
    Deaf(Result<(), String>),
    /// Take no more; answer when everything taken was stored or refused.
    Drain(RpcReplyPort<()>),
    /// The timer set for this moment.
    TimerFired(Moment),
}

/// A call that a cancellation waits for, and what came of it.
pub enum CancelCall {
    /// An outcome was looked for.
    Looked(Op, Result<Option<Outcome>, ReadFault>),
    /// The last claim was read.
    FenceRead(Op, Result<Option<FenceRecord>, ReadFault>),
    /// The mark was to be written.
    FenceWritten(Op, Result<Fence, WriteFault>),
}

/// The actor.
pub struct Ingress;

/// Its state.
pub struct IngressState {
    core: Core,
    cancels: Cancels,
    start: IngressStart,
    tasks: Tasks,
    timer: Option<Moment>,
    closing: watch::Sender<bool>,
    deaf: bool,
    drained: Vec<RpcReplyPort<()>>,
}

impl Actor for Ingress {
    type Msg = IngressMsg;
    type State = IngressState;
    type Arguments = IngressStart;

    async fn pre_start(
        &self,
        myself: ActorRef<IngressMsg>,
        start: IngressStart,
    ) -> Result<IngressState, ActorProcessingErr> {
        let mut tasks = Tasks::with_limit(myself.get_cell(), TASKS_MAX);
        let myself = Mailbox::of(&myself);
        let closing = watch::Sender::new(false);
        let (to, of_notices) = (myself.clone(), myself.clone());
        let hand_on = Box::new(move |heard| {
            let _ = to.send(IngressMsg::Heard(Box::new(heard)));
        });
        let notice = Box::new(move |notice: Notice| {
            let _ = of_notices.send(IngressMsg::Happened(Event::Noticed(notice)));
        });
        let of_outcomes = myself.clone();
        let settled = Box::new(move |job| {
            let _ = of_outcomes.send(IngressMsg::Happened(Event::Settled(job)));
        });
        let to = myself.clone();
        let cancelled = Box::new(move |cancel| {
            let _ = to.send(IngressMsg::CancelHeard(cancel));
        });
        let listening =
            start.requests.listen(Ears { heard: hand_on, noticed: notice, cancelled, settled }, closing.subscribe());
        let to = myself.clone();
        tasks.spawn(async move {
            let _ = to.send(IngressMsg::Deaf(listening.await));
        })?;
        let mut known = start.known.clone();
        known.mark_changed();
        tasks.spawn(async move {
            while known.changed().await.is_ok() {
                if myself.send(IngressMsg::PeersChanged).is_err() {
                    return;
                }
            }
        })?;
        let core = Core::new(start.replica.clone(), start.incarnation.clone());
        let cancels = Cancels::new(start.replica.clone(), start.incarnation.clone());
        Ok(IngressState { core, cancels, start, tasks, timer: None, closing, deaf: false, drained: Vec::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<IngressMsg>,
        message: IngressMsg,
        state: &mut IngressState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            IngressMsg::Heard(heard) => state.hear(&heard, &myself)?,
            IngressMsg::Happened(event) => state.decide(event, &myself)?,
            IngressMsg::CancelHeard(cancel) => state.cancel(cancel, &myself)?,
            IngressMsg::CancelCalled(call) => {
                let now = state.start.clock.now();
                let effects = match call {
                    CancelCall::Looked(op, outcome) => state.cancels.looked(op, outcome, now),
                    CancelCall::FenceRead(op, record) => state.cancels.fence_read(op, record, now),
                    CancelCall::FenceWritten(op, result) => state.cancels.fence_written(op, result, now),
                };
                state.perform_cancels(effects, &myself)?;
            }
            IngressMsg::PeersChanged => {
                let Known { replicas, paces, .. } = state.start.known.borrow().clone();
                state.decide(Event::Peers(replicas), &myself)?;
                state.decide(Event::Paces(paces), &myself)?;
            }
            IngressMsg::Deaf(Ok(())) => state.deaf = true,
            IngressMsg::Deaf(Err(why)) => return Err(why.into()),
            IngressMsg::Drain(reply) => {
                state.closing.send_replace(true);
                state.drained.push(reply);
                state.decide(Event::Drain, &myself)?;
            }
            IngressMsg::TimerFired(at) => {
                if state.timer == Some(at) {
                    state.timer = None;
                }
                let effects = state.cancels.tick(state.start.clock.now());
                state.perform_cancels(effects, &myself)?;
                state.decide(Event::Tick, &myself)?;
            }
        }
        if state.deaf && state.core.is_idle() {
            for reply in state.drained.drain(..) {
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<IngressMsg>,
        _event: ractor::SupervisionEvent,
        _state: &mut IngressState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children.
        Ok(())
    }
}

impl IngressState {
    fn hear(&mut self, heard: &Heard, myself: &ActorRef<IngressMsg>) -> Result<(), TooManyTasks> {
        let Ok(inbox) = Inbox::try_from(heard.reply.as_str()) else {
            if heard.taken {
                // Nothing may be published anywhere else, whoever asks.
                tracing::warn!(reply = heard.reply, "request without a plain inbox to answer to was dropped");
            }
            return Ok(());
        };
        let mut models = self.start.models.clone();
        models.extend(self.start.known.borrow().models.iter().cloned());
        let asked = read(heard, &inbox, &models, self.start.deadline_default);
        self.decide(if heard.taken { Event::Taken(asked) } else { Event::Witnessed(asked) }, myself)
    }

    fn decide(&mut self, event: Event, myself: &ActorRef<IngressMsg>) -> Result<(), TooManyTasks> {
        let mut words: Vec<PortFuture<()>> = Vec::new();
        for effect in self.core.handle(event, self.start.clock.now()) {
            self.perform(effect, &mut words, myself)?;
        }
        if !words.is_empty() {
            // In this order: what is said to the others comes before what is said to the client.
            self.send(Box::pin(async move {
                for word in words {
                    word.await;
                }
            }));
        }
        self.set_timer(myself)
    }

    fn set_timer(&mut self, myself: &ActorRef<IngressMsg>) -> Result<(), TooManyTasks> {
        let Some(next) = [self.core.next_tick(), self.cancels.next_tick()].into_iter().flatten().min() else {
            return Ok(());
        };
        if self.timer.is_some_and(|set| set <= next) {
            return Ok(());
        }
        self.timer = Some(next);
        let after = next - self.start.clock.now();
        self.tasks.send_after(after, myself, IngressMsg::TimerFired(next)).map(drop)
    }

    /// The holder ends the job at once; the mark is for whoever holds it if that one does not. Every replica sees to the
    /// mark, and the first puts it there: one that is picked may be frozen.
    fn cancel(&mut self, cancel: CancelHeard, myself: &ActorRef<IngressMsg>) -> Result<(), TooManyTasks> {
        let CancelHeard { job, inbox } = cancel;
        for dispatcher in &self.start.dispatchers {
            let event = dispatcher::Event::Cancelled { job: job.clone() };
            let _ = dispatcher.send(DispatcherMsg::Happened(event));
        }
        let effects = self.cancels.ask(job, inbox, self.start.clock.now());
        self.perform_cancels(effects, myself)
    }

    fn perform_cancels(
        &mut self,
        effects: Vec<CancelEffect>,
        myself: &ActorRef<IngressMsg>,
    ) -> Result<(), TooManyTasks> {
        for effect in effects {
            let to = Mailbox::of(myself);
            match effect {
                CancelEffect::Look(op, job) => {
                    let call = self.start.outcomes.read(&job);
                    self.tasks.spawn(async move {
                        let _ = to.send(IngressMsg::CancelCalled(CancelCall::Looked(op, call.await)));
                    })?;
                }
                CancelEffect::ReadFence(op, job) => {
                    let call = self.start.log.read_fence(&job);
                    self.tasks.spawn(async move {
                        let _ = to.send(IngressMsg::CancelCalled(CancelCall::FenceRead(op, call.await)));
                    })?;
                }
                CancelEffect::WriteFence(op, job, expected, claim) => {
                    let call = self.start.log.write_fence(&job, expected, &claim);
                    self.tasks.spawn(async move {
                        let _ = to.send(IngressMsg::CancelCalled(CancelCall::FenceWritten(op, call.await)));
                    })?;
                }
                CancelEffect::Tell(inbox, told) => self.send(self.start.requests.confirm(&inbox, &told)),
            }
        }
        self.set_timer(myself)
    }

    fn perform(
        &mut self,
        effect: Effect,
        words: &mut Vec<PortFuture<()>>,
        myself: &ActorRef<IngressMsg>,
    ) -> Result<(), TooManyTasks> {
        let to = Mailbox::of(myself);
        match effect {
            Effect::Tell(notice) => {
                tracing::debug!(job = %notice.job, verdict = ?notice.verdict, "request");
                words.push(self.start.requests.tell(&notice));
                Ok(())
            }
            Effect::Answer(inbox, outcome) => {
                words.push(self.start.inboxes.send(&inbox, &outcome));
                Ok(())
            }
            Effect::Follow(op, following) => {
                let IngressStart { log, outcomes, inboxes, .. } = self.start.clone();
                self.tasks.spawn(async move {
                    following::follow(*following, &*log, &*outcomes, &*inboxes).await;
                    let _ = to.send(IngressMsg::Happened(Event::Followed(op)));
                })
            }
            Effect::Count(model) => {
                let call = self.start.intake.count(&model);
                self.tasks.spawn(async move {
                    let event = Event::Counted(model, call.await);
                    let _ = to.send(IngressMsg::Happened(event));
                })
            }
            Effect::Look(op, job) => {
                let call = self.start.outcomes.read(&job);
                self.tasks.spawn(async move {
                    let event = Event::Looked(op, call.await);
                    let _ = to.send(IngressMsg::Happened(event));
                })
            }
            Effect::Store(op, job) => {
                let call = self.start.intake.admit(&job);
                self.tasks.spawn(async move {
                    let event = Event::Stored(op, call.await);
                    let _ = to.send(IngressMsg::Happened(event));
                })
            }
        }
    }

    fn send(&mut self, sending: PortFuture<()>) {
        if let Err(error) = self.tasks.spawn(sending) {
            // A flood of bad requests must not take the good ones along.
            tracing::warn!(%error, "answer or notice was not sent");
        }
    }
}
