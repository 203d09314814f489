//! When significant children end their supervisor.

use halm_actors::supervisor::{
    AutoShutdown, Backoff, Change, ChildStanding, Ending, ExitReason, Policy, Restart, Settings, Strategy,
};

use crate::bench::{Bench, SECOND, boom, named, policy, settings};

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

fn significant(name: &str, restart: Restart) -> Policy {
    Policy { significant: true, restart, ..policy(name) }
}

fn auto(auto_shutdown: AutoShutdown, strategy: Strategy) -> Settings {
    Settings { auto_shutdown, ..settings(strategy) }
}

#[test]
fn auto_shutdown_stops_the_others_in_reverse() {
    let children = [policy("a"), significant("s", Restart::Transient), policy("b")];
    let mut bench = Bench::booted(auto(AutoShutdown::AnySignificant, Strategy::OneForOne), &children);
    bench.exit("s", ExitReason::Normal);
    assert_eq!(bench.diary(), ["stop b", "stop a"]);
    assert_eq!(bench.ending, Some(Ending::AutoShutdown { child: named("s"), reason: ExitReason::Normal }));
}

#[test]
fn children_that_are_not_significant_end_alone() {
    let plain = Policy { restart: Restart::Temporary, ..policy("p") };
    let children = [significant("s", Restart::Transient), plain];
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let mut bench = Bench::booted(auto(auto_shutdown, Strategy::OneForOne), &children);
        bench.exit("p", ExitReason::Normal);
        assert_eq!(bench.ending, None, "{auto_shutdown:?}");
    }
}

#[test]
fn a_significant_child_stopped_for_a_siblings_sake_ends_nobody() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
            let children = [policy("a"), significant("s", Restart::Temporary), policy("b")];
            let mut bench = Bench::booted(auto(auto_shutdown, strategy), &children);
            bench.exit("a", boom());
            assert_eq!(bench.diary(), ["restart a", "stop b", "stop s", "start a", "start b"]);
            assert!(!bench.has("s"));
            assert_eq!(bench.ending, None, "{auto_shutdown:?}");
        }
    }
}

#[test]
fn a_significant_child_that_ends_while_its_group_is_being_stopped_ends_nobody() {
    let children = [policy("a"), significant("s", Restart::Transient), policy("b")];
    let mut bench = Bench::booted(auto(AutoShutdown::AnySignificant, Strategy::OneForAll), &children);
    bench.deaf = vec!["stop b"];
    bench.exit("a", boom());
    bench.exit("s", ExitReason::Normal);
    bench.exit("b", ExitReason::Shutdown { detail: None });
    assert_eq!(bench.diary(), ["restart a", "stop b", "start a", "start s", "start b"]);
    assert_eq!(bench.ending, None);
}

#[test]
fn a_significant_child_stopped_by_call_is_not_waited_for() {
    let children = [significant("a", Restart::Transient), significant("b", Restart::Transient)];
    let mut bench = Bench::booted(auto(AutoShutdown::AllSignificant, Strategy::OneForOne), &children);
    bench.call(1, Change::Terminate(named("a")));
    assert_eq!(bench.ending, None);
    bench.exit("b", ExitReason::Normal);
    assert!(matches!(bench.ending, Some(Ending::AutoShutdown { .. })), "{:?}", bench.ending);
}

#[test]
fn a_significant_child_that_waits_for_its_restart_is_still_there() {
    let backoff = Backoff { first: SECOND, max: SECOND, reset_after: SECOND };
    let children = [significant("a", Restart::Transient), significant("b", Restart::Transient)];
    let all = Settings { backoff, ..auto(AutoShutdown::AllSignificant, Strategy::OneForOne) };
    let mut bench = Bench::booted(all, &children);
    bench.exit("a", boom());
    bench.exit("b", ExitReason::Normal);
    assert_eq!(bench.ending, None, "a waits");
    bench.wait(bench.until_restart());
    bench.exit("a", ExitReason::Normal);
    assert_eq!(bench.ending, Some(Ending::AutoShutdown { child: named("a"), reason: ExitReason::Normal }));
}

#[test]
fn a_significant_child_that_is_down_while_its_group_waits_is_still_there() {
    let backoff = Backoff { first: SECOND, max: SECOND, reset_after: SECOND };
    let children = [significant("a", Restart::Transient), policy("b"), significant("c", Restart::Transient)];
    let all = Settings { backoff, ..auto(AutoShutdown::AllSignificant, Strategy::RestForOne) };
    let mut bench = Bench::booted(all, &children);
    bench.exit("b", boom());
    assert_eq!(bench.standing("c"), ChildStanding::Stopped);
    bench.exit("a", ExitReason::Normal);
    assert_eq!(bench.ending, None, "c will be started with b");
    bench.wait(bench.until_restart());
    assert_eq!(bench.standing("c"), ChildStanding::Running);
    bench.exit("c", ExitReason::Normal);
    assert_eq!(bench.ending, Some(Ending::AutoShutdown { child: named("c"), reason: ExitReason::Normal }));
}

#[test]
fn a_dynamic_supervisor_of_significant_children_ends_with_the_last() {
    let template = significant("template", Restart::Transient);
    let mut bench = Bench::booted(auto(AutoShutdown::AllSignificant, Strategy::Dynamic), &[template]);
    bench.add(1, significant("1", Restart::Transient));
    bench.add(2, significant("2", Restart::Transient));
    bench.exit("1", ExitReason::Normal);
    assert_eq!(bench.ending, None);
    bench.exit("2", ExitReason::Normal);
    assert!(matches!(bench.ending, Some(Ending::AutoShutdown { .. })), "{:?}", bench.ending);
}
