//! The supervisor actor: it performs what the core decides.
//!
//! Owns the living children's actors, the timers, the starts under way and the calls that wait. It must never await in
//! a handler: starts run in tasks that report back, so that questions are answered while a start hangs.
//!
//! States: booting (its first children are being started), running, ending (its children are being stopped), ended. It
//! is started by its parent supervisor or by [`super::Supervisor::start_root`]. Its death causes the death of all its
//! descendants: ordered, when it was asked to stop; at once, when it was killed or panicked, because ractor kills what
//! is linked below an actor that dies and dropping [`State`] kills what ractor leaves alive (a child in `post_stop`).

mod calls;
mod ending;
mod farewell;
mod snapshot;
mod start;
mod timers;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::core::Core;
use super::exit::ExitReason;
use super::names::{ChildId, ChildPath};
use super::policy::{CHILDREN_MAX, SpecError};
use super::protocol::{
    Answer, CallError, CallId, Change, ChildCount, ChildKey, ChildView, Effect, Ending, Event, Report, RunId,
};
use super::root::Ended;
use super::spec::{Argument, ChildSpec, Spawned, StartContext, StartFn, SupervisorSpec};
use super::watched::{Watched, failure, spawn_failure};
use crate::address::Address;
use crate::crash_report::{Crash, CrashHistory, CrashReport, Evidence};
use crate::mailbox::Mailbox;
use crate::serial::{SerialMap, with_room};
use crate::tasks::{Tasks, TooManyTasks};
use crate::tree::TreeNode;
use crate::vitals::Vitals;
use start::{Begun, Order, Starter};
use timers::Timers;

/// Tasks of one supervisor: a start that was given up and hangs for each child, and room for an alarm and snapshots.
const TASKS_MAX: usize = CHILDREN_MAX + 128;

/// Ends of actors that are not known yet, kept while a start is under way. More than this are not children of ours; an
/// end that is not kept is still seen, in the actor's status.
const EARLY_EXITS_MAX: usize = 64;

/// Starts that are told to the core at once between two messages. ractor serves ends of children before messages, so that
/// children which crash faster than they are restarted would make their supervisor deaf; the next start is told by
/// message, the core orders no more until then, and whoever asked before is answered first. Enough that the message costs
/// little beside them; not more, because a crash behind each of them may have frames to be named.
const STARTS_BETWEEN_MESSAGES_MAX: usize = 32;

/// A message to a supervisor; [`super::SupervisorRef`] makes them.
#[derive(Debug)]
pub struct SupervisorMsg(pub(super) Msg);

pub(super) type CallReply = oneshot::Sender<Result<(ChildId, Answer), CallError>>;

#[derive(Debug)]
pub(super) enum Msg {
    /// Stop, children last to first.
    Stop,
    /// A start ended.
    StartReported { run: RunId, outcome: start::Outcome },
    /// The time of the first timer is over, unless it was cancelled.
    AlarmRang,
    /// Add a child.
    StartChild { spec: ChildSpec, reply: CallReply },
    /// Add a child from the template.
    StartDynamic { argument: Argument, reply: CallReply },
    /// Stop a child.
    TerminateChild { id: ChildId, reply: CallReply },
    /// Start a stopped child.
    RestartChild { id: ChildId, reply: CallReply },
    /// Forget a stopped child.
    DeleteChild { id: ChildId, reply: CallReply },
    /// Tell the table.
    WhichChildren { reply: oneshot::Sender<Vec<ChildView>> },
    /// Tell the counts.
    CountChildren { reply: oneshot::Sender<ChildCount> },
    /// Find a child that is a supervisor.
    FindSupervisor { id: ChildId, reply: oneshot::Sender<Option<ActorCell>> },
    /// Draw the tree from here down.
    Snapshot { within: Duration, reply: oneshot::Sender<TreeNode> },
}

/// The handler.
pub(super) struct Shell;

/// What a supervisor is born with.
pub(super) struct Birth {
    path: ChildPath,
    core: Core,
    recipes: SerialMap<ChildKey, Recipe>,
    template: Option<StartFn>,
    crashes: CrashHistory,
    ready: oneshot::Sender<Result<(), ExitReason>>,
    ended: Option<watch::Sender<Option<Ended>>>,
}

/// How a child is started.
struct Recipe {
    id: ChildId,
    start: StartFn,
    argument: Option<Argument>,
}

