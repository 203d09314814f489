//! `halm check --live`: does this replica serve?
//!
//! Asked over NATS and not by a file or a local socket: a replica whose connection hangs computes for nobody, and this is
//! how its clients would find out. Only the one replica answers, so that checks of many replicas do not add up.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::bail;
use halm_client::{Client, ClientError};
use halm_protocol::{ReplicaName, ReplicaStatus};

use crate::config::Config;
use crate::replica;

/// For all of it, the connection included: a health check is to be over within a second.
const WITHIN: Duration = Duration::from_millis(800);

/// Asks, and says in a few words what there is; the error says why it does not serve.
pub(super) async fn check(config: &Config) -> anyhow::Result<String> {
    let name = replica::identity(config)?.replica;
    let Ok(status) = tokio::time::timeout(WITHIN, ask(config, &name)).await else {
        bail!("{name} did not answer within {} ms", WITHIN.as_millis());
    };
    verdict(&status?)
}

async fn ask(config: &Config, name: &ReplicaName) -> anyhow::Result<ReplicaStatus> {
    let local = || format!("nats://{}", config.broker.listen);
    let url = if config.nats.url.is_empty() { local() } else { config.nats.url.clone() };
    let link = replica::link(config, &url, "halm check", &[]);
    let client = Client::new(link.connect_as_client().await?);
    match client.replica(name).await {
        Err(ClientError::NobodyListens) => bail!("no replica named {name} is connected"),
        answer => Ok(answer?),
    }
}

/// A replica serves while it takes work and each model has a worker: one that is being restarted is what the others are
/// there for.
fn verdict(status: &ReplicaStatus) -> anyhow::Result<String> {
    let name = &status.replica;
    let pool = |path: &str| path.rsplit_once("/workers/").map(|(pool, _)| pool.to_owned());
    let ready: Vec<_> = status.workers.iter().filter(|worker| worker.ready).collect();
    let pools: BTreeSet<_> = status.workers.iter().filter_map(|worker| pool(&worker.path)).collect();
    let serving: BTreeSet<_> = ready.iter().filter_map(|worker| pool(&worker.path)).collect();
    if status.draining {
        bail!("{name} drains and takes no more work");
    }
    if let Some(waiting) = pools.difference(&serving).next() {
        bail!("{name}: no worker of {waiting} is ready");
    }
    if pools.len() < status.models.len() {
        bail!("{name} has not started all of its pools");
    }
    Ok(format!("{name}, {} of {} workers ready", ready.len(), status.workers.len()))
}

#[cfg(test)]
mod tests {
    use halm_protocol::{Digest, Incarnation, ModelToken, RunsModel, WorkerStatus};

    use super::*;

    /// A replica whose workers are, by the pool's number, ready or not.
    fn replica(workers: &[(u32, bool)]) -> ReplicaStatus {
        let model = |pool: u32| RunsModel {
            token: ModelToken::of_name(&format!("m{pool}:1")).expect("a name"),
            alias: ModelToken::of_name(&format!("m{pool}")).expect("a name"),
            name: format!("m{pool}:1"),
            digest: Digest::try_from("b1".repeat(32)).expect("a digest"),
        };
        let worker = |(at, (pool, ready)): (usize, &(u32, bool))| WorkerStatus {
            path: format!("root/pools/m{pool}@1/workers/{at}"),
            worker: u32::try_from(at).expect("few workers"),
            pid: None,
            ready: *ready,
            jobs: Vec::new(),
        };
        let pools: BTreeSet<u32> = workers.iter().map(|(pool, _)| *pool).collect();
        ReplicaStatus {
            replica: ReplicaName::try_from("a").expect("a name"),
            incarnation: Incarnation::try_from("a-1").expect("a name"),
            version: String::new(),
            pid: 1,
            uptime_ms: 0,
            draining: false,
            models: pools.into_iter().map(model).collect(),
            tree: Vec::new(),
            workers: workers.iter().enumerate().map(worker).collect(),
            jobs: Vec::new(),
            peers: Vec::new(),
            crashes: halm_protocol::CrashCounts::default(),
            crash_reports: Vec::new(),
        }
    }

    fn words(status: &ReplicaStatus) -> String {
        verdict(status).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_replica_serves_while_each_model_has_a_worker() {
        assert_eq!(words(&replica(&[(1, true), (1, true)])), "a, 2 of 2 workers ready");
        assert_eq!(words(&replica(&[(1, false), (1, true), (2, true)])), "a, 2 of 3 workers ready");
        assert_eq!(words(&replica(&[(1, true), (2, false)])), "a: no worker of root/pools/m2@1 is ready");
    }

    #[test]
    fn a_replica_that_drains_or_has_no_pools_yet_does_not_serve() {
        let draining = ReplicaStatus { draining: true, ..replica(&[(1, true)]) };
        assert_eq!(words(&draining), "a drains and takes no more work");
        let starting = ReplicaStatus { workers: Vec::new(), ..replica(&[(1, true)]) };
        assert_eq!(words(&starting), "a has not started all of its pools");
    }
}
