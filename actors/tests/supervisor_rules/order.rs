//! How children are started and stopped.

use halm_actors::supervisor::core::KILL_WAIT_MAX;
use halm_actors::supervisor::{
    CallError, Change, ChildStanding, Ending, Event, ExitReason, Policy, Restart, Shutdown, Strategy,
};

use crate::bench::{Bench, SECOND, boom, named, policy, settings};

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
fn what_an_abandoned_incarnation_still_tells_is_not_about_the_next() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a")]);
    bench.deaf = vec!["start a", "cancel a"];
    bench.exit("a", boom());
    let abandoned = bench.view("a").run.expect("starting");
    bench.wait(SECOND + KILL_WAIT_MAX);
    let next = bench.view("a").run.expect("starting again");
    assert_ne!(abandoned, next);
    bench.diary();
    bench.feed(Event::ChildStarted { run: abandoned });
    bench.feed(Event::ChildStartFailed { run: abandoned, reason: boom() });
    assert_eq!(bench.diary(), ["kill a"]);
    assert_eq!((bench.standing("a"), bench.view("a").run), (ChildStanding::Starting, Some(next)));
}

#[test]
fn a_timer_that_fires_after_it_was_cancelled_is_not_taken_for_the_next() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a")]);
    bench.deaf = vec!["start a", "stop a"];
    bench.exit("a", boom());
    let cancelled = *bench.timers.keys().next().expect("the start's");
    let run = bench.view("a").run.expect("starting");
    bench.feed(Event::ChildStarted { run });
    bench.call(0, Change::Terminate(named("a")));
    bench.diary();
    bench.feed(Event::TimerFired { timer: cancelled });
    assert_eq!(bench.diary(), Vec::<String>::new());
    assert_eq!(bench.standing("a"), ChildStanding::Stopping);
}

#[test]
fn a_child_that_ends_during_the_boot_is_seen_to_after_it() {
    let mut bench = Bench::new(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["start b"];
    bench.feed(Event::Boot);
    bench.exit("a", boom());
    assert_eq!(bench.diary(), ["start a", "start b"]);
    let run = bench.view("b").run.expect("starting");
    bench.feed(Event::ChildStarted { run });
    assert_eq!(bench.diary(), ["booted", "restart a", "start a"]);
}

#[test]
fn an_end_other_than_the_one_asked_for_is_reported() {
    let detailed = || ExitReason::Shutdown { detail: Some("scaled in".to_owned()) };
    let plain = || ExitReason::Shutdown { detail: None };
    let patient = Shutdown::Timeout(SECOND);
    for (shutdown, restart, reason, reported) in [
        (patient, Restart::Permanent, plain(), false),
        (patient, Restart::Permanent, detailed(), true),
        (patient, Restart::Permanent, ExitReason::Normal, true),
        (patient, Restart::Permanent, ExitReason::Killed, true),
        (patient, Restart::Transient, detailed(), false),
        (patient, Restart::Transient, ExitReason::Normal, false),
        (patient, Restart::Temporary, ExitReason::Normal, false),
        (patient, Restart::Temporary, boom(), true),
        (Shutdown::Infinity, Restart::Permanent, boom(), true),
        (Shutdown::Brutal, Restart::Permanent, ExitReason::Killed, false),
        (Shutdown::Brutal, Restart::Permanent, plain(), true),
        (Shutdown::Brutal, Restart::Permanent, ExitReason::Normal, true),
        (Shutdown::Brutal, Restart::Transient, plain(), false),
        (Shutdown::Brutal, Restart::Transient, detailed(), false),
        (Shutdown::Brutal, Restart::Temporary, ExitReason::Normal, false),
        (Shutdown::Brutal, Restart::Transient, boom(), true),
    ] {
        let child = Policy { shutdown, restart, ..policy("a") };
        let mut bench = Bench::booted(settings(Strategy::OneForOne), &[child]);
        bench.deaf = vec!["stop a", "kill a"];
        bench.feed(Event::StopRequested);
        bench.exit("a", reason.clone());
        let told = bench.diary().contains(&"was_stopping a".to_owned());
        assert_eq!(told, reported, "{restart:?}, {shutdown:?}, ended with {reason}");
        assert_eq!(bench.ending, Some(Ending::Stopped));
    }
}

#[test]
fn a_request_to_stop_takes_over_and_refuses_what_waits() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    bench.deaf = vec!["stop a"];
    bench.call(1, Change::Terminate(named("a")));
    bench.call(2, Change::Restart(named("a")));
    bench.feed(Event::StopRequested);
    let refused = |call| format!("reply {call} {}", CallError::ShuttingDown);
    assert_eq!(bench.diary(), ["stop a", &refused(1), &refused(2), "stop b"]);
    assert_eq!(bench.ending, None, "a was not waited for");
    bench.call(3, Change::Restart(named("a")));
    assert_eq!(bench.diary(), [refused(3)]);
    bench.exit("a", ExitReason::Shutdown { detail: None });
    assert_eq!(bench.ending, Some(Ending::Stopped));
}
