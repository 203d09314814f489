//! A desk on which one core works: it hands events in, keeps the calls that wait for an answer, and names what is asked.
//!
//! Used by the tests of single rules; it decides nothing.

use std::time::Duration;

use halm_protocol::subject::Inbox;
use halm_protocol::worker::{Lease, Piece};
use halm_protocol::{
    Chunk, Claim, Digest, ErrorCode, FinishReason, Incarnation, JobId, ModelToken, Nonce, Outcome, ReplicaName, Request,
};

use super::super::{Core, Settings};
use crate::dispatcher::{Effect, Event, Op, OpResult, WorkerId};
use crate::moment::Moment;
use crate::ports::{
    AckSubject, Connection, Delivery, Fence, FenceRecord, JobSpec, LogRecord, Offered, ReadFault, Record, Sequence,
    WriteFault,
};

pub(super) const UNKNOWN: &str = "no answer came";

pub(super) fn at(ms: u64) -> Moment {
    Moment::after(Duration::from_millis(ms))
}

pub(super) fn digest(digit: char) -> Digest {
    Digest::try_from(digit.to_string().repeat(64)).expect("64 hexadecimal digits")
}

pub(super) fn job(name: &str) -> JobId {
    JobId::try_from(name).expect("a plain name")
}

pub(super) fn settings(replica: &str) -> Settings {
    Settings {
        replica: ReplicaName::try_from(replica).expect("a plain name"),
        incarnation: Incarnation::try_from(format!("{replica}-life")).expect("a plain name"),
        model: "m".to_owned(),
        digest: digest('0'),
        workers: 2,
        slots_per_worker: 2,
        deaths_max: 3,
        failures_max: 3,
        progress_every: Duration::from_secs(1),
    }
}

pub(super) fn spec(name: &str) -> JobSpec {
    let mut request = Request::prompt("go on");
    request.stream = true;
    JobSpec {
        id: job(name),
        model: ModelToken::try_from("m").expect("a plain name"),
        request,
        seed: 7,
        digest: digest('0'),
        inbox: Inbox::try_from(format!("_INBOX.{name}").as_str()).expect("a plain inbox"),
        deadline_unix_ms: 0,
        traceparent: None,
    }
}

pub(super) fn delivery(name: &str, deliveries: u64) -> Delivery {
    let ack = format!("$JS.ACK.HALM_JOBS.{name}.{deliveries}.1.1.1.0");
    Delivery { ack: AckSubject::parse(&ack).expect("an acknowledgement of the job stream"), deliveries }
}

pub(super) fn fence(sequence: u64, replica: &str, attempts: u32, deaths: u32) -> FenceRecord {
    let Settings { replica, incarnation, .. } = settings(replica);
    let nonce = Nonce::new(&incarnation, 1_000_000 + sequence);
    let claim =
        Claim { replica, incarnation, nonce, attempts, deaths, strikes: deaths, trial_until: None, cancelled: None };
    FenceRecord { fence: told(Sequence(sequence)), claim }
}

/// A fence at a sequence, over the one connection of these tests.
pub(super) fn told(sequence: Sequence) -> Fence {
    Fence { sequence, over: Connection(1) }
}

pub(super) fn chunk(offset: u32, tokens: &[u32], attempt: u32) -> LogRecord {
    let text = tokens.iter().map(|token| format!("{token} ")).collect();
    let chunk = Chunk { job: job("j"), offset, tokens: tokens.to_vec(), text };
    LogRecord { sequence: Sequence(100 + u64::from(offset)), record: Record::Chunk { chunk, attempt } }
}

pub(super) fn unknown<T>() -> Result<T, WriteFault> {
    Err(WriteFault::Unknown(UNKNOWN.to_owned()))
}

/// One core, the calls that it waits for, and a clock that stands until it is told to go on.
pub(super) struct Desk {
    pub(super) core: Core,
    pub(super) now: Moment,
    pub(super) calls: Vec<(Op, Effect)>,
    /// Work handed out, newest last.
    pub(super) started: Vec<(WorkerId, Lease, Vec<u32>)>,
    /// Tokens made under the newest lease, the ones it began with included.
    made: u32,
    sequence: u64,
}

