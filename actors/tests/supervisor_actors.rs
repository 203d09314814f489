//! Supervision with real actors: each way for a child to end reaches the core as what it is.

#[path = "supervisor/probe.rs"]
mod probe;

use std::time::Duration;

use halm_actors::address::Address;
use halm_actors::mailbox::Mailbox;
use halm_actors::supervisor::{
    AutoShutdown, CallError, CallFailed, ChildSpec, ChildStanding, ChildView, Ended, Restart, Root, Shutdown,
    StartError, Strategy, Supervisor, SupervisorMsg, SupervisorRef, SupervisorSpec,
};
use halm_actors::tree::NodeState;
use probe::{Act, Diary, ProbeMsg, last_report, patient};

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_panic_in_a_handler_restarts_the_child_and_is_reported_as_that_panic() {
    let diary = Diary::new();
    let root =
        Supervisor::start_root("root", patient(Strategy::OneForOne).child(diary.probe("a"))).await.expect("starts");
    diary.send("a", ProbeMsg::Panic("boom"));
    diary.reads(&["a up", "a gone", "a up"]).await;
    assert_eq!(last_report(&root, "root/a", 1).await, ("panicked in handle: boom".to_owned(), "restart".to_owned()));
    root.shutdown().await;
    diary.reads(&["a up", "a gone", "a up", "a gone"]).await;
}

#[tokio::test]
async fn an_error_from_a_handler_and_a_panic_in_a_task_are_told_apart() {
    let diary = Diary::new();
    let root =
        Supervisor::start_root("root", patient(Strategy::OneForOne).child(diary.probe("a"))).await.expect("starts");
    diary.send("a", ProbeMsg::Fail("no luck"));
    diary.contains_times("a up", 2).await;
    assert_eq!(last_report(&root, "root/a", 1).await.0, "failed in handle: no luck");
    diary.address("a").wait().await;
    diary.send("a", ProbeMsg::PanicInTask("boom"));
    assert_eq!(last_report(&root, "root/a", 2).await.0, "panicked in a task: boom");
    root.shutdown().await;
}

#[tokio::test]
async fn trouble_in_post_start_is_an_end_and_not_a_failed_start() {
    for (act, reason) in [
        (Act::PanicInPostStart, "panicked in post_start: boom in post_start"),
        (Act::FailInPostStart, "failed in post_start: no luck in post_start"),
    ] {
        let diary = Diary::new();
        diary.plan("a", 1, act);
        let spec = patient(Strategy::OneForOne).child(diary.probe("a"));
        let root = Supervisor::start_root("root", spec).await.expect("starts");
        diary.contains_times("a up", 2).await;
        assert_eq!(last_report(&root, "root/a", 1).await, (reason.to_owned(), "restart".to_owned()));
        root.shutdown().await;
    }
}

#[tokio::test]
async fn trouble_in_pre_start_fails_the_tree_and_stops_what_was_started() {
    for (act, reason) in [
        (Act::PanicInPreStart, "panicked in pre_start: boom in pre_start"),
        (Act::FailInPreStart, "failed in pre_start: no luck in pre_start"),
        (Act::HangInPreStart, "start timed out after 50ms"),
    ] {
        let diary = Diary::new();
        diary.plan("b", 1, act);
        let spec = patient(Strategy::OneForOne)
            .child(diary.probe("a"))
            .child(diary.probe("b").start_timeout(SOON))
            .child(diary.probe("c"));
        let error = Supervisor::start_root("root", spec).await.expect_err("b cannot start");
        assert_eq!(error.to_string(), format!("start root: child b failed to start: {reason}"));
        diary.contains("a gone").await;
        diary.contains("b gone").await;
        assert!(!diary.lines().contains(&"c up".to_owned()), "c was started after b had failed");
    }
}

