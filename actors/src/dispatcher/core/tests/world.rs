//! A world for several cores: a broker that compares and appends as the server does, workers that make one text per
//! job, and whatever can go wrong between them.
//!
//! It performs effects as told, tells [`History`] what everybody can see, and looks into each core after each event.
//!
//! Two things are the adapter's to keep, and are kept here: an append is not sent over another connection than that on
//! which its fence was acknowledged, and a settled job's fence is purged before its records.

mod broker;
mod insides;

use std::collections::{BTreeMap, VecDeque};

use halm_protocol::worker::{Lease, Piece, Work};
use halm_protocol::{ErrorCode, FinishReason, Incarnation, JobId, Outcome};

use super::super::{Core, Settings};
use super::desk::{at, delivery, job, settings, spec};
use super::history::{Fact, History, Truth, Verdict};
use crate::dispatcher::suspicion::Company;
use crate::dispatcher::{Effect, Event, Op, OpResult, WorkerId};
use crate::ports::{FenceRecord, LogRecord, Offered, WriteFault};
use broker::fault;
use insides::look_into;

/// Workers of each replica.
const WORKERS: u32 = 2;
/// Rounds without faults in which everything must come to its end: far more than any job needs.
const ROUNDS_MAX: usize = 300;
/// The last job has little time.
const SHORT_DEADLINE_MS: u64 = 600;

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// It is performed and answered.
    Answered,
    /// It is performed, and the answer is lost.
    Unheard,
    /// It is lost.
    Lost,
    /// It counts as lost, and is performed later.
    Late,
    /// The broker refuses it.
    Refused,
}

/// A job, as the broker and the outside see it.
struct Side {
    id: JobId,
    truth: Truth,
    fences: Vec<FenceRecord>,
    records: Vec<LogRecord>,
    outcome: Option<Outcome>,
    acked: bool,
    deliveries: u64,
    deaths: u32,
    failures: u32,
}

/// A lease, as the worker that runs it sees it.
struct Run {
    side: usize,
    next: usize,
}

pub(super) struct Replica {
    core: Core,
    mailbox: VecDeque<Event>,
    calls: Vec<(Op, Effect)>,
    frozen: bool,
    workers: BTreeMap<WorkerId, BTreeMap<Lease, Run>>,
}

pub(super) struct World {
    sides: Vec<Side>,
    replicas: Vec<Replica>,
    /// Writes whose sender has given up on them, and purges.
    ghosts: Vec<Effect>,
    now_ms: u64,
    sequence: u64,
    /// Fences below this were acknowledged over a connection that is no more.
    connected_from: u64,
    lives: u32,
    lose_next_ack: bool,
    deaths_max: u32,
    history: History,
    /// What happened, for people; nothing unless asked for, because it takes most of the time.
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(replicas: usize, lengths: &[u32], deaths_max: u32) -> Self {
        let mut history = History::default();
        let mut sides = Vec::new();
        for (number, length) in (1..).zip(lengths) {
            let (id, truth) = (job(&format!("j{number}")), Truth::of(number, *length));
            history.expect(id.clone(), truth.clone());
            let (fences, records) = (Vec::new(), Vec::new());
            sides.push(Side {
                id,
                truth,
                fences,
                records,
                outcome: None,
                acked: false,
                deliveries: 0,
                deaths: 0,
                failures: 0,
            });
        }
        let mut world = Self {
            sides,
            replicas: Vec::new(),
            ghosts: Vec::new(),
            now_ms: 0,
            sequence: 100,
            connected_from: 0,
            lives: 0,
            lose_next_ack: false,
            deaths_max,
            history,
            trace: None,
        };
        world.replicas = (0..replicas).map(|number| world.birth(number)).collect();
        world
    }

    fn birth(&mut self, number: usize) -> Replica {
        self.lives += 1;
        let name = ["a", "b", "c"][number];
        let incarnation = Incarnation::try_from(format!("{name}-{}", self.lives)).expect("a plain name");
        let settings = Settings { incarnation, deaths_max: self.deaths_max, workers: WORKERS, ..settings(name) };
        let workers = BTreeMap::new();
        Replica { core: Core::new(settings), mailbox: VecDeque::new(), calls: Vec::new(), frozen: false, workers }
    }

