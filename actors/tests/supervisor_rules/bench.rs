//! A supervisor's core and children that obey at once, for tests of one rule each.

use std::collections::BTreeMap;
use std::time::Duration;

use halm_actors::supervisor::core::Core;
use halm_actors::supervisor::{
    AutoShutdown, Backoff, CallId, Change, ChildId, ChildKey, ChildKind, ChildStanding, ChildView, Effect, Ending,
    Event, ExitReason, Hook, Intensity, Policy, Restart, RunId, Settings, Shutdown, Strategy, TimerId,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A supervisor of obedient children `a`, `b`, … and its diary.
pub(crate) struct Bench {
    pub(crate) core: Core,
    pub(crate) now: Duration,
    pub(crate) names: BTreeMap<ChildKey, ChildId>,
    runs: BTreeMap<RunId, ChildKey>,
    pub(crate) timers: BTreeMap<TimerId, Duration>,
    /// Orders that nobody obeys, as `start a`.
    pub(crate) deaf: Vec<&'static str>,
    pub(crate) diary: Vec<String>,
    pub(crate) ending: Option<Ending>,
}

pub(crate) fn settings(strategy: Strategy) -> Settings {
    Settings {
        strategy,
        backoff: Backoff::NONE,
        intensity: Intensity { restarts_max: 3, period: SECOND * 5 },
        auto_shutdown: AutoShutdown::Never,
    }
}

pub(crate) fn policy(name: &str) -> Policy {
    Policy {
        id: ChildId::try_from(name).expect("a valid id"),
        restart: Restart::Permanent,
        significant: false,
        shutdown: Shutdown::Timeout(SECOND),
        kind: ChildKind::Worker,
        start_timeout: Some(SECOND),
    }
}

pub(crate) fn boom() -> ExitReason {
    ExitReason::Panicked { hook: Hook::Handle, message: "boom".to_owned() }
}

impl Bench {
    pub(crate) fn new(settings: Settings, policies: &[Policy]) -> Self {
        let children: Vec<(ChildKey, Policy)> = (0..).map(ChildKey).zip(policies.iter().cloned()).collect();
        let names = children.iter().map(|(key, policy)| (*key, policy.id.clone())).collect();
        Self {
            core: Core::new(settings, children, 1),
            now: Duration::ZERO,
            names,
            runs: BTreeMap::new(),
            timers: BTreeMap::new(),
            deaf: Vec::new(),
            diary: Vec::new(),
            ending: None,
        }
    }

    /// Booted, with an empty diary.
    pub(crate) fn booted(settings: Settings, policies: &[Policy]) -> Self {
        let mut bench = Self::new(settings, policies);
        bench.feed(Event::Boot);
        assert_eq!(bench.diary.last().map(String::as_str), Some("booted"));
        bench.diary.clear();
        bench
    }

    pub(crate) fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let effects = self.core.handle(events.remove(0), self.now);
            for effect in effects {
                events.extend(self.obey(effect));
            }
        }
    }

    fn obey(&mut self, effect: Effect) -> Option<Event> {
        let (verb, run) = match &effect {
            Effect::Start { run } => {
                self.runs.insert(*run, run.child());
                ("start", *run)
            }
            Effect::CancelStart { run } => ("cancel", *run),
            Effect::Stop { run } => ("stop", *run),
            Effect::Kill { run } => ("kill", *run),
            Effect::SetTimer { timer, after } => {
                self.timers.insert(*timer, self.now + *after);
                return None;
            }
            Effect::CancelTimer { timer } => {
                self.timers.remove(timer);
                return None;
            }
            Effect::Reply { call, answer } => {
                let answer = answer.as_ref().map_or_else(ToString::to_string, |answer| format!("{answer:?}"));
                self.diary.push(format!("reply {} {answer}", call.0));
                return None;
            }
            Effect::Report(report) => {
                self.diary.push(format!("{} {}", report.action.name(), report.child));
                return None;
            }
            Effect::Booted => {
                self.diary.push("booted".to_owned());
                return None;
            }
            Effect::Terminate { ending } => {
                self.ending = Some(ending.clone());
                return None;
            }
            Effect::Forget { .. } | Effect::Abandon { .. } => return None,
        };
        let line = format!("{verb} {}", self.names[&self.runs[&run]]);
        let deaf = self.deaf.contains(&line.as_str());
        self.diary.push(line);
        if deaf {
            return None;
        }
        Some(match effect {
            Effect::Start { .. } => Event::ChildStarted { run },
            Effect::CancelStart { .. } => Event::ChildStartFailed { run, reason: ExitReason::Cancelled },
            Effect::Kill { .. } => Event::ChildExited { run, reason: ExitReason::Killed },
            _ => Event::ChildExited { run, reason: ExitReason::Shutdown { detail: None } },
        })
    }

    pub(crate) fn exit(&mut self, name: &str, reason: ExitReason) {
        let run = self.view(name).run.expect("lives");
        self.feed(Event::ChildExited { run, reason });
    }

    /// The start under way fails.
    pub(crate) fn fail_start(&mut self, name: &str) {
        let run = self.view(name).run.expect("starting");
        self.feed(Event::ChildStartFailed { run, reason: boom() });
    }

    /// Somebody adds a child, with a call of this number.
    pub(crate) fn add(&mut self, number: u64, policy: Policy) {
        let key = ChildKey(1000 + number);
        self.names.insert(key, policy.id.clone());
        self.call(number, Change::Start { key, policy });
    }

    pub(crate) fn call(&mut self, number: u64, change: Change) {
        self.feed(Event::Called { call: CallId(number), change });
    }

    pub(crate) fn wait(&mut self, wait: Duration) {
        let until = self.now + wait;
        while let Some((timer, due)) = self.timers.iter().map(|(timer, due)| (*timer, *due)).min_by_key(|(_, due)| *due)
        {
            if due > until {
                break;
            }
            self.timers.remove(&timer);
            self.now = due;
            self.feed(Event::TimerFired { timer });
        }
        self.now = until;
    }

    pub(crate) fn view(&self, name: &str) -> ChildView {
        let views = self.core.children(self.now);
        views.into_iter().find(|view| view.id.as_str() == name).expect("in the table")
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.core.children(self.now).iter().any(|view| view.id.as_str() == name)
    }

    /// Until the only restart that waits is due.
    pub(crate) fn until_restart(&self) -> Duration {
        *self.timers.values().next().expect("a restart is due") - self.now
    }

    pub(crate) fn standing(&self, name: &str) -> ChildStanding {
        self.view(name).standing
    }

    pub(crate) fn diary(&mut self) -> Vec<String> {
        std::mem::take(&mut self.diary)
    }
}

pub(crate) fn named(name: &str) -> ChildId {
    policy(name).id
}