#[tokio::test]
async fn a_restart_that_fails_is_tried_again_and_counts() {
    for act in [Act::PanicInPreStart, Act::FailInPreStart, Act::HangInPreStart] {
        let diary = Diary::new();
        diary.plan("a", 2, act);
        diary.plan("a", 3, act);
        let spec = patient(Strategy::OneForOne).child(diary.probe("a").start_timeout(SOON));
        let root = Supervisor::start_root("root", spec).await.expect("starts");
        diary.send("a", ProbeMsg::Panic("boom"));
        diary.contains_times("a up", 2).await;
        let restarts: Vec<u64> = root.crash_reports().iter().map(|report| report.restarts).collect();
        assert_eq!(restarts, [0, 1, 2], "one crash and two failed restarts with {act:?}");
        root.shutdown().await;
    }
}

#[tokio::test]
async fn questions_are_answered_while_a_start_hangs_and_the_hung_start_is_dropped() {
    let diary = Diary::new();
    diary.plan("a", 2, Act::HangInPreStart);
    let spec = patient(Strategy::OneForOne).child(diary.probe("a")).child(diary.probe("b"));
    let root = Supervisor::start_root("root", spec).await.expect("starts");
    diary.send("a", ProbeMsg::Panic("boom"));
    diary.contains("a hangs").await;
    let children = root.supervisor().which_children().await.expect("answers");
    assert_eq!(children[0].standing, ChildStanding::Starting);
    assert_eq!(children[1].standing, ChildStanding::Running);
    assert_eq!(root.tree().await.expect("answers").find("root/a").expect("is there").state, NodeState::Starting);
    root.shutdown().await;
    diary.contains_times("a gone", 2).await;
}

#[tokio::test]
async fn a_killed_child_is_restarted() {
    let diary = Diary::new();
    let root =
        Supervisor::start_root("root", patient(Strategy::OneForOne).child(diary.probe("a"))).await.expect("starts");
    diary.address("a").get().expect("lives").kill();
    diary.contains_times("a up", 2).await;
    assert_eq!(last_report(&root, "root/a", 1).await, ("killed".to_owned(), "restart".to_owned()));
    root.shutdown().await;
}

#[tokio::test]
async fn a_transient_child_that_stops_normally_stays_down_and_can_be_restarted_by_call() {
    let diary = Diary::new();
    let spec = patient(Strategy::OneForOne).child(diary.probe("a").restart(Restart::Transient)).child(diary.probe("b"));
    let root = Supervisor::start_root("root", spec).await.expect("starts");
    diary.address("a").get().expect("lives").stop(None);
    diary.contains("a gone").await;
    // What happens after is behind the child's end in the supervisor's mailbox.
    diary.send("b", ProbeMsg::Panic("boom"));
    last_report(&root, "root/b", 1).await;
    let children = root.supervisor().which_children().await.expect("answers");
    assert_eq!((children[0].standing, children[0].restarts), (ChildStanding::Stopped, 0));
    root.supervisor().restart_child("a").await.expect("restarts");
    assert!(diary.address("a").get().is_some());
    assert_eq!(root.crash_reports().iter().filter(|report| report.path.name() == "a").count(), 0);
    root.shutdown().await;
}

#[tokio::test]
async fn one_for_all_stops_the_others_in_reverse_and_starts_all_in_order() {
    let diary = Diary::new();
    let spec = patient(Strategy::OneForAll).child(diary.probe("a")).child(diary.probe("b")).child(diary.probe("c"));
    let root = Supervisor::start_root("root", spec).await.expect("starts");
    diary.clear();
    diary.send("b", ProbeMsg::Panic("boom"));
    diary.reads(&["b gone", "c gone", "a gone", "a up", "b up", "c up"]).await;
    root.shutdown().await;
}

