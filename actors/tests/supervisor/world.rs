//! A performer without actors: does what the core orders, as the script says its children behave, and writes it down.
//! It also checks what must hold whatever the script: one living incarnation of a child, one start at a time, nothing
//! after the end, nobody alive at the end, every call answered once, and no more restarts than the intensity allows.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use halm_actors::supervisor::core::Core;
use halm_actors::supervisor::{
    Action, CallId, Change, ChildId, ChildKey, ChildStanding, Effect, Ending, Event, ExitReason, Hook, Policy, RunId,
    Shutdown, Strategy, TimerId,
};

use crate::script::{Arrival, OnStart, OnStop, Script};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Cancelled,
    Running,
    Asked,
    Killed,
}

#[derive(Clone, Debug)]
struct Run {
    key: ChildKey,
    phase: Phase,
    start: OnStart,
    stop: OnStop,
}

pub(crate) struct World<'a> {
    script: &'a Script,
    pub(crate) core: Core,
    now: Duration,
    pub(crate) log: Vec<String>,
    policies: HashMap<ChildKey, Policy>,
    runs: BTreeMap<RunId, Run>,
    timers: BTreeMap<TimerId, Duration>,
    /// Orders that have not been obeyed yet.
    outstanding: VecDeque<RunId>,
    arrivals: VecDeque<Arrival>,
    orders: usize,
    keys: u64,
    calls: u64,
    unanswered: HashSet<CallId>,
    restarts: Vec<Duration>,
    ended: bool,
}

impl<'a> World<'a> {
    pub(crate) fn new(script: &'a Script) -> Self {
        let children: Vec<(ChildKey, Policy)> = (0..).map(ChildKey).zip(script.children.iter().cloned()).collect();
        Self {
            script,
            core: Core::new(script.settings, children.clone(), script.seed),
            now: Duration::ZERO,
            log: Vec::new(),
            keys: u64::try_from(children.len()).expect("few"),
            policies: children.into_iter().collect(),
            runs: BTreeMap::new(),
            timers: BTreeMap::new(),
            outstanding: VecDeque::new(),
            arrivals: VecDeque::new(),
            orders: 0,
            calls: 0,
            unanswered: HashSet::new(),
            restarts: Vec::new(),
            ended: false,
        }
    }

