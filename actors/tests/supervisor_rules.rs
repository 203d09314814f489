//! OTP's rules, one by one, on the core alone: every order is obeyed at once.

use std::collections::BTreeMap;
use std::time::Duration;

use halm_actors::supervisor::core::{Core, KILL_WAIT_MAX};
use halm_actors::supervisor::{
    Action, AutoShutdown, Backoff, CallError, CallId, Change, ChildId, ChildKey, ChildKind, ChildStanding, Effect,
    Ending, Event, ExitReason, Hook, Intensity, LAST_RESTARTS_MAX, Policy, Restart, RunId, Settings, Shutdown,
    SpecError, Strategy, TimerId,
};

const SECOND: Duration = Duration::from_secs(1);

/// A supervisor of obedient children `a`, `b`, … and its diary.
struct Bench {
    core: Core,
    now: Duration,
    names: BTreeMap<ChildKey, ChildId>,
    runs: BTreeMap<RunId, ChildKey>,
    timers: BTreeMap<TimerId, Duration>,
    /// Orders that nobody obeys, as `start a`.
    deaf: Vec<&'static str>,
    diary: Vec<String>,
    ending: Option<Ending>,
}

fn settings(strategy: Strategy) -> Settings {
    Settings {
        strategy,
        backoff: Backoff::NONE,
        intensity: Intensity { restarts_max: 3, period: SECOND * 5 },
        auto_shutdown: AutoShutdown::Never,
    }
}

fn policy(name: &str) -> Policy {
    Policy {
        id: ChildId::try_from(name).expect("a valid id"),
        restart: Restart::Permanent,
        significant: false,
        shutdown: Shutdown::Timeout(SECOND),
        kind: ChildKind::Worker,
        start_timeout: Some(SECOND),
    }
}

fn boom() -> ExitReason {
    ExitReason::Panicked { hook: Hook::Handle, message: "boom".to_owned() }
}

impl Bench {
    fn new(settings: Settings, policies: &[Policy]) -> Self {
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
    fn booted(settings: Settings, policies: &[Policy]) -> Self {
        let mut bench = Self::new(settings, policies);
        bench.feed(Event::Boot);
        assert_eq!(bench.diary.last().map(String::as_str), Some("booted"));
        bench.diary.clear();
        bench
    }

    fn feed(&mut self, event: Event) {
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
            Effect::Start { key, run, .. } => {
                self.runs.insert(*run, *key);
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

    fn exit(&mut self, name: &str, reason: ExitReason) {
        let run = self.view(name).run.expect("lives");
        self.feed(Event::ChildExited { run, reason });
    }

    fn call(&mut self, number: u64, change: Change) {
        self.feed(Event::Called { call: CallId(number), change });
    }

    fn wait(&mut self, wait: Duration) {
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

    fn view(&self, name: &str) -> halm_actors::supervisor::ChildView {
        let views = self.core.children(self.now);
        views.into_iter().find(|view| view.id.as_str() == name).expect("in the table")
    }

    fn standing(&self, name: &str) -> ChildStanding {
        self.view(name).standing
    }

    fn diary(&mut self) -> Vec<String> {
        std::mem::take(&mut self.diary)
    }
}

fn named(name: &str) -> ChildId {
    policy(name).id
}

#[test]
fn children_start_in_order_and_stop_in_reverse() {
    let mut bench = Bench::new(settings(Strategy::OneForOne), &[policy("a"), policy("b"), policy("c")]);
    bench.feed(Event::Boot);
    assert_eq!(bench.diary(), ["start a", "start b", "start c", "booted"]);
    bench.feed(Event::StopRequested);
    assert_eq!(bench.diary(), ["stop c", "stop b", "stop a"]);
    assert_eq!(bench.ending, Some(Ending::Stopped));
}

#[test]
fn a_stop_waits_for_each_child_before_the_next_and_kills_it_past_its_time() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["stop b"];
    bench.feed(Event::StopRequested);
    assert_eq!(bench.diary(), ["stop b"]);
    bench.wait(SECOND);
    assert_eq!(bench.diary(), ["kill b", "was_stopping b", "stop a"]);
}

#[test]
fn a_child_that_does_not_even_die_is_left_behind() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["stop b", "kill b"];
    bench.feed(Event::StopRequested);
    bench.wait(SECOND + KILL_WAIT_MAX);
    assert_eq!(bench.diary(), ["stop b", "kill b", "abandon b", "stop a"]);
    assert_eq!(bench.ending, Some(Ending::Stopped));
}

#[test]
fn brutal_kills_and_infinity_waits() {
    let brutal = Policy { shutdown: Shutdown::Brutal, ..policy("a") };
    let infinite = Policy { shutdown: Shutdown::Infinity, ..policy("b") };
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[brutal, infinite]);
    bench.deaf = vec!["stop b"];
    bench.feed(Event::StopRequested);
    bench.wait(SECOND * 10_000);
    assert_eq!(bench.diary(), ["stop b"]);
    bench.exit("b", ExitReason::Shutdown { detail: None });
    assert_eq!(bench.diary(), ["kill a"]);
}

#[test]
fn a_stop_while_a_start_hangs_cancels_the_start() {
    let mut bench = Bench::new(settings(Strategy::OneForOne), &[policy("a"), policy("b"), policy("c")]);
    bench.deaf = vec!["start b"];
    bench.feed(Event::Boot);
    bench.feed(Event::StopRequested);
    assert_eq!(bench.diary(), ["start a", "start b", "cancel b", "stop a"]);
    assert_eq!(bench.ending, Some(Ending::Stopped));
}

#[test]
fn a_start_that_succeeds_after_it_was_given_up_is_killed() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a")]);
    bench.deaf = vec!["start a", "cancel a"];
    bench.exit("a", boom());
    let run = bench.view("a").run.expect("starting");
    bench.wait(SECOND);
    bench.deaf.clear();
    bench.feed(Event::ChildStarted { run });
    assert_eq!(bench.diary(), ["restart a", "start a", "cancel a", "kill a", "restart a", "start a"]);
    assert_eq!(bench.standing("a"), ChildStanding::Running);
}

