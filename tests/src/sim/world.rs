//! The world: one queue of what will happen, in virtual time, and what happens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use halm_actors::Moment;
use halm_actors::dispatcher::{Event, Op, OpResult};

use super::broker::Broker;
use super::call::{Call, CallId, Node, Word};
use super::fault::Mixture;
use super::job::Job;
use super::judge::{Broken, Deeds, Seen, Verdict, broken};
use super::mutation::Mutation;
use super::random::Random;
use super::replica::{DEATHS_MAX, FAILURES_MAX, Replica};
use super::wire::Link;
use super::worker::Says;

/// Faults end at this time of an episode, in microseconds.
const CALM_FROM_US: u64 = 12_000_000;
/// Everything must have come to its end this long after.
const SETTLED_WITHIN_US: u64 = 120_000_000;
/// A job that the queue lost, and that nobody stored again by then, is forgotten.
const FORGOTTEN_AFTER_US: u64 = 40_000_000;
/// What is on its way to clients when everything has ended arrives within this.
const HEARD_WITHIN_US: u64 = 10_000;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Happening {
    Up { from: Node, connection: u64, id: CallId, call: Call },
    Down { to: Node, connection: u64, word: Word },
    Answered { replica: usize, life: u32, op: Op, result: OpResult },
    Look { replica: usize, life: u32 },
    BeatDue { replica: usize, life: u32 },
    Tick { replica: usize, life: u32 },
    DrainDue { replica: usize, life: u32 },
    DrainEnds { replica: usize, life: u32 },
    Restored { replica: usize, life: u32 },
    FromWorker { replica: usize, life: u32, worker: usize, worker_life: u32, says: Says },
    Step { replica: usize, life: u32, worker: usize, worker_life: u32 },
    Boot { replica: usize },
    Closed { replica: usize, connection: u64 },
    Thaw { replica: usize, life: u32 },
    Reconnect { node: Node, connection: u64 },
    AskDue { job: usize, again: bool },
    CancelDue { job: usize },
    IngressTick { replica: usize, life: u32 },
    QueueLost { replica: usize, life: u32 },
    BrokerUp,
    ElectionEnds,
    DiskFree,
}

struct Scheduled {
    at_us: u64,
    number: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

pub(super) struct World {
    pub(super) now_us: u64,
    pub(super) random: Random,
    queue: BinaryHeap<Reverse<Scheduled>>,
    last_number: u64,
    pub(super) broker: Broker,
    pub(super) replicas: Vec<Replica>,
    pub(super) links: Vec<Link>,
    /// Calls that wait for a connection, by node.
    pub(super) outboxes: Vec<Vec<(CallId, Call)>>,
    pub(super) jobs: Vec<Job>,
    pub(super) seen: Vec<Seen>,
    pub(super) deeds: Vec<Deeds>,
    pub(super) mixture: Mixture,
    pub(super) calm: bool,
    /// Since when everything has come to its end.
    settled_us: Option<u64>,
    pub(super) faults: u64,
    pub(super) events: u64,
    /// The broker was down, or without a leader, at these times.
    pub(super) broker_disturbed_us: Vec<u64>,
    pub(super) mutation: Option<Mutation>,
    trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let mixture = Mixture::draw(&mut random);
        let replicas = 2 + random.index(2);
        let jobs_max = [1, 2, 4, 1024, 1024][random.index(5)];
        let jobs: Vec<Job> =
            (0..1 + random.index(7)).map(|number| Job::draw(number, CALM_FROM_US, &mut random)).collect();
        let deeds = jobs.iter().map(|job| Deeds { hurried: job.deadline_us < CALM_FROM_US, ..Deeds::default() });
        let mut world = Self {
            now_us: 0,
            queue: BinaryHeap::new(),
            last_number: 0,
            broker: Broker::new(jobs_max, mutation),
            links: vec![Link::first(); replicas + jobs.len()],
            outboxes: vec![Vec::new(); replicas + jobs.len()],
            replicas: (0..replicas).map(|at| Replica::new(at, 0, 0)).collect(),
            seen: jobs.iter().map(|job| Seen::new(job.text)).collect(),
            deeds: deeds.collect(),
            jobs,
            mixture,
            calm: false,
            settled_us: None,
            faults: 0,
            events: 0,
            broker_disturbed_us: Vec::new(),
            mutation,
            trace: traced.then(Vec::new),
            random,
        };
        for at in 0..replicas {
            world.boot(at);
        }
        for job in 0..world.jobs.len() {
            let at_us = world.random.below(CALM_FROM_US / 2);
            world.after(at_us, Happening::AskDue { job, again: false });
            if world.random.chance(150_000) {
                let after_us = world.random.below(1_000_000);
                world.after(at_us + after_us, Happening::CancelDue { job });
            }
        }
        world
    }

