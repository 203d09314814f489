//! A replica of the simulation: the real cores of dispatcher and peers, and around them what their shells do.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use halm_actors::dispatcher::{self, Effect, Event, Op, OpResult};
use halm_actors::ports::{AckSubject, Connection, Delivery, Offered, ReadFault, WriteFault};
use halm_actors::{Moment, ingress, peers};
use halm_protocol::{Beat, Digest, Held, Incarnation, JobId, ReplicaName};

use super::broker::{PortKind, number};
use super::call::{Call, CallId, Node, Settle, Word, acknowledged};
use super::intake::unavailable;
use super::job::of_inbox;
use super::judge::{Verdict, broken};
use super::mutation::Mutation;
use super::worker::{LOAD_US, Worker};
use super::world::{Happening, World};

/// Workers of each replica.
pub(super) const WORKERS: u32 = 2;
const SLOTS_PER_WORKER: u32 = 2;
/// As halm is set.
pub(super) const DEATHS_MAX: u32 = 3;
/// As halm is set.
pub(super) const FAILURES_MAX: u32 = 3;
/// As halm's adapters are set.
pub(super) const ANSWER_WITHIN_US: u64 = 2_000_000;
const PING_WITHIN_US: u64 = 200_000;
/// As halm's shells are set.
const BEAT_EVERY_US: u64 = 100_000;
const LOOK_EVERY_US: u64 = 50_000;
const PULL_FOR_US: u64 = 3_000_000;
const DRAIN_WITHIN_US: u64 = 3_000_000;
/// Who waits for an answer of the broker.
#[derive(Debug)]
pub(super) enum Waiting {
    Port {
        op: Op,
        kind: PortKind,
        over: u64,
    },
    Ping {
        replica: usize,
        incarnation: Incarnation,
    },
    /// An end was offered to its client.
    Offer(Op),
    /// A planted bug: the log is read to see whether an append landed.
    Recheck {
        append: Box<Effect>,
    },
    /// The ingress looks for an outcome.
    Look(ingress::Op),
    /// A cancellation waits for a call of a port.
    Cancel {
        op: ingress::Op,
        kind: PortKind,
    },
    /// The ingress stores a job.
    Store(ingress::Op),
    Nobody,
}

pub(super) struct Replica {
    pub(super) life: u32,
    pub(super) alive: bool,
    pub(super) frozen: bool,
    /// What happened to it while it was frozen.
    pub(super) backlog: VecDeque<Happening>,
    pub(super) core: dispatcher::Core,
    pub(super) peers: peers::Core,
    pub(super) ingress: ingress::Core,
    pub(super) cancels: ingress::Cancels,
    pub(super) ingress_tick_at: Option<Moment>,
    pub(super) held: BTreeMap<JobId, AckSubject>,
    pub(super) workers: Vec<Worker>,
    calls: BTreeMap<CallId, (Waiting, u64)>,
    /// Each pull under way: when it ends, and how many jobs it may still bring.
    pulls: VecDeque<(u64, usize)>,
    tick_at: Option<Moment>,
    /// Appends under way, for a planted bug.
    appends: BTreeMap<Op, Box<Effect>>,
    /// How far its wall clock is ahead, in microseconds.
    skew_us: i64,
    pub(super) draining: bool,
    name: ReplicaName,
    incarnation: Incarnation,
}

fn name(number: usize) -> ReplicaName {
    ReplicaName::try_from(["a", "b", "c", "d"][number]).expect("a plain name")
}

pub(super) fn digest() -> Digest {
    Digest::try_from("0".repeat(64)).expect("64 hexadecimal digits")
}

