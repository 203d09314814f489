//! A tree of cores, wired to each other as the shell wires actors, in real time: what hangs takes its time, and a kill
//! or a cancelled start takes effect at once.
//!
//! Owns the lives of the workers and the mail between supervisors. It must never decide for a core. It checks what must
//! hold whatever the script: nobody lives without a supervisor that lives, children end last to first, no more restarts
//! than each supervisor's intensity allows, nothing happens after an end, every call is answered once.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use halm_actors::supervisor::core::Core;
use halm_actors::supervisor::{
    Action, CallId, Change, ChildId, ChildKey, ChildKind, ChildPath, ChildStanding, Effect, Ending, Escalation, Event,
    ExitReason, Hook, Policy, Report, RunId, Settings, Shutdown, TimerId, WORKER_START_TIMEOUT,
};

use crate::happened::{Call, Happened, Move, Take, parent_of, report_text, row};
use crate::script::{Arrival, OnStart, OnStop, ROOT, Script};

/// A supervisor's incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct NodeId(usize);

const TOP: NodeId = NodeId(0);

/// Happenings kept for the story of a life.
const STORY_LINES_MAX: usize = 60;

struct Node {
    path: String,
    parent: Option<(NodeId, RunId)>,
    core: Core,
    born: Duration,
    policies: HashMap<ChildKey, Policy>,
    runs: BTreeMap<RunId, Run>,
    timers: BTreeMap<TimerId, Duration>,
    unanswered: HashSet<CallId>,
    keys: u64,
    dynamic: u64,
    restarts: Vec<Duration>,
}

struct Run {
    key: ChildKey,
    phase: Phase,
    below: Option<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    /// A supervisor whose start was given up and that stops what it had started.
    Cancelled,
    Running,
    Asked,
    /// Has ended, which its supervisor is about to hear.
    Dead,
}

#[derive(Clone, Copy)]
struct Order {
    node: NodeId,
    run: RunId,
    start: OnStart,
    stop: OnStop,
}

pub(crate) struct Forest<'a> {
    script: &'a Script,
    now: Duration,
    nodes: BTreeMap<NodeId, Node>,
    nodes_total: usize,
    mail: VecDeque<(NodeId, Event)>,
    orders: VecDeque<Order>,
    orders_total: usize,
    arrivals: VecDeque<Arrival>,
    calls_total: u64,
    happened: Happened,
    /// A supervisor was killed with all that was below it: in which order they died is nobody's business.
    pub(crate) in_disorder: bool,
    booted: bool,
    ended: bool,
    story: VecDeque<String>,
}

impl<'a> Forest<'a> {
    /// Plants the tree. The script must be one for actors.
    pub(crate) fn new(script: &'a Script) -> Self {
        let mut forest = Self {
            script,
            now: Duration::ZERO,
            nodes: BTreeMap::new(),
            nodes_total: 0,
            mail: VecDeque::new(),
            orders: VecDeque::new(),
            orders_total: 0,
            arrivals: VecDeque::new(),
            calls_total: 0,
            happened: Happened::default(),
            in_disorder: false,
            booted: false,
            ended: false,
            story: VecDeque::new(),
        };
        forest.plant(ROOT.to_owned(), None);
        forest.deliver_mail();
        forest
    }

    pub(crate) fn arrive(&mut self, arrival: Arrival) {
        self.arrivals.push_back(arrival);
    }

    /// One small thing that happens at this instant; `None` when all is quiet.
    pub(crate) fn step(&mut self) -> Option<Move> {
        let made = if self.ended {
            None
        } else if let Some(arrival) = self.arrivals.pop_front() {
            Some(self.take_arrival(TOP, arrival))
        } else {
            self.orders.pop_front().map(|order| self.take_order(order))
        };
        self.deliver_mail();
        self.check();
        made
    }

