//! A job and the workers: who computes it, what they made, what their deaths mean.

use halm_protocol::worker::{Lease, Piece, Work};
use halm_protocol::{ChatMessage, ErrorCode, FinishReason, Input, JobId, Outcome, Refusal, Reply, Usage};

use super::super::job::{Compute, Job};
use super::super::suspicion::Company;
use super::super::{Effect, WorkerId};
use super::Core;

impl Core {
    /// Takes a job from its worker, or from the queue of those that wait for one.
    pub(super) fn stop_computing(&mut self, id: &JobId, out: &mut Vec<Effect>) {
        self.queue.retain(|queued| queued != id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        if let Compute::Running { worker, lease } = job.compute {
            job.compute = Compute::Queued;
            self.leases.remove(&lease);
            if let Some(leases) = self.workers.get_mut(&worker) {
                leases.remove(&lease);
            }
            out.push(Effect::Cancel { worker, lease });
        }
    }

    pub(super) fn complete(&mut self, id: &JobId, outcome: Outcome, out: &mut Vec<Effect>) {
        self.stop_computing(id, out);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let outcome = match outcome {
            Outcome::Refusal(refusal) => Outcome::Refusal(refusal.for_job(id.clone())),
            reply @ Outcome::Reply(_) => reply,
        };
        job.compute = Compute::Complete(outcome);
        self.append_next(id, out);
    }

    /// Ends a job as cancelled, unless its end is known already. Its claims say so from now on in any case: a successor
    /// may not know that end.
    pub(super) fn cancel(&mut self, id: &JobId, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.cancelled = true;
        if job.is_complete() {
            return;
        }
        self.complete(id, Outcome::Refusal(Refusal::new(ErrorCode::Cancelled, "the job was cancelled")), out);
    }

    /// The job of a living lease, taken out of the table of leases.
    pub(super) fn end_lease(&mut self, lease: Lease) -> Option<JobId> {
        let id = self.leases.remove(&lease)?;
        for leases in self.workers.values_mut() {
            leases.remove(&lease);
        }
        Some(id)
    }

    pub(super) fn worker_gone(&mut self, worker: WorkerId, out: &mut Vec<Effect>) {
        let Some(leases) = self.workers.remove(&worker) else { return };
        let held: Vec<JobId> = leases.iter().filter_map(|lease| self.leases.remove(lease)).collect();
        let company = |id: &JobId| self.jobs.get(id).map(|job| job.suspicion.company());
        let on_trial = || held.iter().find(|id| company(id) != Some(Company::Any));
        let culprit = if let [alone] = &held[..] { Some(alone) } else { on_trial() }.cloned();
        for id in held {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let tokens = job.offset();
            match &culprit {
                Some(culprit) if *culprit == id => job.suspicion.attribute(tokens),
                // It is known who killed the worker: the others are no suspects.
                Some(_) => {}
                None => job.suspicion.suspect(tokens),
            }
            if !self.quarantine(&id, out) {
                self.enqueue(&id);
                self.append_next(&id, out);
            }
        }
    }

    /// Ends a job that killed as many workers as it may. True if it did.
    pub(super) fn quarantine(&mut self, id: &JobId, out: &mut Vec<Effect>) -> bool {
        let strikes_max = self.settings.deaths_max;
        let Some(job) = self.jobs.get(id).filter(|job| job.suspicion.is_poison(strikes_max)) else { return false };
        let message = format!("{} workers died of this job; it was quarantined", job.suspicion.deaths());
        self.complete(id, Outcome::Refusal(Refusal::new(ErrorCode::Poison, message)), out);
        true
    }

    pub(super) fn tokens(&mut self, lease: Lease, offset: u32, pieces: Vec<Piece>, out: &mut Vec<Effect>) {
        let Some(id) = self.leases.get(&lease).cloned() else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if offset == job.offset() {
            job.take(pieces);
            self.append_next(&id, out);
        } else {
            let seen = format!("worker went on at offset {offset}, not {}", job.offset());
            out.push(Effect::Broken { job: id.clone(), invariant: "INV-2", seen });
            let refusal = Refusal::new(ErrorCode::Internal, "a worker lost its place");
            self.failed(lease, refusal, true, out);
        }
    }

    pub(super) fn done(
        &mut self,
        lease: Lease,
        tail: String,
        reason: FinishReason,
        prompt_tokens: u32,
        out: &mut Vec<Effect>,
    ) {
        let Some(id) = self.end_lease(lease) else { return };
        self.measure(&id, out);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.tail = tail;
        let text = job.text();
        let (text, message) = match job.spec.request.input {
            Input::Prompt(_) => (Some(text), None),
            Input::Messages(_) => (None, Some(ChatMessage { role: "assistant".to_owned(), content: text })),
        };
        let reply = Reply {
            job: id.clone(),
            model: self.settings.model.clone(),
            digest: self.settings.digest.clone(),
            text,
            message,
            finish_reason: reason,
            usage: Usage { prompt_tokens, completion_tokens: job.offset() },
            seed: job.spec.seed,
            attempts: job.attempts,
            resumed_at: job.resumed_at.clone(),
            is_final: job.spec.request.stream,
        };
        job.compute = Compute::Complete(Outcome::Reply(Box::new(reply)));
        self.append_next(&id, out);
    }

    pub(super) fn failed(&mut self, lease: Lease, refusal: Refusal, retry: bool, out: &mut Vec<Effect>) {
        let Some(id) = self.leases.get(&lease).cloned() else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.failures += 1;
        if retry && job.failures < self.settings.failures_max {
            self.stop_computing(&id, out);
            self.enqueue(&id);
        } else {
            self.complete(&id, Outcome::Refusal(refusal), out);
        }
    }
}

pub(super) fn work(job: &Job, lease: Lease) -> Work {
    let request = &job.spec.request;
    Work {
        lease,
        job: job.spec.id.clone(),
        attempt: job.attempts,
        input: request.input.clone(),
        max_tokens: request.max_tokens,
        sampling: request.sampling.clone(),
        seed: job.spec.seed,
        class: request.class,
        stop: request.stop.clone(),
        generated: job.made.iter().map(|made| made.token).collect(),
        traceparent: job.spec.traceparent.clone(),
    }
}