    /// Every worker of every replica is ready.
    pub(super) fn boot(&mut self) -> Verdict {
        for number in 0..self.replicas.len() {
            for worker in 0..WORKERS {
                self.kill_or_boot(number, worker);
                self.handle(number)?;
            }
        }
        Ok(())
    }

    fn side(&self, id: &JobId) -> usize {
        self.sides.iter().position(|side| side.id == *id).expect("a job of this world")
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>5} ms  {}", self.now_ms, line()));
        }
    }

    /// The queue delivers a job that it still has to a replica that has room for it, or holds it already.
    pub(super) fn deliver(&mut self, side: usize, replica: usize) {
        let (side, number) = (side % self.sides.len(), replica % self.replicas.len());
        let (of, replica) = (&mut self.sides[side], &mut self.replicas[number]);
        let on_the_way = replica.mailbox.iter().filter(|event| matches!(event, Event::Received { .. })).count();
        if of.acked || (replica.core.demand().jobs <= on_the_way && !replica.core.jobs.contains_key(&of.id)) {
            return;
        }
        of.deliveries += 1;
        let deadline = if of.id.as_str() == "j3" { SHORT_DEADLINE_MS } else { 1_000_000 };
        let (spec, delivery) = (Box::new(spec(of.id.as_str())), delivery(of.id.as_str(), of.deliveries));
        replica.mailbox.push_back(Event::Received { spec, delivery, deadline: at(deadline) });
        self.say(|| format!("j{} is delivered to {number}", side + 1));
    }

    /// A replica handles the next event of its mailbox.
    pub(super) fn handle(&mut self, replica: usize) -> Verdict {
        let number = replica % self.replicas.len();
        let now = at(self.now_ms);
        let of = &mut self.replicas[number];
        if of.frozen {
            return Ok(());
        }
        let Some(event) = of.mailbox.pop_front() else { return Ok(()) };
        if let Event::WorkerGone { worker } = &event {
            // As a dispatcher attributes it: also to a job that was on its way to the worker.
            let held = of.core.jobs_of(*worker);
            let known = held.iter().find(|id| of.core.jobs[*id].suspicion.company() != Company::Any);
            let culprit = if held.len() == 1 { held.first() } else { known };
            self.sides.iter_mut().filter(|side| Some(&side.id) == culprit).for_each(|side| side.deaths += 1);
        }
        let line = self.trace.is_some().then(|| format!("{number} handles {event:?}"));
        let effects = of.core.handle(event, now);
        let verdict = look_into(&of.core);
        self.say(|| line.unwrap_or_default());
        verdict?;
        effects.into_iter().try_for_each(|effect| self.take(number, effect))
    }

    fn take(&mut self, number: usize, effect: Effect) -> Verdict {
        let replica = &mut self.replicas[number];
        match effect {
            Effect::ReadFence { op, .. }
            | Effect::WriteFence { op, .. }
            | Effect::ReadOutcome { op, .. }
            | Effect::ReadLog { op, .. }
            | Effect::Append { op, .. }
            | Effect::Bury { op, .. }
            | Effect::StoreOutcome { op, .. } => {
                replica.calls.push((op, effect));
                Ok(())
            }
            Effect::Start { worker, work, .. } => self.start(number, worker, &work),
            Effect::Offer { op, .. } => {
                replica.mailbox.push_back(Event::Finished { op, result: OpResult::Offered(Offered::Heard) });
                Ok(())
            }
            Effect::Cancel { worker, lease } => {
                replica.workers.get_mut(&worker).and_then(|leases| leases.remove(&lease));
                Ok(())
            }
            Effect::Ack(delivery) => self.ack(number, delivery.ack.as_str()),
            Effect::Purge(_) => {
                self.ghosts.push(effect);
                Ok(())
            }
            Effect::Nak(ack) => Err(("INV-5", format!("{} was given back though nothing ends", ack.as_str()))),
            Effect::Broken { job, invariant, seen } => Err((invariant, format!("a core says of {job}: {seen}"))),
            Effect::Progress(_)
            | Effect::Hold { .. }
            | Effect::Release(_)
            | Effect::Demand(_)
            | Effect::Pace(_)
            | Effect::Drained => Ok(()),
        }
    }

    fn start(&mut self, number: usize, worker: WorkerId, work: &Work) -> Verdict {
        let side = self.side(&work.job);
        // A worker that just died says so itself.
        if let Some(leases) = self.replicas[number].workers.get_mut(&worker) {
            leases.insert(work.lease, Run { side, next: work.generated.len() });
        }
        self.history.observe(&work.job, Fact::Started(work.generated.clone()))
    }

    fn ack(&mut self, number: usize, subject: &str) -> Verdict {
        let side = self.sides.iter().position(|side| subject.contains(&format!(".{}.", side.id)));
        let side = side.expect("a delivery of this world");
        let lost = std::mem::take(&mut self.lose_next_ack);
        self.say(|| format!("{number} acknowledges j{}{}", side + 1, if lost { ", which is lost" } else { "" }));
        self.history.observe(&self.sides[side].id, Fact::Acked)?;
        self.sides[side].acked |= !lost;
        Ok(())
    }

    pub(super) fn lose_next_ack(&mut self) {
        self.lose_next_ack = true;
    }

    /// One of a replica's calls comes to its fate.
    pub(super) fn call(&mut self, replica: usize, call: usize, fate: Fate) -> Verdict {
        let number = replica % self.replicas.len();
        if self.replicas[number].calls.is_empty() {
            return Ok(());
        }
        let call = call % self.replicas[number].calls.len();
        let (op, effect) = self.replicas[number].calls.remove(call);
        self.say(|| format!("{number}'s call {fate:?}: {effect:?}"));
        let result = match fate {
            Fate::Answered => self.perform(&effect)?,
            Fate::Unheard => {
                self.perform(&effect)?;
                fault(&effect, WriteFault::Unknown("unheard".to_owned()))
            }
            Fate::Lost => fault(&effect, WriteFault::Unknown("lost".to_owned())),
            Fate::Late => {
                self.ghosts.push(effect.clone());
                fault(&effect, WriteFault::Unknown("late".to_owned()))
            }
            Fate::Refused => fault(&effect, WriteFault::Refused("no".to_owned())),
        };
        self.replicas[number].mailbox.push_back(Event::Finished { op, result });
        Ok(())
    }

    pub(super) fn reconnect(&mut self, replica: usize) {
        let number = replica % self.replicas.len();
        self.replicas[number].mailbox.push_back(Event::ConnectionRestored);
    }

    /// A worker makes some tokens for one of its leases, or comes to the end.
    pub(super) fn work(&mut self, replica: usize, worker: u32, lease: usize, tokens: usize) {
        let number = replica % self.replicas.len();
        let Replica { workers, mailbox, .. } = &mut self.replicas[number];
        let Some(leases) = workers.get_mut(&WorkerId(1 + worker % WORKERS)).filter(|leases| !leases.is_empty()) else {
            return;
        };
        let lease = *leases.keys().nth(lease % leases.len()).expect("it has one");
        let run = leases.get_mut(&lease).expect("it has this one");
        let truth = &self.sides[run.side].truth;
        let until = (run.next + tokens).min(truth.tokens.len());
        let event = if run.next == truth.tokens.len() {
            leases.remove(&lease);
            Event::Done { lease, tail: truth.tail.clone(), reason: FinishReason::Stop, prompt_tokens: 1 }
        } else {
            let piece = |at: usize| Piece { token: truth.tokens[at], text: truth.texts[at].clone() };
            let pieces = (run.next..until).map(piece).collect();
            let offset = u32::try_from(std::mem::replace(&mut run.next, until)).expect("a short text");
            Event::Tokens { lease, offset, pieces }
        };
        mailbox.push_back(event);
    }

    /// A worker fails at one of its leases, and lives.
    pub(super) fn fail(&mut self, replica: usize, worker: u32) {
        let number = replica % self.replicas.len();
        let Replica { workers, mailbox, .. } = &mut self.replicas[number];
        let leases = workers.get_mut(&WorkerId(1 + worker % WORKERS));
        if let Some((lease, run)) = leases.and_then(|leases| leases.pop_first()) {
            self.sides[run.side].failures += 1;
            let (code, message) = (ErrorCode::Internal, "out of pages".to_owned());
            mailbox.push_back(Event::Failed { lease, code, message, param: None, retry: true });
        }
    }

    /// A worker's process dies, or a new one is ready.
    pub(super) fn kill_or_boot(&mut self, replica: usize, worker: u32) {
        let (number, worker) = (replica % self.replicas.len(), WorkerId(1 + worker % WORKERS));
        let Replica { workers, mailbox, .. } = &mut self.replicas[number];
        if workers.remove(&worker).is_some() {
            mailbox.push_back(Event::WorkerGone { worker });
            self.say(|| format!("worker {worker} of {number} dies"));
        } else {
            workers.insert(worker, BTreeMap::new());
            mailbox.push_back(Event::WorkerReady { worker });
        }
    }

    /// A replica dies, with what it wrote still on its way, and is started again.
    pub(super) fn crash(&mut self, replica: usize) {
        let number = replica % self.replicas.len();
        self.say(|| format!("{number} dies"));
        let newborn = self.birth(number);
        let dead = std::mem::replace(&mut self.replicas[number], newborn);
        let writes = |call: &Effect| {
            matches!(call, Effect::WriteFence { .. } | Effect::Append { .. } | Effect::StoreOutcome { .. })
        };
        self.ghosts.extend(dead.calls.into_iter().map(|(_, call)| call).filter(writes));
    }

    /// A replica is stopped, or goes on: what it hears meanwhile waits.
    pub(super) fn freeze_or_thaw(&mut self, replica: usize) {
        let number = replica % self.replicas.len();
        self.replicas[number].frozen = !self.replicas[number].frozen;
        self.say(|| format!("{number} is frozen or thaws"));
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for replica in &mut self.replicas {
            replica.mailbox.push_back(Event::Tick);
        }
    }

    /// No more faults: everything must come to its end.
    pub(super) fn settle(&mut self) -> Verdict {
        self.lose_next_ack = false;
        for replica in &mut self.replicas {
            replica.frozen = false;
        }
        for _ in 0..ROUNDS_MAX {
            while !self.ghosts.is_empty() {
                self.haunt(0)?;
            }
            for number in 0..self.replicas.len() {
                while !self.replicas[number].mailbox.is_empty() {
                    self.handle(number)?;
                }
                while !self.replicas[number].calls.is_empty() {
                    self.call(number, 0, Fate::Answered)?;
                }
                for worker in 0..WORKERS {
                    if !self.replicas[number].workers.contains_key(&WorkerId(1 + worker)) {
                        self.kill_or_boot(number, worker);
                    }
                    for lease in 0..2 {
                        self.work(number, worker, lease, 3);
                    }
                }
            }
            self.pass(40);
            let held = |id: &JobId| self.replicas.iter().any(|replica| replica.core.jobs.contains_key(id));
            let free: Vec<_> = (0..self.sides.len()).filter(|side| !held(&self.sides[*side].id)).collect();
            if free.iter().filter(|side| self.sides[**side].acked).count() == self.sides.len() {
                break;
            }
            for side in free {
                (0..self.replicas.len()).for_each(|replica| self.deliver(side, replica));
            }
        }
        let sides: BTreeMap<_, _> = self.sides.iter().map(|side| (side.id.clone(), side)).collect();
        self.history.ended(|id, code| match code {
            ErrorCode::DeadlineExceeded => id.as_str() == "j3",
            ErrorCode::Poison => sides[id].deaths >= self.deaths_max,
            ErrorCode::Internal => sides[id].failures >= 3,
            _ => false,
        })
    }
}
