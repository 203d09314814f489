//! One job in the attempt table: what is in its log, what is computed, what is still to be told.

use halm_protocol::worker::{Lease, Piece};
use halm_protocol::{Chunk, DeadLetter, Incarnation, Nonce, Outcome, Refusal, ReplicaName, Request};

use super::suspicion::Suspicion;
use super::{Op, WorkerId};
use crate::moment::Moment;
use crate::ports::{Delivery, Fence, FenceRecord, JobSpec, LogRecord, LogTarget, Record, Sequence};

/// Most tokens in one record: what a slow broker lets pile up goes out in a few records, each far below a payload's
/// limit.
pub(super) const CHUNK_TOKENS_MAX: usize = 256;

/// How a claim came about: it decides what another's claim means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The queue gave us the job: we take it from whoever claimed before.
    TakeOver,
    /// We had it and lost sight of the log: if another claimed meanwhile, it is theirs.
    Renew,
}

/// Where a job stands with the broker. Each state but [`LogState::Waiting`], [`LogState::Offered`] and an idle [`LogState::Open`] waits for
/// exactly one port call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogState {
    ReadingFence { op: Op },
    WritingFence { op: Op },
    ReadingOutcome { op: Op, fence: Fence },
    ReadingLog { op: Op, fence: Fence },
    Open { fence: Fence, in_flight: Option<InFlight> },
    Burying { op: Op },
    Storing { op: Op },
    Offering { op: Op, offers: Offers },
    Offered { offers: Offers, again_at: Moment },
    Waiting { until: Moment },
}

/// How a final record was offered so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offers {
    /// In a row, to an inbox where nobody listened.
    pub(super) unheard: u32,
    /// In all.
    pub(super) made: u32,
}

/// The one append that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) op: Op,
    pub(super) kind: InFlightKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InFlightKind {
    Tokens(usize),
    Tail,
    Final,
}

/// Where a job stands with the workers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Compute {
    /// Its log was not read yet.
    Unread,
    /// It waits for a worker.
    Queued,
    /// A worker has it.
    Running { worker: WorkerId, lease: Lease },
    /// Nothing more to compute.
    Complete(Outcome),
}

/// A token, the text it made safe to show, and which lease made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) token: u32,
    pub(super) text: String,
    pub(super) attempt: u32,
}

/// A claim of ours whose fate is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// What its nonce was made of.
    pub(super) number: u64,
    /// The claim that it was to replace.
    pub(super) expected: Option<Sequence>,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: JobSpec,
    pub(super) delivery: Delivery,
    pub(super) deadline: Moment,
    pub(super) log: LogState,
    pub(super) compute: Compute,
    pub(super) mode: Mode,
    pub(super) written: Option<Written>,
    /// Where our last claim is stored.
    pub(super) claimed_at: Option<Sequence>,
    /// Every token of the answer so far, those of earlier holders included.
    pub(super) made: Vec<Made>,
    /// How many of `made` are in the log. Invariant: `appended <= made.len()`.
    pub(super) appended: usize,
    /// Text that the end of the answer set free; in the log as a chunk without tokens.
    pub(super) tail: String,
    pub(super) tail_appended: bool,
    pub(super) attempts: u32,
    /// It is to end as cancelled, if it has not ended.
    pub(super) cancelled: bool,
    /// What the deaths of workers say against it, on any replica.
    pub(super) suspicion: Suspicion,
    /// What our last claim told of that.
    pub(super) told: Suspicion,
    /// Attempts that failed without a death, here.
    pub(super) failures: u32,
    pub(super) resumed_at: Vec<u32>,
    /// When a worker here had it first.
    pub(super) started_at: Option<Moment>,
    /// Faults in a row; sets the wait before the next try.
    pub(super) faults: u32,
    pub(super) progress_at: Moment,
}

/// What a log says about a job.
pub(super) enum Merged {
    /// The log is a prefix of what we have: go on appending.
    Behind,
    /// The log has more than we have: what runs here is late.
    Ahead,
    /// The log holds the end already.
    Ended(Outcome),
    /// The log has a gap or another text.
    Forked(String),
}

impl Job {
    pub(super) fn new(spec: JobSpec, delivery: Delivery, deadline: Moment, op: Op, progress_at: Moment) -> Self {
        Self {
            spec,
            delivery,
            deadline,
            log: LogState::ReadingFence { op },
            compute: Compute::Unread,
            mode: Mode::TakeOver,
            written: None,
            claimed_at: None,
            made: Vec::new(),
            appended: 0,
            tail: String::new(),
            tail_appended: false,
            attempts: 0,
            cancelled: false,
            suspicion: Suspicion::default(),
            told: Suspicion::default(),
            failures: 0,
            resumed_at: Vec::new(),
            started_at: None,
            faults: 0,
            progress_at,
        }
    }

    pub(super) fn target(&self) -> LogTarget {
        LogTarget {
            job: self.spec.id.clone(),
            inbox: self.spec.inbox.clone(),
            streamed: self.spec.request.stream,
            traceparent: self.spec.traceparent.clone(),
        }
    }

