//! What is done to a stack, and what its clients must have seen: nothing.

use std::time::{Duration, Instant, SystemTime};

use halm_client::Client;
use halm_protocol::{ReplicaStatus, Request, stream};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Container, Images, Stack};
use crate::{Gaps, PlainClient, Transcript, kill, question, text_of, until};

/// From images that are there to the first answer.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// A stopped replica has this long, by the stack's own file.
const GRACE: Duration = Duration::from_secs(40);
/// For an answer of every replica.
const STATUS_WITHIN: Duration = Duration::from_millis(500);
/// How long an undisturbed client reads, about.
const READING_FOR: Duration = Duration::from_secs(6);
/// Tokens by which the speed of this machine is found out.
const PROBE_TOKENS: u32 = 60;
/// Tokens of the longest text: with its prompt it fits a small model's context.
const TOKENS_MAX: u32 = 1800;
/// Clients that read while something is broken.
const CLIENTS: usize = 3;

/// A stack that is up, and its clients.
struct Scene {
    stack: Stack,
    operator: Client,
    client: PlainClient,
    request: Value,
    undisturbed: Transcript,
}

/// Streams under way.
struct Reading {
    ours: tokio::task::JoinHandle<String>,
    theirs: Vec<tokio::task::JoinHandle<Transcript>>,
}

/// A seeded text of so many tokens.
fn text_of_length(tokens: u32) -> Value {
    json!({
        "prompt": "The lighthouse keeper opened his logbook and wrote:",
        "max_tokens": tokens, "temperature": 0.8, "seed": 7, "stream": true,
    })
}

/// A text that takes one client so long that Docker and Compose can do something meanwhile, on whatever machine this is.
async fn long(client: &PlainClient) -> Value {
    let began = Instant::now();
    client.ask("smollm2", text_of_length(PROBE_TOKENS).to_string()).await.assert_exact();
    let per_token = began.elapsed() / PROBE_TOKENS;
    let tokens = READING_FOR.as_micros() / per_token.as_micros().max(1);
    text_of_length(u32::try_from(tokens).unwrap_or(u32::MAX).clamp(2 * PROBE_TOKENS, TOKENS_MAX))
}

/// Builds, starts, breaks and stops a stack of three brokers, and one of a single broker.
///
/// # Panics
/// When a client sees more than a pause, or something does not come up.
pub async fn live_through(images: &Images) {
    let stack = Stack::of(&["compose.yaml"], images);
    if images.to_build {
        let began = Instant::now();
        stack.compose(&["build"]);
        println!("built in {:.0?}", began.elapsed());
    }
    let mut scene = Scene::rise(stack, 3).await;
    scene.a_replica_is_killed().await;
    scene.a_replicas_process_is_killed().await;
    scene.the_leader_of_the_brokers_is_killed().await;
    scene.scaled_out_and_in().await;
    scene.replaced_one_by_one().await;
    scene.stopped_and_started().await;
    drop(scene);

    let single = Stack::of(&["compose.yaml", "compose.single.yaml"], images);
    let scene = Scene::rise(single, 2).await;
    assert!(scene.stack.containers("nats-2").is_empty(), "a single broker is one");
    println!("verdict: identical");
}

impl Scene {
    /// Brings a stack up from its images, with weights in the volume.
    async fn rise(mut stack: Stack, replicas: u32) -> Self {
        stack.prepare();
        let began = Instant::now();
        stack.scale(replicas);
        println!("up after {:.1?}", began.elapsed());
        let nats = until("the brokers let a client in", async || stack.connect("client").await).await;
        let client = PlainClient::of(nats);
        let asking = Client::new(client.nats().clone());
        let request = Request::parse(question().to_string().as_bytes()).expect("a good request");
        let reply = until("somebody answers", async || {
            asking.ask("smollm2", &request).await.map_err(|error| error.to_string())
        })
        .await;
        assert!(reply.text().contains("Paris"), "{reply:?}");
        println!("first answer after {:.1?}", began.elapsed());
        assert!(began.elapsed() < FIRST_ANSWER_WITHIN);
        let operator = Client::new(stack.connect("halm").await.expect("the brokers are up"));
        stack.healthy("halm", replicas as usize).await;
        let request = long(&client).await;
        let undisturbed = client.ask("smollm2", request.to_string()).await;
        undisturbed.assert_exact();
        println!("a text of {} tokens from here on", undisturbed.reply().usage.completion_tokens);
        Self { stack, operator, client, request, undisturbed }
    }

