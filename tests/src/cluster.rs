//! A broker, some replicas and their clients: where most tests happen.

use std::time::{Duration, SystemTime};

use halm_client::Client;
use halm_protocol::{JobId, ReplicaStatus};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::kill;
use crate::{Asking, Broker, BrokerOptions, Halm, PlainClient, Python, Replica, Transcript, Turn, until};

/// Worker processes of each replica: the least that takes over at once.
const WORKERS: u32 = 2;
/// For an answer of every replica.
const STATUS_WITHIN: Duration = Duration::from_millis(500);
/// Whom the tests ask.
const MODEL: &str = "smollm2";

/// Everything that is up. Dropping it ends all of it.
#[derive(Debug)]
pub struct Cluster {
    replicas: Vec<Replica>,
    variables: Vec<(&'static str, &'static str)>,
    client: Client,
    python: Python,
    brokers: Vec<Broker>,
    _turn: Turn,
}

/// A job that is being computed in this moment, and by whom.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// The job.
    pub job: JobId,
    /// The name of the replica that runs it.
    pub replica: String,
    /// The replica's process.
    pub replica_pid: u32,
    /// The worker's process.
    pub worker_pid: u32,
    /// The path of the worker's actor.
    pub worker_path: String,
}

/// A long seeded text, streamed.
#[must_use]
pub fn story() -> Value {
    json!({
        "prompt": "The lighthouse keeper opened his logbook and wrote:",
        "max_tokens": 200, "temperature": 0.8, "seed": 7, "stream": true,
    })
}

/// A long text without chance, streamed.
#[must_use]
pub fn greedy() -> Value {
    json!({ "prompt": "Once upon a time, in a village by the sea,", "max_tokens": 120, "temperature": 0, "stream": true })
}

