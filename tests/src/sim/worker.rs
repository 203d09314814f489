//! A worker process of the simulation: it makes the one text of each job, token by token, until it dies.

use std::collections::BTreeMap;

use halm_actors::dispatcher::{Event, WorkerId};
use halm_protocol::worker::{Lease, Piece, Work};
use halm_protocol::{ErrorCode, FinishReason};

use super::broker::number;
use super::judge::Verdict;
use super::mutation::Mutation;
use super::world::{Happening, World};

/// What a worker takes to load, to read a prompt and to make a token.
pub(super) const LOAD_US: u64 = 150_000;
const PREFILL_US: u64 = 10_000;
const STEP_US: u64 = 12_000;

/// A lease, as the worker that runs it sees it.
#[derive(Debug)]
pub(super) struct Run {
    job: usize,
    next: u32,
    /// A planted bug: the next token is left out.
    late: bool,
}

/// A worker process.
#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) life: u32,
    pub(super) alive: bool,
    pub(super) leases: BTreeMap<Lease, Run>,
    stepping: bool,
}

/// What a worker says, through its pipe.
#[derive(Debug)]
pub(super) enum Says {
    Ready,
    Gone,
    Event(Event),
}

impl World {
    pub(super) fn boot_worker(&mut self, at: usize, worker: usize, after_us: u64) {
        let replica = &mut self.replicas[at];
        let of = &mut replica.workers[worker];
        *of = Worker { life: of.life + 1, ..Worker::default() };
        let (life, worker_life) = (replica.life, replica.workers[worker].life);
        self.after(after_us, Happening::FromWorker { replica: at, life, worker, worker_life, says: Says::Ready });
    }

    /// The worker's process ends; its owner hears of it `after_us` later, and starts another.
    pub(super) fn kill_worker(&mut self, at: usize, worker: usize, after_us: u64) {
        let replica = &mut self.replicas[at];
        let of = &mut replica.workers[worker];
        if !of.alive {
            return;
        }
        of.alive = false;
        of.leases.clear();
        let (life, worker_life) = (replica.life, of.life);
        self.after(after_us, Happening::FromWorker { replica: at, life, worker, worker_life, says: Says::Gone });
    }

    /// A worker fails at one of its jobs, and lives.
    pub(super) fn fail_lease(&mut self, at: usize, worker: usize) {
        let replica = &mut self.replicas[at];
        let Some((lease, run)) = replica.workers[worker].leases.pop_first() else { return };
        self.deeds[run.job].failures += 1;
        let message = "out of pages".to_owned();
        let code = ErrorCode::Internal;
        self.say(at, worker, Event::Failed { lease, code, message, param: None, retry: true });
    }

    fn say(&mut self, at: usize, worker: usize, event: Event) {
        let replica = &self.replicas[at];
        let (life, worker_life) = (replica.life, replica.workers[worker].life);
        let says = Says::Event(event);
        self.after(40, Happening::FromWorker { replica: at, life, worker, worker_life, says });
    }

    /// A worker's forward pass: a token for each of its jobs.
    pub(super) fn step(&mut self, at: usize, worker: usize) {
        let texts: Vec<_> = self.jobs.iter().map(|job| (job.text, job.kills_at)).collect();
        let of = &mut self.replicas[at].workers[worker];
        of.stepping = false;
        let kills = |run: &Run| texts[run.job].1.is_some_and(|kills_at| kills_at == run.next);
        if !of.alive {
            return;
        }
        if of.leases.values().any(kills) {
            self.kill_worker(at, worker, 60);
            return;
        }
        let mut events = Vec::new();
        of.leases.retain(|lease, run| {
            let text = texts[run.job].0;
            let lease = *lease;
            if run.next >= text.length {
                let tail = text.tail().to_owned();
                events.push(Event::Done { lease, tail, reason: FinishReason::Stop, prompt_tokens: 1 });
                return false;
            }
            let made = if run.late { (run.next + 1).min(text.length - 1) } else { run.next };
            run.late = false;
            let pieces = vec![Piece { token: text.token(made), text: text.piece(made) }];
            events.push(Event::Tokens { lease, offset: run.next, pieces });
            run.next += 1;
            true
        });
        if !of.leases.is_empty() {
            of.stepping = true;
            let (life, worker_life) = (self.replicas[at].life, self.replicas[at].workers[worker].life);
            self.after(STEP_US, Happening::Step { replica: at, life, worker, worker_life });
        }
        for event in events {
            self.say(at, worker, event);
        }
    }

    pub(super) fn start(&mut self, at: usize, worker: WorkerId, work: &Work) -> Verdict {
        let job = number(&work.job);
        let by_holder = self.jobs[job].holder == Some((at, self.replicas[at].life));
        self.seen[job].started(&work.generated, by_holder)?;
        let late = self.mutation == Some(Mutation::ResumeLate) && !work.generated.is_empty();
        let replica = &mut self.replicas[at];
        let life = replica.life;
        let index = worker.0 as usize - 1;
        let of = &mut replica.workers[index];
        if !of.alive {
            // A worker that just died says so itself.
            return Ok(());
        }
        of.leases.insert(work.lease, Run { job, next: work.generated.len() as u32, late });
        if !of.stepping {
            of.stepping = true;
            let worker_life = of.life;
            self.after(PREFILL_US, Happening::Step { replica: at, life, worker: index, worker_life });
        }
        Ok(())
    }

    /// A worker's word reaches its owner.
    pub(super) fn worker_says(&mut self, at: usize, worker: usize, says: Says) -> Verdict {
        let id = WorkerId(1 + worker as u32);
        match says {
            Says::Ready => {
                self.replicas[at].workers[worker].alive = true;
                self.tell(at, Event::WorkerReady { worker: id })
            }
            Says::Gone => {
                for job in self.replicas[at].core.jobs_of(id) {
                    self.deeds[number(&job)].deaths += 1;
                }
                self.boot_worker(at, worker, LOAD_US);
                self.tell(at, Event::WorkerGone { worker: id })
            }
            Says::Event(event) => self.tell(at, event),
        }
    }
}