impl Replica {
    pub(super) fn new(number: usize, life: u32, skew_us: i64) -> Self {
        let name = name(number);
        let incarnation = Incarnation::try_from(format!("{name}-{life}")).expect("a plain name");
        let settings = dispatcher::Settings {
            replica: name.clone(),
            incarnation: incarnation.clone(),
            model: "m".to_owned(),
            digest: digest(),
            workers: WORKERS,
            slots_per_worker: SLOTS_PER_WORKER,
            deaths_max: DEATHS_MAX,
            failures_max: FAILURES_MAX,
            progress_every: Duration::from_secs(1),
        };
        Self {
            life,
            alive: true,
            frozen: false,
            backlog: VecDeque::new(),
            core: dispatcher::Core::new(settings),
            peers: peers::Core::new(peers::Settings::default_for(name.clone(), incarnation.clone())),
            ingress: ingress::Core::new(name.clone(), incarnation.clone()),
            cancels: ingress::Cancels::new(name.clone(), incarnation.clone()),
            ingress_tick_at: None,
            held: BTreeMap::new(),
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            calls: BTreeMap::new(),
            pulls: VecDeque::new(),
            tick_at: None,
            appends: BTreeMap::new(),
            skew_us,
            draining: false,
            name,
            incarnation,
        }
    }
}

/// Marks a fence with the connection that its call went over, as the adapter does.
fn said_over(result: &mut OpResult, over: u64) {
    match result {
        OpResult::FenceRead(Ok(Some(record))) => record.fence.over = Connection(over),
        OpResult::FenceWritten(Ok(fence)) => fence.over = Connection(over),
        _ => {}
    }
}

impl World {
    /// A replica's process begins.
    pub(super) fn boot(&mut self, at: usize) {
        let life = self.replicas[at].life + 1;
        let skew_us = self.skew();
        self.replicas[at] = Replica::new(at, life, skew_us);
        for worker in 0..WORKERS as usize {
            self.boot_worker(at, worker, LOAD_US);
        }
        self.after(LOOK_EVERY_US, Happening::Look { replica: at, life });
        self.after(BEAT_EVERY_US, Happening::BeatDue { replica: at, life });
    }

    /// An event for the dispatcher's core.
    pub(super) fn tell(&mut self, at: usize, event: Event) -> Verdict {
        let event = match self.altered(at, event) {
            Some(event) => event,
            None => return Ok(()),
        };
        let now = self.now();
        let effects = self.replicas[at].core.handle(event, now);
        for effect in effects {
            self.perform(at, effect)?;
        }
        let replica = &mut self.replicas[at];
        if replica.alive
            && let Some(next) = replica.core.next_tick()
            && replica.tick_at.is_none_or(|set| set > next)
        {
            replica.tick_at = Some(next);
            let life = replica.life;
            self.at(next, Happening::Tick { replica: at, life });
        }
        Ok(())
    }

    /// The event as a planted bug would have it.
    fn altered(&mut self, at: usize, event: Event) -> Option<Event> {
        match (self.mutation, event) {
            (Some(Mutation::FenceKeptAcrossStreams), Event::ConnectionRestored) => None,
            (Some(Mutation::TrustInDedup), Event::Finished { op, result: OpResult::OutcomeRead(Ok(_)) }) => {
                Some(Event::Finished { op, result: OpResult::OutcomeRead(Ok(None)) })
            }
            (
                Some(Mutation::RedeliveriesAreAttempts),
                Event::Finished { op, result: OpResult::FenceRead(Ok(Some(mut record))) },
            ) if record.claim.incarnation != self.replicas[at].incarnation => {
                record.claim.deaths += 1;
                record.claim.strikes += 1;
                Some(Event::Finished { op, result: OpResult::FenceRead(Ok(Some(record))) })
            }
            (_, event) => Some(event),
        }
    }

    pub(super) fn tick(&mut self, at: usize) -> Verdict {
        self.replicas[at].tick_at = None;
        self.tell(at, Event::Tick)
    }