#[tokio::test]
async fn rest_for_one_restarts_those_after_it() {
    let diary = Diary::new();
    let spec = ["a", "b", "c", "d"].iter().fold(patient(Strategy::RestForOne), |spec, id| spec.child(diary.probe(id)));
    let root = Supervisor::start_root("root", spec).await.expect("starts");
    diary.clear();
    diary.send("b", ProbeMsg::Panic("boom"));
    diary.reads(&["b gone", "d gone", "c gone", "b up", "c up", "d up"]).await;
    diary.clear();
    root.shutdown().await;
    diary.reads(&["d gone", "c gone", "b gone", "a gone"]).await;
}

#[tokio::test]
async fn a_child_that_does_not_stop_in_time_is_killed_and_reported() {
    let diary = Diary::new();
    let spec = patient(Strategy::OneForOne).child(diary.probe("a").shutdown(Shutdown::Timeout(SOON)));
    let root = Supervisor::start_root("root", spec).await.expect("starts");
    diary.send("a", ProbeMsg::Hang);
    diary.contains("a hangs").await;
    root.supervisor().terminate_child("a").await.expect("terminates");
    diary.contains("a gone").await;
    assert_eq!(last_report(&root, "root/a", 1).await, ("killed".to_owned(), "was_stopping".to_owned()));
    root.shutdown().await;
}

#[tokio::test]
async fn a_panic_in_post_stop_is_reported_and_stops_nothing_else() {
    let diary = Diary::new();
    diary.plan("b", 1, Act::PanicInPostStop);
    let spec = patient(Strategy::OneForOne).child(diary.probe("a")).child(diary.probe("b"));
    let root = Supervisor::start_root("root", spec).await.expect("starts");
    root.shutdown().await;
    diary.reads(&["a up", "b up", "b gone", "a gone"]).await;
    let expected = ("panicked in post_stop: boom in post_stop".to_owned(), "was_stopping".to_owned());
    assert_eq!(last_report(&root, "root/b", 1).await, expected);
}

fn nested(diary: &Diary) -> SupervisorSpec {
    let inner = diary.clone();
    patient(Strategy::OneForOne)
        .intensity(1, Duration::from_secs(60))
        .child(diary.probe("first"))
        .child(ChildSpec::supervisor("pool", move || {
            patient(Strategy::OneForOne)
                .intensity(1, Duration::from_secs(60))
                .child(inner.probe("w1"))
                .child(inner.probe("w2"))
        }))
        .child(diary.probe("last"))
}

#[tokio::test]
async fn a_tree_stops_leaf_by_leaf_in_reverse() {
    let diary = Diary::new();
    let mut root = Supervisor::start_root("root", nested(&diary)).await.expect("starts");
    root.shutdown().await;
    diary.reads(&["first up", "w1 up", "w2 up", "last up", "last gone", "w2 gone", "w1 gone", "first gone"]).await;
    assert_eq!(root.stopped().await, Ended::Shutdown);
}

#[tokio::test]
async fn a_tree_whose_root_is_stopped_by_ractor_stops_in_reverse_too() {
    let diary = Diary::new();
    let mut root = Supervisor::start_root("root", nested(&diary)).await.expect("starts");
    root.cell().stop(None);
    assert_eq!(root.stopped().await, Ended::Shutdown);
    diary.reads(&["first up", "w1 up", "w2 up", "last up", "last gone", "w2 gone", "w1 gone", "first gone"]).await;
}

#[tokio::test]
async fn a_root_stopped_by_ractor_kills_the_child_that_was_being_stopped_already() {
    let diary = Diary::new();
    let limit = Duration::from_millis(200);
    let spec = patient(Strategy::OneForOne).child(diary.probe("a").shutdown(Shutdown::Timeout(limit)));
    let mut root = Supervisor::start_root("root", spec).await.expect("starts");
    diary.send("a", ProbeMsg::Hang);
    diary.contains("a hangs").await;
    let stopping = async {
        // Behind the call in the mailbox, so the limit is running when it is answered.
        tokio::task::yield_now().await;
        root.supervisor().count_children().await.expect("answers");
        root.cell().stop(None);
    };
    let (terminated, ()) = tokio::join!(root.supervisor().terminate_child("a"), stopping);
    assert!(terminated.is_err(), "the call was answered though the supervisor had been stopped");
    let stopped = tokio::time::timeout(Duration::from_secs(20), root.stopped()).await;
    assert_eq!(stopped, Ok(Ended::Shutdown), "a child that hangs was waited for without limit");
}

