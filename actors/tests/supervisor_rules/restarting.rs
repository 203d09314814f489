//! Which end restarts whom.

use halm_actors::supervisor::{
    CallError, Change, ChildKind, ChildPath, ChildStanding, Escalation, Event, ExitReason, Intensity,
    LAST_RESTARTS_MAX, Policy, Restart, Settings, Shutdown, Strategy,
};

use crate::bench::{Bench, SECOND, boom, named, policy, settings};

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
fn each_end_is_reported_or_not_by_its_restart_type() {
    for (restart, reason, line) in [
        (Restart::Permanent, ExitReason::Normal, Some("restart a")),
        (Restart::Permanent, boom(), Some("restart a")),
        (Restart::Transient, ExitReason::Normal, None),
        (Restart::Transient, ExitReason::Shutdown { detail: None }, None),
        (Restart::Transient, boom(), Some("restart a")),
        (Restart::Temporary, ExitReason::Normal, None),
        (Restart::Temporary, boom(), Some("forget a")),
    ] {
        let mut bench = Bench::booted(settings(Strategy::OneForOne), &[Policy { restart, ..policy("a") }]);
        bench.exit("a", reason.clone());
        assert_eq!(bench.diary().first().map(String::as_str), line, "{restart:?} after {reason}");
    }
}

#[test]
fn an_end_that_asks_for_no_restart_touches_nobody() {
    let transient = Policy { restart: Restart::Transient, ..policy("b") };
    let temporary = Policy { restart: Restart::Temporary, ..policy("c") };
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let children = [policy("a"), transient.clone(), temporary.clone(), policy("d")];
        let mut bench = Bench::booted(settings(strategy), &children);
        bench.exit("b", ExitReason::Normal);
        bench.exit("c", boom());
        assert_eq!(bench.diary(), ["forget c"], "{strategy:?}");
        assert_eq!(bench.standing("b"), ChildStanding::Stopped);
        assert!(!bench.has("c"));
    }
}

#[test]
fn a_group_restart_starts_those_too_that_were_down_before() {
    let transient = Policy { restart: Restart::Transient, ..policy("b") };
    let mut bench = Bench::booted(settings(Strategy::OneForAll), &[policy("a"), transient, policy("c")]);
    bench.exit("b", ExitReason::Normal);
    bench.call(1, Change::Terminate(named("c")));
    bench.diary.clear();
    bench.exit("a", boom());
    assert_eq!(bench.diary(), ["restart a", "start a", "start b", "start c"]);
}

#[test]
fn in_rest_for_one_a_restart_that_fails_goes_on_from_the_child_that_failed() {
    let children = [policy("a"), policy("b"), policy("c"), policy("d")];
    let mut bench = Bench::booted(settings(Strategy::RestForOne), &children);
    bench.deaf = vec!["start c"];
    bench.exit("b", boom());
    assert_eq!(bench.diary(), ["restart b", "stop d", "stop c", "start b", "start c"]);
    bench.deaf.clear();
    bench.fail_start("c");
    assert_eq!(bench.diary(), ["restart c", "start c", "start d"]);
}

#[test]
fn in_one_for_all_a_restart_that_fails_begins_anew_with_all() {
    let mut bench = Bench::booted(settings(Strategy::OneForAll), &[policy("a"), policy("b"), policy("c")]);
    bench.deaf = vec!["start b"];
    bench.exit("a", boom());
    bench.diary.clear();
    bench.deaf.clear();
    bench.fail_start("b");
    assert_eq!(bench.diary(), ["restart b", "stop a", "start a", "start b", "start c"]);
}

#[test]
fn a_restart_that_failed_is_tried_again_after_what_already_waits() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["start a"];
    bench.exit("a", boom());
    bench.call(1, Change::Restart(named("b")));
    bench.call(2, Change::Restart(named("a")));
    bench.diary.clear();
    bench.deaf.clear();
    bench.fail_start("a");
    let (running, restarting) = (CallError::Running(named("b")), CallError::Restarting(named("a")));
    let expected = ["restart a", &format!("reply 1 {running}"), &format!("reply 2 {restarting}"), "start a"];
    assert_eq!(bench.diary(), expected);
}

#[test]
fn terminating_a_child_whose_restart_failed_leaves_its_group_down() {
    let mut bench = Bench::booted(settings(Strategy::RestForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["start a"];
    bench.exit("a", boom());
    bench.call(1, Change::Terminate(named("a")));
    bench.diary.clear();
    bench.fail_start("a");
    assert_eq!(bench.diary(), ["restart a", "reply 1 Terminated"]);
    assert_eq!((bench.standing("a"), bench.standing("b")), (ChildStanding::Stopped, ChildStanding::Stopped));
    bench.call(2, Change::Restart(named("b")));
    assert_eq!(bench.diary(), ["start b", "reply 2 Started"]);
}

#[test]
fn children_added_later_are_the_last_in_every_order() {
    let mut bench = Bench::booted(settings(Strategy::RestForOne), &[policy("a"), policy("b")]);
    bench.add(1, policy("c"));
    assert_eq!(bench.diary(), ["start c", "reply 1 Started"]);
    bench.exit("b", boom());
    assert_eq!(bench.diary(), ["restart b", "stop c", "start b", "start c"]);
    bench.feed(Event::StopRequested);
    assert_eq!(bench.diary(), ["stop c", "stop b", "stop a"]);
}

#[test]
fn ends_are_seen_to_in_the_order_in_which_they_came() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b"), policy("c")]);
    bench.deaf = vec!["stop c"];
    bench.call(1, Change::Terminate(named("c")));
    bench.exit("b", boom());
    bench.exit("a", boom());
    bench.exit("c", ExitReason::Shutdown { detail: None });
    let expected = ["stop c", "reply 1 Terminated", "restart b", "start b", "restart a", "start a"];
    assert_eq!(bench.diary(), expected);
}

#[test]
fn an_end_while_its_group_is_being_restarted_is_a_restart_of_its_own() {
    let mut bench = Bench::booted(settings(Strategy::OneForAll), &[policy("a"), policy("b")]);
    bench.deaf = vec!["start b"];
    bench.exit("b", boom());
    bench.exit("a", boom());
    assert_eq!(bench.diary(), ["restart b", "stop a", "start a", "start b"]);
    let run = bench.view("b").run.expect("starting");
    bench.deaf.clear();
    bench.feed(Event::ChildStarted { run });
    assert_eq!(bench.diary(), ["restart a", "stop b", "start a", "start b"]);
}

#[test]
fn a_supervisor_that_gave_up_ended_by_shutdown() {
    let escalation =
        Escalation { supervisor: ChildPath::try_from("root/pool").expect("a path"), child: named("w"), reason: boom() };
    let escalated = ExitReason::Escalated(Box::new(escalation));
    for (restart, restarted) in [(Restart::Permanent, true), (Restart::Transient, false), (Restart::Temporary, false)] {
        let pool = Policy { restart, kind: ChildKind::Supervisor, shutdown: Shutdown::Infinity, ..policy("pool") };
        let mut bench = Bench::booted(settings(Strategy::OneForOne), &[pool]);
        bench.exit("pool", escalated.clone());
        let expected: &[&str] = if restarted { &["restart pool", "start pool"] } else { &[] };
        assert_eq!(bench.diary(), expected, "{restart:?}");
        assert_eq!(bench.ending, None);
    }
}