    pub(crate) fn boot(&mut self) {
        self.feed(Event::Boot);
        self.settle();
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, wait: Duration) {
        let until = self.now + wait;
        while let Some((timer, due)) = self.next_timer().filter(|(_, due)| *due <= until) {
            self.fire(timer, due);
            self.settle();
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn arrive(&mut self, arrival: Arrival) {
        self.arrivals.push_back(arrival);
        self.settle();
    }

    /// The table, as both sides can tell it.
    pub(crate) fn table(&self) -> Vec<String> {
        let shown = |standing| match standing {
            ChildStanding::Starting => "starting",
            ChildStanding::Running => "running",
            ChildStanding::BackingOff => "restarting",
            ChildStanding::Stopping => "stopping",
            ChildStanding::Stopped => "stopped",
        };
        let views = self.core.children(self.now);
        views.iter().map(|view| format!("{} {} {}", view.id, shown(view.standing), view.restarts)).collect()
    }

    /// Answers orders until none is outstanding.
    fn settle(&mut self) {
        loop {
            if self.ended {
                self.arrivals.clear();
                return;
            }
            if let Some(arrival) = self.arrivals.pop_front() {
                self.take_arrival(arrival);
            } else if let Some(run) = self.outstanding.front().copied() {
                self.step(run);
            } else {
                return self.check_timers();
            }
        }
    }

    /// When nothing is under way, the only timers are back-offs.
    fn check_timers(&self) {
        let views = self.core.children(self.now);
        let waiting = views.iter().filter(|view| view.standing == ChildStanding::BackingOff).count();
        assert!(self.timers.len() <= waiting, "timers left over: {:?} in {:?}", self.timers, self.log);
    }

    /// One small step of the child that got the oldest order.
    fn step(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id).cloned() else {
            self.outstanding.pop_front();
            return;
        };
        let policy = &self.policies[&run.key];
        match run.phase {
            Phase::Starting if run.start == OnStart::Fails => {
                let reason = ExitReason::Failed { hook: Hook::PreStart, message: "no luck".to_owned() };
                self.start_fails(id, reason);
            }
            Phase::Starting
                if matches!(run.start, OnStart::Succeeds | OnStart::DiesAtOnce) || policy.start_timeout.is_none() =>
            {
                self.outstanding.pop_front();
                self.starts(id);
            }
            Phase::Asked if run.stop == OnStop::Panics => {
                let reason = ExitReason::Panicked { hook: Hook::PostStop, message: "bang".to_owned() };
                self.ends(id, reason);
            }
            Phase::Asked if run.stop == OnStop::Obeys || policy.shutdown == Shutdown::Infinity => {
                self.ends(id, ExitReason::Shutdown { detail: None });
            }
            Phase::Cancelled if run.start == OnStart::SucceedsLate => self.starts(id),
            Phase::Cancelled if run.start != OnStart::HangsForGood => self.start_fails(id, ExitReason::Cancelled),
            Phase::Killed if run.stop != OnStop::Unkillable => self.ends(id, ExitReason::Killed),
            Phase::Starting | Phase::Cancelled | Phase::Asked | Phase::Killed => {
                let (timer, due) = self.next_timer().expect("what does not end by itself has a timer");
                self.fire(timer, due);
            }
            Phase::Running => unreachable!("a child that runs has no order outstanding"),
        }
    }

    fn starts(&mut self, id: RunId) {
        let run = self.runs.get_mut(&id).expect("living");
        let name = self.policies[&run.key].id.clone();
        run.phase = Phase::Running;
        self.log.push(format!("up {name}"));
        self.feed(Event::ChildStarted { run: id });
    }

    fn start_fails(&mut self, id: RunId, reason: ExitReason) {
        self.outstanding.pop_front();
        let run = self.runs.remove(&id).expect("living");
        self.log.push(format!("fail {}", self.policies[&run.key].id));
        self.feed(Event::ChildStartFailed { run: id, reason });
    }

    fn ends(&mut self, id: RunId, reason: ExitReason) {
        self.outstanding.retain(|outstanding| *outstanding != id);
        let run = self.runs.remove(&id).expect("living");
        self.log.push(format!("down {}", self.policies[&run.key].id));
        self.feed(Event::ChildExited { run: id, reason });
    }

    fn next_timer(&self) -> Option<(TimerId, Duration)> {
        self.timers.iter().min_by_key(|(timer, due)| (**due, **timer)).map(|(timer, due)| (*timer, *due))
    }

    fn fire(&mut self, timer: TimerId, due: Duration) {
        self.now = self.now.max(due);
        self.timers.remove(&timer);
        self.feed(Event::TimerFired { timer });
    }

    fn take_arrival(&mut self, arrival: Arrival) {
        let change = match arrival {
            Arrival::Nothing => return,
            Arrival::Stop => {
                self.log.push("stop requested".to_owned());
                return self.feed(Event::StopRequested);
            }
            Arrival::Exit(place, reason) => {
                let run = self.core.children(self.now).get(place).and_then(|view| view.run);
                let running = run.filter(|run| self.runs.get(run).is_some_and(|run| run.phase == Phase::Running));
                if let Some(run) = running {
                    self.ends(run, reason);
                }
                return;
            }
            Arrival::Start(mut policy) => {
                let key = ChildKey(self.keys);
                if self.script.settings.strategy == Strategy::Dynamic {
                    let id = format!("{}", self.keys);
                    policy = self.script.children[0].clone();
                    policy.id = ChildId::try_from(id.as_str()).expect("a valid id");
                }
                self.keys += 1;
                self.policies.insert(key, policy.clone());
                Change::Start { key, policy }
            }
            Arrival::Terminate(id) => Change::Terminate(self.known(id)),
            Arrival::Restart(id) => Change::Restart(self.known(id)),
            Arrival::Delete(id) => Change::Delete(self.known(id)),
            Arrival::In(..) => unreachable!("there is one supervisor"),
        };
        let call = CallId(self.calls);
        self.calls += 1;
        self.unanswered.insert(call);
        self.feed(Event::Called { call, change });
    }

    /// For a dynamic supervisor, a child that may exist.
    fn known(&self, id: ChildId) -> ChildId {
        if self.script.settings.strategy != Strategy::Dynamic {
            return id;
        }
        let place = usize::from(id.as_str().as_bytes()[0] - b'a');
        self.core.children(self.now).get(place).map_or(id, |view| view.id.clone())
    }

    fn feed(&mut self, event: Event) {
        let had_ended = self.ended;
        let effects = self.core.handle(event, self.now);
        assert!(!had_ended || effects.is_empty(), "after the end: {effects:?}");
        for effect in effects {
            assert!(!self.ended, "after the end: {effect:?}");
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start { run } => {
                let key = run.child();
                assert!(self.runs.values().all(|run| run.key != key), "two incarnations of {key:?}");
                let starting = |run: &Run| matches!(run.phase, Phase::Starting);
                assert!(!self.runs.values().any(starting), "two starts at a time");
                let behaviour = self.order(run, &format!("start {}", self.policies[&key].id));
                let (start, stop) = (behaviour.start, behaviour.stop);
                self.runs.insert(run, Run { key, phase: Phase::Starting, start, stop });
            }
            Effect::CancelStart { run } => {
                let key = self.enter(run, Phase::Cancelled);
                self.log.push(format!("cancel {}", self.policies[&key].id));
            }
            Effect::Stop { run } => {
                let key = self.enter(run, Phase::Asked);
                let stop = self.order(run, &format!("ask {}", self.policies[&key].id)).stop;
                self.runs.get_mut(&run).expect("entered").stop = stop;
            }
            Effect::Kill { run } => self.kill(run),
            Effect::Abandon { run } => {
                self.runs.remove(&run).expect("only the living are abandoned");
            }
            Effect::SetTimer { timer, after } => {
                self.timers.insert(timer, self.now + after);
            }
            Effect::CancelTimer { timer } => {
                self.timers.remove(&timer);
            }
            Effect::Forget { .. } => {}
            Effect::Report(report) => {
                self.log.push(format!("report {} {} {}", report.child, report.action.name(), report.reason));
                match report.action {
                    Action::Restart { after } => {
                        self.log.push(format!("delay {} {after:?}", report.child));
                        self.check_intensity();
                    }
                    Action::Forget
                    | Action::WasStopping
                    | Action::Escalate
                    | Action::AbortStart
                    | Action::Refuse
                    | Action::Abandon => {}
                }
            }
            Effect::Reply { call, answer } => {
                assert!(self.unanswered.remove(&call), "{call:?} answered twice");
                self.log.push(format!(
                    "reply {} {}",
                    call.0,
                    answer.map_or_else(|e| e.to_string(), |a| format!("{a:?}"))
                ));
            }
            Effect::Booted => self.log.push("booted".to_owned()),
            Effect::Terminate { ending } => {
                assert!(self.runs.is_empty(), "alive at the end: {:?}", self.runs);
                assert!(self.unanswered.is_empty(), "unanswered at the end: {:?}", self.unanswered);
                self.ended = true;
                self.log.push(format!("end {}", ending_name(&ending)));
            }
        }
    }

    fn enter(&mut self, run: RunId, phase: Phase) -> ChildKey {
        let run = self.runs.get_mut(&run).expect("orders are for living children");
        run.phase = phase;
        run.key
    }

    fn kill(&mut self, id: RunId) {
        let run = &self.runs[&id];
        let name = self.policies[&run.key].id.clone();
        match run.phase {
            // The first order of a brutal stop.
            Phase::Running if !self.outstanding.contains(&id) => {
                let stop = self.order(id, &format!("kill {name}")).stop;
                self.runs.get_mut(&id).expect("living").stop = stop;
            }
            Phase::Starting | Phase::Cancelled | Phase::Running | Phase::Asked | Phase::Killed => {
                self.log.push(format!("kill {name}"));
            }
        }
        self.enter(id, Phase::Killed);
    }

    fn order(&mut self, run: RunId, line: &str) -> &'a crate::script::Behaviour {
        let behaviour = self.script.behaviour(self.orders);
        self.orders += 1;
        self.outstanding.push_back(run);
        self.arrivals.extend(behaviour.meanwhile.iter().cloned());
        self.log.push(line.to_owned());
        behaviour
    }

    /// No stretch of real time as long as the period holds more restarts than allowed.
    fn check_intensity(&mut self) {
        self.restarts.push(self.now);
        let intensity = self.script.settings.intensity;
        let recent = self.restarts.iter().filter(|at| **at + intensity.period >= self.now).count();
        assert!(recent <= usize::try_from(intensity.restarts_max).expect("few"), "restarts at {:?}", self.restarts);
    }
}

pub(crate) fn ending_name(ending: &Ending) -> String {
    match ending {
        Ending::Stopped => "stopped".to_owned(),
        Ending::Intensity { child, reason } => format!("intensity {child} {reason}"),
        Ending::AutoShutdown { child, reason } => format!("auto {child} {reason}"),
        Ending::StartFailed { child, reason } => format!("start {child} {reason}"),
    }
}
