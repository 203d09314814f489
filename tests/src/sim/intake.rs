//! The ingress of a replica of the simulation: the real core, and around it what its shell does. And the client that
//! asks.

use std::rc::Rc;
use std::time::Duration;

use halm_actors::dispatcher::{self, Effect as PortEffect, Op as PortOp, OpResult};
use halm_actors::ingress::{self, Asked, CancelEffect, Effect, Event};
use halm_actors::ports::{Admitted, IntakeFault};
use halm_protocol::{Notice, Outcome};

use super::broker::{PortKind, number};
use super::call::{Call, Node, Word};
use super::judge::{Verdict, broken};
use super::mutation::Mutation;
use super::replica::{ANSWER_WITHIN_US, Waiting};
use super::world::{Happening, World};

/// A client that heard nothing of its request for this long asks again.
const ASK_AGAIN_US: u64 = 5_000_000;
/// A client that was refused asks again after this.
const REFUSED_AGAIN_US: u64 = 1_000_000;
/// What a client waits for the whole answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Whoever was disturbed this long before a request is not expected to help it.
const RECOVERED_US: u64 = 3_000_000;
/// The same of the broker, whose elections last.
const BROKER_RECOVERED_US: u64 = 12_000_000;

impl World {
    /// A client asks, for the first time or again.
    pub(super) fn ask(&mut self, job: usize, again: bool) -> Verdict {
        let heard = self.seen[job].has_heard();
        if heard && !again {
            return Ok(());
        }
        if !again && let Some(asked_us) = self.jobs[job].asked_us {
            self.is_lost(job, asked_us)?;
        }
        self.jobs[job].asks += 1;
        self.jobs[job].asked_us = Some(self.now_us);
        let id = self.call_id();
        self.send(Node::Client(job), id, Call::Ask);
        if !again {
            self.after(ASK_AGAIN_US, Happening::AskDue { job, again: false });
        }
        Ok(())
    }

    /// A request of which nothing was heard is lost if somebody was there all the time who could have taken it.
    fn is_lost(&self, job: usize, asked_us: u64) -> Verdict {
        let client = &self.links[self.index(Node::Client(job))];
        if self.seen[job].is_stored()
            || self.jobs[job].answered_us >= Some(asked_us)
            || self.now_us < asked_us + ASK_AGAIN_US
            || self.jobs[job].missed
            || disturbed_since(client.disturbed_us, asked_us, RECOVERED_US)
            || self.was_broker_disturbed(asked_us)
        {
            return Ok(());
        }
        match (0..self.replicas.len()).find(|at| self.was_well(*at, asked_us)) {
            Some(at) => broken("INV-4", format!("job {job}: its request was lost, though replica {at} was well")),
            None => Ok(()),
        }
    }

    /// Whether nothing has befallen a replica since, or shortly before.
    pub(super) fn was_well(&self, at: usize, since_us: u64) -> bool {
        let (replica, link) = (&self.replicas[at], &self.links[at]);
        let hears = replica.alive && !replica.frozen && !replica.draining && link.up;
        hears && link.blocked_until_us <= since_us && !disturbed_since(link.disturbed_us, since_us, RECOVERED_US)
    }

    fn was_broker_disturbed(&self, since_us: u64) -> bool {
        disturbed_since(self.broker_disturbed_us.last().copied(), since_us, BROKER_RECOVERED_US)
    }

    /// A client's request reaches the broker: every replica hears it, and one of them is picked.
    pub(super) fn spread(&mut self, job: usize) {
        let hears = |world: &Self, at: usize| world.links[at].up && world.replicas[at].life > 0;
        let all: Vec<usize> = (0..self.replicas.len()).filter(|at| hears(self, *at)).collect();
        let members: Vec<usize> = all.iter().copied().filter(|at| !self.replicas[*at].draining).collect();
        let picked = (!members.is_empty()).then(|| members[self.random.index(members.len())]);
        self.note(|| format!("job {job} is asked for, {picked:?} is picked"));
        for at in all {
            let connection = self.links[at].connection;
            // The one who is picked hears it twice, over two subscriptions that are read in any order.
            let twice = if self.random.chance(500_000) { [false, true] } else { [true, false] };
            let heard = if picked == Some(at) { &twice[..] } else { &[false] };
            for taken in heard {
                self.answer(Node::Replica(at), connection, Word::Request { job, taken: *taken });
            }
        }
    }

