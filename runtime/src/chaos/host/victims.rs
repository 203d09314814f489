//! Who is hit: those who compute, so that every blow hurts.

use std::collections::BTreeSet;
use std::time::Duration;

use halm_protocol::{JobId, ReplicaStatus, WorkerStatus};
use tokio::time::Instant;

use super::{Host, LOOK_EVERY};
use crate::chaos::run::Scene;
use crate::stage::STATUS_WITHIN;

/// How long somebody who computes a stream is waited for; after that, whoever does not will do.
const BUSY_WITHIN: Duration = Duration::from_secs(3);

/// Whom the loss of somebody would hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hurt {
    Nothing,
    /// A request whose client sees no pause.
    Plain,
    /// A stream that has begun.
    Stream,
}

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

    /// A worker that computes a stream, of a replica that may be hit.
    pub(super) async fn worker(&self, pick: u64, scene: &Scene, may: impl Fn(usize) -> bool) -> Option<Worker> {
        let workers = |seen: &[ReplicaStatus], streams: &BTreeSet<JobId>| {
            let allowed = seen.iter().filter(|status| self.place(status).is_some_and(&may));
            let all = allowed.flat_map(|status| status.workers.iter().filter_map(|worker| of(status, worker, streams)));
            all.collect::<Vec<_>>()
        };
        self.find(pick, scene, workers).await
    }

    /// A replica that computes a stream, by its place, and how many jobs it has, in words.
    pub(super) async fn replica(&self, pick: u64, scene: &Scene) -> (usize, String) {
        let replicas = |seen: &[ReplicaStatus], streams: &BTreeSet<JobId>| {
            let hurt = |status: &ReplicaStatus| {
                let running = status.jobs.iter().filter(|job| job.worker.is_some());
                let jobs: Vec<&JobId> = running.map(|job| &job.job).collect();
                Some((hurt(&jobs, streams), (self.place(status)?, jobs.len())))
            };
            seen.iter().filter_map(hurt).collect()
        };
        let nobody = (usize::try_from(pick % self.replicas.len() as u64).unwrap_or(0), 0);
        let (at, count) = self.find(pick, scene, replicas).await.unwrap_or(nobody);
        (at, jobs_in_words(count))
    }

    /// Of all candidates, one whose loss would hurt a stream; after a while, whoever there is.
    async fn find<T>(
        &self,
        pick: u64,
        scene: &Scene,
        candidates: impl Fn(&[ReplicaStatus], &BTreeSet<JobId>) -> Vec<(Hurt, T)>,
    ) -> Option<T> {
        let until = Instant::now() + BUSY_WITHIN;
        loop {
            let mut found = candidates(&self.statuses().await, &scene.streams());
            let most = found.iter().map(|(hurt, _)| *hurt).max();
            if most == Some(Hurt::Stream) || Instant::now() > until {
                found.retain(|(hurt, _)| Some(*hurt) == most);
                let count = u64::try_from(found.len()).ok().filter(|count| *count > 0)?;
                return Some(found.swap_remove(usize::try_from(pick % count).ok()?).1);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A blow at everybody, too, hurts only while there is a stream; after a while it falls all the same.
    pub(super) async fn wait_for_a_stream(&self, scene: &Scene) {
        let until = Instant::now() + BUSY_WITHIN;
        while scene.streams().is_empty() && Instant::now() < until {
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

fn of(status: &ReplicaStatus, worker: &WorkerStatus, streams: &BTreeSet<JobId>) -> Option<(Hurt, Worker)> {
    let pid = worker.pid.filter(|_| worker.ready)?;
    let jobs: Vec<&JobId> = worker.jobs.iter().map(|activity| &activity.job).collect();
    let what = format!("worker {} of {} (pid {pid}, {})", worker.worker, status.replica, jobs_in_words(jobs.len()));
    Some((hurt(&jobs, streams), Worker { pid, what }))
}

fn jobs_in_words(count: usize) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

fn hurt(jobs: &[&JobId], streams: &BTreeSet<JobId>) -> Hurt {
    if jobs.iter().any(|job| streams.contains(*job)) {
        Hurt::Stream
    } else if jobs.is_empty() {
        Hurt::Nothing
    } else {
        Hurt::Plain
    }
}
