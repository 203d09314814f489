//! Supervisors whose children come from one template.

use halm_actors::supervisor::{
    Backoff, CallError, Change, ChildCount, ChildKey, ChildStanding, Ending, Event, ExitReason, Policy, Restart,
    Settings, Strategy,
};

use crate::bench::{Bench, SECOND, boom, named, policy, settings};

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

fn pool(template: &Policy, children: u64) -> Bench {
    let mut bench = Bench::booted(settings(Strategy::Dynamic), std::slice::from_ref(template));
    for number in 1..=children {
        bench.add(number, Policy { id: named(&number.to_string()), ..template.clone() });
    }
    bench.diary.clear();
    bench
}

#[test]
fn a_dynamic_supervisor_starts_without_children() {
    let mut bench = Bench::new(settings(Strategy::Dynamic), &[policy("template")]);
    bench.feed(Event::Boot);
    assert_eq!(bench.diary(), ["booted"]);
    assert_eq!(bench.core.children(bench.now), []);
}

#[test]
fn dynamic_children_are_restarted_alone_and_by_their_templates_type() {
    for (restart, reason, expected) in [
        (Restart::Permanent, ExitReason::Normal, vec!["restart 1", "start 1"]),
        (Restart::Transient, boom(), vec!["restart 1", "start 1"]),
        (Restart::Transient, ExitReason::Normal, vec![]),
        (Restart::Temporary, boom(), vec!["forget 1"]),
    ] {
        let mut bench = pool(&Policy { restart, ..policy("template") }, 2);
        let restarted = expected.len() == 2;
        bench.exit("1", reason.clone());
        assert_eq!(bench.diary(), expected, "{restart:?} after {reason}");
        assert_eq!((bench.has("1"), bench.has("2")), (restarted, true), "{restart:?} after {reason}");
    }
}

#[test]
fn a_dynamic_childs_restart_that_fails_is_tried_again() {
    let mut bench = pool(&policy("template"), 1);
    bench.deaf = vec!["start 1"];
    bench.exit("1", boom());
    bench.deaf.clear();
    bench.fail_start("1");
    assert_eq!(bench.diary(), ["restart 1", "start 1", "restart 1", "start 1"]);
}

#[test]
fn a_dynamic_child_can_be_terminated_but_not_restarted_or_deleted() {
    let mut bench = pool(&policy("template"), 1);
    bench.call(10, Change::Restart(named("1")));
    bench.call(11, Change::Delete(named("1")));
    bench.call(12, Change::Terminate(named("1")));
    bench.call(13, Change::Terminate(named("1")));
    let (dynamic, gone) = (CallError::Dynamic, CallError::NotFound(named("1")));
    let expected = [
        format!("reply 10 {dynamic}"),
        format!("reply 11 {dynamic}"),
        "stop 1".to_owned(),
        "reply 12 Terminated".to_owned(),
        format!("reply 13 {gone}"),
    ];
    assert_eq!(bench.diary(), expected);
}

#[test]
fn a_dynamic_start_that_fails_adds_nothing() {
    let mut bench = pool(&policy("template"), 0);
    bench.deaf = vec!["start 1"];
    bench.add(1, policy("1"));
    bench.fail_start("1");
    let failed = CallError::StartFailed { child: named("1"), reason: boom() };
    assert_eq!(bench.diary(), ["start 1", "refuse 1", &format!("reply 1 {failed}")]);
    assert!(!bench.has("1"));
}

#[test]
fn a_dynamic_supervisor_counts_one_specification_and_its_living_children() {
    let backoff = Backoff { first: SECOND, max: SECOND, reset_after: SECOND };
    let waiting = Settings { backoff, ..settings(Strategy::Dynamic) };
    let mut bench = Bench::booted(waiting, &[policy("template")]);
    assert_eq!(bench.core.count(), ChildCount { specs: 1, active: 0, supervisors: 0, workers: 0 });
    bench.add(1, policy("1"));
    bench.add(2, policy("2"));
    bench.exit("1", boom());
    assert_eq!(bench.standing("1"), ChildStanding::BackingOff);
    assert_eq!(bench.core.count(), ChildCount { specs: 1, active: 1, supervisors: 0, workers: 2 });
}

#[test]
fn dynamic_children_that_do_not_stop_in_time_are_killed_at_the_same_moment() {
    let mut bench = pool(&policy("template"), 3);
    bench.deaf = vec!["stop 1", "stop 3"];
    bench.feed(Event::StopRequested);
    assert_eq!(bench.diary(), ["stop 3", "stop 2", "stop 1"]);
    bench.wait(SECOND);
    let mut killed = bench.diary();
    killed.sort();
    assert_eq!(killed, ["kill 1", "kill 3", "was_stopping 1", "was_stopping 3"]);
    assert_eq!(bench.ending, Some(Ending::Stopped));
}
