//! Whom the demo kills: which processes hold a job, and an end to them.

use std::time::Duration;

use anyhow::Context;
use halm_client::{Client, Replicas};
use halm_protocol::{JobId, ReplicaStatus};

/// For an answer of every replica.
const STATUS_WITHIN: Duration = Duration::from_millis(500);

/// Which of three jobs is to be undisturbed, lose its worker, lose its replica, so that no kill hits another.
pub(super) async fn cast(client: &Client, jobs: &[JobId]) -> anyhow::Result<Option<[usize; 3]>> {
    let seen = client.replicas(STATUS_WITHIN).await?;
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

async fn holder(client: &Client, job: &JobId) -> anyhow::Result<ReplicaStatus> {
    let Replicas { answered, .. } = client.replicas(STATUS_WITHIN).await?;
    let holder = answered.into_iter().find(|status| status.jobs.iter().any(|held| held.job == *job));
    super::step(holder, "no replica holds the job that was to be hit")
}

/// Kills the worker process that computes a job; its process id.
pub(super) async fn kill_worker_of(client: &Client, job: &JobId) -> anyhow::Result<u32> {
    let holder = holder(client, job).await?;
    let worker = holder.workers.iter().find(|worker| worker.jobs.iter().any(|activity| activity.job == *job));
    let pid = super::step(worker.and_then(|worker| worker.pid), "no worker computes the job that was to be hit")?;
    kill(pid)?;
    Ok(pid)
}

/// Kills the replica that holds a job; its name and process id.
pub(super) async fn kill_replica_of(client: &Client, job: &JobId) -> anyhow::Result<(String, u32)> {
    let holder = holder(client, job).await?;
    kill(holder.pid)?;
    Ok((holder.replica.to_string(), holder.pid))
}

fn kill(pid: u32) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).context("kill a process")
}