    pub(super) fn hear_request(&mut self, at: usize, job: usize, taken: bool) -> Verdict {
        let spec = &self.jobs[job].spec;
        let (id, inbox) = (spec.id.clone(), spec.inbox.clone());
        let (keyed, job) = (self.jobs[job].keyed, Ok(Box::new(spec.clone())));
        let asked = Asked { id, inbox, keyed, from: 0, within: ANSWER_WITHIN, job };
        self.tell_ingress(at, if taken { Event::Taken(asked) } else { Event::Witnessed(asked) })
    }

    pub(super) fn tell_ingress(&mut self, at: usize, event: Event) -> Verdict {
        if self.mutation == Some(Mutation::QueueNotFilledAgain) && event == Event::QueueLost {
            return Ok(());
        }
        let overrules = self.mutation == Some(Mutation::WitnessOverrules);
        if overrules && matches!(event, Event::Noticed(_)) {
            return Ok(());
        }
        let now = self.now();
        for effect in self.replicas[at].ingress.handle(event, now) {
            match effect {
                Effect::Tell(notice) => {
                    self.note(|| format!("{at} says of {}: {:?}", notice.job, notice.verdict));
                    self.call(at, Call::Notice(Rc::new(notice)), Waiting::Nobody, 0);
                }
                Effect::Look(op, job) => {
                    let read = Call::Port(Box::new(PortEffect::ReadOutcome { op: PortOp(0), job }));
                    self.call(at, read, Waiting::Look(op), ANSWER_WITHIN_US);
                }
                // A client of the simulation asks again from the inbox that its job has.
                Effect::Follow(op, _) => self.tell_ingress(at, Event::Followed(op))?,
                // Jobs of the simulation are too few for one to be late on account of others.
                Effect::Count(_) => {}
                Effect::Store(op, job) => {
                    let store = Call::Store { job: number(&job.id) };
                    self.call(at, store, Waiting::Store(op), ANSWER_WITHIN_US);
                }
                Effect::Answer(inbox, outcome) => {
                    let job = super::job::of_inbox(&inbox);
                    self.call(at, Call::Tell { job, outcome: Rc::new(outcome) }, Waiting::Nobody, 0);
                }
            }
        }
        let replica = &mut self.replicas[at];
        if let Some(next) = replica.ingress.next_tick()
            && replica.ingress_tick_at.is_none_or(|set| set > next)
        {
            replica.ingress_tick_at = Some(next);
            let life = replica.life;
            self.at(next, Happening::IngressTick { replica: at, life });
        }
        Ok(())
    }

    pub(super) fn tick_ingress(&mut self, at: usize) -> Verdict {
        self.replicas[at].ingress_tick_at = None;
        self.tell_ingress(at, Event::Tick)
    }

    pub(super) fn peers_changed(&mut self, at: usize) -> Verdict {
        let living = self.replicas[at].peers.replicas().map(|(replica, life)| (replica.clone(), life.clone()));
        let living = living.collect();
        self.tell_ingress(at, Event::Peers(living))
    }

    /// A cancellation reaches the broker: every replica hears it.
    pub(super) fn spread_cancel(&mut self, job: usize) {
        self.note(|| format!("job {job} is cancelled"));
        for at in 0..self.replicas.len() {
            let connection = self.links[at].connection;
            self.answer(Node::Replica(at), connection, Word::Cancel { job });
        }
    }

    pub(super) fn hear_cancel(&mut self, at: usize, job: usize) -> Verdict {
        let id = self.jobs[job].spec.id.clone();
        self.tell(at, dispatcher::Event::Cancelled { job: id.clone() })?;
        if self.mutation == Some(Mutation::CancelOnFirst503) && !self.deeds[job].cancelled {
            return Ok(());
        }
        let now = self.now();
        let effects = self.replicas[at].cancels.ask(id, None, now);
        self.perform_cancels(at, effects);
        Ok(())
    }

