//! Three brokers in one cluster, every stream on all of them: one is killed, and nothing changes.

use std::time::SystemTime;

use futures_util::future::join;
use halm_protocol::stream;
use halm_tests::{BrokerOptions, Cluster, Gaps, PlainClient, story, text_of, until};
use serde_json::Value;

async fn three_brokers() -> Cluster {
    let options = BrokerOptions { servers: 3, ..BrokerOptions::default() };
    Cluster::configured(options, &["one", "two"], &[("HALM_NATS_COPIES", "3")]).await
}

/// Streams go on though the leader of this stream of the broker is killed.
async fn streams_over_the_death_of_the_leader_of(led: &str) {
    let mut cluster = three_brokers().await;
    let plain = cluster.plain().await;
    let undisturbed = plain.ask("smollm2", story().to_string()).await;
    let (client, theirs) = (cluster.client().clone(), plain.clone());
    let ours = tokio::spawn(async move { text_of(&client, &story()).await });
    let theirs = tokio::spawn(async move { theirs.ask("smollm2", story().to_string()).await });
    cluster.job_with_tokens(30).await;
    let killed_at = SystemTime::now();
    cluster.leader_of(led).await.kill9().await;
    let (ours, theirs) = join(ours, theirs).await;
    assert_eq!(ours.expect("no panic"), undisturbed.text());
    let theirs = theirs.expect("no panic");
    theirs.assert_no_fork(&undisturbed);
    let mut gaps = Gaps::of("leader of three brokers killed");
    gaps.push(&theirs, killed_at);
    gaps.print();
    // Two of three are enough for what comes next.
    let again = PlainClient::connect(&cluster.url()).await.ask("smollm2", story().to_string()).await;
    again.assert_same_stream(&undisturbed);
}

#[tokio::test]
async fn streams_go_on_though_the_leader_of_the_token_log_is_killed() {
    streams_over_the_death_of_the_leader_of(stream::LOG).await;
}

#[tokio::test]
async fn streams_go_on_though_the_leader_of_the_jobs_is_killed() {
    streams_over_the_death_of_the_leader_of(stream::JOBS).await;
}

#[tokio::test]
async fn a_replica_and_a_broker_die_together_and_nothing_is_lost() {
    let mut cluster = three_brokers().await;
    let plain = cluster.plain().await;
    let undisturbed = plain.ask("smollm2", story().to_string()).await;
    let client = cluster.client().clone();
    let ours = tokio::spawn(async move { text_of(&client, &story()).await });
    let job = cluster.job_with_tokens(30).await;
    cluster.leader_of(stream::LOG).await.kill9().await;
    cluster.replica(&job.replica).kill9().await;
    assert_eq!(ours.await.expect("no panic"), undisturbed.text());
    let nats = cluster.client().nats().clone();
    until("the queue is empty", async || {
        let asked = nats.request(format!("$JS.API.STREAM.INFO.{}", stream::JOBS), "".into()).await;
        let told = asked.map_err(|error| error.to_string())?;
        let told: Value = serde_json::from_slice(&told.payload).map_err(|error| error.to_string())?;
        if told["state"]["messages"] == 0 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
}
