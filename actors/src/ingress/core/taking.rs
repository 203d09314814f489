//! A request that is ours: looked for, stored or refused, or followed where it runs already.

use halm_protocol::subject::Inbox;
use halm_protocol::{ErrorCode, JobId, Outcome, Refusal, Verdict};

use super::{
    ADMITTING_MAX, Asked, Core, Effect, Entry, FOLLOWING_MAX, Following, Op, RETRY_AFTER_MS, STORE_EVERY, STORE_FOR,
    Stage,
};
use crate::ingress::backlog::Backlog;
use crate::moment::Moment;
use crate::ports::{Admitted, IntakeFault, JobSpec, LogTarget, ReadFault};

impl Core {
    /// Takes a request: it was given to us, or `late` on, whoever took it has not been heard of. Who takes late does not
    /// judge whether it is too late: it may be stored already.
    pub(super) fn take(&mut self, asked: Asked, late: bool, now: Moment, out: &mut Vec<Effect>) {
        if let Some(entry) = self.entries.get(&asked.id).filter(|entry| entry.stage.is_ours()) {
            // Asked again while we are at it; perhaps by another, to whom nothing of this will come.
            if entry.asked.inbox != asked.inbox {
                self.refuse(&asked, running(), out);
            }
            return;
        }
        self.entries.remove(&asked.id);
        let job = match &asked.job {
            Ok(job) => job.clone(),
            Err(refusal) => return self.refuse(&asked, refusal.clone(), out),
        };
        if self.ours >= ADMITTING_MAX {
            let message = "too many requests are being admitted at once";
            let refusal = Refusal::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_AFTER_MS);
            return self.refuse(&asked, refusal, out);
        }
        // Of one with a key the outcome may be there already.
        if !asked.keyed
            && !late
            && let Some(refusal) = self.too_late(&asked, now, out)
        {
            return self.refuse(&asked, refusal, out);
        }
        self.tell(&asked.id, Verdict::Pending, out);
        self.stands(&asked, true);
        let until = now + STORE_FOR;
        let stage =
            if asked.keyed { self.look(&asked.id, None, until, out) } else { self.store(&asked.id, job, until, out) };
        self.ours += 1;
        self.entries.insert(asked.id.clone(), Entry { asked, stage, late });
    }

    /// The refusal of a job that would be too late because of those that wait before it. Of one that is not, the queue
    /// is counted again if that is due.
    pub(super) fn too_late(&mut self, asked: &Asked, now: Moment, out: &mut Vec<Effect>) -> Option<Refusal> {
        let job = asked.job.as_ref().ok()?;
        // It waits there already, and its client asks again.
        if self.memory.has(&asked.id) {
            return None;
        }
        let peers = self.living.len() as u64;
        let backlog = self.backlogs.get_mut(&job.model)?;
        if backlog.ask(now) {
            out.push(Effect::Count(job.model.clone()));
        }
        let late = backlog.too_late(job.request.class, asked.within, peers, now)?;
        let message = format!("the answer would come after about {} ms, and the deadline is before", late.done_in_ms);
        Some(Refusal::new(ErrorCode::Overloaded, message).retry_after_ms(late.retry_after_ms))
    }

    pub(super) fn look(
        &mut self,
        id: &JobId,
        duplicate: Option<Option<Inbox>>,
        until: Moment,
        out: &mut Vec<Effect>,
    ) -> Stage {
        let op = self.op(id);
        out.push(Effect::Look(op, id.clone()));
        Stage::Looking { duplicate, until }
    }

    pub(super) fn store(&mut self, id: &JobId, job: Box<JobSpec>, until: Moment, out: &mut Vec<Effect>) -> Stage {
        let op = self.op(id);
        out.push(Effect::Store(op, job));
        Stage::Storing { until }
    }

    /// The verdict first: should we be lost in between, a witness tells the client the same.
    pub(super) fn refuse(&mut self, asked: &Asked, refusal: Refusal, out: &mut Vec<Effect>) {
        let refusal = refusal.for_job(asked.id.clone());
        self.tell(&asked.id, Verdict::Refused { refusal: refusal.clone() }, out);
        out.push(Effect::Answer(asked.inbox.clone(), Outcome::Refusal(refusal)));
    }

    /// It was asked for before, and runs: its client is shown what the first one is.
    pub(super) fn follow(&mut self, asked: &Asked, job: &JobSpec, inbox: Option<Inbox>, out: &mut Vec<Effect>) {
        let Some(inbox) = inbox else { return self.refuse(asked, running(), out) };
        if self.following.len() >= FOLLOWING_MAX {
            let message = "too many clients follow jobs of others";
            let refusal = Refusal::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_AFTER_MS);
            return self.refuse(asked, refusal, out);
        }
        self.last_number += 1;
        let op = Op(self.last_number);
        self.following.insert(op);
        self.tell(&asked.id, Verdict::Answered, out);
        let (streamed, traceparent) = (job.request.stream, job.traceparent.clone());
        let target = LogTarget { job: asked.id.clone(), inbox, streamed, traceparent };
        let (to, from, within) = (asked.inbox.clone(), asked.from, asked.within);
        out.push(Effect::Follow(op, Box::new(Following { target, to, from, within })));
    }

    pub(super) fn looked(
        &mut self,
        op: Op,
        outcome: Result<Option<Outcome>, ReadFault>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        let Some(id) = self.ops.remove(&op) else { return };
        let Some(Stage::Looking { duplicate, until }) = self.entries.get(&id).map(|entry| entry.stage.clone()) else {
            return;
        };
        if let Ok(Some(outcome)) = outcome {
            let Some(asked) = self.end(&id) else { return };
            self.tell(&id, Verdict::Answered, out);
            out.push(Effect::Answer(asked.inbox, outcome));
            return;
        }
        let Some((asked, late)) = self.entries.get(&id).map(|entry| (entry.asked.clone(), entry.late)) else { return };
        match (duplicate, asked.job.clone()) {
            (Some(inbox), Ok(job)) if asked.keyed => {
                self.end(&id);
                self.follow(&asked, &job, inbox, out);
            }
            (Some(_), _) => {
                self.end(&id);
                self.tell(&id, Verdict::Admitted, out);
            }
            (None, Ok(job)) => {
                if !late && let Some(refusal) = self.too_late(&asked, now, out) {
                    self.end(&id);
                    return self.refuse(&asked, refusal, out);
                }
                let stage = self.store(&id, job, until, out);
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.stage = stage;
                }
            }
            (None, Err(_)) => {}
        }
    }

    pub(super) fn stored(&mut self, op: Op, result: Result<Admitted, IntakeFault>, now: Moment, out: &mut Vec<Effect>) {
        if let Some(id) = self.restoring.remove(&op) {
            return self.memory.stored(&id, &result, now);
        }
        let Some(id) = self.ops.remove(&op) else { return };
        let Some(&Stage::Storing { until }) = self.entries.get(&id).map(|entry| &entry.stage) else { return };
        let refusal = match result {
            Ok(Admitted::Stored) => {
                if let Some(asked) = self.end(&id) {
                    self.accepted(&asked);
                }
                return self.tell(&id, Verdict::Admitted, out);
            }
            // It is this very request, stored by another or by a try whose answer was lost.
            Ok(Admitted::Duplicate(Some(inbox))) if self.entries.get(&id).is_some_and(|of| of.asked.inbox == inbox) => {
                if let Some(asked) = self.end(&id) {
                    self.accepted(&asked);
                }
                return self.tell(&id, Verdict::Admitted, out);
            }
            // The same again, while the first runs or after it ended.
            Ok(Admitted::Duplicate(inbox)) => {
                let stage = self.look(&id, Some(inbox), until, out);
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.stage = stage;
                }
                return;
            }
            Err(IntakeFault::Unavailable(_)) if now < until => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.stage = Stage::Waiting { again_at: now + STORE_EVERY, until };
                }
                return;
            }
            Err(IntakeFault::Refused(refusal)) => refusal,
            Err(IntakeFault::Full) => {
                let message = "the queue of this model is full";
                let model = self.entries.get(&id).and_then(|entry| Some(&entry.asked.job.as_ref().ok()?.model));
                let backlog = model.and_then(|model| self.backlogs.get(model));
                let after = backlog.map_or(RETRY_AFTER_MS, Backlog::retry_after_full_ms);
                Refusal::new(ErrorCode::Overloaded, message).retry_after_ms(after)
            }
            Err(IntakeFault::Unavailable(_)) => {
                let message = "the request could not be stored; ask again later";
                Refusal::new(ErrorCode::Unavailable, message).retry_after_ms(RETRY_AFTER_MS)
            }
        };
        if let Some(asked) = self.end(&id) {
            self.refuse(&asked, refusal, out);
        }
    }

    pub(super) fn end(&mut self, id: &JobId) -> Option<Asked> {
        let entry = self.entries.remove(id)?;
        self.ours -= usize::from(entry.stage.is_ours());
        Some(entry.asked)
    }

    /// A request became a job, whoever stored it.
    pub(super) fn accepted(&mut self, asked: &Asked) {
        if let Ok(job) = &asked.job {
            self.memory.keep(job, self.handled_at + asked.within);
        }
    }

    /// A request is being stored, by whomever: from now on it stands before those that come after it.
    pub(super) fn stands(&mut self, asked: &Asked, by_us: bool) {
        if let Ok(job) = &asked.job
            && let Some(backlog) = self.backlogs.get_mut(&job.model)
        {
            backlog.stored(job.request.class, by_us);
        }
    }
}

fn running() -> Refusal {
    let message = "a request with this key is running already; ask again for its answer";
    Refusal::new(ErrorCode::Unavailable, message).retry_after_ms(RETRY_AFTER_MS)
}
