//! Who is hit: those who compute, so that every blow hurts.

use std::time::Duration;

use halm_protocol::{JobId, ReplicaStatus, WorkerStatus};
use tokio::time::Instant;

use super::{Host, LOOK_EVERY};
use crate::stage::STATUS_WITHIN;

/// How long somebody who computes is waited for; after that, whoever is idle will do.
const BUSY_WITHIN: Duration = Duration::from_secs(2);

/// A worker process.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) pid: u32,
    /// For people.
    pub(super) what: String,
}

impl Host {
    /// What every replica says; nothing while the brokers are away.
    pub(super) async fn statuses(&self) -> Vec<ReplicaStatus> {
        self.observer.replicas(STATUS_WITHIN).await.unwrap_or_default().answered
    }

    /// A worker that computes, of a replica that may be hit.
    pub(super) async fn worker(&self, pick: u64, may: impl Fn(usize) -> bool) -> Option<Worker> {
        let until = Instant::now() + BUSY_WITHIN;
        loop {
            let seen = self.statuses().await;
            let all: Vec<(bool, Worker)> = seen
                .iter()
                .filter_map(|status| Some((self.place(status)?, status)))
                .filter(|(replica, _)| may(*replica))
                .flat_map(|(_, status)| status.workers.iter().filter_map(move |worker| of(status, worker)))
                .collect();
            let busy: Vec<&Worker> = all.iter().filter(|(busy, _)| *busy).map(|(_, worker)| worker).collect();
            if let Some(worker) = chosen(&busy, pick) {
                return Some((*worker).clone());
            }
            if Instant::now() > until {
                let any: Vec<&Worker> = all.iter().map(|(_, worker)| worker).collect();
                return chosen(&any, pick).map(|worker| (*worker).clone());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A replica that has jobs, by its place, and how many.
    pub(super) async fn replica(&self, pick: u64) -> (usize, usize) {
        let until = Instant::now() + BUSY_WITHIN;
        loop {
            let seen = self.statuses().await;
            let running = |status: &ReplicaStatus| status.jobs.iter().filter(|job| job.worker.is_some()).count();
            let mut busy: Vec<(usize, usize)> = seen
                .iter()
                .filter_map(|status| Some((self.place(status)?, running(status))))
                .filter(|(_, jobs)| *jobs > 0)
                .collect();
            busy.sort_unstable();
            if let Some(replica) = chosen(&busy, pick) {
                return *replica;
            }
            if Instant::now() > until {
                let all: Vec<usize> = (0..self.replicas.len()).collect();
                return (chosen(&all, pick).copied().unwrap_or(0), 0);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The worker process that computes a job.
    pub(super) async fn worker_of(&self, job: &JobId) -> Option<u32> {
        let seen = self.statuses().await;
        let mut workers = seen.iter().flat_map(|status| &status.workers);
        workers.find(|worker| worker.jobs.iter().any(|activity| activity.job == *job))?.pid
    }

    fn place(&self, status: &ReplicaStatus) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.name() == status.replica.as_str())
    }
}

fn of(status: &ReplicaStatus, worker: &WorkerStatus) -> Option<(bool, Worker)> {
    let pid = worker.pid.filter(|_| worker.ready)?;
    let jobs = worker.jobs.len();
    let what = format!("worker {} of {} (pid {pid}, {jobs} jobs)", worker.worker, status.replica);
    Some((jobs > 0, Worker { pid, what }))
}

/// The same one of the same ones.
fn chosen<T>(of: &[T], pick: u64) -> Option<&T> {
    let count = u64::try_from(of.len()).ok().filter(|count| *count > 0)?;
    of.get(usize::try_from(pick % count).ok()?)
}