/// A short question with one answer that even a small model knows.
#[must_use]
pub fn question() -> Value {
    json!({ "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0 })
}

impl Cluster {
    /// Waits for its turn, starts a broker and these replicas, and waits until every worker is ready.
    pub async fn start(names: &[&str]) -> Self {
        Self::with(BrokerOptions::default(), names).await
    }

    /// The same, with another broker.
    pub async fn with(options: BrokerOptions, names: &[&str]) -> Self {
        Self::configured(options, names, &[]).await
    }

    /// The same, with variables in the environment of each replica.
    ///
    /// # Panics
    /// When something does not come up.
    pub async fn configured(
        options: BrokerOptions,
        names: &[&str],
        variables: &[(&'static str, &'static str)],
    ) -> Self {
        let turn = Turn::take();
        let python = Python::ready().await;
        let brokers =
            if options.servers > 1 { Broker::cluster(options).await } else { vec![Broker::with(options).await] };
        let url = urls(&brokers);
        let replicas = names.iter().map(|name| start(&url, name, variables)).collect();
        let client = Client::connect(&url).await.expect("the broker listens");
        let variables = variables.to_vec();
        let mut cluster = Self { replicas, variables, client, python, brokers, _turn: turn };
        cluster.ready().await;
        cluster
    }

    /// The broker, or the first of them.
    pub fn broker(&mut self) -> &mut Broker {
        &mut self.brokers[0]
    }

    /// The broker that leads a stream, in a cluster.
    ///
    /// # Panics
    /// When none does.
    pub async fn leader_of(&mut self, stream: &str) -> &mut Broker {
        let nats = self.client.nats().clone();
        let leader = until(&format!("{stream} has a leader"), async || {
            let asked = nats.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await;
            let told: Value = serde_json::from_slice(&asked.map_err(|error| error.to_string())?.payload)
                .map_err(|error| error.to_string())?;
            told["cluster"]["leader"].as_str().map(str::to_owned).ok_or_else(|| told.to_string())
        })
        .await;
        let number: usize = leader[1..].parse().expect("a server of this cluster");
        &mut self.brokers[number]
    }

    /// halm's own client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where the brokers listen, separated by commas.
    #[must_use]
    pub fn url(&self) -> String {
        urls(&self.brokers)
    }

    /// The replica of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn replica(&mut self, name: &str) -> &mut Replica {
        self.replicas.iter_mut().find(|replica| replica.name() == name).expect("a replica of the cluster")
    }

    /// Another client, with a connection of its own.
    pub async fn plain(&self) -> PlainClient {
        PlainClient::connect(&self.url()).await
    }

    /// Starts again what has died, as an orchestrator would.
    pub fn start_again(&mut self) {
        let url = self.url();
        for replica in &mut self.replicas {
            if replica.process().ended().is_some() {
                let name = replica.name().to_owned();
                *replica = start(&url, &name, &self.variables);
            }
        }
    }

    /// Starts again what has died, and waits until every worker of every replica is ready and all know each other.
    pub async fn ready(&mut self) {
        self.start_again();
        let count = self.replicas.len();
        until(&format!("{count} replicas are ready"), async || {
            for replica in &mut self.replicas {
                let ended = replica.process().ended();
                assert!(ended.is_none(), "the replica {} ended: {ended:?}", replica.name());
            }
            let seen = self.client.replicas(STATUS_WITHIN).await.map_err(|error| error.to_string())?.answered;
            let ready = |status: &ReplicaStatus| {
                let workers = &status.workers;
                let idle = status.jobs.iter().all(|job| job.phase == "offered");
                workers.len() == WORKERS as usize && workers.iter().all(|worker| worker.ready) && idle
            };
            let met = |status: &ReplicaStatus| status.peers.len() + 1 == count;
            let good = seen.len() == count && seen.iter().all(|status| ready(status) && met(status));
            if good { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }

    /// Starts asking through Python.
    #[must_use]
    pub fn asking(&self, request: &Value) -> Asking {
        self.python.asking(&self.url(), MODEL, request)
    }

    /// Asks through Python and reads to the end.
    pub async fn ask(&self, request: &Value) -> Transcript {
        self.asking(request).transcript().await
    }

    /// Kills every replica and starts it again with these variables in its environment.
    pub async fn restart_with(&mut self, variables: &[(&'static str, &'static str)]) {
        self.variables = variables.to_vec();
        for replica in &mut self.replicas {
            replica.kill9().await;
        }
        self.ready().await;
    }

    /// Waits until a job has made so many tokens and is still running.
    pub async fn job_with_tokens(&self, tokens: u32) -> RunningJob {
        until(&format!("a job has {tokens} tokens"), async || {
            let seen = self.client.replicas(STATUS_WITHIN).await.map_err(|error| error.to_string())?.answered;
            seen.iter().find_map(|status| running(status, tokens)).ok_or_else(|| format!("{seen:?}"))
        })
        .await
    }
}

fn urls(brokers: &[Broker]) -> String {
    brokers.iter().map(Broker::url).collect::<Vec<_>>().join(",")
}

fn start(url: &str, name: &str, variables: &[(&'static str, &'static str)]) -> Replica {
    let serve = Halm::new(["serve", "--nats", url, "--name", name, "--workers", &WORKERS.to_string()]);
    Replica::of(variables.iter().fold(serve, |serve, (name, value)| serve.env(name, value)), name)
}

fn running(status: &ReplicaStatus, tokens: u32) -> Option<RunningJob> {
    let job = status.jobs.iter().find(|job| job.tokens >= tokens && job.worker.is_some())?;
    let worker = status.workers.iter().find(|worker| worker.jobs.iter().any(|activity| activity.job == job.job))?;
    Some(RunningJob {
        job: job.job.clone(),
        replica: status.replica.to_string(),
        replica_pid: status.pid,
        worker_pid: worker.pid?,
        worker_path: worker.path.clone(),
    })
}

impl RunningJob {
    /// Kills the worker process; when.
    pub fn kill_worker(&self) -> SystemTime {
        signal(self.worker_pid, Signal::KILL)
    }

    /// Freezes the worker process; when.
    pub fn freeze_worker(&self) -> SystemTime {
        signal(self.worker_pid, Signal::STOP)
    }

    /// Kills the whole replica; when.
    pub fn kill_replica(&self) -> SystemTime {
        signal(self.replica_pid, Signal::KILL)
    }
}

fn signal(pid: u32, signal: Signal) -> SystemTime {
    let at = SystemTime::now();
    kill(pid, signal);
    at
}