    fn perform(&mut self, at: usize, effect: Effect) -> Verdict {
        if let Some((op, kind)) = PortKind::of(&effect) {
            return self.call_port(at, op, kind, effect);
        }
        match effect {
            Effect::Ack(delivery) => self.ack(at, &delivery.ack),
            Effect::Progress(delivery) => {
                self.settle(at, Settle::Progress, &delivery.ack);
                Ok(())
            }
            Effect::Nak(ack) => {
                self.settle(at, Settle::Nak, &ack);
                Ok(())
            }
            Effect::Purge(target) => {
                self.call(at, Call::Purge(Box::new(target)), Waiting::Nobody, ANSWER_WITHIN_US);
                Ok(())
            }
            Effect::Offer { op, inbox, outcome } => {
                let job = of_inbox(&inbox);
                let offer = Call::Deliver { job, outcome: Rc::new(outcome) };
                self.call(at, offer, Waiting::Offer(op), ANSWER_WITHIN_US);
                Ok(())
            }
            Effect::Hold { job, ack } => {
                self.replicas[at].held.insert(job, ack);
                self.beat(at);
                Ok(())
            }
            Effect::Release(job) => {
                let replica = &mut self.replicas[at];
                if replica.held.remove(&job).is_some() {
                    self.beat(at);
                }
                Ok(())
            }
            Effect::Start { worker, work, .. } => self.start(at, worker, &work),
            Effect::Cancel { worker, lease } => {
                self.replicas[at].workers[worker.0 as usize - 1].leases.remove(&lease);
                Ok(())
            }
            Effect::Demand(_) => {
                self.pull(at);
                Ok(())
            }
            Effect::Pace(_) => Ok(()),
            Effect::Drained => {
                if self.replicas[at].draining {
                    self.leave(at);
                }
                Ok(())
            }
            Effect::Broken { job, invariant, seen } => broken(invariant, format!("a core says of {job}: {seen}")),
            Effect::ReadFence { .. }
            | Effect::WriteFence { .. }
            | Effect::ReadOutcome { .. }
            | Effect::ReadLog { .. }
            | Effect::Append { .. }
            | Effect::Bury { .. }
            | Effect::StoreOutcome { .. } => unreachable!("a call of a port, which is above"),
        }
    }

    fn ack(&mut self, at: usize, ack: &AckSubject) -> Verdict {
        let (job, _) = acknowledged(ack.as_str());
        self.seen[job].acking()?;
        self.settle(at, Settle::Ack, ack);
        Ok(())
    }

    fn settle(&mut self, at: usize, settle: Settle, ack: &AckSubject) {
        let (job, delivered) = acknowledged(ack.as_str());
        self.call(at, Call::Settle { settle, delivered, job }, Waiting::Nobody, 0);
    }

    fn call_port(&mut self, at: usize, op: Op, kind: PortKind, effect: Effect) -> Verdict {
        match &effect {
            Effect::Append { target, fence, record, .. } => {
                let link = self.link(Node::Replica(at));
                let (up, connection) = (link.up, link.connection);
                let over_it = fence.over == Connection(connection);
                let careless = matches!(
                    self.mutation,
                    Some(Mutation::AppendOverAnotherConnection | Mutation::FenceKeptAcrossStreams)
                );
                if !up || !(over_it || careless) {
                    let result = OpResult::Appended(Err(WriteFault::Unknown("another connection".to_owned())));
                    let life = self.replicas[at].life;
                    self.after(1, Happening::Answered { replica: at, life, op, result });
                    return Ok(());
                }
                let is_final = matches!(record, halm_actors::ports::Record::Final(_));
                if self.mutation == Some(Mutation::AckBeforeFinal)
                    && is_final
                    && let Some(ack) = self.replicas[at].held.get(&target.job).cloned()
                {
                    self.ack(at, &ack)?;
                }
                if self.mutation == Some(Mutation::PipelinedAppends) && !is_final {
                    let life = self.replicas[at].life;
                    self.after(1, Happening::Answered { replica: at, life, op, result: OpResult::Appended(Ok(())) });
                    self.call(at, Call::Port(Box::new(effect)), Waiting::Nobody, ANSWER_WITHIN_US);
                    return Ok(());
                }
                if self.mutation == Some(Mutation::RetryUnderOldFence) {
                    self.replicas[at].appends.insert(op, Box::new(effect.clone()));
                }
            }
            Effect::StoreOutcome { job, .. } if self.mutation == Some(Mutation::AckBeforeOutcome) => {
                if let Some(ack) = self.replicas[at].held.get(job).cloned() {
                    self.ack(at, &ack)?;
                }
            }
            _ => {}
        }
        let over = self.link(Node::Replica(at)).connection;
        self.call(at, Call::Port(Box::new(effect)), Waiting::Port { op, kind, over }, ANSWER_WITHIN_US);
        Ok(())
    }