#[tokio::test]
async fn escalation_climbs_with_its_chain_of_causes() {
    let diary = Diary::new();
    let mut root = Supervisor::start_root("root", nested(&diary)).await.expect("starts");
    for crash in 1..=4 {
        let worker = tokio::time::timeout(Duration::from_secs(20), diary.address("w1").wait()).await.expect("lives");
        Mailbox::of(&worker).send(ProbeMsg::Panic("boom")).expect("lives");
        diary.contains_times("w1 gone", crash).await;
    }
    let Ended::Escalated(escalation) = root.stopped().await else { panic!("the root did not give up") };
    let expected = "root gave up after pool: shutdown: root/pool gave up after w1: panicked in handle: boom";
    assert_eq!(escalation.to_string(), expected);
    diary.contains("first gone").await;
}

#[tokio::test]
async fn killing_the_root_kills_all_descendants_even_in_their_post_stop() {
    let diary = Diary::new();
    diary.plan("w2", 1, Act::HangInPostStop);
    let mut root = Supervisor::start_root("root", nested(&diary)).await.expect("starts");
    let pool = root.supervisor().find_supervisor("pool").await.expect("answers").expect("lives");
    let killing = async {
        diary.contains("w2 lingers").await;
        root.cell().kill();
    };
    let (terminated, ()) = tokio::join!(pool.terminate_child("w2"), killing);
    assert_eq!(terminated, Err(CallFailed::Gone));
    assert_eq!(root.stopped().await, Ended::Killed);
    for name in ["first", "w1", "w2", "last"] {
        diary.contains(&format!("{name} gone")).await;
    }
}

#[tokio::test]
async fn a_killed_supervisor_is_restarted_with_its_children() {
    let diary = Diary::new();
    let address: Address<SupervisorMsg> = Address::new();
    let inner = diary.clone();
    let pool = ChildSpec::supervisor_at("pool", address.clone(), move || {
        patient(Strategy::OneForOne).child(inner.probe("w1"))
    });
    let root = Supervisor::start_root("root", patient(Strategy::OneForOne).child(pool)).await.expect("starts");
    address.get().expect("lives").kill();
    diary.contains_times("w1 up", 2).await;
    diary.contains("w1 gone").await;
    assert_eq!(last_report(&root, "root/pool", 1).await, ("killed".to_owned(), "restart".to_owned()));
    root.shutdown().await;
    diary.contains_times("w1 gone", 2).await;
}

#[tokio::test]
async fn a_supervisor_whose_child_fails_to_start_fails_to_start() {
    let diary = Diary::new();
    diary.plan("w2", 1, Act::PanicInPreStart);
    let error = Supervisor::start_root("root", nested(&diary)).await.expect_err("w2 cannot start");
    let expected =
        "start root: child pool failed to start: child w2 failed to start: panicked in pre_start: boom in pre_start";
    assert_eq!(error.to_string(), expected);
    diary.reads(&["first up", "w1 up", "w2 gone", "w1 gone", "first gone"]).await;
}

#[tokio::test]
async fn giving_up_a_start_leaves_nothing_behind() {
    let diary = Diary::new();
    diary.plan("w2", 1, Act::HangInPreStart);
    let spec = nested(&diary);
    tokio::select! {
        _ = Supervisor::start_root("root", spec) => panic!("w2 hangs"),
        () = diary.contains("w2 hangs") => {}
    }
    for name in ["first", "w1", "w2"] {
        diary.contains(&format!("{name} gone")).await;
    }
}

