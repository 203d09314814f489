//! What replicas tell each other and operators: beats and status.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Digest, Incarnation, JobId, ModelToken, Pace, ReplicaName};

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
    /// True while it does not hear its own beats: it lives, and can do nothing for anybody. Only itself counts such a beat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deaf: bool,
    /// How fast it computes jobs of each model, once it has finished one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paces: BTreeMap<ModelToken, Pace>,
}

/// What an actor was doing with a job: ids and counts, never text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// The job.
    pub job: JobId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Tokens that the answer had so far.
    pub offset: u32,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} attempt {} at token {}", self.job, self.attempt, self.offset)
    }
}

/// A crash report as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashRecord {
    /// Who ended: its path from the root.
    pub path: String,
    /// Its how-manieth incarnation, from 1.
    pub incarnation: u64,
    /// Why, for people.
    pub reason: String,
    /// Why, as counters call it: `panicked`, `process_signalled`, …
    pub kind: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it had run, in milliseconds; absent if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// How often it had been restarted before.
    pub restarts: u64,
    /// What its supervisor did about it.
    pub action: String,
    /// What it was doing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doing: Vec<Activity>,
    /// Where it panicked, as `file:line:column`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The panic's frames in halm's own code, the innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
    /// The last lines that its process wrote to standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr_tail: Vec<String>,
}

/// Crash reports since a replica began, the forgotten ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashCounts {
    /// All of them.
    pub reports: u64,
    /// Those that led to a restart.
    pub restarts: u64,
    /// Those that ended a supervisor.
    pub escalations: u64,
    /// All of them by [`CrashRecord::kind`].
    pub by_kind: BTreeMap<String, u64>,
}

/// What is asked at [`crate::subject::STATUS`]; an empty message asks for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusQuestion {
    /// Only the actor at this path and what is below it, with their last crash reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A job as `halm status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The job.
    pub job: JobId,
    /// What it is doing: `claiming`, `queued`, `running`, `settling`, or `offered`: its outcome is stored, and its
    /// client has yet to say that it heard it.
    pub phase: String,
    /// Tokens generated so far.
    pub tokens: u32,
    /// Leases so far.
    pub attempts: u32,
    /// The path of the pool that holds it.
    #[serde(default)]
    pub pool: String,
    /// The worker that runs it, by its number in that pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
}

/// A worker process as `halm status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The path of its actor.
    #[serde(default)]
    pub path: String,
    /// Its number in the pool.
    pub worker: u32,
    /// Its process, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether the model is loaded.
    pub ready: bool,
    /// Jobs it runs now.
    pub jobs: Vec<Activity>,
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
    /// Messages that wait in its mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<u64>,
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
    /// How often anything ended badly.
    #[serde(default)]
    pub crashes: CrashCounts,
    /// The last crash reports at and below the path that was asked for, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crash_reports: Vec<CrashRecord>,
}
