//! A worker process is a child like any other: however it ends, the crash report says so, a new one takes its place, and
//! nothing of the old one is left. Real processes, real weights, real signals.

use std::time::Duration;

use halm_actors::supervisor::ProcessEnd;
use halm_tests::{Fault, Nursery, group_of, how_it_stops, kill, until};
use rustix::process::Signal;

#[tokio::test]
async fn a_killed_worker_is_reported_with_what_it_was_doing() {
    let nursery = Nursery::healthy().await;
    nursery.computing(3).await;
    let first = nursery.started().await;
    kill(first, Signal::KILL);
    let report = nursery.survives(first).await;
    assert_eq!((report.reason.as_str(), report.kind.as_str()), ("process killed by SIGKILL", "process_signalled"));
    let [doing] = report.doing.as_slice() else { panic!("{report:?}") };
    assert_eq!((doing.job.to_string().as_str(), doing.attempt), (halm_tests::JOB, 2));
    assert!(doing.offset >= 3, "{doing:?}");
    assert_eq!((report.incarnation, report.restarts), (1, 0));
    assert!(report.uptime_ms.is_some());
}

#[tokio::test]
async fn a_stopped_worker_has_hung_and_is_killed() {
    let nursery = Nursery::healthy().await;
    let first = nursery.started().await;
    kill(first, Signal::STOP);
    let report = nursery.survives(first).await;
    assert!(report.reason.starts_with("process hung (no beat for "), "{report:?}");
    assert_eq!(report.kind, "process_hung");
}

#[tokio::test]
async fn a_segmentation_fault_is_a_crash_of_the_worker_alone() {
    let report = first_breaks(Fault::Segfault).await;
    assert_eq!(report.reason, "process killed by SIGSEGV");
}

#[tokio::test]
async fn an_abort_is_a_crash_of_the_worker_alone() {
    let report = first_breaks(Fault::Abort).await;
    assert_eq!(report.reason, "process killed by SIGABRT");
}

#[tokio::test]
async fn a_worker_that_exits_well_is_missed_all_the_same() {
    let report = first_breaks(Fault::Exit0).await;
    assert_eq!((report.reason.as_str(), report.kind.as_str()), ("process exited with status 0", "process_exited"));
}

#[tokio::test]
async fn a_worker_that_exits_badly_is_reported_with_its_last_words() {
    let report = first_breaks(Fault::Exit1).await;
    assert_eq!(report.reason, "process exited with status 1");
    assert_eq!(report.stderr_tail.last().map(String::as_str), Some("the engine has lost its mind"));
}

#[tokio::test]
async fn a_worker_that_wants_all_memory_is_refused_it_and_dies_alone() {
    let report = first_breaks(Fault::AllocationBomb).await;
    assert_eq!(report.reason, "process killed by SIGABRT");
    let refused = |line: &String| line.contains("memory allocation of ") && line.ends_with(" bytes failed");
    let words = report.stderr_tail.iter().any(refused);
    assert!(words, "{report:?}");
}

#[tokio::test]
async fn a_worker_that_does_not_get_ready_in_time_is_killed() {
    let within = Duration::from_millis(1500);
    let nursery = Nursery::with_ready_within(Fault::NeverReady, within).await;
    let first = nursery.started().await;
    let report = until("the end is reported", async || {
        nursery.root().crash_reports().first().map(|report| report.record()).ok_or("no report")
    })
    .await;
    assert_eq!(report.reason, format!("process was not ready within {within:?} and was killed"));
    assert_eq!(report.kind, "process_not_ready");
    nursery.leaves_nothing(first).await;
}

#[tokio::test]
async fn a_worker_that_closes_its_pipe_and_lives_is_killed() {
    let report = first_breaks(Fault::ClosedPipe).await;
    assert_eq!(report.reason, "process closed its pipe, lived on, and was killed");
}

#[tokio::test]
async fn a_worker_that_prints_to_the_pipe_is_killed() {
    let report = first_breaks(Fault::Garbage).await;
    assert!(report.reason.starts_with("process sent garbage (a frame of "), "{report:?}");
    assert_eq!(report.kind, "process_garbage");
}

#[tokio::test]
async fn what_a_worker_has_started_dies_with_it() {
    let nursery = Nursery::with(Fault::GarbageFromAParent).await;
    let first = nursery.started().await;
    until("it has a child of its own", async || match group_of(first) {
        group if group.len() == 2 => Ok(()),
        group => Err(group),
    })
    .await;
    nursery.survives(first).await;
}

#[tokio::test]
async fn a_worker_that_dies_within_a_frame_is_reported_by_its_death() {
    let report = first_breaks(Fault::HalfAFrameAndExit).await;
    assert_eq!(report.reason, "process exited with status 3");
}

#[tokio::test]
async fn a_worker_that_stops_within_a_frame_is_killed() {
    let report = first_breaks(Fault::HalfAFrameAndClose).await;
    assert_eq!(report.reason, "process sent garbage (half a frame, and the end) and was killed");
}

#[tokio::test]
async fn a_worker_whose_actor_is_killed_dies_too_and_both_are_restarted() {
    let nursery = Nursery::healthy().await;
    let first = nursery.started().await;
    nursery.address().get().expect("it lives").kill();
    let report = nursery.survives(first).await;
    assert_eq!(report.reason, "killed");
}

#[tokio::test]
async fn a_worker_that_is_asked_to_end_ends_by_itself() {
    assert_eq!(how_it_stops(None).await, ProcessEnd::Exited { code: 0 });
}

#[tokio::test]
async fn a_worker_that_does_not_hear_is_told_by_sigterm() {
    assert_eq!(how_it_stops(Some(Fault::Deaf)).await, ProcessEnd::Signalled { signal: Signal::TERM.as_raw() });
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_killed() {
    assert_eq!(how_it_stops(Some(Fault::DeafToSigterm)).await, ProcessEnd::Signalled { signal: Signal::KILL.as_raw() });
}

#[tokio::test]
async fn a_tree_waits_for_its_worker_processes_and_reports_nothing() {
    for fault in [None, Some(Fault::DeafToSigterm)] {
        let nursery = match fault {
            None => Nursery::healthy().await,
            Some(fault) => Nursery::with(fault).await,
        };
        let worker = nursery.ready().await;
        nursery.root().shutdown().await;
        assert_eq!(group_of(worker), Vec::<String>::new(), "the tree has ended, and its worker has not");
        assert_eq!(nursery.root().crash_reports().len(), 0);
    }
}

/// The report of a worker whose first process breaks in this way.
async fn first_breaks(fault: Fault) -> halm_protocol::CrashRecord {
    let nursery = Nursery::with(fault).await;
    let first = nursery.started().await;
    nursery.survives(first).await
}
