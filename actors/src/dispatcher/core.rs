//! The decisions: `(Event, now) -> Effects`, nothing else.
//!
//! A job stands with the broker in one state machine (claim, read, append, store) and with the workers in another
//! (queued, running, complete). They meet in `made`, the tokens of the answer: workers add to it, the log takes from
//! it, one append at a time. So a worker's death does not touch the log, and a broker's restart does not stop a worker.

mod computing;
mod logging;
mod offering;
mod placing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use halm_protocol::worker::Lease;
use halm_protocol::{Class, ErrorCode, Incarnation, JobId, JobStatus, Outcome, Pace, Refusal, ReplicaName};

use super::job::{Compute, Job, LogState};
use super::{Effect, Event, Op, Room, WorkerId};
use crate::moment::Moment;
use crate::ports::{Delivery, JobSpec};

/// The mean time of a job forgets at this rate: a few jobs make it, and one odd one does not.
const MEAN_OVER: u32 = 8;

/// What a dispatcher is set up with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This replica.
    pub replica: ReplicaName,
    /// This life of it.
    pub incarnation: Incarnation,
    /// The model's name, for replies.
    pub model: String,
    /// The weights that this pool runs.
    pub digest: halm_protocol::Digest,
    /// Workers in the pool.
    pub workers: u32,
    /// Jobs that one worker computes together.
    pub slots_per_worker: u32,
    /// Deaths of workers, attributed to a job and at one place of its text, after which it is quarantined. Two could
    /// be bad luck on a dying host.
    pub deaths_max: u32,
    /// Failed attempts, without a death, after which a job is given up.
    pub failures_max: u32,
    /// How often a held delivery is prolonged; far below the queue's ack wait.
    pub progress_every: Duration,
}

/// The attempt table.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs with nobody to run them, in the order of [`Core::enqueue`]. Invariant: exactly those in
    /// [`Compute::Queued`].
    queue: VecDeque<JobId>,
    /// Workers that are ready, and what each runs.
    workers: BTreeMap<WorkerId, BTreeSet<Lease>>,
    leases: BTreeMap<Lease, JobId>,
    ops: BTreeMap<Op, JobId>,
    last_number: u64,
    demand: Room,
    /// How long a job took lately, from its first worker here to its end: a moving mean.
    job_time: Option<Duration>,
    now: Moment,
    draining: bool,
    drained: bool,
}

