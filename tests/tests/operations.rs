//! What an operator does: start, look, drain, stop; and what a replica leaves behind, which is nothing.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use halm::assets::Assets;
use halm::process::free_port;
use halm_client::Client;
use halm_protocol::ReplicaStatus;
use halm_tests::{BrokerOptions, Cluster, Halm, PlainClient, Replica, Turn, greedy, question, story, until};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

/// The options of `halm ask` that make it [`question`].
const QUESTION: [&str; 6] = ["--raw", "--max-tokens", "8", "--temperature", "0", "The capital of France is"];

/// A replica with a broker of its own.
struct Local {
    replica: Replica,
    url: String,
}

impl Local {
    /// Starts one in a data folder, and waits until it is ready.
    async fn start(folder: &TempDir) -> Self {
        Self::start_with(folder, &[]).await
    }

    async fn start_with(folder: &TempDir, variables: &[(&str, &str)]) -> Self {
        let listen = format!("127.0.0.1:{}", free_port().expect("a free port"));
        let halm = Halm::new(["serve", "--data-dir"]).arg(folder.path()).env("HALM_BROKER_LISTEN", &listen);
        let halm = variables.iter().fold(halm, |halm, (name, value)| halm.env(name, value));
        let local = Self { replica: Replica::of(halm, "local"), url: format!("nats://{listen}") };
        until("the replica is ready", async || {
            let client = Client::connect(&local.url).await.map_err(|error| error.to_string())?;
            let seen = client.replicas(Duration::from_millis(500)).await.map_err(|error| error.to_string())?;
            let ready = |status: &ReplicaStatus| status.workers.iter().all(|worker| worker.ready);
            if seen.answered.iter().any(ready) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        local
    }

    async fn assert_answers(&self) {
        let seen = PlainClient::connect(&self.url).await.ask("smollm2", question().to_string()).await;
        assert!(seen.reply().text().contains("Paris"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_replica_that_is_told_to_go_finishes_its_stream_first() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let asking = cluster.asking(&story());
    let job = cluster.job_with_tokens(20).await;
    let leaving = cluster.replica(&job.replica);
    leaving.sigterm();
    assert_eq!(leaving.wait_exit().await, Some(0));
    leaving.process().leaves_nothing().await;
    asking.transcript().await.assert_same_stream(&undisturbed);
    cluster.ready().await;
}

#[tokio::test]
async fn the_last_replica_answers_what_it_has_before_it_goes() {
    let mut cluster = Cluster::start(&["one"]).await;
    let undisturbed = cluster.ask(&greedy()).await;
    let asking = cluster.asking(&greedy());
    cluster.job_with_tokens(20).await;
    cluster.replica("one").sigterm();
    let seen = asking.transcript().await;
    seen.assert_same_stream(&undisturbed);
    assert_eq!(seen.reply().attempts, 1, "it was drained, not disturbed");
    assert_eq!(cluster.replica("one").wait_exit().await, Some(0));
    cluster.replica("one").process().leaves_nothing().await;
}

#[tokio::test]
async fn a_replica_whose_grace_is_over_hands_its_stream_to_its_peer() {
    let no_grace = [("HALM_REPLICA_DRAIN_S", "0")];
    let mut cluster = Cluster::configured(BrokerOptions::default(), &["one", "two"], &no_grace).await;
    let undisturbed = cluster.ask(&story()).await;
    let asking = cluster.asking(&story());
    let job = cluster.job_with_tokens(20).await;
    cluster.replica(&job.replica).sigterm();
    assert_eq!(cluster.replica(&job.replica).wait_exit().await, Some(0));
    let seen = asking.transcript().await;
    seen.assert_same_stream(&undisturbed);
    assert_eq!(seen.reply().attempts, 2, "the peer went on with it");
}

#[tokio::test]
async fn a_draining_replica_still_tells_how_it_is() {
    let mut cluster = Cluster::start(&["one"]).await;
    let asking = cluster.asking(&story());
    cluster.job_with_tokens(5).await;
    cluster.replica("one").sigterm();
    cluster.replica("one").says("draining").await;
    until("its status says that it drains", async || {
        let seen = cluster.client().replicas(Duration::from_millis(500)).await.map_err(|error| error.to_string())?;
        if seen.answered.iter().any(|status| status.draining) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    asking.transcript().await.assert_exact();
}

#[tokio::test]
async fn a_replica_that_is_told_twice_goes_at_once_and_its_stream_goes_on_elsewhere() {
    let mut cluster = Cluster::start(&["one", "two"]).await;
    let undisturbed = cluster.ask(&story()).await;
    let asking = cluster.asking(&story());
    let job = cluster.job_with_tokens(20).await;
    let leaving = cluster.replica(&job.replica);
    leaving.sigterm();
    leaving.says("draining").await;
    leaving.sigterm();
    assert_eq!(leaving.wait_exit().await, Some(1));
    leaving.process().leaves_nothing().await;
    let seen = asking.transcript().await;
    seen.assert_same_stream(&undisturbed);
    assert_eq!(seen.reply().attempts, 2, "the peer went on with it");
}

#[tokio::test]
async fn a_replica_without_nats_runs_its_own_and_leaves_nothing_when_told_to_go() {
    let (_turn, folder) = (Turn::take(), tempfile::tempdir().expect("a temporary folder"));
    let mut local = Local::start(&folder).await;
    local.assert_answers().await;
    assert!(local.replica.process().descendants().iter().any(|(_, command)| command.contains("nats-server")));
    local.replica.sigterm();
    assert_eq!(local.replica.wait_exit().await, Some(0));
    local.replica.process().leaves_nothing().await;
}

#[tokio::test]
async fn a_replica_that_is_killed_takes_its_workers_and_its_broker_with_it_and_can_be_started_again() {
    let (_turn, folder) = (Turn::take(), tempfile::tempdir().expect("a temporary folder"));
    let mut local = Local::start(&folder).await;
    assert!(local.replica.process().descendants().len() >= 4, "itself, two workers and a broker");
    local.replica.kill9().await;
    local.replica.process().leaves_nothing().await;
    Local::start(&folder).await.assert_answers().await;
}

#[tokio::test]
async fn a_replica_whose_root_gives_up_says_why_last_and_fails() {
    let (_turn, folder) = (Turn::take(), tempfile::tempdir().expect("a temporary folder"));
    let broker = Assets::open(None).and_then(|assets| assets.broker(None)).expect("a nats-server").path;
    // A broker that comes up once, and never again.
    let (once, program) = (folder.path().join("once"), folder.path().join("nats-server"));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec '{broker}' --version\n\
         if mkdir '{once}' 2>/dev/null; then exec '{broker}' \"$@\"; fi\nexit 7\n",
        broker = broker.display(),
        once = once.display(),
    );
    std::fs::write(&program, script).expect("a file in a temporary folder");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("its owner may");
    let mut local = Local::start_with(&folder, &[("HALM_BROKER_PROGRAM", &program.display().to_string())]).await;

    let processes = local.replica.process().descendants();
    let (server, _) = processes.iter().find(|(_, command)| command.contains("nats-server.conf")).expect("a broker");
    halm_tests::kill(*server, Signal::KILL);
    assert_eq!(local.replica.wait_exit().await, Some(1));
    let said = local.replica.process().stderr();
    let last = said.lines().next_back().unwrap_or_default();
    let expected = "halm: the replica gave up: root gave up after broker: child nats-server failed to start: failed in \
                    pre_start: nats-server: process exited with status 7";
    assert_eq!(last, expected, "{said}");
    local.replica.process().leaves_nothing().await;
}

#[tokio::test]
async fn the_commands_tell_what_they_are_asked_for() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let url = cluster.url();
    let ask = Halm::new(["ask", "--nats", &url].into_iter().chain(QUESTION)).run().await;
    let reply = cluster.ask(&question()).await;
    assert_eq!(ask.printed(), format!("{}\n", reply.reply().text()));

    let status = Halm::new(["status", "--json", "--nats", &url]).run().await;
    let replicas: Vec<ReplicaStatus> = serde_json::from_str(status.printed()).expect("JSON of replicas");
    let names: Vec<&str> = replicas.iter().map(|status| status.replica.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let status = Halm::new(["status", "--nats", &url]).run().await;
    assert!(status.printed().contains("smollm2") && status.printed().contains("ingress"), "{status:?}");

    let check = Halm::new(["check", "--nats", &url]).run().await;
    let lines: Vec<&str> = check.printed().lines().collect();
    assert!(lines.len() == 3 && lines.iter().all(|line| line.starts_with("ok")), "{check:?}");
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let broker = halm_tests::Broker::start().await;
    let status = Halm::new(["status", "--nats", &broker.url()]).run().await;
    assert_eq!((status.status.code(), status.stdout.as_str()), (Some(1), "no replica answered\n"));
    let ask = Halm::new(["ask", "--nats", &broker.url(), "hello"]).run().await;
    ask.assert_refused(&["no replica", "halm serve"]);
}

#[tokio::test]
async fn pull_prints_where_the_weights_are() {
    let weights = halm_tests::weights::smollm2();
    let pull = Halm::new(["pull", "smollm2"]).run().await;
    assert_eq!(pull.printed(), format!("{}\n", weights.display()));
    let models = Halm::new(["models"]).run().await;
    let line = models.printed().lines().find(|line| line.starts_with("smollm2:135m")).expect("it is listed");
    assert!(line.ends_with("yes"), "{line}");
    let unknown = Halm::new(["pull", "smolm2"]).run().await;
    unknown.assert_refused(&["smolm2", "smollm2"]);
    assert!(weights.starts_with(Assets::open(None).expect("a cache folder").dir()));
}

#[tokio::test]
async fn a_repeated_request_with_the_same_key_gets_the_stored_answer() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let client = cluster.plain().await;
    let mut key = HeaderMap::new();
    key.insert("Nats-Msg-Id", "a-key-of-mine");
    let request = json!({ "prompt": "Once upon a time", "max_tokens": 12 }).to_string();
    let first = client.ask_with("smollm2", key.clone(), request.clone()).await;
    let jobs_before = jobs_stored(&client).await;
    let again = client.ask_with("smollm2", key, request.clone()).await;
    assert_eq!(first.reply(), again.reply());
    assert_eq!(jobs_stored(&client).await, jobs_before, "it was computed again");
    let other = client.ask("smollm2", request).await;
    assert_ne!(other.reply().job, first.reply().job, "without the key it is another request");
}

/// How many jobs were ever stored.
async fn jobs_stored(client: &PlainClient) -> u64 {
    let context = jetstream::new(client.nats().clone());
    context.get_stream("HALM_JOBS").await.expect("the job stream").cached_info().state.last_sequence
}
