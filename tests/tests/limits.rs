//! More is asked for than can be computed: who is admitted is in time, who is not is told so at once, and nobody is
//! forgotten.

use std::time::Instant;

use futures_util::future::join_all;
use halm_protocol::ErrorCode;
use halm_tests::{BrokerOptions, Cluster, PlainClient, Record, Transcript};
use serde_json::{Value, json};

/// A text of forty tokens, another for each number.
fn short(number: usize) -> Value {
    json!({ "prompt": format!("Number {number} of the list is"), "max_tokens": 40, "temperature": 0.8, "seed": number })
}

fn with(mut request: Value, field: &str, value: impl Into<Value>) -> String {
    request[field] = value.into();
    request.to_string()
}

/// Asks for all of them at once.
async fn all(client: &PlainClient, requests: impl IntoIterator<Item = String>) -> Vec<Transcript> {
    let ask = |request: String| {
        let client = client.clone();
        tokio::spawn(async move { client.ask("smollm2", request).await })
    };
    join_all(requests.into_iter().map(ask)).await.into_iter().map(|seen| seen.expect("no panic")).collect()
}

/// The error that ended a request, if one did.
fn code(seen: &Transcript) -> Option<ErrorCode> {
    match seen.last() {
        Record::Refusal(refusal) => Some(refusal.code),
        Record::Reply(_) => None,
        other => panic!("no end: {other:?}"),
    }
}

#[tokio::test]
async fn of_ten_times_as_much_as_can_be_done_what_is_admitted_is_in_time() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let plain = cluster.plain().await;
    // Enough to know how long they take when all slots are busy.
    let began = Instant::now();
    let before = all(&plain, (0..32).map(|number| short(number).to_string())).await;
    let took = began.elapsed();
    assert!(before.iter().all(|seen| code(seen).is_none()), "{before:?}");
    // Ten times as many want to be done in the same time.
    let deadline_ms = u64::try_from(took.as_millis()).expect("a short time");
    let seen = all(&plain, (0..320).map(|number| with(short(100 + number), "deadline_ms", deadline_ms))).await;
    let count = |wanted: Option<ErrorCode>| seen.iter().filter(|seen| code(seen) == wanted).count();
    let (done, refused, late) =
        (count(None), count(Some(ErrorCode::Overloaded)), count(Some(ErrorCode::DeadlineExceeded)));
    println!("32 took {deadline_ms} ms; of 320 with this deadline {done} done, {refused} refused, {late} late");
    assert_eq!(done + refused + late, seen.len(), "each has an end that says what happened");
    assert!(refused > 0, "nothing was refused");
    assert!(done > 4 * late, "{late} of those that were admitted came too late, {done} did not");
    let refusals = seen.iter().filter(|seen| code(seen) == Some(ErrorCode::Overloaded));
    assert!(refusals.map(Transcript::refusal).all(|refusal| refusal.retry_after_ms > Some(0)));
}

#[tokio::test]
async fn who_waits_goes_before_a_batch_and_the_batch_is_done_all_the_same() {
    let cluster = Cluster::start(&["one"]).await;
    let plain = cluster.plain().await;
    let requests = (0..40).map(|number| with(short(number), "class", "batch"));
    let theirs = plain.clone();
    let batch = tokio::spawn(async move { all(&theirs, requests).await });
    let first = cluster.job_with_tokens(1).await;
    let counting = cluster.plain().await;
    let mut outcomes = counting.nats().subscribe("halm.v1.done.*").await.expect("a subscription");
    let answer = plain.ask("smollm2", short(999).to_string()).await;
    let mut before = 0;
    while let Some(Some(_)) = futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut outcomes)) {
        before += 1;
    }
    assert!(!answer.reply().text().is_empty());
    assert!(before < 20, "{before} jobs were done before the one that somebody waited for ({})", first.job);
    assert!(batch.await.expect("no panic").iter().all(|seen| code(seen).is_none()));
}

#[tokio::test]
async fn a_batch_job_is_not_forgotten_for_those_who_wait() {
    let cluster = Cluster::start(&["one"]).await;
    let plain = cluster.plain().await;
    // More at a time than there are slots, so that there is always one that waits.
    let flood = |client: PlainClient, lane: usize| async move {
        for number in 0.. {
            client.ask("smollm2", short(1000 * lane + number).to_string()).await;
        }
    };
    let floods: Vec<_> = (1..=12).map(|lane| tokio::spawn(flood(plain.clone(), lane))).collect();
    cluster.job_with_tokens(1).await;
    let batch = plain.ask("smollm2", with(short(7), "class", "batch")).await;
    assert!(floods.iter().all(|flood| !flood.is_finished()), "nobody waited any more");
    floods.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(!batch.reply().text().is_empty());
}

#[tokio::test]
async fn a_job_stream_that_is_full_refuses_and_says_when_to_ask_again() {
    let variables = [("HALM_LIMITS_QUEUE_JOBS", "8")];
    let cluster = Cluster::configured(BrokerOptions::default(), &["one"], &variables).await;
    let plain = cluster.plain().await;
    let seen = all(&plain, (0..60).map(|number| short(number).to_string())).await;
    let refused = seen.iter().filter(|seen| code(seen) == Some(ErrorCode::Overloaded)).count();
    let done = seen.iter().filter(|seen| code(seen).is_none()).count();
    assert!(refused > 0 && done >= 8, "{refused} refused, {done} done");
    assert_eq!(refused + done, 60);
}