    pub(super) fn call(&mut self, at: usize, call: Call, waiting: Waiting, within_us: u64) {
        let id = self.call_id();
        if !matches!(waiting, Waiting::Nobody) {
            self.replicas[at].calls.insert(id, (waiting, self.now_us + within_us));
        }
        self.send(Node::Replica(at), id, call);
    }

    fn offered(&mut self, at: usize, op: Op, offered: Offered) -> Verdict {
        let once = self.mutation == Some(Mutation::FinalOnce);
        let offered = if once { Offered::Heard } else { offered };
        self.tell(at, Event::Finished { op, result: OpResult::Offered(offered) })
    }

    /// A word of the broker reaches a replica.
    pub(super) fn hear(&mut self, at: usize, word: Word) -> Verdict {
        match word {
            Word::Result(id, mut result) => {
                let Some((waiting, _)) = self.replicas[at].calls.remove(&id) else { return Ok(()) };
                match waiting {
                    Waiting::Port { op, over, .. } => {
                        said_over(&mut result, over);
                        self.replicas[at].appends.remove(&op);
                        self.tell(at, Event::Finished { op, result })
                    }
                    Waiting::Recheck { append } => self.rechecked(at, append, &result),
                    Waiting::Cancel { op, .. } => self.cancel_called(at, op, result),
                    Waiting::Look(op) => {
                        let OpResult::OutcomeRead(outcome) = result else { return Ok(()) };
                        self.tell_ingress(at, ingress::Event::Looked(op, outcome))
                    }
                    Waiting::Store(_) | Waiting::Ping { .. } | Waiting::Offer(_) | Waiting::Nobody => Ok(()),
                }
            }
            Word::Listened(id, listened) => {
                let Some((waiting, _)) = self.replicas[at].calls.remove(&id) else { return Ok(()) };
                match waiting {
                    Waiting::Ping { replica, incarnation } => self.pinged(at, replica, incarnation, listened),
                    Waiting::Offer(op) => {
                        self.offered(at, op, if listened { Offered::Heard } else { Offered::Unheard })
                    }
                    Waiting::Port { .. }
                    | Waiting::Recheck { .. }
                    | Waiting::Look(_)
                    | Waiting::Cancel { .. }
                    | Waiting::Store(_)
                    | Waiting::Nobody => Ok(()),
                }
            }
            Word::Job(job, delivery) => self.received(at, job, delivery),
            Word::Beat(beat) => self.tell_peers(at, peers::Event::Beat(Beat::clone(&beat))),
            Word::Request { job, taken } => self.hear_request(at, job, taken),
            Word::Notice(notice) => self.notice(at, &notice),
            Word::Cancel { job } => self.hear_cancel(at, job),
            Word::Settled { job } => {
                let id = self.jobs[job].spec.id.clone();
                self.tell_ingress(at, ingress::Event::Settled(id))
            }
            Word::Stored(id, result) => match self.replicas[at].calls.remove(&id) {
                Some((Waiting::Store(op), _)) => self.tell_ingress(at, ingress::Event::Stored(op, result)),
                Some(_) | None => Ok(()),
            },
            Word::Record(_) | Word::End(_) => unreachable!("for clients"),
        }
    }