    pub(super) fn offset(&self) -> u32 {
        count(self.made.len())
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.compute, Compute::Complete(_))
    }

    /// Whether this is the claim that we wrote last. Its nonce alone does not tell: a dispatcher that was started again
    /// counts from one, under the same incarnation.
    pub(super) fn wrote(&self, record: &FenceRecord, incarnation: &Incarnation) -> bool {
        self.written.is_some_and(|written| {
            record.claim.nonce == Nonce::new(incarnation, written.number)
                && Some(record.fence.sequence) > written.expected
        })
    }

    /// The whole text so far.
    pub(super) fn text(&self) -> String {
        self.made.iter().map(|made| made.text.as_str()).chain([self.tail.as_str()]).collect()
    }

    /// What is kept of it after it killed its workers.
    pub(super) fn letter(&self, refusal: Refusal, replica: ReplicaName) -> DeadLetter {
        let JobSpec { id, model, request, seed, digest, .. } = &self.spec;
        DeadLetter {
            job: id.clone(),
            model: model.clone(),
            digest: digest.clone(),
            request: Request { seed: Some(*seed), ..request.clone() },
            refusal,
            attempts: self.attempts,
            deaths: self.suspicion.deaths(),
            tokens: self.offset(),
            replica,
            at_ms: 0,
            crash_reports: Vec::new(),
        }
    }

    /// Whether only its client may still have to be told.
    pub(super) fn is_offered(&self) -> bool {
        matches!(self.log, LogState::Offering { .. } | LogState::Offered { .. })
    }

    /// How it was offered so far, if it is on offer and nobody has heard yet.
    pub(super) fn offers(&self) -> Option<Offers> {
        if let LogState::Offered { offers, .. } = self.log { Some(offers) } else { None }
    }

    pub(super) fn phase(&self) -> &'static str {
        match self.compute {
            _ if self.is_offered() => "offered",
            Compute::Complete(_) => "settling",
            Compute::Running { .. } => "running",
            Compute::Queued => "queued",
            Compute::Unread => "claiming",
        }
    }

    pub(super) fn take(&mut self, pieces: Vec<Piece>) {
        let attempt = self.attempts;
        self.made.extend(pieces.into_iter().map(|piece| Made { token: piece.token, text: piece.text, attempt }));
        self.suspicion.reached(count(self.made.len()));
    }

    /// The next record to append, or `None` if nothing is new.
    pub(super) fn next_record(&self) -> Option<(InFlightKind, Record)> {
        let fresh = &self.made[self.appended..];
        if let Some(first) = fresh.first() {
            // A record has one author, so that a successor can tell where each began.
            let same = |made: &&Made| made.attempt == first.attempt;
            let taken: Vec<&Made> = fresh.iter().take_while(same).take(CHUNK_TOKENS_MAX).collect();
            let chunk = Chunk {
                job: self.spec.id.clone(),
                offset: count(self.appended),
                tokens: taken.iter().map(|made| made.token).collect(),
                text: taken.iter().map(|made| made.text.as_str()).collect(),
            };
            return Some((InFlightKind::Tokens(taken.len()), Record::Chunk { chunk, attempt: first.attempt }));
        }
        let Compute::Complete(outcome) = &self.compute else { return None };
        if !self.tail.is_empty() && !self.tail_appended {
            let chunk =
                Chunk { job: self.spec.id.clone(), offset: self.offset(), tokens: Vec::new(), text: self.tail.clone() };
            return Some((InFlightKind::Tail, Record::Chunk { chunk, attempt: self.attempts.max(1) }));
        }
        Some((InFlightKind::Final, Record::Final(outcome.clone())))
    }

    /// Compares what the log holds with what we have, and takes over what it has more.
    pub(super) fn merge(&mut self, records: Vec<LogRecord>) -> Merged {
        // An end that was told is the end, whatever else is wrong with the log.
        if let Some(outcome) = records.iter().find_map(LogRecord::ending) {
            return Merged::Ended(outcome.clone());
        }
        let mut logged: Vec<Made> = Vec::new();
        let mut resumed_at = Vec::new();
        let mut tail = None;
        let mut last_attempt = None;
        for LogRecord { record, .. } in records {
            let Record::Chunk { chunk, attempt } = record else { continue };
            if chunk.offset != count(logged.len()) {
                return Merged::Forked(format!("a record at offset {} after {} tokens", chunk.offset, logged.len()));
            }
            if last_attempt.is_some_and(|last| last != attempt) {
                resumed_at.push(chunk.offset);
            }
            last_attempt = Some(attempt);
            if chunk.tokens.is_empty() {
                tail = Some(chunk.text);
                continue;
            }
            // Only the whole record's text is known: its last token carries it.
            let last = chunk.tokens.len() - 1;
            let mut text = Some(chunk.text);
            logged.extend(chunk.tokens.into_iter().enumerate().map(|(index, token)| Made {
                token,
                text: if index == last { text.take().unwrap_or_default() } else { String::new() },
                attempt,
            }));
        }
        let common = logged.len().min(self.made.len());
        if let Some(at) = (0..common).find(|&at| logged[at].token != self.made[at].token) {
            return Merged::Forked(format!("another token at offset {at}"));
        }
        self.tail_appended = tail.is_some();
        self.appended = logged.len();
        if logged.len() > self.made.len() || matches!(self.compute, Compute::Unread) {
            self.made = logged;
            self.resumed_at = resumed_at;
            // A failure without a death is in no claim: the log may know of more attempts than the fence.
            self.attempts = self.attempts.max(last_attempt.unwrap_or(0));
            self.suspicion.reached(count(self.made.len()));
            return Merged::Ahead;
        }
        Merged::Behind
    }
}

impl LogRecord {
    fn ending(&self) -> Option<&Outcome> {
        match &self.record {
            Record::Final(outcome) => Some(outcome),
            Record::Chunk { .. } => None,
        }
    }
}

/// Tokens are counted in 32 bits on the wire; no context is that long.
pub(super) fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).expect("no context holds 2^32 tokens")
}