    /// Starts clients, and waits until what they read is on its way.
    async fn reading(&self) -> Reading {
        let (ours, request) = (Client::new(self.client.nats().clone()), self.request.clone());
        let ours = tokio::spawn(async move { text_of(&ours, &request).await });
        let read = || {
            let (client, request) = (self.client.clone(), self.request.to_string());
            tokio::spawn(async move { client.ask("smollm2", request).await })
        };
        let theirs = (0..CLIENTS).map(|_| read()).collect();
        until("every client reads", async || {
            let seen = self.operator.replicas(STATUS_WITHIN).await.map_err(|error| error.to_string())?.answered;
            let running = seen.iter().flat_map(|status| &status.jobs).filter(|job| job.tokens > 0).count();
            if running > CLIENTS { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        assert!(!ours.is_finished(), "its text is too short to break anything meanwhile");
        Reading { ours, theirs }
    }

    /// The container of a replica that computes something.
    async fn holder(&self) -> Container {
        let host = until("a job has 30 tokens", async || {
            let seen = self.operator.replicas(STATUS_WITHIN).await.map_err(|error| error.to_string())?;
            let running = |status: &&ReplicaStatus| status.jobs.iter().any(|job| job.tokens >= 30);
            let holder = seen.answered.iter().find(running).map(|status| status.replica.as_str().to_owned());
            holder.ok_or_else(|| format!("{seen:?}"))
        })
        .await;
        let replicas = self.stack.running("halm");
        replicas.into_iter().find(|container| container.host() == host).expect("a replica is called as its host")
    }

    /// All streams must have been the undisturbed one; says how long their clients waited.
    async fn all_read_the_same(&self, what: &'static str, reading: Reading, broken_at: SystemTime) {
        let mut gaps = Gaps::of(what);
        assert_eq!(reading.ours.await.expect("no panic"), self.undisturbed.text());
        for client in reading.theirs {
            let seen = client.await.expect("no panic");
            seen.assert_no_fork(&self.undisturbed);
            gaps.push(&seen, broken_at);
        }
        gaps.print();
    }

    async fn a_replica_is_killed(&mut self) {
        let reading = self.reading().await;
        let (holder, at) = (self.holder().await, SystemTime::now());
        holder.kill();
        self.all_read_the_same("replica's container killed", reading, at).await;
        self.stack.scale(3);
        self.stack.healthy("halm", 3).await;
    }

    async fn a_replicas_process_is_killed(&mut self) {
        let reading = self.reading().await;
        let (holder, at) = (self.holder().await, SystemTime::now());
        kill(holder.pid(), Signal::KILL);
        self.all_read_the_same("replica's process killed", reading, at).await;
        self.stack.healthy("halm", 3).await;
        assert_eq!(holder.says("{{.RestartCount}}"), "1", "Docker starts it again");
    }

    async fn the_leader_of_the_brokers_is_killed(&mut self) {
        let nats = self.operator.nats().clone();
        let asked = nats.request(format!("$JS.API.STREAM.INFO.{}", stream::LOG), "".into()).await.expect("an answer");
        let told: Value = serde_json::from_slice(&asked.payload).expect("JSON");
        let leader = told["cluster"]["leader"].as_str().expect("a leader").to_owned();
        let broker = self.stack.running(&leader).pop().expect("a broker is called as its service");
        let reading = self.reading().await;
        let at = SystemTime::now();
        broker.kill();
        self.all_read_the_same("leader of three brokers killed", reading, at).await;
        broker.start();
        self.stack.healthy(&leader, 1).await;
    }

    async fn scaled_out_and_in(&mut self) {
        let (reading, at) = (self.reading().await, SystemTime::now());
        self.stack.scale(4);
        self.all_read_the_same("scaled from 3 to 4", reading, at).await;
        self.stack.healthy("halm", 4).await;
        let (reading, at) = (self.reading().await, SystemTime::now());
        self.stack.scale(2);
        self.all_read_the_same("scaled from 4 to 2", reading, at).await;
        self.stack.healthy("halm", 2).await;
    }

    /// As for an upgrade.
    async fn replaced_one_by_one(&mut self) {
        for replica in self.stack.running("halm") {
            let (reading, at) = (self.reading().await, SystemTime::now());
            replica.remove(GRACE);
            self.stack.scale(2);
            self.all_read_the_same("a replica replaced by a new one", reading, at).await;
            self.stack.healthy("halm", 2).await;
        }
    }

    async fn stopped_and_started(&mut self) {
        let reading = self.reading().await;
        let (began, at) = (Instant::now(), SystemTime::now());
        self.stack.compose(&["stop"]);
        println!("stopped in {:.1?}", began.elapsed());
        assert!(began.elapsed() < GRACE);
        self.all_read_the_same("stopped, replicas first", reading, at).await;
        for replica in self.stack.containers("halm") {
            assert_eq!(replica.says("{{.State.ExitCode}}"), "0", "it drained and was not killed");
        }
        self.stack.scale(2);
        self.stack.healthy("halm", 2).await;
        let again = PlainClient::of(self.stack.connect("client").await.expect("the brokers are up"));
        again.ask("smollm2", self.request.to_string()).await.assert_same_stream(&self.undisturbed);
    }
}