    fn rechecked(&mut self, at: usize, append: Box<Effect>, result: &OpResult) -> Verdict {
        let Effect::Append { op, record, .. } = &*append else { return Ok(()) };
        let op = *op;
        if let OpResult::LogRead(Ok(records)) = result {
            if records.iter().any(|known| known.record == *record) {
                return self.tell(at, Event::Finished { op, result: OpResult::Appended(Ok(())) });
            }
            self.replicas[at].appends.insert(op, append.clone());
            let waiting = Waiting::Port { op, kind: PortKind::Append, over: 0 };
            self.call(at, Call::Port(append), waiting, ANSWER_WITHIN_US);
            return Ok(());
        }
        self.recheck(at, append);
        Ok(())
    }

    fn recheck(&mut self, at: usize, append: Box<Effect>) {
        let Effect::Append { op, target, .. } = &*append else { return };
        let read = Call::Port(Box::new(Effect::ReadLog { op: *op, target: target.clone() }));
        self.call(at, read, Waiting::Recheck { append }, ANSWER_WITHIN_US);
    }

    fn received(&mut self, at: usize, job: usize, delivery: Delivery) -> Verdict {
        let replica = &mut self.replicas[at];
        if let Some(pull) = replica.pulls.iter_mut().find(|(_, left)| *left > 0) {
            pull.1 -= 1;
        }
        let deadline = self.jobs[job].deadline_us.saturating_add_signed(-replica.skew_us);
        let spec = Box::new(self.jobs[job].spec.clone());
        let deadline = Moment::after(Duration::from_micros(deadline.max(self.now_us)));
        self.tell(at, Event::Received { spec, delivery, deadline })?;
        self.pull(at);
        Ok(())
    }

    /// Asks for as many jobs as there is room for.
    fn pull(&mut self, at: usize) {
        let now_us = self.now_us;
        let replica = &mut self.replicas[at];
        replica.pulls.retain(|(until_us, left)| *until_us > now_us && *left > 0);
        let outstanding: usize = replica.pulls.iter().map(|(_, left)| left).sum();
        let wanted = replica.core.demand().jobs.saturating_sub(outstanding);
        if wanted == 0 || !self.link(Node::Replica(at)).up {
            return;
        }
        self.replicas[at].pulls.push_back((now_us + PULL_FOR_US, wanted));
        self.call(at, Call::Pull { jobs: wanted }, Waiting::Nobody, 0);
    }

    /// The connection is back.
    pub(super) fn reconnected(&mut self, at: usize) -> Verdict {
        self.replicas[at].pulls.clear();
        self.tell_peers(at, peers::Event::ConnectionRestored)?;
        self.tell_ingress(at, ingress::Event::ConnectionRestored)?;
        self.tell(at, Event::ConnectionRestored)?;
        self.pull(at);
        Ok(())
    }

    /// Looks at peers, at calls without an answer, and at pulls that ended.
    pub(super) fn look(&mut self, at: usize) -> Verdict {
        let (now_us, life) = (self.now_us, self.replicas[at].life);
        self.after(LOOK_EVERY_US, Happening::Look { replica: at, life });
        self.tell_peers(at, peers::Event::Tick)?;
        self.tick_cancels(at);
        let due: Vec<CallId> =
            self.replicas[at].calls.iter().filter(|(_, (_, due_us))| *due_us <= now_us).map(|(id, _)| *id).collect();
        for id in due {
            let Some((waiting, _)) = self.replicas[at].calls.remove(&id) else { continue };
            match waiting {
                Waiting::Port { op, kind: PortKind::Append, .. }
                    if self.mutation == Some(Mutation::RetryUnderOldFence) =>
                {
                    if let Some(append) = self.replicas[at].appends.remove(&op) {
                        self.recheck(at, append);
                    }
                }
                Waiting::Port { op, kind, .. } => self.tell(at, Event::Finished { op, result: kind.silence() })?,
                Waiting::Ping { replica, incarnation } => self.pinged(at, replica, incarnation, true)?,
                Waiting::Offer(op) => self.offered(at, op, Offered::Unknown)?,

                Waiting::Recheck { append } => self.recheck(at, append),
                Waiting::Look(op) => {
                    let silence = Err(ReadFault("no answer in time".to_owned()));
                    self.tell_ingress(at, ingress::Event::Looked(op, silence))?;
                }
                Waiting::Store(op) => self.tell_ingress(at, ingress::Event::Stored(op, unavailable()))?,
                Waiting::Cancel { op, kind } => self.cancel_called(at, op, kind.silence())?,
                Waiting::Nobody => {}
            }
        }
        self.pull(at);
        Ok(())
    }

