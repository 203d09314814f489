//! What an operator sees: the tree of every replica, one actor with its crash reports, and both while things die.

use std::collections::BTreeSet;

use halm_protocol::ReplicaStatus;
use halm_tests::{Cluster, Halm, Process, story, until};
use rustix::process::Signal;

/// Every actor of a replica with two workers and no broker of its own.
const ACTORS: [&str; 11] = [
    "root",
    "root/connection",
    "root/peers",
    "root/pools",
    "root/pools/smollm2@1",
    "root/pools/smollm2@1/dispatcher",
    "root/pools/smollm2@1/workers",
    "root/pools/smollm2@1/workers/1",
    "root/pools/smollm2@1/workers/2",
    "root/pools/smollm2@1/consumer",
    "root/ingress",
];

#[tokio::test]
async fn one_worker_is_shown_with_its_last_crash_reports_and_without_a_word_of_the_prompt() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let asking = cluster.asking(&story());
    let job = cluster.job_with_tokens(10).await;
    job.kill_worker();
    asking.transcript().await.assert_exact();
    let shown = Halm::new(["status", "--nats", &cluster.url(), &job.worker_path]).run().await;
    let text = shown.printed();
    let expected = [
        &format!("  {}", job.worker_path),
        "1 restart",
        "1 crash report to show",
        "process killed by SIGKILL",
        "incarnation 1, 0 restarts before; restarted after",
        &format!("doing: job {} attempt 1 at token", job.job),
    ];
    for words in expected {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    assert!(!text.contains("lighthouse") && !text.contains("dispatcher"), "{text}");

    let json = Halm::new(["status", "--json", "--nats", &cluster.url(), "root/pools"]).run().await;
    let replicas: Vec<ReplicaStatus> = serde_json::from_str(json.printed()).expect("JSON of replicas");
    let holder = replicas.iter().find(|status| status.replica.as_str() == job.replica).expect("it answered");
    assert_eq!((holder.crashes.reports, holder.crashes.restarts, holder.crashes.escalations), (1, 1, 0));
    assert_eq!(holder.crashes.by_kind.get("process_signalled"), Some(&1));
    assert_eq!(holder.crash_reports.len(), 1, "a report of an actor below is a report of the place");
    assert!(holder.tree.iter().all(|actor| actor.path.starts_with("root/pools") && actor.mailbox.is_some()));
}

#[tokio::test]
async fn a_path_that_nobody_has_is_an_error() {
    let cluster = Cluster::start(&["one"]).await;
    let shown = Halm::new(["status", "--nats", &cluster.url(), "root/pools/gpt@1"]).run().await;
    shown.assert_refused(&["root/pools/gpt@1", "halm status"]);
}

#[tokio::test]
async fn who_watches_sees_each_death_and_each_restart_and_never_a_wrong_tree() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let watching = Halm::new(["status", "--watch", "--nats", &cluster.url()]).spawn();
    let mut recording = Halm::new(["status", "--watch", "--json", "--nats", &cluster.url()]).spawn();
    shows(&watching, "two  halm").await;

    for deaths in 1..=3_u64 {
        let worker = worker_of(&cluster, "one", 2).await;
        halm_tests::kill(worker, Signal::KILL);
        let restarts = if deaths == 1 { "1 restart".to_owned() } else { format!("{deaths} restarts") };
        shows(&watching, &restarts).await;
        until("it is up again", async || match statuses(&recording).last() {
            Some(seen) if restarts_of(seen, "one", 2) == deaths && all_ready(seen) => Ok(()),
            seen => Err(format!("{seen:?}")),
        })
        .await;
    }
    cluster.replica("two").kill9().await;
    shows(&watching, "two  did not answer").await;

    recording.signal(Signal::INT);
    assert_eq!(recording.exit().await.code(), Some(0));
    let seen = statuses(&recording);
    let expected: BTreeSet<&str> = ACTORS.into();
    for status in seen.iter().flatten() {
        let paths: BTreeSet<&str> = status.tree.iter().map(|actor| actor.path.as_str()).collect();
        assert_eq!(paths, expected, "of {}", status.replica);
    }
    let counts: Vec<u64> = seen.iter().map(|replicas| restarts_of(replicas, "one", 2)).collect();
    assert!(counts.is_sorted(), "restarts were taken back: {counts:?}");
    assert_eq!(BTreeSet::from_iter(counts), BTreeSet::from([0, 1, 2, 3]), "a death was not shown");
}

/// Waits until the watcher has written these words.
async fn shows(watcher: &Process, words: &str) {
    until(&format!("the watcher shows {words:?}"), async || {
        let text = watcher.stdout();
        if text.contains(words) { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Every picture that was recorded.
fn statuses(recording: &Process) -> Vec<Vec<ReplicaStatus>> {
    let text = recording.stdout();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a line is a picture")).collect()
}

fn restarts_of(replicas: &[ReplicaStatus], name: &str, worker: u32) -> u64 {
    let path = format!("root/pools/smollm2@1/workers/{worker}");
    let of = replicas.iter().filter(|status| status.replica.as_str() == name).flat_map(|status| &status.tree);
    of.filter(|actor| actor.path == path).map(|actor| actor.restarts).next().unwrap_or_default()
}

fn all_ready(replicas: &[ReplicaStatus]) -> bool {
    replicas.iter().flat_map(|status| &status.workers).all(|worker| worker.ready)
}

async fn worker_of(cluster: &Cluster, name: &str, number: u32) -> u32 {
    until("the worker runs", async || {
        let seen = cluster.client().replicas(std::time::Duration::from_millis(500)).await.map_err(|e| e.to_string())?;
        let replica = seen.answered.iter().find(|status| status.replica.as_str() == name);
        let worker = replica.and_then(|status| status.workers.iter().find(|worker| worker.worker == number));
        worker.filter(|worker| worker.ready).and_then(|worker| worker.pid).ok_or_else(|| format!("{seen:?}"))
    })
    .await
}
