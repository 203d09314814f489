//! `halm chaos` breaks what it says, judges what it saw, and cleans up after itself.

use halm_tests::{Cluster, Halm, Process, Turn, until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// A run whose temporary files and report land in a folder of ours.
fn chaos(arguments: &[&str]) -> (Process, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let temporary = folder.path().join("temporary");
    std::fs::create_dir(&temporary).expect("a folder in a temporary folder");
    let halm = Halm::new([&["chaos"], arguments].concat()).arg("--report").arg(folder.path().join("report"));
    (halm.env("TMPDIR", temporary.display()).spawn(), folder)
}

/// Waits until a run has said something: each part of it is given as long as anything else is.
async fn says(chaos: &Process, words: &str) {
    until(&format!("chaos says {words:?}"), async || {
        let stdout = chaos.stdout();
        if stdout.contains(words) { Ok(()) } else { Err((stdout, chaos.stderr())) }
    })
    .await;
}

/// Sees a run through to its end.
async fn seen_through(chaos: &mut Process) -> Option<i32> {
    says(chaos, "times a second").await;
    says(chaos, "report: ").await;
    chaos.exit().await.code()
}

fn left_in(folder: &TempDir) -> usize {
    std::fs::read_dir(folder.path().join("temporary")).expect("a folder").count()
}

fn report(folder: &TempDir) -> Value {
    let bytes = std::fs::read(folder.path().join("report/report.json")).expect("a report");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test]
async fn a_short_run_keeps_every_promise_and_says_so() {
    let _turn = Turn::take();
    // The availability of a busy machine is not what this test is about.
    let only = "worker-kill,replica-kill,link-reset";
    let arguments = ["--seed", "3", "--minutes", "0.3", "--only", only, "--slo-availability", "0"];
    let (mut chaos, folder) = chaos(&arguments);
    let code = seen_through(&mut chaos).await;
    let (stdout, stderr) = (chaos.stdout(), chaos.stderr());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let verdict = stdout.lines().next_back().unwrap_or_default();
    println!("{verdict}");
    assert!(verdict.starts_with("verdict: kept - 3 faults, "), "{stdout}");
    chaos.leaves_nothing().await;
    assert_eq!(left_in(&folder), 0, "something was left behind");

    let told = report(&folder);
    assert_eq!((told["kept"].as_bool(), told["line"].as_str()), (Some(true), Some(verdict)), "{told}");
    assert_eq!(told["setting"]["seed"], 3);
    let requests = &told["requests"];
    assert!(requests["right"].as_u64() > Some(5) && requests["right"] == requests["offered"], "{requests}");
    assert!(requests["resumed"].as_u64() > Some(0), "no blow hit anybody: {requests}");
    let mut rungs: Vec<_> =
        told["faults"].as_array().expect("a list").iter().map(|fault| fault["rung"].as_str()).collect();
    rungs.sort_unstable();
    assert_eq!(rungs, [Some("link-reset"), Some("replica-kill"), Some("worker-kill")]);
    let state = |id: &str| {
        let all = told["invariants"].as_array().expect("a list");
        all.iter().find(|invariant| invariant["id"] == id).map(|invariant| invariant["finding"]["state"].clone())
    };
    for id in ["INV-1", "INV-2", "INV-3", "INV-4", "INV-5"] {
        assert_eq!(state(id), Some("kept".into()), "{id}: {told}");
    }
    assert_eq!(state("INV-7"), Some("not_judged".into()), "nothing was poisoned");
    let page = std::fs::read_to_string(folder.path().join("report/report.html")).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "half a page");
    assert!(
        !page.contains("src=") && !page.contains("href=") && !page.contains("url("),
        "the page wants something else"
    );
}

/// The judge has teeth: somebody else's deployment is watched, and its workers begin to lie.
#[tokio::test]
async fn workers_that_lie_are_found_out_and_the_promise_that_they_broke_is_named() {
    let mut cluster = Cluster::start(&["one"]).await;
    let url = cluster.url();
    let arguments = ["--url", &url, "--seed", "3", "--minutes", "0.4", "--rate", "1", "--slo-availability", "0"];
    let (mut chaos, folder) = chaos(&arguments);
    says(&chaos, "times a second").await;
    cluster.restart_with(&[("TEST_FAULT", "liar")]).await;
    let code = seen_through(&mut chaos).await;
    let stdout = chaos.stdout();
    assert_eq!(code, Some(1), "{stdout}{}", chaos.stderr());
    let verdict = stdout.lines().next_back().unwrap_or_default();
    println!("{verdict}");
    assert!(verdict.starts_with("verdict: broken - INV-3 "), "{stdout}");
    let told = report(&folder);
    assert!(told["tokens"]["flaws"]["changed"].as_u64() > Some(0), "{told}");
    assert_eq!(told["requests"]["unsettled"], 0, "{told}");
}

#[tokio::test]
async fn a_run_that_is_interrupted_leaves_nothing_behind() {
    let _turn = Turn::take();
    let (mut chaos, folder) = chaos(&["--seed", "3"]);
    says(&chaos, "times a second").await;
    assert!(chaos.descendants().len() > 9, "brokers, replicas and workers run: {:?}", chaos.descendants());
    chaos.signal(Signal::INT);
    assert_eq!(chaos.exit().await.code(), Some(130), "{}", chaos.stderr());
    chaos.leaves_nothing().await;
    assert_eq!(left_in(&folder), 0, "something was left behind");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_anything_starts() {
    for (arguments, named) in [
        (vec!["--only", "worker-tickle"], "worker-tickle"),
        (vec!["--minutes", "0"], "--minutes"),
        (vec!["--minutes", "NaN"], "--minutes"),
        (vec!["--rate", "0"], "--rate"),
        (vec!["--slo-availability", "2"], "--slo-availability"),
        (vec!["--minutes", "0.1", "--only", "rolling-restart"], "too short"),
        (vec!["--url", "nats://127.0.0.1:1", "--only", "worker-kill"], "--only"),
        (vec!["--report", "/dev/null/report"], "/dev/null/report"),
    ] {
        let joined: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut halm = Halm::new([vec!["chaos".to_owned()], joined].concat());
        if !arguments.contains(&"--report") {
            halm = halm.arg("--report").arg(dir.path());
        }
        halm.run().await.assert_refused(&[named]);
    }
}
