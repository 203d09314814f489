//! The broker of the simulation: three streams and a consumer, behind connections, and what befalls them.

use std::collections::VecDeque;
use std::rc::Rc;

use halm_actors::dispatcher::{Effect, Op, OpResult};
use halm_actors::ports::{
    Admitted, Connection, Fence, FenceRecord, IntakeFault, JobSpec, LogRecord, LogTarget, ReadFault, Record, Sequence,
    WriteFault,
};
use halm_protocol::{Claim, JobId, Outcome};

use super::call::{Call, CallId, Node};
use super::jetstream::{Consumer, Delivered, Expected, Message, Refused, Stream, StreamConfig};
use super::mutation::Mutation;

/// As halm sets its consumers.
const ACK_WAIT_US: u64 = 15_000_000;
/// As halm sets its job stream.
const DUPLICATE_WINDOW_US: u64 = 120_000_000;

/// Subjects, by the job's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Job,
    Fence(usize),
    Tokens(usize),
    Log(usize),
    Done(usize),
}

#[derive(Debug, Clone)]
pub(super) enum Payload {
    Job(usize),
    Claim(Claim),
    Record(Rc<Record>),
    Outcome(Outcome),
}

/// A pull that waits for jobs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pull {
    pub(super) replica: usize,
    pub(super) connection: u64,
    pub(super) left: usize,
    pub(super) until_us: u64,
}

/// A write that waits for a leader.
#[derive(Debug, Clone)]
pub(super) struct Stalled {
    pub(super) from: Node,
    pub(super) connection: u64,
    pub(super) id: CallId,
    pub(super) call: Call,
}

pub(super) struct Broker {
    pub(super) jobs: Stream<Subject, Payload>,
    jobs_max: usize,
    pub(super) log: Stream<Subject, Payload>,
    pub(super) done: Stream<Subject, Payload>,
    pub(super) consumer: Consumer,
    pub(super) pulls: VecDeque<Pull>,
    /// False while it is down.
    pub(super) up: bool,
    /// Until then the streams have no leader.
    pub(super) leaderless: bool,
    pub(super) stalled: Vec<Stalled>,
    /// It takes no writes: its disk is full.
    pub(super) full: bool,
    mutation: Option<Mutation>,
}

/// What a write did, for all to see.
pub(super) enum Landed {
    Claim { job: usize, claim: Claim },
    Record { job: usize, record: Rc<Record>, streamed: bool },
    Outcome { job: usize, outcome: Outcome },
}

pub(super) fn number(job: &JobId) -> usize {
    job.as_str()[1..].parse().expect("a job of the simulation")
}

fn jobs_config(jobs_max: usize) -> StreamConfig {
    StreamConfig {
        per_subject_max: Some(jobs_max),
        duplicate_window_us: Some(DUPLICATE_WINDOW_US),
        first_sequence: 1,
        max_age_us: None,
    }
}

fn log_config(first_sequence: u64, mutation: Option<Mutation>) -> StreamConfig {
    let max_age_us = (mutation == Some(Mutation::AgeLimitOnLog)).then_some(400_000);
    let first_sequence = if mutation == Some(Mutation::FenceKeptAcrossStreams) { 1 } else { first_sequence };
    StreamConfig { max_age_us, first_sequence, ..StreamConfig::default() }
}

impl Broker {
    pub(super) fn new(jobs_max: usize, mutation: Option<Mutation>) -> Self {
        Self {
            jobs: Stream::new(jobs_config(jobs_max)),
            jobs_max,
            log: Stream::new(log_config(1_000, mutation)),
            done: Stream::new(StreamConfig { first_sequence: 1, ..StreamConfig::default() }),
            consumer: Consumer::new(ACK_WAIT_US),
            pulls: VecDeque::new(),
            up: true,
            leaderless: false,
            stalled: Vec::new(),
            full: false,
            mutation,
        }
    }

    /// The queue was deleted and made anew, and its consumer with it.
    pub(super) fn remake_jobs(&mut self, now_us: u64) {
        let begins_at_one = self.mutation == Some(Mutation::QueueBeginsAtOne);
        let first_sequence = if begins_at_one { 1 } else { 1_000 + now_us };
        self.jobs = Stream::new(StreamConfig { first_sequence, ..jobs_config(self.jobs_max) });
        self.consumer = Consumer::new(ACK_WAIT_US);
    }

    /// The log was deleted and made anew.
    pub(super) fn remake_log(&mut self, now_us: u64) {
        self.log = Stream::new(log_config(1_000 + now_us, self.mutation));
    }