#[test]
fn a_first_child_that_fails_ends_the_start_and_stops_the_others() {
    let mut bench = Bench::new(settings(Strategy::OneForOne), &[policy("a"), policy("b"), policy("c")]);
    bench.deaf = vec!["start b"];
    bench.feed(Event::Boot);
    let run = bench.view("b").run.expect("starting");
    bench.feed(Event::ChildStartFailed { run, reason: boom() });
    assert_eq!(bench.diary(), ["start a", "start b", "abort_start b", "stop a"]);
    assert_eq!(bench.ending, Some(Ending::StartFailed { child: named("b"), reason: boom() }));
}

#[test]
fn each_restart_type_restarts_on_its_own_ends() {
    let shutdown = || ExitReason::Shutdown { detail: Some("scaled in".to_owned()) };
    for (restart, reason, restarted) in [
        (Restart::Permanent, ExitReason::Normal, true),
        (Restart::Permanent, shutdown(), true),
        (Restart::Permanent, boom(), true),
        (Restart::Transient, ExitReason::Normal, false),
        (Restart::Transient, shutdown(), false),
        (Restart::Transient, ExitReason::Killed, true),
        (Restart::Temporary, ExitReason::Normal, false),
        (Restart::Temporary, boom(), false),
    ] {
        let mut bench = Bench::booted(settings(Strategy::OneForOne), &[Policy { restart, ..policy("a") }]);
        bench.exit("a", reason.clone());
        let started = bench.diary().contains(&"start a".to_owned());
        assert_eq!(started, restarted, "{restart:?} after {reason}");
        let kept = !bench.core.children(bench.now).is_empty();
        assert_eq!(kept, restart != Restart::Temporary, "{restart:?} after {reason}");
    }
}

#[test]
fn one_for_one_touches_nobody_else() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b"), policy("c")]);
    bench.exit("b", boom());
    assert_eq!(bench.diary(), ["restart b", "start b"]);
}

#[test]
fn one_for_all_stops_all_in_reverse_and_forgets_the_temporary() {
    let temporary = Policy { restart: Restart::Temporary, ..policy("c") };
    let mut bench = Bench::booted(settings(Strategy::OneForAll), &[policy("a"), policy("b"), temporary, policy("d")]);
    bench.exit("b", boom());
    assert_eq!(bench.diary(), ["restart b", "stop d", "stop c", "stop a", "start a", "start b", "start d"]);
}

#[test]
fn rest_for_one_stops_the_later_ones_in_reverse() {
    let mut bench =
        Bench::booted(settings(Strategy::RestForOne), &[policy("a"), policy("b"), policy("c"), policy("d")]);
    bench.exit("b", boom());
    assert_eq!(bench.diary(), ["restart b", "stop d", "stop c", "start b", "start c", "start d"]);
}