    pub(super) fn cancel_called(&mut self, at: usize, op: ingress::Op, result: OpResult) -> Verdict {
        let now = self.now();
        let cancels = &mut self.replicas[at].cancels;
        let effects = match result {
            OpResult::OutcomeRead(outcome) => cancels.looked(op, outcome, now),
            OpResult::FenceRead(record) => cancels.fence_read(op, record, now),
            OpResult::FenceWritten(result) => cancels.fence_written(op, result, now),
            other => unreachable!("{other:?} is nothing that a cancellation waits for"),
        };
        self.perform_cancels(at, effects);
        Ok(())
    }

    /// As often as a replica looks at its peers, which is often enough.
    pub(super) fn tick_cancels(&mut self, at: usize) {
        let now = self.now();
        let effects = self.replicas[at].cancels.tick(now);
        self.perform_cancels(at, effects);
    }

    fn perform_cancels(&mut self, at: usize, effects: Vec<CancelEffect>) {
        for effect in effects {
            let none = PortOp(0);
            let (op, kind, effect) = match effect {
                CancelEffect::Look(op, job) => (op, PortKind::ReadOutcome, PortEffect::ReadOutcome { op: none, job }),
                CancelEffect::ReadFence(op, job) => (op, PortKind::ReadFence, PortEffect::ReadFence { op: none, job }),
                CancelEffect::WriteFence(op, job, expected, claim) => {
                    (op, PortKind::WriteFence, PortEffect::WriteFence { op: none, job, expected, claim })
                }
                CancelEffect::Tell(..) => continue,
            };
            self.call(at, Call::Port(Box::new(effect)), Waiting::Cancel { op, kind }, ANSWER_WITHIN_US);
        }
    }

    /// A job reaches the queue's stream.
    pub(super) fn store_job(&mut self, job: usize) -> Result<Result<Admitted, IntakeFault>, super::judge::Broken> {
        let result = self.broker.store(&self.jobs[job].spec, self.now_us);
        if result == Ok(Admitted::Stored) {
            self.note(|| format!("job {job} is stored"));
            let of = &mut self.jobs[job];
            of.accepted = true;
            let refused = of.refused_at == Some(of.asks) && of.asks == 1;
            let asked_us = of.asked_us.unwrap_or_default();
            let all_well = (0..self.replicas.len()).all(|at| self.was_well(at, asked_us));
            if refused && all_well && !self.was_broker_disturbed(asked_us) {
                broken("INV-6", format!("job {job} was stored after its client was refused"))?;
            }
            self.seen[job].stored();
        }
        Ok(result)
    }

    /// An end reaches a client: of its job, or of its request.
    pub(super) fn client_told(&mut self, job: usize, outcome: &Outcome) -> Verdict {
        if let Outcome::Refusal(refusal) = outcome
            && refusal.retry_after_ms.is_some()
        {
            let of = &mut self.jobs[job];
            of.answered_us = Some(self.now_us);
            if refusal.code == halm_protocol::ErrorCode::Overloaded {
                of.refused_at = Some(of.asks);
            }
            self.after(REFUSED_AGAIN_US, Happening::AskDue { job, again: true });
            return Ok(());
        }
        self.seen[job].told(outcome)
    }

    pub(super) fn notice(&mut self, at: usize, notice: &Notice) -> Verdict {
        self.tell_ingress(at, Event::Noticed(notice.clone()))
    }
}

fn disturbed_since(disturbed_us: Option<u64>, since_us: u64, recovered_us: u64) -> bool {
    disturbed_us.is_some_and(|us| us + recovered_us > since_us)
}

/// The answer to a store that got none in time.
pub(super) fn unavailable() -> Result<Admitted, IntakeFault> {
    Err(IntakeFault::Unavailable("no answer in time".to_owned()))
}