    /// The next delivery for a pull that waits.
    pub(super) fn serve(&mut self, now_us: u64) -> Option<(Pull, usize, Delivered)> {
        while let Some(pull) = self.pulls.front()
            && (pull.left == 0 || pull.until_us <= now_us)
        {
            self.pulls.pop_front();
        }
        if self.leaderless || self.pulls.is_empty() {
            return None;
        }
        let delivered = self.consumer.next(&self.jobs, now_us)?;
        let Payload::Job(job) = self.jobs.get(delivered.stream_sequence)?.payload else { return None };
        let pull = self.pulls.front_mut()?;
        pull.left -= 1;
        Some((*pull, job, delivered))
    }

    /// Whether a job is in the queue.
    pub(super) fn has(&self, job: usize) -> bool {
        self.jobs.of(&Subject::Job).any(|message| matches!(message.payload, Payload::Job(of) if of == job))
    }

    /// A job for the queue.
    pub(super) fn store(&mut self, job: &JobSpec, now_us: u64) -> Result<Admitted, IntakeFault> {
        if self.full {
            return Err(IntakeFault::Full);
        }
        let payload = Payload::Job(number(&job.id));
        match self.jobs.publish(Subject::Job, payload, None, Some(job.id.as_str()), now_us) {
            Ok(stored) if stored.duplicate => {
                Ok(Admitted::Duplicate(self.jobs.get(stored.sequence).map(|_| job.inbox.clone())))
            }
            Ok(_) => Ok(Admitted::Stored),
            Err(Refused::MaximumMessagesPerSubject) => Err(IntakeFault::Full),
            Err(Refused::WrongLastSequence) => unreachable!("nothing was expected"),
        }
    }

    /// Performs a call of a dispatcher's core.
    pub(super) fn perform(&mut self, call: &Effect, now_us: u64) -> (OpResult, Option<Landed>) {
        let refused = || WriteFault::Refused("the disk is full".to_owned());
        match call {
            Effect::ReadFence { job, .. } => {
                let last = self.log.last_of(&Subject::Fence(number(job)));
                (OpResult::FenceRead(Ok(last.map(fence_record))), None)
            }
            Effect::WriteFence { job, expected, claim, .. } => {
                if self.full {
                    return (OpResult::FenceWritten(Err(refused())), None);
                }
                let job = number(job);
                let subject = Subject::Fence(job);
                let expected = Expected { subject, sequence: expected.map_or(0, |sequence| sequence.0) };
                match self.log.publish(subject, Payload::Claim(claim.clone()), Some(&expected), None, now_us) {
                    Ok(stored) => {
                        let landed = Landed::Claim { job, claim: claim.clone() };
                        (OpResult::FenceWritten(Ok(fence(stored.sequence))), Some(landed))
                    }
                    Err(fault) => (OpResult::FenceWritten(Err(write_fault(fault))), None),
                }
            }
            Effect::ReadOutcome { job, .. } => {
                let last = self.done.last_of(&Subject::Done(number(job))).map(|message| &message.payload);
                let outcome = if let Some(Payload::Outcome(outcome)) = last { Some(outcome.clone()) } else { None };
                (OpResult::OutcomeRead(Ok(outcome)), None)
            }
            Effect::ReadLog { target, .. } => (OpResult::LogRead(Ok(self.records(target))), None),
            Effect::Append { target, fence, record, .. } => {
                if self.full {
                    return (OpResult::Appended(Err(refused())), None);
                }
                self.append(target, *fence, record, now_us)
            }
            Effect::Bury { .. } => (OpResult::Buried(Ok(())), None),
            Effect::StoreOutcome { job, outcome, .. } => {
                if self.full {
                    return (OpResult::OutcomeStored(Err(refused())), None);
                }
                let job = number(job);
                let subject = Subject::Done(job);
                let expected = Expected { subject, sequence: 0 };
                match self.done.publish(subject, Payload::Outcome(outcome.clone()), Some(&expected), None, now_us) {
                    Ok(_) => {
                        let landed = Landed::Outcome { job, outcome: outcome.clone() };
                        (OpResult::OutcomeStored(Ok(())), Some(landed))
                    }
                    Err(fault) => (OpResult::OutcomeStored(Err(write_fault(fault))), None),
                }
            }
            other => unreachable!("{other:?} is no call"),
        }
    }