pub(super) struct State {
    core: Core,
    path: ChildPath,
    myself: ActorRef<SupervisorMsg>,
    mailbox: Mailbox<SupervisorMsg>,
    tasks: Tasks,
    born: Instant,
    recipes: SerialMap<ChildKey, Recipe>,
    template: Option<StartFn>,
    /// Starts that wait for something. Dropping one gives it up.
    cancels: SerialMap<RunId, oneshot::Sender<()>>,
    living: SerialMap<RunId, Spawned>,
    actors: SerialMap<ActorId, RunId>,
    /// Ends that ractor told before the start reported. Invariant: empty while no start is under way.
    early: Vec<(ActorId, Crash)>,
    /// What is known of each child's last end, until a report shows it. Invariant: only children of the table.
    evidence: SerialMap<ChildKey, (RunId, Evidence)>,
    /// Starts that have not reported.
    starting: usize,
    starter: Option<Starter>,
    /// Starts that were over at once, to be told to the core after what it ordered with them. Invariant: empty between
    /// two turns.
    over: VecDeque<(RunId, start::Outcome)>,
    /// Starts that may be told at once before the next message.
    starts_left: usize,
    timers: Timers,
    calls: SerialMap<CallId, (ChildId, CallReply)>,
    crashes: CrashHistory,
    ready: Option<oneshot::Sender<Result<(), ExitReason>>>,
    ended: Option<watch::Sender<Option<Ended>>>,
    ending: Option<Ending>,
    keys_total: u64,
    calls_total: u64,
    dynamic_total: u64,
}

/// Where a supervisor is put.
pub(super) struct Place {
    pub(super) parent: Option<ActorCell>,
    pub(super) address: Address<SupervisorMsg>,
    pub(super) vitals: Arc<Vitals>,
}

/// Spawns a supervisor; its first children are started when the receiver says so.
#[expect(clippy::disallowed_methods, reason = "this is where supervisors are started")]
pub(super) async fn spawn(
    path: ChildPath,
    spec: SupervisorSpec,
    crashes: CrashHistory,
    ended: Option<watch::Sender<Option<Ended>>>,
    place: Place,
) -> Result<(ActorRef<SupervisorMsg>, oneshot::Receiver<Result<(), ExitReason>>), Crash> {
    let invalid = |error: SpecError| ExitReason::InvalidSpec { message: error.to_string() };
    let seed = spec.chosen_seed().unwrap_or_else(|| RandomState::new().hash_one(&path));
    let (settings, policies, starts) = spec.into_parts().map_err(invalid)?;
    let mut recipes = with_room(policies.len());
    let mut template = None;
    for ((key, policy), start) in (0..).map(ChildKey).zip(&policies).zip(starts) {
        template.get_or_insert_with(|| Arc::clone(&start));
        recipes.insert(key, Recipe { id: policy.id.clone(), start, argument: None });
    }
    let core = Core::new(settings, (0..).map(ChildKey).zip(policies), seed);
    let template = core.template().and(template);
    let (ready, booted) = oneshot::channel();
    let birth = Birth { path, core, recipes, template, crashes, ready, ended };
    let handler = Watched::new(Shell, place.address, place.vitals);
    let spawned = match place.parent {
        Some(parent) => Watched::spawn_linked(None, handler, birth, parent).await,
        None => Watched::spawn(None, handler, birth).await,
    };
    let (actor, _) = spawned.map_err(|error| spawn_failure(&error))?;
    Ok((actor, booted))
}

fn is_supervisor(cell: &ActorCell) -> bool {
    cell.is_message_type_of::<SupervisorMsg>() == Some(true)
}

/// Asks an actor to stop: a supervisor by message, because it has children to stop before its own loop may end.
fn ask_to_stop(cell: &ActorCell) {
    if !is_supervisor(cell) || Mailbox::of(&ActorRef::from(cell.clone())).send(SupervisorMsg(Msg::Stop)).is_err() {
        cell.stop(Some("shutdown".to_owned()));
    }
}

impl Actor for Shell {
    type Msg = SupervisorMsg;
    type State = State;
    type Arguments = Birth;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, birth: Birth) -> Result<State, ActorProcessingErr> {
        let mut state = State::new(myself, birth);
        state.feed(Event::Boot)?;
        state.end_turn()?;
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        SupervisorMsg(message): SupervisorMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.starts_left = STARTS_BETWEEN_MESSAGES_MAX;
        state.take_message(message)?;
        Ok(state.end_turn()?)
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, remains, text) => {
                let told =
                    remains.and_then(|mut remains| remains.take::<State>().ok()).and_then(|child| child.epitaph());
                let reason = told.unwrap_or_else(|| ExitReason::from_stop_text(text.as_deref()));
                state.child_exited(cell.get_id(), reason.into())?;
            }
            SupervisionEvent::ActorFailed(cell, error) => state.child_exited(cell.get_id(), failure(&error))?,
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(state.end_turn()?)
    }

    /// After a stop by message all is done already; after somebody else's `stop` the children are still there.
    async fn post_stop(&self, _myself: ActorRef<Self::Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.take_leave().await;
        Ok(())
    }
}

