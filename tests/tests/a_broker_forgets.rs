//! Streams and consumers vanish under running replicas, and what was accepted is answered all the same.

use futures_util::future::join_all;
use halm_protocol::stream;
use halm_tests::{Cluster, PlainClient, Transcript, question, story, text_of};
use serde_json::{Value, json};

/// Asks the broker's own interface, and asserts that it did what it was asked.
async fn broker(client: &PlainClient, subject: String) -> Value {
    let answer = client.nats().request(subject, "".into()).await.expect("the broker answers");
    let told: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert!(told["error"].is_null(), "{told}");
    told
}

async fn delete(client: &PlainClient, stream: &str) {
    broker(client, format!("$JS.API.STREAM.DELETE.{stream}")).await;
}

/// A text of thirty tokens, another for each number.
fn numbered(number: usize) -> Value {
    json!({ "prompt": format!("The {number}. chapter begins:"), "max_tokens": 30, "temperature": 0.8, "seed": number })
}

#[tokio::test]
async fn a_queue_that_was_deleted_with_accepted_jobs_in_it_is_filled_again() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let plain = cluster.plain().await;
    let undisturbed = cluster.ask(&story()).await;
    let client = cluster.client().clone();
    let long = tokio::spawn(async move { text_of(&client, &story()).await });
    cluster.job_with_tokens(20).await;
    let ask = |number| {
        let plain = plain.clone();
        tokio::spawn(async move { plain.ask("smollm2", numbered(number).to_string()).await })
    };
    // Many more than there are slots, so that most of them wait.
    let asked: Vec<_> = (0..40).map(ask).collect();
    halm_tests::until("jobs wait in the queue", async || {
        let told = broker(&plain, format!("$JS.API.STREAM.INFO.{}", stream::JOBS)).await;
        if told["state"]["messages"].as_u64() >= Some(30) { Ok(()) } else { Err(told["state"].to_string()) }
    })
    .await;
    delete(&plain, stream::JOBS).await;
    let seen: Vec<Transcript> = join_all(asked).await.into_iter().map(|seen| seen.expect("no panic")).collect();
    assert!(seen.iter().all(|seen| !seen.reply().text().is_empty()), "{seen:?}");
    assert_eq!(long.await.expect("no panic"), undisturbed.text());
    for number in [3, 38] {
        let again = plain.ask("smollm2", numbered(number).to_string()).await;
        assert_eq!(again.reply().text(), seen[number].reply().text());
    }
    cluster.ready().await;
}

#[tokio::test]
async fn a_log_that_was_deleted_under_a_stream_is_written_again() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let client = cluster.client().clone();
    let asked = tokio::spawn(async move { text_of(&client, &story()).await });
    cluster.job_with_tokens(40).await;
    delete(&cluster.plain().await, stream::LOG).await;
    assert_eq!(asked.await.expect("no panic"), undisturbed.text());
}

#[tokio::test]
async fn outcomes_and_consumers_that_were_deleted_are_made_again() {
    let cluster = Cluster::start(&["one"]).await;
    let plain = cluster.plain().await;
    delete(&plain, stream::DONE).await;
    assert!(plain.ask("smollm2", question().to_string()).await.reply().text().contains("Paris"));
    for consumer in ["smollm2-135m", "smollm2-135m+batch"] {
        broker(&plain, format!("$JS.API.CONSUMER.DELETE.{}.{consumer}", stream::JOBS)).await;
    }
    for class in ["interactive", "batch"] {
        let mut request = question();
        request["class"] = class.into();
        assert!(plain.ask("smollm2", request.to_string()).await.reply().text().contains("Paris"));
    }
}