    /// When something will happen by itself.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.timers().map(|(due, ..)| due).min()
    }

    /// Whether two things will happen in one instant, in an order that only the runtime knows.
    pub(crate) fn is_tied(&self) -> bool {
        let next = self.next_due();
        self.timers().filter(|(due, ..)| Some(*due) == next).count() > 1
    }

    /// Lets time pass up to the next timer.
    pub(crate) fn fire(&mut self) {
        let Some((due, id, timer)) = self.timers().min() else { return };
        self.now = due;
        self.node(id).timers.remove(&timer);
        self.mail.push_back((id, Event::TimerFired { timer }));
        self.deliver_mail();
        self.check();
    }

    /// Lets time pass in which nothing happens.
    pub(crate) fn wait_until(&mut self, until: Duration) {
        self.now = self.now.max(until);
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn take_happened(&mut self) -> Happened {
        let mut happened = std::mem::take(&mut self.happened);
        if !self.booted {
            // Reports can be read when the tree has started, and are lost if it does not.
            self.happened.reports = std::mem::take(&mut happened.reports);
        }
        happened
    }

    /// The supervisors that live, each with its table, from the root down.
    pub(crate) fn tables(&self) -> Vec<(String, Vec<String>)> {
        let mut tables = Vec::new();
        for id in self.living() {
            let node = &self.nodes[&id];
            tables.push((node.path.clone(), node.core.children(self.now - node.born).iter().map(row).collect()));
        }
        tables
    }

    /// Tasks that a runtime needs for what lives and waits, at least and at most: one for each actor, start and call, and
    /// one for all timers of a supervisor. Between two starts the task that makes them may wait, and an alarm that was
    /// set for a timer since cancelled may still sleep.
    pub(crate) fn tasks(&self) -> RangeInclusive<usize> {
        let (mut least, mut most) =
            (usize::from(!self.booted && !self.ended), usize::from(!self.booted && !self.ended));
        for node in self.nodes.values() {
            let starts = |run: &&Run| matches!(run.phase, Phase::Starting | Phase::Cancelled);
            let workers = node.runs.values().filter(|run| run.below.is_none() && !starts(run)).count();
            let needed = 1 + workers + node.runs.values().filter(starts).count() + node.unanswered.len();
            least += needed + usize::from(!node.timers.is_empty());
            most += needed + 2;
        }
        least..=most
    }

    /// The last things that happened.
    pub(crate) fn story(&self) -> String {
        let lines: Vec<&str> = self.story.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    fn tell(&mut self, line: String) {
        if self.story.len() == STORY_LINES_MAX {
            self.story.pop_front();
        }
        self.story.push_back(format!("{:>6?} {line}", self.now));
    }

    fn live(&mut self, word: &str, path: &str) {
        let line = format!("{word} {path}");
        self.tell(line.clone());
        self.happened.lives.push((parent_of(path), line));
    }

    fn timers(&self) -> impl Iterator<Item = (Duration, NodeId, TimerId)> + '_ {
        self.nodes.iter().flat_map(|(id, node)| node.timers.iter().map(|(timer, due)| (*due, *id, *timer)))
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("living")
    }

    fn run(&mut self, node: NodeId, run: RunId) -> &mut Run {
        self.node(node).runs.get_mut(&run).expect("living")
    }

    /// From the root down, children in start order.
    fn living(&self) -> Vec<NodeId> {
        let mut living = Vec::new();
        let mut next = vec![TOP];
        while let Some(id) = next.pop() {
            let Some(node) = self.nodes.get(&id) else { continue };
            living.push(id);
            let views = node.core.children(self.now - node.born);
            next.extend(views.iter().rev().filter_map(|view| node.runs.get(&view.run?)?.below));
        }
        living
    }

    fn plant(&mut self, path: String, parent: Option<(NodeId, RunId)>) -> NodeId {
        let (settings, policies) = self.script.nest(&path);
        let children: Vec<(ChildKey, Policy)> = (0..).map(ChildKey).zip(policies.iter().cloned()).collect();
        let id = NodeId(self.nodes_total);
        self.nodes_total += 1;
        let node = Node {
            path,
            parent,
            core: Core::new(settings, children.clone(), self.script.seed),
            born: self.now,
            keys: u64::try_from(children.len()).expect("few"),
            policies: children.into_iter().collect(),
            runs: BTreeMap::new(),
            timers: BTreeMap::new(),
            unanswered: HashSet::new(),
            dynamic: 0,
            restarts: Vec::new(),
        };
        self.nodes.insert(id, node);
        self.mail.push_back((id, Event::Boot));
        id
    }

    fn take_arrival(&mut self, at: NodeId, arrival: Arrival) -> Move {
        let call = match arrival {
            Arrival::Nothing => return Move::Nothing,
            Arrival::In(supervisor, arrival) => {
                let living = self.living();
                return self.take_arrival(living[supervisor % living.len()], *arrival);
            }
            // Nobody holds the tree yet who could stop or call it.
            _ if at == TOP && !self.booted && !matches!(arrival, Arrival::Exit(..)) => return Move::Nothing,
            Arrival::Stop => {
                self.tell("stop requested".to_owned());
                self.mail.push_back((TOP, Event::StopRequested));
                return Move::Stops;
            }
            Arrival::Exit(place, reason) => return self.exit(at, place, reason),
            Arrival::Start(_) if self.nodes[&at].core.template().is_some() => Call::StartDynamic,
            Arrival::Start(policy) => Call::Start(policy),
            Arrival::Terminate(id) => Call::Terminate(self.known(at, id)),
            Arrival::Restart(id) => Call::Restart(self.known(at, id)),
            Arrival::Delete(id) => Call::Delete(self.known(at, id)),
        };
        let number = self.calls_total;
        self.calls_total += 1;
        self.tell(format!("call {number} {} {call:?}", self.nodes[&at].path));
        let node = self.node(at);
        let change = node.change(call.clone());
        node.unanswered.insert(CallId(number));
        let path = node.path.clone();
        self.mail.push_back((at, Event::Called { call: CallId(number), change }));
        Move::Calls(number, path, call)
    }

    /// For a dynamic supervisor, a child that may exist.
    fn known(&self, at: NodeId, id: ChildId) -> ChildId {
        let node = &self.nodes[&at];
        if node.core.template().is_none() {
            return id;
        }
        let place = usize::from(id.as_str().as_bytes()[0] - b'a');
        node.core.children(self.now - node.born).get(place).map_or(id, |view| view.id.clone())
    }

    /// A worker that runs ends in any way; a supervisor can only be killed, because it has no other way of its own.
    fn exit(&mut self, at: NodeId, place: usize, reason: ExitReason) -> Move {
        let node = &self.nodes[&at];
        let views = node.core.children(self.now - node.born);
        let Some(view) = views.get(place) else { return Move::Nothing };
        let Some(run) = view.run.filter(|run| node.runs.contains_key(run)) else { return Move::Nothing };
        let (path, phase, below) = (format!("{}/{}", node.path, view.id), node.runs[&run].phase, node.runs[&run].below);
        match below {
            None if phase == Phase::Running => {
                self.dies(at, run, reason.clone());
                Move::Exits(path, reason)
            }
            Some(below) if reason == ExitReason::Killed => {
                self.tell(format!("kill {path}"));
                self.fell(below);
                self.run(at, run).phase = Phase::Dead;
                let event = match phase {
                    Phase::Starting | Phase::Cancelled => Event::ChildStartFailed { run, reason },
                    Phase::Running | Phase::Asked | Phase::Dead => Event::ChildExited { run, reason },
                };
                self.mail.push_back((at, event));
                Move::Exits(path, ExitReason::Killed)
            }
            None | Some(_) => Move::Nothing,
        }
    }

    fn take_order(&mut self, order: Order) -> Move {
        let Order { node, run, start, stop } = order;
        let Some(living) = self.nodes.get(&node).and_then(|node| node.runs.get(&run)) else { return Move::Nothing };
        let (phase, policy) = (living.phase, &self.nodes[&node].policies[&living.key]);
        let take = match phase {
            Phase::Starting => match start {
                OnStart::Succeeds => Take::Succeeds,
                OnStart::Fails => Take::Fails,
                OnStart::DiesAtOnce => Take::DiesAtOnce,
                OnStart::Hangs | OnStart::SucceedsLate | OnStart::HangsForGood => return Move::Nothing,
            },
            Phase::Asked => match stop {
                OnStop::Panics => Take::Panics,
                OnStop::Obeys => Take::Obeys,
                OnStop::Ignores | OnStop::Unkillable if policy.shutdown == Shutdown::Infinity => Take::Obeys,
                OnStop::Ignores | OnStop::Unkillable => return Move::Nothing,
            },
            Phase::Cancelled | Phase::Running | Phase::Dead => unreachable!("no order is outstanding"),
        };
        let path = self.nodes[&node].path_of(run);
        let panicked = |hook, message: &str| ExitReason::Panicked { hook, message: message.to_owned() };
        match take {
            Take::Succeeds => {
                self.live("up", &path);
                self.mail.push_back((node, Event::ChildStarted { run }));
            }
            Take::Fails => {
                let reason = ExitReason::Failed { hook: Hook::PreStart, message: "no luck".to_owned() };
                self.start_fails(node, run, reason);
            }
            Take::DiesAtOnce => {
                self.live("up", &path);
                self.mail.push_back((node, Event::ChildStarted { run }));
                self.dies(node, run, panicked(Hook::PostStart, "too soon"));
            }
            Take::Obeys => self.dies(node, run, ExitReason::Shutdown { detail: None }),
            Take::Panics => self.dies(node, run, panicked(Hook::PostStop, "bang")),
        }
        Move::Takes(path, take)
    }

    fn start_fails(&mut self, node: NodeId, run: RunId, reason: ExitReason) {
        let path = self.nodes[&node].path_of(run);
        self.live("fail", &path);
        self.run(node, run).phase = Phase::Dead;
        self.mail.push_back((node, Event::ChildStartFailed { run, reason }));
    }

    fn dies(&mut self, node: NodeId, run: RunId, reason: ExitReason) {
        let path = self.nodes[&node].path_of(run);
        self.live("down", &path);
        self.run(node, run).phase = Phase::Dead;
        self.mail.push_back((node, Event::ChildExited { run, reason }));
    }

    /// A supervisor is killed, and with it all that is below.
    fn fell(&mut self, id: NodeId) {
        self.in_disorder = true;
        let node = self.nodes.remove(&id).expect("living");
        for (run, Run { phase, below, .. }) in &node.runs {
            match (phase, below) {
                (_, Some(below)) if self.nodes.contains_key(below) => self.fell(*below),
                (Phase::Dead, _) | (_, Some(_)) => {}
                (Phase::Starting | Phase::Cancelled, None) => self.live("fail", &node.path_of(*run)),
                (Phase::Running | Phase::Asked, None) => self.live("down", &node.path_of(*run)),
            }
        }
        for call in node.unanswered {
            self.happened.replies.push((node.path.clone(), format!("reply {} the supervisor is gone", call.0)));
        }
        self.orders.retain(|order| order.node != id);
    }

    fn deliver_mail(&mut self) {
        while let Some((id, event)) = self.mail.pop_front() {
            let now = self.now;
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            match &event {
                Event::ChildStarted { run } => {
                    if let Some(run) = node.runs.get_mut(run).filter(|run| run.phase == Phase::Starting) {
                        run.phase = Phase::Running;
                    }
                }
                Event::ChildStartFailed { run, .. } | Event::ChildExited { run, .. } => {
                    node.runs.remove(run);
                }
                Event::Boot | Event::TimerFired { .. } | Event::Called { .. } | Event::StopRequested => {}
            }
            let effects = node.core.handle(event, now - node.born);
            for effect in effects {
                assert!(self.nodes.contains_key(&id), "after the end: {effect:?}");
                self.perform(id, effect);
            }
        }
    }

    fn perform(&mut self, id: NodeId, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Start { run } => self.start(id, run.child(), run),
            Effect::CancelStart { run } => match self.run(id, run).below {
                Some(below) => {
                    self.run(id, run).phase = Phase::Cancelled;
                    self.mail.push_back((below, Event::StopRequested));
                }
                None => self.start_fails(id, run, ExitReason::Cancelled),
            },
            // They cross the news of its death.
            Effect::Stop { run } | Effect::Kill { run } if self.run(id, run).phase == Phase::Dead => {}
            Effect::Stop { run } => {
                self.check_order_of_stops(id, run);
                self.run(id, run).phase = Phase::Asked;
                match self.run(id, run).below {
                    Some(below) => self.mail.push_back((below, Event::StopRequested)),
                    None => self.order(id, run, "ask"),
                }
            }
            Effect::Kill { run } => {
                if self.run(id, run).phase == Phase::Running {
                    self.check_order_of_stops(id, run);
                }
                if let Some(below) = self.run(id, run).below {
                    self.fell(below);
                    self.run(id, run).phase = Phase::Dead;
                    self.mail.push_back((id, Event::ChildExited { run, reason: ExitReason::Killed }));
                } else {
                    self.orders.retain(|order| (order.node, order.run) != (id, run));
                    self.dies(id, run, ExitReason::Killed);
                }
            }
            Effect::Abandon { .. } => unreachable!("who is killed dies at once"),
            Effect::SetTimer { timer, after } => {
                self.node(id).timers.insert(timer, tick(now + after));
            }
            Effect::CancelTimer { timer } => {
                self.node(id).timers.remove(&timer);
            }
            Effect::Forget { key } => {
                let lives = self.nodes[&id].runs.values().any(|run| run.key == key && run.phase != Phase::Dead);
                assert!(!lives, "{key:?} is forgotten and lives");
            }
            Effect::Report(report) => self.report(id, &report),
            Effect::Reply { call, answer } => {
                assert!(self.node(id).unanswered.remove(&call), "{call:?} answered twice");
                let text = answer.map_or_else(|refusal| refusal.to_string(), |answer| format!("{answer:?}"));
                let line = format!("reply {} {text}", call.0);
                self.tell(line.clone());
                let at = self.nodes[&id].path.clone();
                self.happened.replies.push((at, line));
            }
            Effect::Booted => match self.nodes[&id].parent {
                Some((parent, run)) => {
                    if self.run(parent, run).phase == Phase::Starting {
                        self.mail.push_back((parent, Event::ChildStarted { run }));
                    }
                }
                None => (self.booted, self.happened.booted) = (true, true),
            },
            Effect::Terminate { ending } => self.end(id, &ending),
        }
    }

    fn start(&mut self, id: NodeId, key: ChildKey, run: RunId) {
        let node = &self.nodes[&id];
        assert!(node.runs.values().all(|run| run.key != key), "two incarnations of {key:?}");
        let starting = |run: &Run| matches!(run.phase, Phase::Starting | Phase::Cancelled);
        assert!(!node.runs.values().any(starting), "two starts at a time");
        let policy = &node.policies[&key];
        let (is_supervisor, path) = (policy.kind == ChildKind::Supervisor, format!("{}/{}", node.path, policy.id));
        let below = is_supervisor.then(|| self.plant(path, Some((id, run))));
        self.node(id).runs.insert(run, Run { key, phase: Phase::Starting, below });
        if !is_supervisor {
            self.order(id, run, "start");
        }
    }

    fn order(&mut self, node: NodeId, run: RunId, word: &str) {
        let number = self.orders_total;
        self.orders_total += 1;
        let behaviour = self.script.behaviour(number);
        let (start, stop) = (behaviour.start, behaviour.stop);
        self.orders.retain(|order| (order.node, order.run) != (node, run));
        self.orders.push_back(Order { node, run, start, stop });
        self.arrivals.extend(behaviour.meanwhile.iter().cloned());
        let path = self.nodes[&node].path_of(run);
        self.live(word, &path);
    }

    fn end(&mut self, id: NodeId, ending: &Ending) {
        let node = self.nodes.remove(&id).expect("living");
        let path = &node.path;
        let alive = node.runs.values().filter(|run| run.phase != Phase::Dead).count();
        assert_eq!(alive, 0, "children of {path} alive at its end");
        assert!(node.unanswered.is_empty(), "{path} ends with calls unanswered: {:?}", node.unanswered);
        let reason = reason_of(path, ending);
        self.tell(format!("{path} ends: {reason}"));
        let Some((parent, run)) = node.parent else {
            self.ended = true;
            self.happened.ended = Some(ending_text(ending));
            return;
        };
        let phase = std::mem::replace(&mut self.run(parent, run).phase, Phase::Dead);
        let event = match phase {
            Phase::Starting => Event::ChildStartFailed { run, reason },
            Phase::Cancelled => Event::ChildStartFailed { run, reason: ExitReason::Cancelled },
            Phase::Running | Phase::Asked | Phase::Dead => Event::ChildExited { run, reason },
        };
        self.mail.push_back((parent, event));
    }

    fn report(&mut self, id: NodeId, report: &Report) {
        let node = self.node(id);
        let path = format!("{}/{}", node.path, report.child);
        if let ExitReason::Escalated(escalation) = &report.reason {
            assert_eq!(escalation.supervisor.as_str(), path, "the chain begins elsewhere");
        }
        let line =
            report_text(&path, report.incarnation, report.restarts, report.uptime, &report.action, &report.reason);
        if matches!(report.action, Action::Restart { .. }) {
            self.check_intensity(id);
        }
        self.tell(line.clone());
        self.happened.reports.push((parent_of(&path), line));
    }

    // What must hold.

    fn check_intensity(&mut self, id: NodeId) {
        let now = self.now;
        let intensity = self.script.nest(&self.nodes[&id].path).0.intensity;
        let node = self.node(id);
        node.restarts.push(now);
        let recent = node.restarts.iter().filter(|at| **at + intensity.period >= now).count();
        assert!(recent <= usize::try_from(intensity.restarts_max).expect("few"), "restarts at {:?}", node.restarts);
    }

    /// Whoever ends stops its children last to first: nobody after this one runs any more.
    fn check_order_of_stops(&self, id: NodeId, run: RunId) {
        let node = &self.nodes[&id];
        if !node.core.is_ending() || node.core.template().is_some() {
            return;
        }
        let views = node.core.children(self.now - node.born);
        let place = views.iter().position(|view| view.run == Some(run)).expect("in the table");
        let after = views[place + 1..].iter().find(|view| view.run.is_some_and(|run| node.runs.contains_key(&run)));
        assert!(after.is_none(), "{} stops {} before {after:?}", node.path, views[place].id);
    }

    /// Nobody without an owner, one child after the other started and stopped, and no timer for nothing.
    fn check(&self) {
        for (id, node) in &self.nodes {
            match node.parent {
                Some((parent, run)) => {
                    let owner = self.nodes.get(&parent).and_then(|parent| parent.runs.get(&run));
                    assert_eq!(owner.and_then(|run| run.below), Some(*id), "{} has no owner", node.path);
                }
                None => assert_eq!(*id, TOP),
            }
            // An end that takes over does not wait for the operation under way.
            let busy = node.runs.values().filter(|run| run.phase != Phase::Running).count();
            let busy_max = 1 + usize::from(node.core.is_ending());
            let in_turn = busy <= busy_max || node.core.template().is_some();
            assert!(in_turn, "{busy} children of {} are being started or stopped", node.path);
            let views = node.core.children(self.now - node.born);
            let backing_off = views.iter().filter(|view| view.standing == ChildStanding::BackingOff).count();
            assert!(node.timers.len() <= backing_off + busy, "timers of {} left over: {:?}", node.path, node.timers);
        }
        assert!(!self.ended || self.nodes.is_empty(), "somebody lives after the end");
    }
}