    pub(super) fn beat_due(&mut self, at: usize) {
        let life = self.replicas[at].life;
        self.after(BEAT_EVERY_US, Happening::BeatDue { replica: at, life });
        self.beat(at);
    }

    fn beat(&mut self, at: usize) {
        let replica = &self.replicas[at];
        let held = |(job, ack): (&JobId, &AckSubject)| Held { job: job.clone(), ack: ack.as_str().to_owned() };
        let beat = Beat {
            replica: replica.name.clone(),
            incarnation: replica.incarnation.clone(),
            models: Vec::new(),
            held: replica.held.iter().map(held).collect(),
            draining: replica.draining,
            deaf: replica.peers.is_deaf(self.now()),
            paces: BTreeMap::new(),
        };
        self.call(at, Call::Beat(Rc::new(beat)), Waiting::Nobody, 0);
    }

    fn pinged(&mut self, at: usize, replica: usize, incarnation: Incarnation, connected: bool) -> Verdict {
        self.tell_peers(at, peers::Event::Pinged { replica: name(replica), incarnation, connected })
    }

    fn tell_peers(&mut self, at: usize, event: peers::Event) -> Verdict {
        let now = self.now();
        let effects = self.replicas[at].peers.handle(event, now);
        let changed = |effect: &peers::Effect| matches!(effect, peers::Effect::Joined(_) | peers::Effect::Left { .. });
        if effects.iter().any(changed) {
            self.peers_changed(at)?;
        }
        for effect in effects {
            match effect {
                peers::Effect::Ping { replica, incarnation } => {
                    let replica = (0..self.replicas.len()).find(|other| name(*other) == replica);
                    let replica = replica.expect("a replica of the simulation");
                    self.call(at, Call::Ping { replica }, Waiting::Ping { replica, incarnation }, PING_WITHIN_US);
                }
                peers::Effect::Nak { job, ack } => {
                    self.note(|| format!("{at} gives {job} of a lost peer back"));
                    self.given_back(number(&job));
                    self.settle(at, Settle::Nak, &ack);
                    if self.mutation == Some(Mutation::NakUnannounced) {
                        let (job, delivered) = acknowledged(ack.as_str());
                        for delivered in [delivered.saturating_sub(1), delivered + 1] {
                            let nak = Call::Settle { settle: Settle::Nak, delivered, job };
                            self.call(at, nak, Waiting::Nobody, 0);
                        }
                    }
                }
                peers::Effect::Namesake(incarnation) => {
                    return broken("INV-6", format!("{incarnation} is heard of as a namesake"));
                }
                peers::Effect::Joined(_) => {}
                peers::Effect::Left { replica, why, .. } => self.note(|| format!("{at} lost {replica}: {why}")),
            }
        }
        Ok(())
    }

    /// A planned stop: first to the end of what runs, then by handing it over.
    pub(super) fn drain(&mut self, at: usize) -> Verdict {
        let replica = &mut self.replicas[at];
        if replica.draining {
            return Ok(());
        }
        replica.draining = true;
        let life = replica.life;
        self.after(DRAIN_WITHIN_US, Happening::DrainEnds { replica: at, life });
        self.tell_ingress(at, ingress::Event::Drain)?;
        self.tell(at, Event::Drain)
    }

    pub(super) fn drain_ends(&mut self, at: usize) -> Verdict {
        self.tell(at, Event::HandOver)?;
        self.leave(at);
        Ok(())
    }
}
