//! How many restarts are borne, and how long they wait.

use std::time::Duration;

use halm_actors::supervisor::{
    Backoff, CallError, Change, ChildStanding, Ending, Event, ExitReason, Intensity, Settings, Strategy,
};

use crate::bench::{Bench, SECOND, boom, named, policy, settings};

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
fn an_end_attributed_to_something_else_is_restarted_and_not_counted() {
    let backoff = Backoff { first: SECOND, max: SECOND * 600, reset_after: SECOND * 600 };
    let mut bench = Bench::booted(Settings { backoff, ..settings(Strategy::OneForOne) }, &[policy("a")]);
    let attributed = || ExitReason::Attributed { to: "job 7".to_owned(), reason: Box::new(boom()) };
    for _ in 0..20 {
        bench.exit("a", attributed());
        let due = *bench.timers.values().next().expect("a restart is due");
        assert!(due - bench.now <= SECOND, "the back-off grew");
        bench.wait(due - bench.now);
        assert_eq!(bench.standing("a"), ChildStanding::Running);
    }
    for _ in 0..3 {
        bench.exit("a", boom());
        bench.wait(SECOND * 600);
    }
    assert_eq!(bench.ending, None, "the child's own ends were not its first");
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
fn restarts_of_all_children_count_together() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a"), policy("b")]);
    for name in ["a", "b", "a"] {
        bench.exit(name, boom());
    }
    assert_eq!(bench.ending, None);
    bench.exit("b", boom());
    assert_eq!(bench.ending, Some(Ending::Intensity { child: named("b"), reason: boom() }));
}

#[test]
fn a_group_restart_counts_once() {
    let mut bench = Bench::booted(settings(Strategy::OneForAll), &[policy("a"), policy("b"), policy("c")]);
    for _ in 0..3 {
        bench.exit("a", boom());
    }
    assert_eq!(bench.ending, None);
    bench.exit("a", boom());
    assert!(bench.ending.is_some());
}

#[test]
fn an_intensity_of_zero_bears_no_restart() {
    let none = Settings { intensity: Intensity { restarts_max: 0, period: SECOND }, ..settings(Strategy::OneForOne) };
    let mut bench = Bench::booted(none, &[policy("a"), policy("b")]);
    bench.exit("b", boom());
    assert_eq!(bench.diary(), ["escalate b", "stop a"]);
}

#[test]
fn restarts_longer_ago_than_the_period_do_not_count() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a")]);
    for _ in 0..20 {
        bench.exit("a", boom());
        bench.wait(SECOND * 2);
    }
    assert_eq!(bench.ending, None);
}

#[test]
fn starts_by_call_do_not_count() {
    let mut bench = Bench::booted(settings(Strategy::OneForOne), &[policy("a")]);
    for call in 0..20 {
        bench.call(call, Change::Terminate(named("a")));
        bench.call(call, Change::Restart(named("a")));
    }
    for _ in 0..3 {
        bench.exit("a", boom());
    }
    assert_eq!(bench.ending, None);
}

#[test]
fn a_restart_that_fails_counts_at_once_and_not_when_it_is_tried_again() {
    let one = Settings { intensity: Intensity { restarts_max: 1, period: SECOND }, ..settings(Strategy::OneForOne) };
    let mut bench = Bench::booted(one, &[policy("a")]);
    bench.deaf = vec!["start a"];
    bench.exit("a", boom());
    bench.call(1, Change::Terminate(named("a")));
    bench.diary.clear();
    bench.fail_start("a");
    assert_eq!(bench.diary(), ["escalate a", &format!("reply 1 {}", CallError::ShuttingDown)]);
}

#[test]
fn a_group_is_down_while_its_restart_waits() {
    let backoff = Backoff { first: SECOND, max: SECOND, reset_after: SECOND };
    let mut bench = Bench::booted(Settings { backoff, ..settings(Strategy::RestForOne) }, &[policy("a"), policy("b")]);
    bench.exit("a", boom());
    assert_eq!(bench.diary(), ["restart a", "stop b"]);
    assert_eq!((bench.standing("a"), bench.standing("b")), (ChildStanding::BackingOff, ChildStanding::Stopped));
    bench.call(1, Change::Restart(named("b")));
    assert_eq!(bench.diary(), ["start b", "reply 1 Started"]);
    bench.wait(bench.until_restart());
    assert_eq!(bench.diary(), ["stop b", "start a", "start b"]);
}

#[test]
fn a_restart_that_waits_anew_waits_its_whole_time() {
    let backoff = Backoff { first: SECOND, max: SECOND, reset_after: SECOND };
    let mut bench = Bench::booted(Settings { backoff, ..settings(Strategy::RestForOne) }, &[policy("a"), policy("b")]);
    bench.exit("a", boom());
    let first = *bench.timers.keys().next().expect("a waits");
    bench.call(1, Change::Restart(named("b")));
    bench.exit("b", boom());
    let second = *bench.timers.keys().find(|timer| **timer != first).expect("b waits");
    bench.add(2, policy("c"));
    // The turn of b comes while c is being stopped for the sake of a; then b is started with a, and fails.
    bench.deaf = vec!["stop c", "start b"];
    bench.feed(Event::TimerFired { timer: first });
    bench.feed(Event::TimerFired { timer: second });
    bench.exit("c", ExitReason::Shutdown { detail: None });
    bench.diary.clear();
    bench.deaf.clear();
    bench.fail_start("b");
    assert_eq!(bench.diary(), ["restart b"]);
    assert_eq!(bench.standing("b"), ChildStanding::BackingOff);
    bench.wait(SECOND);
    assert_eq!(bench.diary(), ["start b", "start c"]);
}