    fn append(&mut self, target: &LogTarget, fence: Fence, record: &Record, now_us: u64) -> (OpResult, Option<Landed>) {
        let job = number(&target.job);
        let streamed = target.streamed || matches!(record, Record::Final(_));
        let subject = if streamed { Subject::Tokens(job) } else { Subject::Log(job) };
        let expected = Expected { subject: Subject::Fence(job), sequence: fence.sequence.0 };
        let expected = (self.mutation != Some(Mutation::NoFence)).then_some(&expected);
        let record = Rc::new(record.clone());
        match self.log.publish(subject, Payload::Record(Rc::clone(&record)), expected, None, now_us) {
            Ok(_) => (OpResult::Appended(Ok(())), Some(Landed::Record { job, record, streamed })),
            Err(fault) => (OpResult::Appended(Err(write_fault(fault))), None),
        }
    }

    fn records(&self, target: &LogTarget) -> Vec<LogRecord> {
        let job = number(&target.job);
        let chunks = (!target.streamed).then(|| self.log.of(&Subject::Log(job))).into_iter().flatten();
        chunks.chain(self.log.of(&Subject::Tokens(job))).map(log_record).collect()
    }

    /// Removes a settled job's fence, and then its records. Returns how many records there were.
    pub(super) fn purge(&mut self, target: &LogTarget) -> usize {
        let job = number(&target.job);
        self.log.purge(&Subject::Fence(job));
        self.log.purge(&Subject::Tokens(job)) + self.log.purge(&Subject::Log(job))
    }
}

/// Which port call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortKind {
    ReadFence,
    WriteFence,
    ReadOutcome,
    ReadLog,
    Append,
    Bury,
    StoreOutcome,
}

impl PortKind {
    pub(super) fn of(effect: &Effect) -> Option<(Op, Self)> {
        Some(match effect {
            Effect::ReadFence { op, .. } => (*op, Self::ReadFence),
            Effect::WriteFence { op, .. } => (*op, Self::WriteFence),
            Effect::ReadOutcome { op, .. } => (*op, Self::ReadOutcome),
            Effect::ReadLog { op, .. } => (*op, Self::ReadLog),
            Effect::Append { op, .. } => (*op, Self::Append),
            Effect::Bury { op, .. } => (*op, Self::Bury),
            Effect::StoreOutcome { op, .. } => (*op, Self::StoreOutcome),
            Effect::Ack(_)
            | Effect::Progress(_)
            | Effect::Nak(_)
            | Effect::Purge(_)
            | Effect::Offer { .. }
            | Effect::Hold { .. }
            | Effect::Release(_)
            | Effect::Start { .. }
            | Effect::Cancel { .. }
            | Effect::Demand(_)
            | Effect::Pace(_)
            | Effect::Drained
            | Effect::Broken { .. } => return None,
        })
    }

    pub(super) fn writes(self) -> bool {
        matches!(self, Self::WriteFence | Self::Append | Self::Bury | Self::StoreOutcome)
    }

    /// The answer to a call that got none in time.
    pub(super) fn silence(self) -> OpResult {
        let unknown = || WriteFault::Unknown("no answer in time".to_owned());
        let read = || ReadFault("no answer in time".to_owned());
        match self {
            Self::ReadFence => OpResult::FenceRead(Err(read())),
            Self::ReadOutcome => OpResult::OutcomeRead(Err(read())),
            Self::ReadLog => OpResult::LogRead(Err(read())),
            Self::WriteFence => OpResult::FenceWritten(Err(unknown())),
            Self::Append => OpResult::Appended(Err(unknown())),
            Self::Bury => OpResult::Buried(Err(unknown())),
            Self::StoreOutcome => OpResult::OutcomeStored(Err(unknown())),
        }
    }
}

fn write_fault(refused: Refused) -> WriteFault {
    match refused {
        Refused::WrongLastSequence => WriteFault::Superseded,
        Refused::MaximumMessagesPerSubject => WriteFault::Refused("full".to_owned()),
    }
}

/// The connection is the caller's to say.
fn fence(sequence: u64) -> Fence {
    Fence { sequence: Sequence(sequence), over: Connection(0) }
}

fn fence_record(message: &Message<Subject, Payload>) -> FenceRecord {
    let Payload::Claim(claim) = &message.payload else { unreachable!("only claims are on a fence") };
    FenceRecord { fence: fence(message.sequence), claim: claim.clone() }
}

fn log_record(message: &Message<Subject, Payload>) -> LogRecord {
    let Payload::Record(record) = &message.payload else { unreachable!("only records are in a log") };
    LogRecord { sequence: Sequence(message.sequence), record: Record::clone(record) }
}
