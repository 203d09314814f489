//! Whatever dies while a stream is under way, its client reads the text that it would have read undisturbed.
//!
//! The client is Python's `nats-py`, which knows nothing of halm. Each test asks once undisturbed and compares
//! everything after with that, token by token. `HALM_TEST_KILLS` says how often the killing tests kill.

use std::time::SystemTime;

use futures_util::future::join;
use halm_tests::{Broker, Cluster, Gaps, Transcript, greedy, kills_or, question, story, text_of};
use serde_json::{Value, json};

/// The request without `stream`.
fn at_once(request: &Value) -> Value {
    let mut request = request.clone();
    request["stream"] = json!(false);
    request
}

/// After how many tokens a round's blow falls: never twice at the same place.
fn blow_after(round: u32) -> u32 {
    5 + round * 37 % 120
}

/// Asserts that the blow hit: the stream is the same, and it took another attempt.
#[track_caller]
fn assert_survived(seen: &Transcript, undisturbed: &Transcript) {
    seen.assert_same_stream(undisturbed);
    assert!(seen.reply().attempts >= 2, "nothing was resumed: {:?}", seen.reply());
}

#[tokio::test]
async fn a_plain_request_gets_the_text_that_a_stream_adds_up_to() {
    let cluster = Cluster::start(&["one"]).await;
    for request in [greedy(), story()] {
        let streamed = cluster.ask(&request).await;
        streamed.assert_exact();
        assert!(streamed.chunks().count() > 1, "it came in one piece: {streamed:?}");
        let whole = cluster.ask(&at_once(&request)).await;
        assert_eq!(whole.reply().text(), streamed.text());
        assert_eq!(whole.reply().usage, streamed.reply().usage);
    }
    let answer = cluster.ask(&question()).await;
    assert!(answer.reply().text().contains("Paris"), "{answer:?}");
}

#[tokio::test]
async fn a_conversation_is_answered_with_a_message() {
    let cluster = Cluster::start(&["one"]).await;
    let messages = json!([{ "role": "user", "content": "What is the opposite of hot?" }]);
    let request = json!({ "messages": messages, "max_tokens": 40, "temperature": 0, "stream": true });
    let streamed = cluster.ask(&request).await;
    streamed.assert_exact();
    let whole = cluster.ask(&at_once(&request)).await;
    let message = whole.reply().message.as_ref().expect("a message answers messages");
    assert_eq!((message.role.as_str(), message.content.as_str()), ("assistant", streamed.text().as_str()));
    assert_eq!(whole.reply().finish_reason, streamed.reply().finish_reason);
}

#[tokio::test]
async fn a_worker_killed_mid_stream_changes_nothing() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let mut gaps = Gaps::of("worker killed");
    for round in 0..kills_or(3) {
        let asking = cluster.asking(&story());
        let killed_at = cluster.job_with_tokens(blow_after(round)).await.kill_worker();
        let seen = asking.transcript().await;
        assert_survived(&seen, &undisturbed);
        gaps.push(&seen, killed_at);
        cluster.ready().await;
    }
    gaps.print();
}

#[tokio::test]
async fn a_replica_killed_mid_stream_changes_nothing() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let mut gaps = Gaps::of("replica killed");
    for round in 0..kills_or(3) {
        let asking = cluster.asking(&story());
        let killed_at = cluster.job_with_tokens(blow_after(round)).await.kill_replica();
        let seen = asking.transcript().await;
        assert_survived(&seen, &undisturbed);
        gaps.push(&seen, killed_at);
        cluster.ready().await;
    }
    gaps.print();
}

#[tokio::test]
async fn a_plain_request_is_answered_though_the_replica_that_ran_it_was_killed() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&at_once(&story())).await;
    let asking = cluster.asking(&at_once(&story()));
    cluster.job_with_tokens(40).await.kill_replica();
    let seen = asking.transcript().await;
    assert_eq!(seen.reply().text(), undisturbed.reply().text());
    assert!(seen.reply().attempts >= 2, "nothing was resumed: {:?}", seen.reply());
}

#[tokio::test]
async fn a_worker_that_hangs_is_replaced_and_the_stream_goes_on() {
    let mut cluster = Cluster::start(&["one"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let mut gaps = Gaps::of("worker frozen");
    for round in 0..kills_or(1) {
        let asking = cluster.asking(&story());
        let frozen_at = cluster.job_with_tokens(blow_after(round)).await.freeze_worker();
        let seen = asking.transcript().await;
        assert_survived(&seen, &undisturbed);
        gaps.push(&seen, frozen_at);
        cluster.ready().await;
    }
    gaps.print();
}

#[tokio::test]
async fn a_replica_that_thaws_after_it_was_given_up_adds_nothing_to_the_stream() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let mut gaps = Gaps::of("replica frozen");
    for _ in 0..kills_or(1) {
        let asking = cluster.asking(&story());
        let job = cluster.job_with_tokens(30).await;
        let frozen_at = SystemTime::now();
        cluster.replica(&job.replica).sigstop();
        let taken = cluster.job_with_tokens(31).await;
        assert_ne!(taken.replica, job.replica, "the frozen replica answered");
        cluster.replica(&job.replica).sigcont();
        let seen = asking.transcript().await;
        assert_survived(&seen, &undisturbed);
        gaps.push(&seen, frozen_at);
        // The thawed one is whole again, and lets go of the job.
        cluster.ready().await;
    }
    gaps.print();
    cluster.ask(&story()).await.assert_same_stream(&undisturbed);
}

#[tokio::test]
async fn a_broker_killed_mid_stream_and_started_again_changes_nothing() {
    stream_over_a_broker_that("broker killed and started again", async |broker| broker.kill9().await).await;
}

#[tokio::test]
async fn a_broker_stopped_mid_stream_and_started_again_changes_nothing() {
    stream_over_a_broker_that("broker stopped and started again", async |broker| broker.stop().await).await;
}

/// halm's own client reads the exact text; a plain one sees no fork, and everything in the end.
async fn stream_over_a_broker_that(what: &'static str, goes: impl AsyncFn(&mut Broker)) {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let mut gaps = Gaps::of(what);
    for _ in 0..kills_or(1) {
        let (client, plain) = (cluster.client().clone(), cluster.plain().await);
        let ours = tokio::spawn(async move { text_of(&client, &story()).await });
        let theirs = tokio::spawn(async move { plain.ask("smollm2", story().to_string()).await });
        cluster.job_with_tokens(30).await;
        let gone_at = SystemTime::now();
        goes(cluster.broker()).await;
        cluster.broker().restart().await;
        let (ours, theirs) = join(ours, theirs).await;
        assert_eq!(ours.expect("no panic"), undisturbed.text());
        let theirs = theirs.expect("no panic");
        theirs.assert_no_fork(&undisturbed);
        gaps.push(&theirs, gone_at);
        cluster.ready().await;
    }
    gaps.print();
    cluster.ask(&story()).await.assert_same_stream(&undisturbed);
}