impl State {
    fn new(myself: ActorRef<SupervisorMsg>, birth: Birth) -> Self {
        let children = birth.recipes.len();
        Self {
            core: birth.core,
            path: birth.path,
            tasks: Tasks::with_limit(myself.get_cell(), TASKS_MAX),
            mailbox: Mailbox::of(&myself),
            myself,
            born: Instant::now(),
            keys_total: u64::try_from(children).unwrap_or(u64::MAX),
            recipes: birth.recipes,
            template: birth.template,
            cancels: SerialMap::default(),
            living: with_room(children),
            actors: with_room(children),
            early: Vec::new(),
            evidence: SerialMap::default(),
            starting: 0,
            starter: None,
            over: VecDeque::new(),
            starts_left: STARTS_BETWEEN_MESSAGES_MAX,
            timers: Timers::default(),
            calls: SerialMap::default(),
            crashes: birth.crashes,
            ready: Some(birth.ready),
            ended: birth.ended,
            ending: None,
            calls_total: 0,
            dynamic_total: 0,
        }
    }

    fn take_message(&mut self, message: Msg) -> Result<(), TooManyTasks> {
        match message {
            Msg::Stop => self.feed(Event::StopRequested),
            Msg::StartReported { run, outcome } => {
                self.cancels.remove(&run);
                self.start_reported(run, outcome)
            }
            Msg::AlarmRang => self.alarm_rang(),
            Msg::StartChild { spec, reply } => self.start_child(spec, reply),
            Msg::StartDynamic { argument, reply } => self.start_dynamic(argument, reply),
            Msg::TerminateChild { id, reply } => self.call(id.clone(), Change::Terminate(id), reply),
            Msg::RestartChild { id, reply } => self.call(id.clone(), Change::Restart(id), reply),
            Msg::DeleteChild { id, reply } => self.call(id.clone(), Change::Delete(id), reply),
            Msg::WhichChildren { reply } => {
                // Whoever does not wait for the answer any more needs none; so below.
                let _ = reply.send(self.core.children(self.born.elapsed()));
                Ok(())
            }
            Msg::CountChildren { reply } => {
                let _ = reply.send(self.core.count());
                Ok(())
            }
            Msg::FindSupervisor { id, reply } => {
                let _ = reply.send(self.find_supervisor(&id));
                Ok(())
            }
            Msg::Snapshot { within, reply } => self.snapshot(within, reply),
        }
    }

    /// Tells the core and performs what it orders.
    fn feed(&mut self, event: Event) -> Result<(), TooManyTasks> {
        let mut effects = self.core.handle(event, self.born.elapsed());
        for effect in effects.drain(..) {
            self.perform(effect)?;
        }
        self.core.reuse(effects);
        Ok(())
    }

