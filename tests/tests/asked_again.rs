//! A request with an idempotency key is asked again: it is computed once, and whoever asks reads the same.

use async_nats::HeaderMap;
use halm_protocol::header;
use halm_tests::{Cluster, Transcript, story};

fn key(key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::MESSAGE_ID, key);
    headers
}

/// Asserts that it is the same text, and that its chunks add up to it.
#[track_caller]
fn assert_whole(seen: &Transcript, undisturbed: &Transcript) {
    seen.assert_no_fork(undisturbed);
    assert_eq!(seen.text(), undisturbed.text());
}

#[tokio::test]
async fn who_asks_again_while_it_runs_reads_the_same_stream_though_its_holder_is_killed() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let (first, second) = (cluster.plain().await, cluster.plain().await);
    let ask = |client: halm_tests::PlainClient, headers: HeaderMap| {
        tokio::spawn(async move { client.ask_with("smollm2", headers, story().to_string()).await })
    };
    let first = ask(first, key("once"));
    let job = cluster.job_with_tokens(30).await;
    let joined = ask(second.clone(), key("once"));
    let mut back = key("once");
    back.insert(header::OFFSET, "20");
    let back = ask(second, back);
    let later = cluster.job_with_tokens(60).await;
    assert_eq!(later.job, job.job, "it is computed once");
    later.kill_worker();
    let (first, joined, back) = (first.await, joined.await, back.await);
    first.expect("no panic").assert_same_stream(&undisturbed);
    assert_whole(&joined.expect("no panic"), &undisturbed);
    let back = back.expect("no panic");
    back.assert_no_fork(&undisturbed);
    let begins = back.chunks().next().expect("a chunk");
    let has_it =
        |offset: u32, tokens: usize| (offset..=offset + u32::try_from(tokens).unwrap_or(u32::MAX)).contains(&20);
    assert!(has_it(begins.offset, begins.tokens.len()), "it goes on where it was: {begins:?}");
    assert!(undisturbed.text().ends_with(&back.text()));
    cluster.ready().await;
}

#[tokio::test]
async fn an_offset_that_is_no_number_is_refused_by_name() {
    let cluster = Cluster::start(&["one"]).await;
    let mut headers = key("once");
    headers.insert(header::OFFSET, "soon");
    let seen = cluster.plain().await.ask_with("smollm2", headers, story().to_string()).await;
    assert_eq!(seen.refusal().param.as_deref(), Some(header::OFFSET));
}
