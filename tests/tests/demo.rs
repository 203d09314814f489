//! `halm demo` shows what it says, and cleans up after itself.

use halm_tests::{Halm, Process, Turn, until};
use rustix::process::Signal;
use tempfile::TempDir;

/// A demo whose temporary files land in a folder of ours.
fn demo() -> (Process, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    (Halm::new(["demo"]).env("TMPDIR", folder.path().display()).spawn(), folder)
}

fn files(folder: &TempDir) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder.path()).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[tokio::test]
async fn the_demo_ends_with_three_identical_texts_and_leaves_nothing_behind() {
    let _turn = Turn::take();
    let (mut demo, folder) = demo();
    let status = demo.exit().await;
    let (stdout, stderr) = (demo.stdout(), demo.stderr());
    assert!(status.success(), "{status}: {stdout}{stderr}");
    let verdict = stdout.lines().next_back().unwrap_or_default();
    println!("{verdict}");
    assert!(verdict.starts_with("verdict: identical"), "{stdout}");
    demo.leaves_nothing().await;
    assert_eq!(files(&folder), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let _turn = Turn::take();
    let (mut demo, folder) = demo();
    until("the demo is under way", async || {
        let stdout = demo.stdout();
        if stdout.contains("tokens") { Ok(()) } else { Err((stdout, demo.stderr())) }
    })
    .await;
    assert!(demo.descendants().len() > 3, "broker, replicas and workers run: {:?}", demo.descendants());
    demo.signal(Signal::INT);
    assert_eq!(demo.exit().await.code(), Some(130), "{}", demo.stderr());
    demo.leaves_nothing().await;
    assert_eq!(files(&folder), Vec::<std::path::PathBuf>::new());
}
