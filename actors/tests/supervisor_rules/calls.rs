//! What `start_child` and its kin do and refuse, and what the questions answer.

use halm_actors::supervisor::core::CALLS_WAITING_MAX;
use halm_actors::supervisor::{
    AutoShutdown, Backoff, CallError, Change, ChildCount, ChildKind, ChildStanding, Event, ExitReason, Policy, Restart,
    Settings, SpecError, Strategy,
};

use crate::bench::{Bench, SECOND, boom, named, policy, settings};

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

/// `running`, `down`, `waiting` (for its restart), under one_for_one.
fn three() -> Bench {
    let backoff = Backoff { first: SECOND, max: SECOND, reset_after: SECOND };
    let children = [policy("running"), policy("down"), policy("waiting")];
    let mut bench = Bench::booted(Settings { backoff, ..settings(Strategy::OneForOne) }, &children);
    bench.call(0, Change::Terminate(named("down")));
    bench.exit("waiting", boom());
    bench.diary.clear();
    bench
}

/// A child that has died, which is seen to after the calls that `ask` makes.
fn dead_but_not_seen_to(ask: impl Fn(&mut Bench)) -> Vec<String> {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["stop b"];
    bench.call(0, Change::Terminate(named("b")));
    ask(&mut bench);
    bench.exit("a", boom());
    bench.diary.clear();
    bench.exit("b", ExitReason::Shutdown { detail: None });
    bench.diary().split_off(1)
}

fn refused(call: u64, refusal: &CallError) -> String {
    format!("reply {call} {refusal}")
}

#[test]
fn start_child_refuses_an_id_that_is_there() {
    let mut bench = three();
    bench.add(1, policy("running"));
    bench.add(2, policy("down"));
    bench.add(3, policy("waiting"));
    let expected = [
        refused(1, &CallError::AlreadyStarted(named("running"))),
        refused(2, &CallError::AlreadyPresent(named("down"))),
        refused(3, &CallError::AlreadyPresent(named("waiting"))),
    ];
    assert_eq!(bench.diary(), expected);
    let seen = dead_but_not_seen_to(|bench| bench.add(1, policy("a")));
    assert_eq!(seen, [refused(1, &CallError::AlreadyStarted(named("a"))), "restart a".into(), "start a".into()]);
}

#[test]
fn restart_child_starts_only_what_is_down() {
    let mut bench = three();
    bench.call(1, Change::Restart(named("running")));
    bench.call(2, Change::Restart(named("waiting")));
    bench.call(3, Change::Restart(named("unknown")));
    bench.call(4, Change::Restart(named("down")));
    let expected = [
        refused(1, &CallError::Running(named("running"))),
        refused(2, &CallError::Restarting(named("waiting"))),
        refused(3, &CallError::NotFound(named("unknown"))),
        "start down".to_owned(),
        "reply 4 Started".to_owned(),
    ];
    assert_eq!(bench.diary(), expected);
    let seen = dead_but_not_seen_to(|bench| bench.call(1, Change::Restart(named("a"))));
    assert_eq!(seen, [refused(1, &CallError::Running(named("a"))), "restart a".into(), "start a".into()]);
}

#[test]
fn delete_child_forgets_only_what_is_down() {
    let mut bench = three();
    bench.call(1, Change::Delete(named("running")));
    bench.call(2, Change::Delete(named("waiting")));
    bench.call(3, Change::Delete(named("unknown")));
    bench.call(4, Change::Delete(named("down")));
    let expected = [
        refused(1, &CallError::Running(named("running"))),
        refused(2, &CallError::Restarting(named("waiting"))),
        refused(3, &CallError::NotFound(named("unknown"))),
        "reply 4 Deleted".to_owned(),
    ];
    assert_eq!(bench.diary(), expected);
    assert!(!bench.has("down"));
    let seen = dead_but_not_seen_to(|bench| bench.call(1, Change::Delete(named("a"))));
    assert_eq!(seen, [refused(1, &CallError::Running(named("a"))), "restart a".into(), "start a".into()]);
}

#[test]
fn terminate_child_is_well_whatever_the_child_does() {
    let mut bench = three();
    bench.call(1, Change::Terminate(named("running")));
    bench.call(2, Change::Terminate(named("down")));
    bench.call(3, Change::Terminate(named("waiting")));
    bench.call(4, Change::Terminate(named("unknown")));
    let unknown = refused(4, &CallError::NotFound(named("unknown")));
    let expected = ["stop running", "reply 1 Terminated", "reply 2 Terminated", "reply 3 Terminated", &unknown];
    assert_eq!(bench.diary(), expected);
    bench.wait(SECOND * 10);
    for name in ["running", "down", "waiting"] {
        assert_eq!(bench.standing(name), ChildStanding::Stopped);
    }
    let seen = dead_but_not_seen_to(|bench| bench.call(1, Change::Terminate(named("a"))));
    assert_eq!(seen, ["was_stopping a", "reply 1 Terminated"]);
}