#[test]
fn siblings_that_die_together_are_one_restart() {
    let mut bench = Bench::booted(settings(Strategy::OneForAll), &[policy("a"), policy("b"), policy("c")]);
    bench.deaf = vec!["stop c"];
    bench.exit("a", boom());
    bench.exit("b", boom());
    bench.exit("c", ExitReason::Shutdown { detail: None });
    let expected = ["restart a", "stop c", "was_stopping b", "start a", "start b", "start c"];
    assert_eq!(bench.diary(), expected);
}

#[test]
fn one_restart_too_many_ends_the_supervisor_with_its_cause() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    for _ in 0..3 {
        bench.exit("b", boom());
    }
    assert_eq!(bench.ending, None);
    bench.diary.clear();
    bench.exit("b", ExitReason::Killed);
    assert_eq!(bench.diary(), ["escalate b", "stop a"]);
    assert_eq!(bench.ending, Some(Ending::Intensity { child: named("b"), reason: ExitReason::Killed }));
}

#[test]
fn restarts_that_fail_count_too() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a")]);
    bench.deaf = vec!["start a"];
    bench.exit("a", boom());
    for _ in 0..3 {
        let run = bench.view("a").run.expect("starting");
        bench.feed(Event::ChildStartFailed { run, reason: boom() });
    }
    assert!(matches!(bench.ending, Some(Ending::Intensity { .. })), "{:?}", bench.ending);
}

#[test]
fn backoff_delays_a_restart_and_does_not_hide_a_crash_loop() {
    let backoff = Backoff { first: SECOND * 10, max: SECOND * 60, reset_after: SECOND * 600 };
    let mut bench = Bench::booted(Settings { backoff, ..settings(Strategy::OneForOne) }, &[policy("a")]);
    let mut waited = Duration::ZERO;
    for _ in 0..3 {
        bench.exit("a", boom());
        assert_eq!(bench.standing("a"), ChildStanding::BackingOff);
        let due = *bench.timers.values().next().expect("a restart is due");
        waited += due - bench.now;
        bench.wait(due - bench.now);
        assert_eq!(bench.standing("a"), ChildStanding::Running);
    }
    assert!(waited > SECOND * 5, "the seed must draw more than the period for this to mean anything");
    bench.exit("a", boom());
    assert!(matches!(bench.ending, Some(Ending::Intensity { .. })), "{waited:?} of back-off hid four crashes");
}

#[test]
fn a_quiet_time_resets_the_backoff() {
    let backoff = Backoff { first: SECOND, max: SECOND * 600, reset_after: SECOND * 60 };
    let bearing = Settings {
        backoff,
        intensity: Intensity { restarts_max: 100, period: SECOND },
        ..settings(Strategy::OneForOne)
    };
    let mut bench = Bench::booted(bearing, &[policy("a")]);
    let mut longest = |quiet: Duration| {
        let mut longest = Duration::ZERO;
        bench.wait(SECOND * 60);
        for _ in 0..8 {
            bench.exit("a", boom());
            let due = *bench.timers.values().next().expect("a restart is due");
            longest = longest.max(due - bench.now);
            bench.wait(due - bench.now + quiet);
        }
        longest
    };
    assert!(longest(SECOND) > SECOND * 2, "eight crashes in a row did not raise the delay");
    assert!(longest(SECOND * 60) <= SECOND, "a quiet minute did not reset the delay");
}

#[test]
fn a_stop_during_backoff_ends_it() {
    let backoff = Backoff { first: SECOND, max: SECOND, reset_after: SECOND };
    let mut bench = Bench::booted(Settings { backoff, ..settings(Strategy::RestForOne) }, &[policy("a"), policy("b")]);
    bench.exit("a", boom());
    bench.call(1, Change::Terminate(named("a")));
    assert_eq!(bench.diary(), ["restart a", "stop b", "reply 1 Terminated"]);
    bench.wait(SECOND * 10);
    assert_eq!(bench.diary(), Vec::<String>::new());
    assert_eq!(bench.standing("a"), ChildStanding::Stopped);
    bench.feed(Event::StopRequested);
    assert_eq!(bench.ending, Some(Ending::Stopped));
}

