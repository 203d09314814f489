//! What the demo and the bench play on: a broker and some replicas, real processes, on free ports and in a folder of their
//! own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use halm_actors::local_broker;
use halm_actors::ports::BrokerProcess;
use halm_actors::supervisor::{Root, Supervisor};
use halm_client::Client;
use halm_protocol::ReplicaStatus;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::assets::Assets;
use crate::config::ModelConfig;
use crate::process::{BrokerProgram, free_port};

/// Four processes load a model on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For an answer of every replica.
const STATUS_WITHIN: Duration = Duration::from_millis(500);

/// What is to be started.
pub(super) struct StageSpec<'a> {
    /// Names of the replicas.
    pub(super) replicas: &'a [&'static str],
    /// What they run. Without a path the weights are the catalogue's.
    pub(super) model: ModelConfig,
}

/// Everything that was started. Dropping it ends all of it.
pub(super) struct Stage {
    client: Client,
    replicas: Vec<(&'static str, Child)>,
    broker: Root,
    dir: TempDir,
}

impl Stage {
    /// Starts everything.
    pub(super) async fn build(spec: &StageSpec<'_>) -> anyhow::Result<Self> {
        let program = tokio::task::block_in_place(|| fetch(&spec.model))?;
        let dir = tempfile::tempdir().context("make a folder for the demo")?;
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], free_port().context("find a free port")?));
        let halm = std::env::current_exe().context("find the halm binary")?;
        let broker = BrokerProgram { halm: halm.clone(), program, listen, dir: dir.path().join("broker") };
        broker.prepare().context("write the broker's configuration")?;
        let broker: Arc<dyn BrokerProcess> = Arc::new(broker);
        let broker = Supervisor::start_root("broker", local_broker::supervisor(&broker)).await?;
        let url = format!("nats://{listen}");
        let config = dir.path().join("halm.toml");
        let models = BTreeMap::from([("models", [&spec.model])]);
        std::fs::write(&config, toml::to_string(&models)?).context("write the replicas' configuration")?;
        let mut replicas = Vec::new();
        for name in spec.replicas {
            let child = replica(&halm, name, &url, dir.path())?;
            replicas.push((*name, child));
        }
        let client = Client::connect(&url).await?;
        Ok(Self { client, replicas, broker, dir })
    }

    /// Ends everything, and removes its folder when nobody writes there any more.
    pub(super) async fn clear(mut self) {
        for (_, replica) in &mut self.replicas {
            let _ = replica.kill().await;
        }
        self.broker.shutdown().await;
        let _ = self.dir.close();
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until each worker is ready.
    pub(super) async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let replicas = self.replicas.len();
        loop {
            let seen = self.client.replicas(STATUS_WITHIN).await?;
            let ready = |status: &ReplicaStatus| {
                !status.workers.is_empty()
                    && status.workers.iter().all(|worker| worker.ready)
                    && status.peers.len() + 1 == replicas
            };
            if seen.answered.len() == replicas && seen.answered.iter().all(ready) {
                return Ok(());
            }
            for (name, child) in &mut self.replicas {
                if let Some(status) = child.try_wait()? {
                    let log = std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default();
                    let words = log.lines().last().unwrap_or_default();
                    bail!("the replica {name} ended with {status}: {words}");
                }
            }
            if Instant::now() > until {
                bail!("the replicas were not ready within {} s; last seen: {seen:?}", READY_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Weights and broker, before anything runs; the broker's path.
fn fetch(model: &ModelConfig) -> anyhow::Result<PathBuf> {
    let assets = Assets::open(None)?;
    if model.path.as_os_str().is_empty() {
        assets.model(&model.name, None)?;
    }
    Ok(assets.broker(None)?.path)
}

fn replica(halm: &Path, name: &str, url: &str, dir: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(dir.join(format!("{name}.log"))).context("make a log file")?;
    let inherited: Vec<String> = std::env::vars()
        .map(|(variable, _)| variable)
        .filter(|variable| variable.starts_with("HALM_") && variable != "HALM_CACHE" || variable.starts_with("NATS_"))
        .collect();
    let mut command = Command::new(halm);
    command
        .args(["run-with-parent", "--parent", &std::process::id().to_string(), "--"])
        .arg(halm)
        .args(["serve", "--nats", url, "--name", name, "--config"])
        .arg(dir.join("halm.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true);
    for variable in inherited {
        command.env_remove(variable);
    }
    command.spawn().context("start a replica")
}
