//! A plain NATS request is answered, whoever dies between hearing it and answering it. No client here asks twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::StreamExt;
use futures_util::future::join_all;
use halm_protocol::{Notice, Verdict, subject};
use halm_tests::{Cluster, PlainClient, Transcript, question, until};
use serde_json::{Value, json};

/// Requests at once: one of two replicas is picked for each.
const REQUESTS: usize = 10;
/// As a known peer measured itself: so many clients, and so many requests of each.
const CLIENTS: usize = 8;
const REQUESTS_EACH: usize = 100;

fn ask(client: &PlainClient, request: Value) -> tokio::task::JoinHandle<Transcript> {
    let client = client.clone();
    tokio::spawn(async move { client.ask("smollm2", request.to_string()).await })
}

async fn answers(asked: Vec<tokio::task::JoinHandle<Transcript>>) -> Vec<String> {
    let told = join_all(asked).await;
    told.into_iter().map(|seen| seen.expect("an answer").reply().text().to_owned()).collect()
}

#[tokio::test]
async fn requests_that_a_dead_replica_took_are_answered_by_another() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let plain = cluster.plain().await;
    let right = plain.ask("smollm2", question().to_string()).await.reply().text().to_owned();
    // What it hears it can neither store nor say anything of.
    cluster.replica("one").sigstop();
    let asked = (0..REQUESTS).map(|_| ask(&plain, question())).collect();
    cluster.replica("one").kill9().await;
    assert!(answers(asked).await.iter().all(|text| *text == right));
}

#[tokio::test]
async fn a_replica_that_took_requests_and_thaws_changes_nothing() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let plain = cluster.plain().await;
    let right = plain.ask("smollm2", question().to_string()).await.reply().text().to_owned();
    let mut notices = plain.nats().subscribe(subject::HEARD_ALL).await.expect("a subscription");
    cluster.replica("one").sigstop();
    let asked = (0..REQUESTS).map(|_| ask(&plain, question())).collect();
    assert!(answers(asked).await.iter().all(|text| *text == right), "while it is frozen");
    let mut admitted = 0;
    while admitted < REQUESTS {
        let notice = Notice::from_bytes(&notices.next().await.expect("a connection").payload).expect("a notice");
        assert_eq!(notice.replica.as_str(), "two");
        admitted += usize::from(notice.verdict == Verdict::Admitted);
    }
    cluster.replica("one").sigcont();
    cluster.ready().await;
    let replica = &cluster.client().replicas(std::time::Duration::from_secs(2)).await.expect("a broker").answered;
    let told = |status: &halm_protocol::ReplicaStatus| status.jobs.iter().all(|job| job.phase == "offered");
    assert!(replica.iter().all(told), "{replica:?}");
    let again = plain.ask("smollm2", question().to_string()).await;
    assert_eq!(again.reply().text(), right);
}

#[tokio::test]
async fn a_bad_request_that_a_dead_replica_took_is_refused_by_another() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let plain = cluster.plain().await;
    cluster.replica("one").sigstop();
    let asked: Vec<_> = (0..REQUESTS).map(|_| ask(&plain, json!({ "prompt": 7 }))).collect();
    cluster.replica("one").kill9().await;
    for seen in join_all(asked).await {
        assert_eq!(seen.expect("an answer").refusal().code, halm_protocol::ErrorCode::InvalidRequest);
    }
}

#[tokio::test]
async fn none_of_eight_hundred_requests_fails_though_a_worker_a_replica_and_a_taker_are_killed() {
    let mut cluster = Cluster::start(&["one", "two", "three"]).await;
    let request = json!({ "prompt": "The capital of France is", "max_tokens": 16, "temperature": 0 });
    let right = cluster.plain().await.ask("smollm2", request.to_string()).await.reply().text().to_owned();
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let (client, request, right, done) = (cluster.plain().await, request.clone(), right.clone(), Arc::clone(&done));
        clients.push(tokio::spawn(async move {
            for _ in 0..REQUESTS_EACH {
                let seen = client.ask("smollm2", request.to_string()).await;
                assert_eq!(seen.reply().text(), right);
                done.fetch_add(1, Relaxed);
            }
        }));
    }
    let served = async |count: usize| {
        until(&format!("{count} requests are answered"), async || {
            let now = done.load(Relaxed);
            if now >= count { Ok(()) } else { Err(format!("{now} are")) }
        })
        .await;
    };
    served(100).await;
    cluster.job_with_tokens(2).await.kill_worker();
    served(200).await;
    cluster.job_with_tokens(2).await.kill_replica();
    served(300).await;
    cluster.start_again();
    served(400).await;
    // Whoever it is picked for now waits in vain for it.
    cluster.replica("two").sigstop();
    served(450).await;
    cluster.replica("two").kill9().await;
    cluster.start_again();
    for client in join_all(clients).await {
        client.expect("every request was answered, and rightly");
    }
    assert_eq!(done.load(Relaxed), CLIENTS * REQUESTS_EACH);
}