#[tokio::test]
async fn children_are_added_terminated_and_deleted_by_call() {
    let diary = Diary::new();
    let root = Supervisor::start_root("root", patient(Strategy::OneForOne)).await.expect("starts");
    let calls: &SupervisorRef = root.supervisor();
    calls.start_child(diary.probe("a")).await.expect("starts");
    let twice = calls.start_child(diary.probe("a")).await.expect_err("is there");
    assert!(matches!(twice, CallFailed::Refused(CallError::AlreadyStarted(_))), "{twice}");
    let running = calls.delete_child("a").await.expect_err("runs");
    assert!(matches!(running, CallFailed::Refused(CallError::Running(_))), "{running}");
    calls.terminate_child("a").await.expect("terminates");
    let present = calls.start_child(diary.probe("a")).await.expect_err("is there");
    assert!(matches!(present, CallFailed::Refused(CallError::AlreadyPresent(_))), "{present}");
    calls.restart_child("a").await.expect("restarts");
    calls.terminate_child("a").await.expect("terminates");
    calls.delete_child("a").await.expect("deletes");
    let unknown = calls.terminate_child("a").await.expect_err("is gone");
    assert!(matches!(unknown, CallFailed::Refused(CallError::NotFound(_))), "{unknown}");
    diary.plan("b", 1, Act::PanicInPreStart);
    let failed = calls.start_child(diary.probe("b")).await.expect_err("b panics");
    assert!(matches!(failed, CallFailed::Refused(CallError::StartFailed { .. })), "{failed}");
    assert_eq!(calls.count_children().await.expect("answers").specs, 0);
    root.shutdown().await;
    assert_eq!(calls.count_children().await, Err(CallFailed::Gone));
}

#[tokio::test]
async fn a_tree_has_started_when_all_its_children_run() {
    let diary = Diary::new();
    let root = Supervisor::start_root("root", nested(&diary)).await.expect("starts");
    assert_eq!(diary.lines(), ["first up", "w1 up", "w2 up", "last up"]);
    root.shutdown().await;
}

#[tokio::test]
async fn what_was_added_or_deleted_by_call_is_forgotten_when_the_supervisor_is_restarted() {
    let diary = Diary::new();
    let root = Supervisor::start_root("root", nested(&diary)).await.expect("starts");
    let pool = root.supervisor().find_supervisor("pool").await.expect("answers").expect("lives");
    pool.start_child(diary.probe("added")).await.expect("starts");
    pool.terminate_child("w2").await.expect("terminates");
    pool.delete_child("w2").await.expect("deletes");
    // The second end within the period is one too many for the pool, and the first for the root.
    diary.send("w1", ProbeMsg::Panic("boom"));
    diary.contains_times("w1 up", 2).await;
    let worker = diary.address("w1").wait().await;
    Mailbox::of(&worker).send(ProbeMsg::Panic("boom")).expect("lives");
    child_that(&root, "pool", |pool| pool.restarts == 1 && pool.standing == ChildStanding::Running).await;
    let tree = root.tree().await.expect("answers");
    let paths = tree.find("root/pool").expect("is there").children.iter().map(|child| child.path.clone());
    assert_eq!(paths.collect::<Vec<_>>(), ["root/pool/w1", "root/pool/w2"]);
    assert_eq!(diary.lines().iter().filter(|line| *line == "added up").count(), 1);
    root.shutdown().await;
}

#[tokio::test]
async fn a_supervisor_that_shut_itself_down_is_restarted_by_its_type() {
    for (restart, standing) in
        [(Restart::Transient, ChildStanding::Stopped), (Restart::Permanent, ChildStanding::Running)]
    {
        let diary = Diary::new();
        let inner = diary.clone();
        let unit = ChildSpec::supervisor("unit", move || {
            patient(Strategy::OneForOne)
                .auto_shutdown(AutoShutdown::AnySignificant)
                .child(inner.probe("other"))
                .child(inner.probe("s").restart(Restart::Transient).significant())
        });
        let spec = patient(Strategy::OneForOne).child(unit.restart(restart));
        let root = Supervisor::start_root("root", spec).await.expect("starts");
        diary.address("s").get().expect("lives").stop(None);
        diary.contains("other gone").await;
        let unit = child_that(&root, "unit", |child| child.last_exit.is_some() && child.standing == standing).await;
        assert_eq!(unit.restarts, u64::from(restart == Restart::Permanent));
        let reason = unit.last_exit.expect("has one").to_string();
        assert_eq!(reason, "shutdown: significant child s ended: normal");
        root.shutdown().await;
    }
}