    pub(super) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let now_us = self.now_us;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6}  {}", now_us as f64 / 1e6, line()));
        }
    }

    pub(super) fn now(&self) -> Moment {
        Moment::after(Duration::from_micros(self.now_us))
    }

    pub(super) fn after(&mut self, after_us: u64, what: Happening) {
        self.schedule(self.now_us + after_us, what);
    }

    pub(super) fn at(&mut self, moment: Moment, what: Happening) {
        let at_us = (moment - Moment::default()).as_nanos().div_ceil(1000) as u64;
        self.schedule(at_us.max(self.now_us), what);
    }

    pub(super) fn schedule(&mut self, at_us: u64, what: Happening) {
        self.last_number += 1;
        self.queue.push(Reverse(Scheduled { at_us, number: self.last_number, what }));
    }

    pub(super) fn call_id(&mut self) -> CallId {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn index(&self, node: Node) -> usize {
        match node {
            Node::Replica(at) => at,
            Node::Client(job) => self.replicas.len() + job,
        }
    }

    pub(super) fn link(&mut self, node: Node) -> &mut Link {
        let index = self.index(node);
        &mut self.links[index]
    }

    pub(super) fn skew(&mut self) -> i64 {
        if self.random.chance(300_000) { self.random.between(0, 4_000_000) as i64 - 2_000_000 } else { 0 }
    }

    /// Lives through the episode.
    pub(super) fn run(&mut self) -> Verdict {
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now_us = self.now_us.max(next.at_us);
            if !self.calm && self.now_us >= CALM_FROM_US {
                self.calm_down();
            }
            if self.calm && self.is_settled() {
                let settled_us = *self.settled_us.get_or_insert(self.now_us);
                if self.now_us > settled_us + HEARD_WITHIN_US {
                    break;
                }
            }
            if self.now_us > CALM_FROM_US + SETTLED_WITHIN_US {
                break;
            }
            self.events += 1;
            self.happen(next.what)?;
            self.serve_pulls();
        }
        self.at_the_end()
    }

    fn is_settled(&self) -> bool {
        let long_ago = self.now_us > CALM_FROM_US + FORGOTTEN_AFTER_US;
        let ended = |job: usize| {
            self.jobs[job].accepted && self.seen[job].is_settled() || (long_ago && self.may_be_forgotten(job))
        };
        self.broker.jobs.is_empty() && (0..self.jobs.len()).all(ended)
    }

    fn at_the_end(&mut self) -> Verdict {
        for at in 0..self.jobs.len() {
            let (job, seen) = (&self.jobs[at], &self.seen[at]);
            if self.may_be_forgotten(at) && !seen.is_settled() {
                continue;
            }
            let of_job = |broken: Broken| Broken { seen: format!("job {at}: {}", broken.seen), ..broken };
            if !seen.is_stored() {
                return broken("INV-1", format!("job {at} was never stored, though its client asked without end"));
            }
            seen.at_the_end(self.deeds[at], DEATHS_MAX, FAILURES_MAX).map_err(of_job)?;
            // Who holds it goes on telling its client; should that one be lost too, nobody knows that somebody waits.
            let untold = job.lost.is_some();
            if !seen.has_final() && !job.away && !untold {
                return broken("INV-1", format!("job {at}: its client was there and was told no end"));
            }
        }
        if !self.broker.jobs.is_empty() {
            return broken("INV-1", "the queue is not empty");
        }
        Ok(())
    }

    /// No more faults.
    fn calm_down(&mut self) {
        self.calm = true;
        self.note(|| "no more faults".to_owned());
        for link in &mut self.links {
            link.blocked_until_us = 0;
        }
    }

    fn happen(&mut self, what: Happening) -> Verdict {
        if let Some(at) = frozen_by(&what)
            && self.replicas[at].frozen
        {
            self.replicas[at].backlog.push_back(what);
            return Ok(());
        }
        let lives = |world: &Self, at: usize, life: u32| world.replicas[at].alive && world.replicas[at].life == life;
        match what {
            Happening::Up { from, connection, id, call } => self.arrive(from, connection, id, call),
            Happening::Down { to, connection, word } => self.reach(to, connection, word),
            Happening::Answered { replica, life, op, result } if lives(self, replica, life) => {
                self.tell(replica, Event::Finished { op, result })
            }
            Happening::Look { replica, life } if lives(self, replica, life) => self.look(replica),
            Happening::BeatDue { replica, life } if lives(self, replica, life) => {
                self.beat_due(replica);
                Ok(())
            }
            Happening::Tick { replica, life } if lives(self, replica, life) => self.tick(replica),
            Happening::IngressTick { replica, life } if lives(self, replica, life) => self.tick_ingress(replica),
            Happening::QueueLost { replica, life } if lives(self, replica, life) => self.queue_lost(replica),
            Happening::DrainDue { replica, life } if lives(self, replica, life) => self.drain(replica),
            Happening::Restored { replica, life } if lives(self, replica, life) => self.reconnected(replica),
            Happening::DrainEnds { replica, life } if lives(self, replica, life) => self.drain_ends(replica),
            Happening::FromWorker { replica, life, worker, worker_life, says }
                if lives(self, replica, life) && self.replicas[replica].workers[worker].life == worker_life =>
            {
                self.worker_says(replica, worker, says)
            }
            Happening::Step { replica, life, worker, worker_life } => {
                if lives(self, replica, life) && self.replicas[replica].workers[worker].life == worker_life {
                    self.step(replica, worker);
                }
                Ok(())
            }
            Happening::Boot { replica } => {
                if self.broker.up {
                    self.note(|| format!("replica {replica} is started"));
                    self.boot(replica);
                    let link = self.link(Node::Replica(replica));
                    link.up = true;
                    link.connection += 1;
                } else {
                    self.after(200_000, Happening::Boot { replica });
                }
                Ok(())
            }
            Happening::Closed { replica, connection } => {
                if self.links[replica].connection == connection {
                    self.cut(Node::Replica(replica));
                }
                Ok(())
            }
            Happening::Thaw { replica, life } => {
                if lives(self, replica, life) && self.replicas[replica].frozen {
                    self.note(|| format!("replica {replica} goes on"));
                    self.disturb(Node::Replica(replica));
                    self.replicas[replica].frozen = false;
                    let backlog = std::mem::take(&mut self.replicas[replica].backlog);
                    backlog.into_iter().try_for_each(|what| self.happen(what))?;
                }
                Ok(())
            }
            Happening::Reconnect { node, connection } => self.reconnect(node, connection),
            Happening::AskDue { job, again } => self.ask(job, again),
            Happening::CancelDue { job } => {
                self.deeds[job].cancelled = true;
                let id = self.call_id();
                self.send(Node::Client(job), id, Call::Cancel);
                Ok(())
            }
            Happening::BrokerUp => {
                self.broker_up();
                Ok(())
            }
            Happening::ElectionEnds => self.election_ends(),
            Happening::DiskFree => {
                self.broker.full = false;
                Ok(())
            }
            // For somebody who died since.
            Happening::Answered { .. }
            | Happening::Look { .. }
            | Happening::BeatDue { .. }
            | Happening::Tick { .. }
            | Happening::IngressTick { .. }
            | Happening::QueueLost { .. }
            | Happening::DrainDue { .. }
            | Happening::DrainEnds { .. }
            | Happening::Restored { .. }
            | Happening::FromWorker { .. } => Ok(()),
        }
    }
}

/// Whose freezing keeps this from happening.
fn frozen_by(what: &Happening) -> Option<usize> {
    match what {
        Happening::Down { to: Node::Replica(replica), .. }
        | Happening::Answered { replica, .. }
        | Happening::Look { replica, .. }
        | Happening::BeatDue { replica, .. }
        | Happening::Tick { replica, .. }
        | Happening::IngressTick { replica, .. }
        | Happening::QueueLost { replica, .. }
        | Happening::DrainDue { replica, .. }
        | Happening::DrainEnds { replica, .. }
        | Happening::Restored { replica, .. }
        | Happening::FromWorker { replica, .. } => Some(*replica),
        Happening::Up { .. }
        | Happening::Down { to: Node::Client(_), .. }
        | Happening::Step { .. }
        | Happening::Boot { .. }
        | Happening::Closed { .. }
        | Happening::Thaw { .. }
        | Happening::Reconnect { .. }
        | Happening::AskDue { .. }
        | Happening::CancelDue { .. }
        | Happening::BrokerUp
        | Happening::ElectionEnds
        | Happening::DiskFree => None,
    }
}