impl Node {
    fn path_of(&self, run: RunId) -> String {
        format!("{}/{}", self.path, self.policies[&self.runs[&run].key].id)
    }

    fn change(&mut self, call: Call) -> Change {
        let policy = match call {
            Call::Terminate(id) => return Change::Terminate(id),
            Call::Restart(id) => return Change::Restart(id),
            Call::Delete(id) => return Change::Delete(id),
            Call::Start(policy) => policy,
            Call::StartDynamic => {
                self.dynamic += 1;
                let id = ChildId::try_from(self.dynamic.to_string().as_str()).expect("a valid id");
                Policy { id, ..self.core.template().expect("is dynamic").clone() }
            }
        };
        let key = ChildKey(self.keys);
        self.keys += 1;
        self.policies.insert(key, policy.clone());
        Change::Start { key, policy }
    }
}

impl Script {
    /// The supervisor at a path.
    pub(crate) fn nest(&self, path: &str) -> (Settings, &[Policy]) {
        match self.below.get(path) {
            Some(nest) => (nest.settings, &nest.children),
            None => (self.settings, &self.children),
        }
    }

    /// The life that actors can live. Code that does not await cannot be had on a paused clock, so nobody is unkillable
    /// (they ignore the stop instead), no start resists its cancellation or ends in its moment (they hang until it),
    /// and the start of a worker always has a limit.
    pub(crate) fn for_actors(mut self) -> Self {
        for policy in self.children.iter_mut().chain(self.below.values_mut().flat_map(|nest| &mut nest.children)) {
            limit_start(policy);
        }
        for step in &mut self.steps {
            step.arrival.limit_starts();
        }
        for behaviour in &mut self.behaviours {
            behaviour.start = match behaviour.start {
                OnStart::SucceedsLate | OnStart::HangsForGood => OnStart::Hangs,
                possible => possible,
            };
            behaviour.stop = match behaviour.stop {
                OnStop::Unkillable => OnStop::Ignores,
                possible => possible,
            };
            behaviour.meanwhile.iter_mut().for_each(Arrival::limit_starts);
        }
        self
    }
}