#[tokio::test]
async fn each_kind_of_supervisor_adds_children_in_its_own_way() {
    let diary = Diary::new();
    let root = Supervisor::start_root("root", SupervisorSpec::dynamic(diary.probe("a"))).await.expect("starts");
    let refused = root.supervisor().start_child(diary.probe("b")).await.expect_err("dynamic");
    assert_eq!(refused, CallFailed::Refused(CallError::Dynamic));
    root.shutdown().await;
    let root = Supervisor::start_root("root", patient(Strategy::OneForOne)).await.expect("starts");
    let refused = root.supervisor().start_dynamic(()).await.expect_err("not dynamic");
    assert_eq!(refused, CallFailed::Refused(CallError::NotDynamic));
    root.shutdown().await;
    assert!(diary.lines().is_empty());
}

/// A child of the root, once it is as wanted.
async fn child_that(root: &Root, id: &str, wanted: impl Fn(&ChildView) -> bool) -> ChildView {
    let mut last = None;
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let children = root.supervisor().which_children().await.expect("answers");
            let child = children.into_iter().find(|child| child.id.as_str() == id).expect("in the table");
            if wanted(&child) {
                return child;
            }
            last = Some(child);
            tokio::task::yield_now().await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("the child was never as wanted, but {last:?}"))
}

#[tokio::test]
async fn dynamic_children_come_from_one_template_with_an_argument_each() {
    let diary = Diary::new();
    let inner = diary.clone();
    let template = ChildSpec::actor_at("template", move |context| {
        let name = context.argument::<String>().expect("given").as_ref().clone();
        let address = inner.address(&name);
        (address, probe::Probe::named(&name, &inner), ())
    });
    let root = Supervisor::start_root("root", SupervisorSpec::dynamic(template)).await.expect("starts");
    let calls = root.supervisor();
    let first = calls.start_dynamic("x".to_owned()).await.expect("starts");
    let second = calls.start_dynamic("y".to_owned()).await.expect("starts");
    assert_eq!((first.as_str(), second.as_str()), ("1", "2"));
    diary.send("y", ProbeMsg::Panic("boom"));
    diary.contains_times("y up", 2).await;
    calls.terminate_child(first.as_str()).await.expect("terminates");
    assert_eq!(calls.which_children().await.expect("answers").len(), 1);
    let refused = calls.delete_child("2").await.expect_err("dynamic");
    assert_eq!(refused, CallFailed::Refused(CallError::Dynamic));
    root.shutdown().await;
    diary.contains_times("y gone", 2).await;
}