    fn alarm_rang(&mut self) -> Result<(), TooManyTasks> {
        let now = self.timers.rang();
        while let Some(timer) = self.timers.take_due(now) {
            self.feed(Event::TimerFired { timer })?;
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), TooManyTasks> {
        match effect {
            Effect::Start { run } => self.start(run)?,
            Effect::CancelStart { run } => {
                self.cancels.remove(&run);
            }
            Effect::Stop { run } => {
                if let Some(child) = self.living.get(&run) {
                    ask_to_stop(&child.cell);
                }
            }
            Effect::Kill { run } => {
                if let Some(child) = self.living.get(&run) {
                    child.cell.kill();
                }
            }
            Effect::Abandon { run } => {
                // Dropping it empties its address. A start that was abandoned has still to report, and be dropped.
                self.living.remove(&run);
            }
            Effect::SetTimer { timer, after } => self.timers.set(timer, after),
            Effect::CancelTimer { timer } => self.timers.cancel(timer),
            Effect::Forget { key } => {
                self.recipes.remove(&key);
                self.evidence.remove(&key);
            }
            Effect::Report(report) => {
                let evidence = self.evidence_for(&report);
                self.crashes.push(CrashReport::new(&self.path, *report, evidence));
            }
            Effect::Reply { call, answer } => {
                if let Some((id, reply)) = self.calls.remove(&call) {
                    let _ = reply.send(answer.map(|answer| (id, answer)));
                }
            }
            Effect::Booted => {
                if let Some(ready) = self.ready.take() {
                    let _ = ready.send(Ok(()));
                }
            }
            Effect::Terminate { ending } => self.terminate(ending),
        }
        Ok(())
    }

    fn start(&mut self, run: RunId) -> Result<(), TooManyTasks> {
        let Some(recipe) = self.recipes.get(&run.child) else { return Ok(()) };
        let context = StartContext {
            above: self.path.clone(),
            id: recipe.id.clone(),
            incarnation: run.incarnation,
            supervisor: self.myself.get_cell(),
            argument: recipe.argument.clone(),
            crashes: self.crashes.clone(),
        };
        match start::begin(&recipe.start, context) {
            Begun::Over(outcome) => self.over.push_back((run, outcome)),
            Begun::Waiting(waiting) => {
                let (cancel, cancelled) = oneshot::channel();
                self.cancels.insert(run, cancel);
                // One that still makes a start that was given up is left to it.
                let starter = match self.starter.take_if(|_| self.starting == 0) {
                    Some(free) => free,
                    None => Starter::spawn(&mut self.tasks, self.mailbox.clone())?,
                };
                starter.order(Order { run, waiting, cancelled });
                self.starter = Some(starter);
            }
        }
        self.starting += 1;
        Ok(())
    }

    /// Ends a turn. The core is told of the starts that were over at once, as long as it orders more of them and others are
    /// not kept waiting.
    fn end_turn(&mut self) -> Result<(), TooManyTasks> {
        while let Some((run, outcome)) = self.over.pop_front() {
            if self.starts_left == 0 {
                // If nobody takes the child any more, dropping it kills it.
                let _ = self.mailbox.send(SupervisorMsg(Msg::StartReported { run, outcome }));
                continue;
            }
            self.starts_left -= 1;
            self.start_reported(run, outcome)?;
        }
        self.timers.set_alarm(&mut self.tasks, &self.mailbox)
    }

    fn start_reported(&mut self, run: RunId, outcome: start::Outcome) -> Result<(), TooManyTasks> {
        self.starting -= 1;
        match outcome {
            Ok(child) => {
                let actor = child.cell.get_id();
                let missed = (self.early.len() == EARLY_EXITS_MAX && child.cell.get_status() == ActorStatus::Stopped)
                    .then(|| ExitReason::Cancelled.into());
                self.living.insert(run, child);
                self.actors.insert(actor, run);
                self.feed(Event::ChildStarted { run })?;
                if let Some(crash) = self.take_early(actor).or(missed) {
                    self.child_exited(actor, crash)?;
                }
            }
            Err(start::NotStarted { crash, actor }) => {
                let told = actor.and_then(|actor| self.take_early(actor));
                let crash = if crash.reason == ExitReason::Cancelled { told.unwrap_or(crash) } else { crash };
                let reason = self.keep_evidence(run, crash);
                self.feed(Event::ChildStartFailed { run, reason })?;
            }
        }
        if self.starting == 0 {
            self.early.clear();
        }
        Ok(())
    }

    fn child_exited(&mut self, actor: ActorId, crash: Crash) -> Result<(), TooManyTasks> {
        if let Some(run) = self.actors.remove(&actor) {
            let reason = match self.living.remove(&run) {
                Some(child) => self.keep_evidence(run, child.bury().unwrap_or(crash)),
                None => crash.reason,
            };
            return self.feed(Event::ChildExited { run, reason });
        }
        if self.starting > 0 && self.early.len() < EARLY_EXITS_MAX {
            self.early.push((actor, crash));
        }
        Ok(())
    }

    fn take_early(&mut self, actor: ActorId) -> Option<Crash> {
        let at = self.early.iter().position(|(early, _)| *early == actor)?;
        Some(self.early.swap_remove(at).1)
    }

    /// Lays by what is known of an end, for the report that may come; its reason is the core's.
    fn keep_evidence(&mut self, run: RunId, crash: Crash) -> ExitReason {
        // A start that was abandoned may report after its child was forgotten.
        if !crash.evidence.is_empty() && self.recipes.contains_key(&run.child) {
            self.evidence.insert(run.child, (run, crash.evidence));
        }
        crash.reason
    }

    fn evidence_for(&mut self, report: &Report) -> Evidence {
        match self.evidence.remove(&report.key) {
            Some((run, evidence)) if run.incarnation == report.incarnation => evidence,
            Some(_) | None => Evidence::default(),
        }
    }
}
