//! What the demo plays on: a broker and two replicas, real processes, on free ports and in a folder of their own.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use halm_actors::local_broker;
use halm_actors::ports::BrokerProcess;
use halm_actors::supervisor::{Root, Supervisor};
use halm_client::{Client, Replicas};
use halm_protocol::{JobId, ReplicaStatus};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::assets::{Assets, StoredModel};
use crate::process::{BrokerProgram, free_port};

/// Replicas, and workers in each.
const REPLICAS: [&str; 2] = ["demo-1", "demo-2"];
const WORKERS: &str = "2";
/// Four processes load a model on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For an answer of every replica.
const STATUS_WITHIN: Duration = Duration::from_millis(500);

/// Everything that was started. Dropping it ends all of it.
pub(super) struct Stage {
    client: Client,
    replicas: Vec<(&'static str, Child)>,
    broker: Root,
    dir: TempDir,
}

impl Stage {
    /// Starts everything.
    pub(super) async fn build(model: &str) -> anyhow::Result<Self> {
        let (stored, program) = tokio::task::block_in_place(|| fetch(model))?;
        let dir = tempfile::tempdir().context("make a folder for the demo")?;
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], free_port().context("find a free port")?));
        let halm = std::env::current_exe().context("find the halm binary")?;
        let broker = BrokerProgram { halm: halm.clone(), program, listen, dir: dir.path().join("broker") };
        broker.prepare().context("write the broker's configuration")?;
        let broker: Arc<dyn BrokerProcess> = Arc::new(broker);
        let broker = Supervisor::start_root("broker", local_broker::supervisor(&broker)).await?;
        let url = format!("nats://{listen}");
        let mut replicas = Vec::new();
        for name in REPLICAS {
            let child = replica(&halm, name, &url, &stored, dir.path())?;
            replicas.push((name, child));
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
        loop {
            let seen = self.client.replicas(STATUS_WITHIN).await?;
            let ready = |status: &ReplicaStatus| {
                !status.workers.is_empty()
                    && status.workers.iter().all(|worker| worker.ready)
                    && status.peers.len() + 1 == REPLICAS.len()
            };
            if seen.answered.len() == REPLICAS.len() && seen.answered.iter().all(ready) {
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

    /// Which of three jobs is to be undisturbed, lose its worker, lose its replica, so that no kill hits another.
    pub(super) async fn cast(&self, jobs: &[JobId]) -> anyhow::Result<Option<[usize; 3]>> {
        let seen = self.client.replicas(STATUS_WITHIN).await?;
        let place = |job: &JobId| {
            let find = |status: &ReplicaStatus| {
                let found = status.jobs.iter().find(|held| held.job == *job)?;
                Some((status.replica.clone(), found.worker?))
            };
            seen.answered.iter().find_map(find)
        };
        let Some(places) = jobs.iter().map(place).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let alone = (0..places.len()).find(|at| places.iter().filter(|place| place.0 == places[*at].0).count() == 1);
        let Some(replica_victim) = alone else { return Ok(None) };
        let others: Vec<usize> = (0..places.len()).filter(|at| *at != replica_victim).collect();
        let [undisturbed, worker_victim] = others[..] else { return Ok(None) };
        if places[undisturbed] == places[worker_victim] {
            return Ok(None);
        }
        Ok(Some([undisturbed, worker_victim, replica_victim]))
    }

    async fn holder(&self, job: &JobId) -> anyhow::Result<ReplicaStatus> {
        let Replicas { answered, .. } = self.client.replicas(STATUS_WITHIN).await?;
        let holder = answered.into_iter().find(|status| status.jobs.iter().any(|held| held.job == *job));
        super::step(holder, "no replica holds the job that was to be hit")
    }

    /// Kills the worker process that computes a job; its process id.
    pub(super) async fn kill_worker_of(&self, job: &JobId) -> anyhow::Result<u32> {
        let holder = self.holder(job).await?;
        let worker = holder.workers.iter().find(|worker| worker.jobs.iter().any(|activity| activity.job == *job));
        let pid = super::step(worker.and_then(|worker| worker.pid), "no worker computes the job that was to be hit")?;
        kill(pid)?;
        Ok(pid)
    }

    /// Kills the replica that holds a job; its name and process id.
    pub(super) async fn kill_replica_of(&self, job: &JobId) -> anyhow::Result<(String, u32)> {
        let holder = self.holder(job).await?;
        kill(holder.pid)?;
        Ok((holder.replica.to_string(), holder.pid))
    }
}

fn kill(pid: u32) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).context("kill a process")
}

fn fetch(model: &str) -> anyhow::Result<(StoredModel, std::path::PathBuf)> {
    let assets = Assets::open(None)?;
    Ok((assets.model(model, None)?, assets.broker(None)?.path))
}

fn replica(halm: &Path, name: &str, url: &str, model: &StoredModel, dir: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(dir.join(format!("{name}.log"))).context("make a log file")?;
    let inherited: Vec<String> = std::env::vars()
        .map(|(variable, _)| variable)
        .filter(|variable| variable.starts_with("HALM_") && variable != "HALM_CACHE" || variable.starts_with("NATS_"))
        .collect();
    let mut command = Command::new(halm);
    command
        .args(["run-with-parent", "--parent", &std::process::id().to_string(), "--"])
        .arg(halm)
        .args(["serve", "--nats", url, "--name", name, "--model", &model.name, "--workers", WORKERS])
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
