//! What can be seen of a deployment: what the judge is told, and all that it knows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use halm_protocol::JobId;
use tokio::time::Instant;

use super::judge::Judge;
use super::ladder::Rung;

/// A request, counted from 0 over the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestNo(pub(crate) u64);

/// A client, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientNo(pub(crate) usize);

/// A text that is asked for, by its place among those that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextNo(pub(crate) usize);

/// A fault, by its place on the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FaultNo(pub(crate) usize);

/// A request that is sent.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) client: ClientNo,
    pub(crate) text: TextNo,
    pub(crate) streamed: bool,
    pub(crate) deadline: Duration,
    /// It is made to be quarantined, so that anything but its text or `poison` is wrong.
    pub(crate) poisoned: bool,
}

/// How a request ended, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The whole answer.
    Answered {
        job: JobId,
        text: String,
        /// Tokens that the reply says it has.
        tokens: u32,
        attempts: u32,
    },
    /// A typed error; with a job if it had been accepted.
    Refused { code: String, job: Option<JobId>, message: String },
    /// Nobody listens.
    Unheard,
    /// The reply contradicts the stream before it.
    Forked,
    /// Nothing came any more, or nothing that can be read.
    Silent { why: String },
}

/// A record of the token log, as the broker stored it.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) job: JobId,
    pub(crate) sequence: u64,
    /// The fencing token that it was appended under.
    pub(crate) fence: Option<u64>,
    /// Its first token's index and its tokens; `None` for the final record.
    pub(crate) chunk: Option<(u32, Vec<u32>)>,
}

/// An outcome of a job, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// An answer with this text.
    Answer(String),
    /// An error with this code.
    Error(String),
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) enum Happened {
    /// Load begins that nothing disturbs.
    CalmBegan,
    /// Faults begin.
    FaultsBegan,
    /// No more is asked or broken.
    FaultsEnded,
    /// A request is sent.
    Asked(RequestNo, Asked),
    /// The load has so many requests under way that this one was not sent.
    NotAsked(ClientNo),
    /// A piece of a stream. Without tokens it is text that came with the final record only.
    Chunk { request: RequestNo, job: JobId, offset: u32, tokens: Vec<u32>, text: String },
    /// A request ended.
    Ended(RequestNo, End),
    /// Something was broken.
    Struck { rung: Rung, what: String },
    /// Everything is as it was before; or not, within the time that it was given.
    Whole { fault: FaultNo, whole: bool },
    /// A rung could not be done.
    NotDone { rung: Rung, why: String },
    /// A rung's own demand, beyond what clients see, was not met.
    Unmet { rung: Rung, why: String },
    /// Something ended that was not hit, and was started again as an orchestrator would.
    Restarted(String),
    /// The broker stored a job.
    Admitted(JobId),
    /// The broker stored a claim.
    Claimed { job: JobId, sequence: u64 },
    /// The broker stored a record.
    Logged(Logged),
    /// At the end: outcomes stored of this job.
    Outcomes { job: JobId, kept: Vec<Kept> },
    /// At the end: jobs still in the queue.
    LeftInQueue(u64),
}

/// Takes down what happens, when it happens. Clones write to the same.
#[derive(Debug, Clone)]
pub(crate) struct Tape {
    began: Instant,
    judge: Arc<Mutex<Judge>>,
}

impl Tape {
    pub(crate) fn new(judge: Judge) -> Self {
        Self { began: Instant::now(), judge: Arc::new(Mutex::new(judge)) }
    }

    /// Since the tape began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn say(&self, happened: Happened) {
        let at = self.now();
        self.look(|judge| judge.take(at, happened));
    }

    /// Looks at what is known so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Judge) -> T) -> T {
        look(&mut self.judge.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
