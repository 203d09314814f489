//! How a job ends: its client is told, also if it was away; it can be cancelled; and nothing of it stays.

use futures_util::StreamExt;
use halm_client::Event;
use halm_protocol::{CancelState, ErrorCode, JobId, Request, stream, subject};
use halm_tests::{Cluster, PlainClient, Record, Transcript, question, story, until};
use serde_json::Value;

/// Waits until the queue is empty: every job is settled and acknowledged.
async fn queue_is_empty(client: &PlainClient) {
    until("the queue is empty", async || {
        let asked = client.nats().request(format!("$JS.API.STREAM.INFO.{}", stream::JOBS), "".into()).await;
        let told = asked.map_err(|error| error.to_string())?;
        let told: Value = serde_json::from_slice(&told.payload).map_err(|error| error.to_string())?;
        if told["state"]["messages"] == 0 { Ok(()) } else { Err(told["state"].to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_was_away_when_its_answer_was_complete_is_told_when_it_is_back() {
    let cluster = Cluster::start(&["one"]).await;
    let plain = cluster.plain().await;
    let inbox = plain.nats().new_inbox();
    let mut outcomes = plain.nats().subscribe(subject::DONE_ALL).await.expect("a subscription");
    let asked = question().to_string().into();
    plain.nats().publish_with_reply("halm.v1.generate.smollm2", inbox.clone(), asked).await.expect("it is sent");
    outcomes.next().await.expect("it ends");
    let mut back = plain.nats().subscribe(inbox).await.expect("a subscription");
    let record = Record::of(&back.next().await.expect("the answer comes").payload);
    assert!(record.is_last());
    queue_is_empty(&plain).await;
}

#[tokio::test]
async fn jobs_of_clients_that_leave_with_their_answer_go_too_whoever_watches() {
    let cluster = Cluster::start(&["one"]).await;
    let plain = cluster.plain().await;
    // Whoever reads everything answers nothing.
    let _watching = cluster.plain().await.nats().subscribe(">").await.expect("a subscription");
    for _ in 0..20 {
        let one = PlainClient::connect(&cluster.url()).await;
        assert!(!one.ask("smollm2", question().to_string()).await.reply().text().is_empty());
    }
    queue_is_empty(&plain).await;
}

#[tokio::test]
async fn a_cancelled_job_computes_nothing_more_and_its_client_is_told() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let request = Request::parse(story().to_string().as_bytes()).expect("a good request");
    let mut stream = cluster.client().generate("smollm2", &request).await.expect("somebody hears it");
    let Some(Ok(Event::Chunk(first))) = stream.next().await else { panic!("a stream begins with a chunk") };
    assert_eq!(cluster.client().cancel(&first.job).await.expect("somebody hears it"), CancelState::Cancelled);
    let end = loop {
        match stream.next().await.expect("an end") {
            Ok(Event::Chunk(_)) => {}
            end => break end,
        }
    };
    let Err(halm_client::ClientError::Refused(refusal)) = end else { panic!("{end:?}") };
    assert_eq!(refusal.code, ErrorCode::Cancelled);
    let again = cluster.client().cancel(&first.job).await.expect("somebody hears it");
    assert_eq!(again, CancelState::Ended);
    queue_is_empty(&cluster.plain().await).await;
}

#[tokio::test]
async fn a_job_whose_holder_is_frozen_is_cancelled_all_the_same() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let plain = cluster.plain().await;
    let theirs = plain.clone();
    let asked = tokio::spawn(async move { theirs.ask("smollm2", story().to_string()).await });
    let job = cluster.job_with_tokens(20).await;
    cluster.replica(&job.replica).sigstop();
    assert_eq!(cluster.client().cancel(&job.job).await.expect("somebody hears it"), CancelState::Cancelled);
    let seen: Transcript = asked.await.expect("no panic");
    assert_eq!(seen.broken_off().code, ErrorCode::Cancelled);
    cluster.replica(&job.replica).sigcont();
    cluster.ready().await;
    queue_is_empty(&plain).await;
}

#[tokio::test]
async fn what_is_unknown_can_be_cancelled_and_harms_nobody() {
    let cluster = Cluster::start(&["one"]).await;
    let job = JobId::try_from("0123456789abcdef0123456789abcdef").expect("an id");
    assert_eq!(cluster.client().cancel(&job).await.expect("somebody hears it"), CancelState::Cancelled);
    assert!(!cluster.ask(&question()).await.reply().text().is_empty());
}