#[test]
fn auto_shutdown_looks_at_significant_children_that_end_by_themselves() {
    let significant = |name, restart| Policy { significant: true, restart, ..policy(name) };
    let children = [significant("a", Restart::Transient), significant("b", Restart::Temporary), policy("c")];
    let any = Settings { auto_shutdown: AutoShutdown::AnySignificant, ..settings(Strategy::OneForOne) };
    let all = Settings { auto_shutdown: AutoShutdown::AllSignificant, ..settings(Strategy::OneForOne) };

    let mut bench = Bench::booted(any, &children);
    bench.exit("a", boom());
    assert_eq!(bench.ending, None, "a was restarted");
    bench.call(1, Change::Terminate(named("a")));
    assert_eq!(bench.ending, None, "a did not end by itself");
    bench.exit("b", boom());
    assert_eq!(bench.ending, Some(Ending::AutoShutdown { child: named("b"), reason: boom() }));

    let mut bench = Bench::booted(all, &children);
    bench.exit("b", ExitReason::Normal);
    assert_eq!(bench.ending, None, "a still runs");
    bench.exit("a", ExitReason::Normal);
    assert_eq!(bench.ending, Some(Ending::AutoShutdown { child: named("a"), reason: ExitReason::Normal }));
}

#[test]
fn calls_wait_for_the_operation_under_way_and_are_answered_in_order() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["stop a"];
    bench.call(1, Change::Terminate(named("a")));
    bench.call(2, Change::Restart(named("a")));
    bench.call(3, Change::Delete(named("b")));
    assert_eq!(bench.diary(), ["stop a"]);
    bench.exit("a", ExitReason::Shutdown { detail: None });
    let refusal = CallError::Running(named("b"));
    let expected = ["reply 1 Terminated", "start a", "reply 2 Started", &format!("reply 3 {refusal}")];
    assert_eq!(bench.diary(), expected);
}

#[test]
fn dynamic_children_stop_all_at_once_and_are_forgotten() {
    let mut bench = Bench::booted(settings(Strategy::Dynamic), &[policy("template")]);
    for number in 1..=3 {
        let name = number.to_string();
        bench.names.insert(ChildKey(number), named(&name));
        bench.call(number, Change::Start { key: ChildKey(number), policy: policy(&name) });
    }
    bench.call(4, Change::Delete(named("1")));
    bench.call(5, Change::Terminate(named("1")));
    bench.deaf = vec!["stop 2", "stop 3"];
    bench.diary.clear();
    bench.feed(Event::StopRequested);
    assert_eq!(bench.diary(), ["stop 3", "stop 2"]);
    bench.exit("2", ExitReason::Shutdown { detail: None });
    bench.exit("3", ExitReason::Shutdown { detail: None });
    assert_eq!(bench.ending, Some(Ending::Stopped));
}

#[test]
fn the_last_restarts_keep_their_reasons() {
    let bearing =
        Settings { intensity: Intensity { restarts_max: 100, period: SECOND }, ..settings(Strategy::OneForOne) };
    let mut bench = Bench::booted(bearing, &[policy("a")]);
    for number in 0..20 {
        bench.exit("a", ExitReason::Stopped { reason: number.to_string() });
    }
    let kept = bench.view("a").last_restarts;
    assert_eq!(kept.len(), LAST_RESTARTS_MAX);
    assert_eq!(kept.last().map(|restart| restart.reason.to_string()), Some("stopped: 19".to_owned()));
}

#[test]
fn what_otp_refuses_is_refused() {
    let check = |settings: Settings, policies: &[Policy]| settings.check(policies);
    let any = Settings { auto_shutdown: AutoShutdown::AnySignificant, ..settings(Strategy::OneForOne) };
    let significant = Policy { significant: true, ..policy("a") };
    let transient = Policy { restart: Restart::Transient, ..significant.clone() };
    let no_period = Settings { intensity: Intensity { restarts_max: 1, period: Duration::ZERO }, ..any };
    assert_eq!(check(any, &[policy("a"), policy("a")]), Err(SpecError::DuplicateId(named("a"))));
    assert_eq!(check(any, &[significant]), Err(SpecError::SignificantPermanent(named("a"))));
    let quiet = settings(Strategy::OneForOne);
    assert_eq!(
        check(quiet, std::slice::from_ref(&transient)),
        Err(SpecError::SignificantWithoutAutoShutdown(named("a")))
    );
    assert_eq!(check(no_period, &[]), Err(SpecError::ZeroPeriod));
    assert_eq!(check(settings(Strategy::Dynamic), &[]), Err(SpecError::Template(0)));
    assert_eq!(check(any, &[transient]), Ok(()));
    assert_eq!(Action::Restart { after: SECOND }.name(), "restart");
}