impl Arrival {
    fn limit_starts(&mut self) {
        match self {
            Self::Start(policy) => limit_start(policy),
            Self::In(_, arrival) => arrival.limit_starts(),
            Self::Nothing | Self::Exit(..) | Self::Terminate(_) | Self::Restart(_) | Self::Delete(_) | Self::Stop => {}
        }
    }
}

fn limit_start(policy: &mut Policy) {
    if policy.kind == ChildKind::Worker {
        policy.start_timeout.get_or_insert(WORKER_START_TIMEOUT);
    }
}

/// The runtime's timers fire at whole milliseconds.
fn tick(at: Duration) -> Duration {
    Duration::from_millis(u64::try_from(at.as_nanos().div_ceil(1_000_000)).expect("short"))
}

fn ending_text(ending: &Ending) -> String {
    match ending {
        Ending::Stopped => "stopped".to_owned(),
        Ending::Intensity { child, reason } => format!("gave up after {child}: {reason}"),
        Ending::AutoShutdown { child, reason } => format!("shut down after {child}: {reason}"),
        Ending::StartFailed { child, reason } => format!("child {child} failed to start: {reason}"),
    }
}

/// What a supervisor's parent hears of its end.
fn reason_of(path: &str, ending: &Ending) -> ExitReason {
    let supervisor = ChildPath::try_from(path).expect("valid");
    match ending.clone() {
        Ending::Stopped => ExitReason::Shutdown { detail: None },
        Ending::Intensity { child, reason } => {
            ExitReason::Escalated(Box::new(Escalation { supervisor, child, reason }))
        }
        Ending::AutoShutdown { child, reason } => {
            ExitReason::Shutdown { detail: Some(format!("significant child {child} ended: {reason}")) }
        }
        Ending::StartFailed { child, reason } => ExitReason::ChildStartFailed { child, reason: Box::new(reason) },
    }
}