impl Core {
    /// An empty table.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            jobs: BTreeMap::new(),
            queue: VecDeque::new(),
            workers: BTreeMap::new(),
            leases: BTreeMap::new(),
            ops: BTreeMap::new(),
            last_number: 0,
            demand: Room::default(),
            job_time: None,
            now: Moment::default(),
            draining: false,
            drained: false,
        }
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut out = Vec::new();
        self.now = now;
        match event {
            Event::Received { spec, delivery, deadline } => self.receive(*spec, delivery, deadline, now, &mut out),
            Event::Finished { op, result } => self.finished(op, result, now, &mut out),
            Event::WorkerReady { worker } => {
                // If it was ready before, it has died in between, and the word of it was lost.
                self.worker_gone(worker, &mut out);
                self.workers.insert(worker, BTreeSet::new());
            }
            Event::WorkerGone { worker } => self.worker_gone(worker, &mut out),
            Event::Tokens { lease, offset, pieces } => self.tokens(lease, offset, pieces, &mut out),
            Event::Done { lease, tail, reason, prompt_tokens } => {
                self.done(lease, tail, reason, prompt_tokens, &mut out);
            }
            Event::Failed { lease, code, message, param, retry } => {
                let refusal = Refusal { code, message, param, retry_after_ms: None, job: None };
                self.failed(lease, refusal, retry, &mut out);
            }
            Event::Cancelled { job } => self.cancel(&job, &mut out),
            Event::ConnectionRestored => self.connection_restored(&mut out),
            Event::Drain => {
                self.draining = true;
                self.hand_over_offers(&mut out);
            }
            Event::HandOver => self.hand_over(&mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        self.schedule(&mut out);
        self.update_demand(&mut out);
        out
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_tick(&self) -> Option<Moment> {
        let of_job = |job: &Job| {
            let wait = match job.log {
                LogState::Waiting { until } => Some(until),
                LogState::Offered { again_at, .. } => Some(again_at),
                LogState::ReadingFence { .. }
                | LogState::WritingFence { .. }
                | LogState::ReadingOutcome { .. }
                | LogState::ReadingLog { .. }
                | LogState::Open { .. }
                | LogState::Burying { .. }
                | LogState::Storing { .. }
                | LogState::Offering { .. } => None,
            };
            let deadline = (!job.is_complete()).then_some(job.deadline);
            [Some(job.progress_at), wait, deadline].into_iter().flatten().min()
        };
        self.jobs.values().filter_map(of_job).min()
    }

    /// The jobs held, for people.
    #[must_use]
    pub fn status(&self) -> Vec<JobStatus> {
        let line = |job: &Job| JobStatus {
            job: job.spec.id.clone(),
            phase: job.phase().to_owned(),
            tokens: job.offset(),
            attempts: job.attempts,
            pool: String::new(),
            worker: if let Compute::Running { worker, .. } = job.compute { Some(worker.0) } else { None },
        };
        self.jobs.values().map(line).collect()
    }

    /// The jobs that a worker runs.
    #[must_use]
    pub fn jobs_of(&self, worker: WorkerId) -> Vec<JobId> {
        self.workers.get(&worker).into_iter().flatten().filter_map(|lease| self.leases.get(lease)).cloned().collect()
    }

    /// How many more jobs there is room for.
    #[must_use]
    pub fn demand(&self) -> Room {
        self.demand
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn op(&mut self, job: &JobId) -> Op {
        let op = Op(self.number());
        self.ops.insert(op, job.clone());
        op
    }

    fn receive(&mut self, spec: JobSpec, delivery: Delivery, deadline: Moment, now: Moment, out: &mut Vec<Effect>) {
        let id = spec.id.clone();
        if self.draining && !self.jobs.contains_key(&id) {
            out.push(Effect::Nak(delivery.ack));
            return;
        }
        out.push(Effect::Hold { job: id.clone(), ack: delivery.ack.clone() });
        if let Some(job) = self.jobs.get_mut(&id) {
            // Delivered again while we run it: the newest delivery is the one to acknowledge.
            job.delivery = delivery;
            return;
        }
        let op = self.op(&id);
        let progress_at = now + self.settings.progress_every;
        let mut job = Job::new(spec, delivery, deadline, op, progress_at);
        if job.spec.digest != self.settings.digest {
            let refusal = Refusal::new(
                ErrorCode::Unavailable,
                format!("the weights {} that this job is pinned to are not run here any more", job.spec.digest.short()),
            );
            job.compute = Compute::Complete(Outcome::Refusal(refusal.for_job(id.clone())));
        }
        self.jobs.insert(id.clone(), job);
        out.push(Effect::ReadFence { op, job: id });
    }

    /// Forgets a job without a word to the queue: it is another's.
    fn lose(&mut self, id: &JobId, out: &mut Vec<Effect>) {
        self.stop_computing(id, out);
        self.remove(id);
        out.push(Effect::Release(id.clone()));
    }

    fn remove(&mut self, id: &JobId) {
        self.jobs.remove(id);
        self.queue.retain(|queued| queued != id);
        self.ops.retain(|_, of| of != id);
    }

    fn hand_over(&mut self, out: &mut Vec<Effect>) {
        self.draining = true;
        for id in self.jobs.keys().cloned().collect::<Vec<_>>() {
            let ack = self.jobs[&id].delivery.ack.clone();
            self.lose(&id, out);
            out.push(Effect::Nak(ack));
        }
    }

    fn settle(&mut self, id: &JobId, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(id) else { return };
        out.push(Effect::Ack(job.delivery.clone()));
        out.push(Effect::Purge(job.target()));
        out.push(Effect::Release(id.clone()));
        self.remove(id);
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        for id in self.jobs.keys().cloned().collect::<Vec<_>>() {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if now >= job.progress_at {
                job.progress_at = now + self.settings.progress_every;
                out.push(Effect::Progress(job.delivery.clone()));
            }
            let waited = matches!(job.log, LogState::Waiting { until } if now >= until);
            if now >= job.deadline && !job.is_complete() {
                self.measure(&id, out);
                let message = "the deadline passed before the answer was complete";
                self.complete(&id, Outcome::Refusal(Refusal::new(ErrorCode::DeadlineExceeded, message)), out);
            }
            if waited {
                self.renew(&id, out);
            }
            self.offer_again(&id, now, out);
        }
    }

    /// Takes note of how long a job took that a worker has had, and has no more.
    fn measure(&mut self, id: &JobId, out: &mut Vec<Effect>) {
        let Some(started_at) = self.jobs.get(id).and_then(|job| job.started_at) else { return };
        let took = self.now - started_at;
        let mean = self.job_time.map_or(took, |mean| mean - mean / MEAN_OVER + took / MEAN_OVER);
        self.job_time = Some(mean);
        let slots = u32::try_from(self.capacity()).unwrap_or(u32::MAX);
        let job_ms = u32::try_from(mean.as_millis()).unwrap_or(u32::MAX);
        out.push(Effect::Pace(Pace { slots, job_ms }));
    }

    fn update_demand(&mut self, out: &mut Vec<Effect>) {
        // A job that is only offered to its client needs no worker.
        let working = || self.jobs.values().filter(|job| !job.is_offered());
        let batch = working().filter(|job| job.spec.request.class == Class::Batch).count();
        let capacity = if self.draining { 0 } else { self.capacity() };
        let jobs = capacity.saturating_sub(working().count());
        let wanted = Room { jobs, batch: jobs.min(batch_max(capacity).saturating_sub(batch)) };
        if wanted != self.demand {
            self.demand = wanted;
            out.push(Effect::Demand(wanted));
        }
        if self.draining && self.jobs.is_empty() && !self.drained {
            self.drained = true;
            out.push(Effect::Drained);
        }
    }
}

/// Batch jobs held at once: a quarter of the room, and at least one place, is kept for those who wait.
fn batch_max(capacity: usize) -> usize {
    let kept = (capacity / 4).max(1);
    capacity.saturating_sub(kept).max(usize::from(capacity > 0))
}

#[cfg(test)]
mod tests;