#[test]
fn a_terminated_temporary_child_is_forgotten() {
    let temporary = Policy { restart: Restart::Temporary, ..policy("a") };
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[temporary]);
    bench.call(1, Change::Terminate(named("a")));
    bench.call(2, Change::Restart(named("a")));
    bench.call(3, Change::Delete(named("a")));
    let gone = |call| refused(call, &CallError::NotFound(named("a")));
    assert_eq!(bench.diary(), ["stop a", "reply 1 Terminated", &gone(2), &gone(3)]);
}

#[test]
fn a_child_restarted_by_call_keeps_its_place_and_touches_nobody() {
    let mut bench = Bench::booted(settings(Strategy::OneForAll), &[policy("a"), policy("b"), policy("c")]);
    bench.call(1, Change::Terminate(named("b")));
    bench.call(2, Change::Restart(named("b")));
    assert_eq!(bench.diary(), ["stop b", "reply 1 Terminated", "start b", "reply 2 Started"]);
    bench.feed(Event::StopRequested);
    assert_eq!(bench.diary(), ["stop c", "stop b", "stop a"]);
}

#[test]
fn a_start_by_call_that_fails_adds_nothing() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a")]);
    bench.deaf = vec!["start b"];
    bench.add(1, policy("b"));
    bench.fail_start("b");
    let failed = CallError::StartFailed { child: named("b"), reason: boom() };
    assert_eq!(bench.diary(), ["start b", "refuse b", &refused(1, &failed)]);
    assert!(!bench.has("b"));
    assert_eq!(bench.ending, None);
}

#[test]
fn a_restart_by_call_that_fails_keeps_the_child_down() {
    let mut bench = three();
    bench.deaf = vec!["start down"];
    bench.call(1, Change::Restart(named("down")));
    bench.fail_start("down");
    let failed = CallError::StartFailed { child: named("down"), reason: boom() };
    assert_eq!(bench.diary(), ["start down", "refuse down", &refused(1, &failed)]);
    assert_eq!(bench.standing("down"), ChildStanding::Stopped);
    assert_eq!(bench.view("down").restarts, 0);
}

#[test]
fn start_child_checks_the_specification_first() {
    let significant = Policy { significant: true, restart: Restart::Transient, ..policy("running") };
    let mut bench = three();
    bench.add(1, significant.clone());
    let refusal = SpecError::SignificantWithoutAutoShutdown(named("running"));
    assert_eq!(bench.diary(), [format!("reply 1 {refusal}")]);

    let any = Settings { auto_shutdown: AutoShutdown::AnySignificant, ..settings(Strategy::OneForOne) };
    let mut bench = Bench::booted(any, &[]);
    bench.add(2, Policy { restart: Restart::Permanent, ..significant });
    assert_eq!(bench.diary(), [format!("reply 2 {}", SpecError::SignificantPermanent(named("running")))]);
}

#[test]
fn which_children_tells_each_childs_standing_in_start_order() {
    let bench = three();
    let views = bench.core.children(bench.now);
    let told: Vec<_> = views.iter().map(|view| (view.id.as_str(), view.kind, view.standing)).collect();
    let expected = [
        ("running", ChildKind::Worker, ChildStanding::Running),
        ("down", ChildKind::Worker, ChildStanding::Stopped),
        ("waiting", ChildKind::Worker, ChildStanding::BackingOff),
    ];
    assert_eq!(told, expected);
}

#[test]
fn count_children_counts_the_living_and_the_dead() {
    let backoff = Backoff { first: SECOND, max: SECOND, reset_after: SECOND };
    let pool = Policy { kind: ChildKind::Supervisor, ..policy("pool") };
    let children = [policy("a"), pool, policy("c")];
    let mut bench = Bench::booted(Settings { backoff, ..settings(Strategy::OneForOne) }, &children);
    assert_eq!(bench.core.count(), ChildCount { specs: 3, active: 3, supervisors: 1, workers: 2 });
    bench.exit("pool", boom());
    bench.call(1, Change::Terminate(named("c")));
    assert_eq!(bench.core.count(), ChildCount { specs: 3, active: 1, supervisors: 1, workers: 2 });
    bench.call(2, Change::Delete(named("c")));
    assert_eq!(bench.core.count(), ChildCount { specs: 2, active: 1, supervisors: 1, workers: 1 });
}

#[test]
fn a_dead_child_that_is_not_seen_to_yet_is_shown_as_waiting_and_not_as_active() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["stop b"];
    bench.call(1, Change::Terminate(named("b")));
    bench.exit("a", boom());
    assert_eq!((bench.standing("a"), bench.standing("b")), (ChildStanding::BackingOff, ChildStanding::Stopping));
    assert_eq!(bench.core.count(), ChildCount { specs: 2, active: 0, supervisors: 0, workers: 2 });
}

#[test]
fn more_calls_than_may_wait_are_refused() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a")]);
    bench.deaf = vec!["stop a"];
    let limit = u64::try_from(CALLS_WAITING_MAX).expect("small");
    for call in 0..=limit {
        bench.call(call, Change::Terminate(named("a")));
    }
    assert_eq!(bench.diary(), ["stop a"]);
    bench.call(limit + 1, Change::Terminate(named("a")));
    assert_eq!(bench.diary(), [refused(limit + 1, &CallError::Busy)]);
}
