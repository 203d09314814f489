//! What the demo, the bench and chaos play on: brokers and replicas, real processes, on free ports and in a folder of
//! their own.
//!
//! Owns the processes: each dies with this one, whatever ends that. It must never break any by itself.

mod brokers;
mod hosted;
mod replica;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use halm_client::{Client, Replicas};
use halm_protocol::ReplicaStatus;
use serde::Serialize;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::assets::Assets;
use crate::config::ModelConfig;
pub(crate) use brokers::Brokers;
pub(crate) use hosted::kill;
pub(crate) use replica::Replica;

/// Four processes load a model on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For an answer of every replica.
pub(crate) const STATUS_WITHIN: Duration = Duration::from_millis(500);

/// What is to be started.
pub(crate) struct StageSpec<'a> {
    /// Servers: one, or three in a cluster that keeps three copies of everything.
    pub(crate) brokers: usize,
    /// Names of the replicas.
    pub(crate) replicas: &'a [&'static str],
    /// What they run. Without a path the weights are the catalogue's.
    pub(crate) model: ModelConfig,
}

/// A place for replicas, and the brokers in it.
pub(crate) struct Ground {
    pub(crate) brokers: Brokers,
    halm: PathBuf,
    dir: TempDir,
}

/// Everything that was started. Dropping it ends all of it.
pub(crate) struct Stage {
    client: Client,
    replicas: Vec<Replica>,
    ground: Ground,
}

/// The replicas' configuration: what differs from the defaults.
#[derive(Serialize)]
struct Differs<'a> {
    nats: Copies,
    models: [&'a ModelConfig; 1],
}

#[derive(Serialize)]
struct Copies {
    copies: usize,
}

impl Ground {
    /// Fetches what is missing, and starts the brokers.
    pub(crate) async fn build(spec: &StageSpec<'_>) -> anyhow::Result<Self> {
        let program = tokio::task::block_in_place(|| fetch(&spec.model))?;
        let dir = tempfile::tempdir().context("make a folder")?;
        let halm = std::env::current_exe().context("find the halm binary")?;
        let brokers = Brokers::start(&halm, &program, dir.path(), spec.brokers).await?;
        let differs = Differs { nats: Copies { copies: spec.brokers }, models: [&spec.model] };
        let config = toml::to_string(&differs).context("write the replicas' configuration")?;
        std::fs::write(dir.path().join("halm.toml"), config).context("write the replicas' configuration")?;
        Ok(Self { brokers, halm, dir })
    }

    /// Starts a replica that reaches the brokers by this URL.
    pub(crate) fn replica(&self, name: &'static str, url: &str) -> anyhow::Result<Replica> {
        Replica::start(&self.halm, name, url, self.dir.path())
    }

    /// Ends the brokers, and removes the folder when nobody writes there any more.
    pub(crate) async fn clear(mut self) {
        self.brokers.clear().await;
        let _ = self.dir.close();
    }
}

impl Stage {
    /// Starts everything.
    pub(crate) async fn build(spec: &StageSpec<'_>) -> anyhow::Result<Self> {
        let ground = Ground::build(spec).await?;
        let url = ground.brokers.url();
        let replicas = spec.replicas.iter().map(|name| ground.replica(name, &url)).collect::<anyhow::Result<_>>()?;
        let client = Client::connect(&url).await?;
        Ok(Self { client, replicas, ground })
    }

    /// Ends everything.
    pub(crate) async fn clear(mut self) {
        for replica in &mut self.replicas {
            replica.kill().await;
        }
        self.ground.clear().await;
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until each worker is ready.
    pub(crate) async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let give_up = |replica: &mut Replica, end: String| bail!("the replica {} ended: {end}", replica.name());
        wait_whole(&self.client, &mut self.replicas, &BTreeSet::new(), READY_WITHIN, give_up).await
    }
}

/// Waits until every replica answers, knows all others, and has every worker ready, none of them in one of the
/// processes that are to be gone. What is to be done about one that has ended, and how it did, is the caller's to say.
pub(crate) async fn wait_whole(
    client: &Client,
    replicas: &mut [Replica],
    gone: &BTreeSet<u32>,
    within: Duration,
    mut ended: impl FnMut(&mut Replica, String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let until = Instant::now() + within;
    loop {
        // While the broker is away nobody answers, which is seen below.
        let seen = client.replicas(STATUS_WITHIN).await.unwrap_or_default();
        if is_whole(&seen, replicas.len(), gone) {
            return Ok(());
        }
        for replica in &mut *replicas {
            if let Some(status) = replica.ended()? {
                let end = format!("{status}: {}", replica.last_words());
                ended(replica, end)?;
            }
        }
        if Instant::now() > until {
            bail!("the replicas were not ready within {} s; last seen: {seen:?}", within.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_whole(seen: &Replicas, count: usize, gone: &BTreeSet<u32>) -> bool {
    let ready = |status: &ReplicaStatus| {
        let workers = &status.workers;
        let all = !workers.is_empty() && workers.iter().all(|worker| worker.ready && worker.pid.is_some());
        let fresh = workers.iter().all(|worker| worker.pid.is_none_or(|pid| !gone.contains(&pid)));
        all && fresh && !status.draining && status.peers.len() + 1 == count && !gone.contains(&status.pid)
    };
    seen.answered.len() == count && seen.answered.iter().all(ready)
}

/// Weights and broker, before anything runs; the broker's path.
fn fetch(model: &ModelConfig) -> anyhow::Result<PathBuf> {
    let assets = Assets::open(None)?;
    if model.path.as_os_str().is_empty() {
        assets.model(&model.name, None)?;
    }
    Ok(assets.broker(None)?.path)
}
