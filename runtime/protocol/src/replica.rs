//! What replicas tell each other and operators: beats and status.

use serde::{Deserialize, Serialize};

use crate::{Digest, Incarnation, JobId, ModelToken, ReplicaName};

/// A model that a replica runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsModel {
    /// The token in subjects.
    pub token: ModelToken,
    /// The other token that clients may use.
    pub alias: ModelToken,
    /// The name for people.
    pub name: String,
    /// Digest of its weights.
    pub digest: Digest,
}

/// A delivery that a replica holds: enough for a peer to give it back to the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The job.
    pub job: JobId,
    /// The subject on which this delivery is acknowledged.
    pub ack: String,
}

/// "I live, and this is what I hold." Sent every 100 ms and whenever `held` changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Who.
    pub replica: ReplicaName,
    /// Which life.
    pub incarnation: Incarnation,
    /// Models that it runs.
    pub models: Vec<RunsModel>,
    /// Deliveries not settled yet.
    pub held: Vec<Held>,
    /// True when it takes no more work and is about to leave.
    pub draining: bool,
}

/// A job as `halm status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The job.
    pub job: JobId,
    /// What it is doing: `claiming`, `queued`, `running`, `settling`.
    pub phase: String,
    /// Tokens generated so far.
    pub tokens: u32,
    /// Leases so far.
    pub attempts: u32,
    /// The worker that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
}

/// A worker process as `halm status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number in the pool.
    pub worker: u32,
    /// Its process, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether the model is loaded.
    pub ready: bool,
    /// Jobs it runs now.
    pub jobs: Vec<JobId>,
}

/// An actor of the tree as `halm status` draws it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorStatus {
    /// Path from the root.
    pub path: String,
    /// `running`, `starting`, `backing_off`, …
    pub state: String,
    /// Since its last start, in milliseconds.
    pub uptime_ms: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
}

/// One replica's answer to [`crate::subject::STATUS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Who answers.
    pub replica: ReplicaName,
    /// Which life.
    pub incarnation: Incarnation,
    /// halm's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since its start, in milliseconds.
    pub uptime_ms: u64,
    /// True while it drains.
    pub draining: bool,
    /// Models that it runs.
    pub models: Vec<RunsModel>,
    /// The actor tree, parents before children.
    pub tree: Vec<ActorStatus>,
    /// Worker processes.
    pub workers: Vec<WorkerStatus>,
    /// Jobs held.
    pub jobs: Vec<JobStatus>,
    /// Living peers.
    pub peers: Vec<ReplicaName>,
}