#[tokio::test]
async fn an_address_follows_its_actor_from_incarnation_to_incarnation() {
    let diary = Diary::new();
    let root =
        Supervisor::start_root("root", patient(Strategy::OneForOne).child(diary.probe("a"))).await.expect("starts");
    let address = diary.address("a");
    let first = address.get().expect("lives");
    diary.send("a", ProbeMsg::Panic("boom"));
    diary.contains_times("a up", 2).await;
    assert_ne!(address.wait().await.get_id(), first.get_id());
    root.supervisor().terminate_child("a").await.expect("terminates");
    assert!(address.get().is_none());
    assert!(address.send(ProbeMsg::Hang).is_err());
    root.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_shows_the_whole_tree() {
    let diary = Diary::new();
    let root = Supervisor::start_root("root", nested(&diary)).await.expect("starts");
    diary.send("w2", ProbeMsg::Panic("boom"));
    diary.contains_times("w2 up", 2).await;
    diary.address("w2").wait().await;
    last_report(&root, "root/pool/w2", 1).await;
    let tree = root.tree().await.expect("answers");
    let paths: Vec<&str> = tree.children.iter().map(|child| child.path.as_str()).collect();
    assert_eq!(paths, ["root/first", "root/pool", "root/last"]);
    let worker = tree.find("root/pool/w2").expect("is there");
    assert_eq!((worker.restarts, worker.last_exit.as_deref()), (1, Some("panicked in handle: boom")));
    root.shutdown().await;
}

#[tokio::test]
async fn a_specification_that_otp_refuses_does_not_start() {
    let diary = Diary::new();
    let twins = patient(Strategy::OneForOne).child(diary.probe("a")).child(diary.probe("a"));
    let error = Supervisor::start_root("root", twins).await.expect_err("twins");
    assert!(matches!(error, StartError::Failed { .. }) && error.to_string().contains("used twice"), "{error}");
    let error = Supervisor::start_root("a/b", patient(Strategy::OneForOne)).await.expect_err("a path");
    assert!(matches!(error, StartError::Id(_)), "{error}");
    assert!(diary.lines().is_empty());
}

#[tokio::test]
async fn an_actor_can_be_found_at_its_address_from_its_post_start_on() {
    let diary = Diary::new();
    diary.plan("a", 1, Act::CallHomeInPostStart);
    diary.plan("a", 2, Act::CallHomeInPostStart);
    let root =
        Supervisor::start_root("root", patient(Strategy::OneForOne).child(diary.probe("a"))).await.expect("starts");
    // What it sent itself through its address makes it fail, and so does its successor.
    diary.contains_times("a up", 3).await;
    assert_eq!(last_report(&root, "root/a", 2).await.0, "failed in handle: called home");
    root.shutdown().await;
}

#[tokio::test]
async fn what_waits_in_a_mailbox_is_counted() {
    let diary = Diary::new();
    let root =
        Supervisor::start_root("root", patient(Strategy::OneForOne).child(diary.probe("a"))).await.expect("starts");
    let waiting = async || root.tree().await.expect("answers").find("root/a").expect("is there").mailbox;
    assert_eq!(waiting().await, Some(0));
    diary.send("a", ProbeMsg::Hang);
    diary.contains("a hangs").await;
    for _ in 0..3 {
        diary.send("a", ProbeMsg::Hang);
    }
    assert_eq!(waiting().await, Some(3));
    diary.address("a").get().expect("lives").kill();
    diary.contains_times("a up", 2).await;
    assert_eq!(waiting().await, Some(0), "a new incarnation has a new mailbox");
    root.shutdown().await;
}

#[tokio::test]
async fn a_report_of_a_panic_tells_its_place_and_its_frames() {
    let diary = Diary::new();
    let root =
        Supervisor::start_root("root", patient(Strategy::OneForOne).child(diary.probe("a"))).await.expect("starts");
    for (count, message) in [(1, ProbeMsg::Panic("boom")), (2, ProbeMsg::PanicInTask("boom"))] {
        tokio::time::timeout(Duration::from_secs(20), diary.address("a").wait()).await.expect("lives");
        diary.send("a", message);
        last_report(&root, "root/a", count).await;
        let report = root.crash_reports().pop().expect("counted above").record();
        let location = report.location.as_deref().unwrap_or_default();
        assert!(location.contains("supervisor/probe.rs:"), "{report:?}");
        assert!(report.backtrace.iter().any(|frame| frame.contains("supervisor/probe.rs")), "{report:?}");
        diary.contains_times("a up", count + 1).await;
    }
    let counts = root.crash_counts();
    assert_eq!((counts.reports, counts.restarts, counts.by_kind["panicked"]), (2, 2, 2));
    root.shutdown().await;
}