impl Desk {
    /// Two workers with two slots each, both ready.
    pub(super) fn new() -> Self {
        Self::with(settings("a"))
    }

    pub(super) fn with(settings: Settings) -> Self {
        let core = Core::new(settings);
        let mut desk = Self { core, now: at(0), calls: Vec::new(), started: Vec::new(), made: 0, sequence: 1 };
        desk.tell(Event::WorkerReady { worker: WorkerId(1) });
        desk.tell(Event::WorkerReady { worker: WorkerId(2) });
        desk
    }

    /// The same, with job `j` just delivered.
    pub(super) fn with_job() -> Self {
        let mut desk = Self::new();
        desk.receive(spec("j"), 1);
        desk
    }

    /// The same, with job `j` claimed, its log read and its first worker started.
    pub(super) fn running() -> Self {
        let mut desk = Self::with_job();
        desk.claim(None, Vec::new());
        desk
    }

    pub(super) fn tell(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.core.handle(event, self.now);
        for effect in &effects {
            match effect {
                Effect::ReadFence { op, .. }
                | Effect::WriteFence { op, .. }
                | Effect::ReadOutcome { op, .. }
                | Effect::ReadLog { op, .. }
                | Effect::Append { op, .. }
                | Effect::Bury { op, .. }
                | Effect::StoreOutcome { op, .. }
                | Effect::Offer { op, .. } => self.calls.push((*op, effect.clone())),
                Effect::Start { worker, work, .. } => {
                    self.made = u32::try_from(work.generated.len()).expect("a short text");
                    self.started.push((*worker, work.lease, work.generated.clone()));
                }
                Effect::Ack(_)
                | Effect::Progress(_)
                | Effect::Nak(_)
                | Effect::Purge(_)
                | Effect::Hold { .. }
                | Effect::Release(_)
                | Effect::Cancel { .. }
                | Effect::Demand(_)
                | Effect::Pace(_)
                | Effect::Drained
                | Effect::Broken { .. } => {}
            }
        }
        effects
    }

    pub(super) fn receive(&mut self, spec: JobSpec, deliveries: u64) -> Vec<Effect> {
        let delivery = delivery(spec.id.as_str(), deliveries);
        self.tell(Event::Received { spec: Box::new(spec), delivery, deadline: at(60_000) })
    }

    /// The newest call that waits.
    pub(super) fn call(&self) -> &Effect {
        &self.calls.last().expect("a call waits for its answer").1
    }

    /// Answers the newest call that waits.
    pub(super) fn answer(&mut self, result: OpResult) -> Vec<Effect> {
        let (op, _) = self.calls.pop().expect("a call waits for its answer");
        self.tell(Event::Finished { op, result })
    }

    pub(super) fn fence_read(&mut self, record: Option<FenceRecord>) -> Vec<Effect> {
        assert!(matches!(self.call(), Effect::ReadFence { .. }), "{:?}", self.call());
        self.answer(OpResult::FenceRead(Ok(record)))
    }

    pub(super) fn fence_written(&mut self) -> Vec<Effect> {
        assert!(matches!(self.call(), Effect::WriteFence { .. }), "{:?}", self.call());
        self.sequence += 10;
        self.answer(OpResult::FenceWritten(Ok(told(Sequence(self.sequence)))))
    }

    pub(super) fn outcome_read(&mut self, outcome: Option<Outcome>) -> Vec<Effect> {
        assert!(matches!(self.call(), Effect::ReadOutcome { .. }), "{:?}", self.call());
        self.answer(OpResult::OutcomeRead(Ok(outcome)))
    }

    pub(super) fn log_read(&mut self, log: Vec<LogRecord>) -> Vec<Effect> {
        assert!(matches!(self.call(), Effect::ReadLog { .. }), "{:?}", self.call());
        self.answer(OpResult::LogRead(Ok(log)))
    }

    /// The whole way from reading the fence to the open log.
    pub(super) fn claim(&mut self, last: Option<FenceRecord>, log: Vec<LogRecord>) -> Vec<Effect> {
        self.fence_read(last);
        self.fence_written();
        self.outcome_read(None);
        self.log_read(log)
    }

    /// The same after doubt, when the last claim is still ours.
    pub(super) fn claim_again(&mut self, log: Vec<LogRecord>) -> Vec<Effect> {
        let ours = fence(self.sequence, "a", 1, 0);
        self.claim(Some(ours), log)
    }

    pub(super) fn appended(&mut self, result: Result<(), WriteFault>) -> Vec<Effect> {
        assert!(matches!(self.call(), Effect::Append { .. }), "{:?}", self.call());
        self.answer(OpResult::Appended(result))
    }

    pub(super) fn stored(&mut self, result: Result<(), WriteFault>) -> Vec<Effect> {
        assert!(matches!(self.call(), Effect::StoreOutcome { .. }), "{:?}", self.call());
        self.answer(OpResult::OutcomeStored(result))
    }

    pub(super) fn offered(&mut self) -> Vec<Effect> {
        assert!(matches!(self.call(), Effect::Offer { .. }), "{:?}", self.call());
        self.answer(OpResult::Offered(Offered::Heard))
    }

    pub(super) fn read_fault(&mut self) -> Vec<Effect> {
        assert!(matches!(self.call(), Effect::ReadFence { .. }), "{:?}", self.call());
        self.answer(OpResult::FenceRead(Err(ReadFault(UNKNOWN.to_owned()))))
    }

    pub(super) fn lease(&self) -> Lease {
        self.started.last().expect("work was handed out").1
    }

    pub(super) fn worker(&self) -> WorkerId {
        self.started.last().expect("work was handed out").0
    }

    /// The newest lease's worker makes these tokens.
    pub(super) fn tokens(&mut self, tokens: &[u32]) -> Vec<Effect> {
        let piece = |token: &u32| Piece { token: *token, text: format!("{token} ") };
        let (lease, offset) = (self.lease(), self.made);
        self.made += u32::try_from(tokens.len()).expect("a few tokens");
        self.tell(Event::Tokens { lease, offset, pieces: tokens.iter().map(piece).collect() })
    }

    /// The newest lease's worker has come to the end.
    pub(super) fn done(&mut self, tail: &str) -> Vec<Effect> {
        let (lease, tail) = (self.lease(), tail.to_owned());
        self.tell(Event::Done { lease, tail, reason: FinishReason::Stop, prompt_tokens: 3 })
    }

    pub(super) fn failed(&mut self, retry: bool) -> Vec<Effect> {
        let (lease, message) = (self.lease(), "out of pages".to_owned());
        self.tell(Event::Failed { lease, code: ErrorCode::Internal, message, param: None, retry })
    }

    /// The newest lease's worker dies.
    pub(super) fn death(&mut self) -> Vec<Effect> {
        let worker = self.worker();
        self.tell(Event::WorkerGone { worker })
    }

    /// Time passes up to `ms`.
    pub(super) fn tick(&mut self, ms: u64) -> Vec<Effect> {
        self.now = at(ms);
        self.tell(Event::Tick)
    }
}

/// Chunks appended by these effects: offset, tokens, attempt.
pub(super) fn chunks(effects: &[Effect]) -> Vec<(u32, Vec<u32>, u32)> {
    let of = |effect: &Effect| match effect {
        Effect::Append { record: Record::Chunk { chunk, attempt }, .. } => {
            Some((chunk.offset, chunk.tokens.clone(), *attempt))
        }
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

/// The outcome of the final record that these effects append.
pub(super) fn end(effects: &[Effect]) -> Option<Outcome> {
    let of = |effect: &Effect| match effect {
        Effect::Append { record: Record::Final(outcome), .. } => Some(outcome.clone()),
        _ => None,
    };
    effects.iter().find_map(of)
}

/// The code of the refusal in the final record that these effects append.
pub(super) fn refusal(effects: &[Effect]) -> Option<ErrorCode> {
    end(effects).and_then(|outcome| if let Outcome::Refusal(refusal) = outcome { Some(refusal.code) } else { None })
}

/// Whether one of the effects looks like this.
macro_rules! has {
    ($effects:expr, $pattern:pat $(if $guard:expr)?) => {
        $effects.iter().any(|effect| matches!(effect, $pattern $(if $guard)?))
    };
}
pub(super) use has;
