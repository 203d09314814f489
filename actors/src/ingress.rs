//! The ingress: turns requests into jobs, or into typed refusals.
//!
//! What a request becomes is decided in [`admission`], pure. The actor looks up stored outcomes, stores jobs, and
//! answers what is refused; the answer to a job comes from the token log, not from here. Its death loses the requests
//! that were not stored yet. Messages: [`IngressMsg`].

mod admission;

use std::sync::Arc;
use std::time::Duration;

use halm_protocol::subject::Inbox;
use halm_protocol::{ErrorCode, Outcome, Refusal, RunsModel};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{Semaphore, watch};

pub use admission::{Heard, admit};

use crate::mailbox::Mailbox;
use crate::peers::Known;
use crate::ports::{Admitted, Inboxes, IntakeFault, JobIntake, JobSpec, OutcomeStore, Requests};
use crate::tasks::{Tasks, TooManyTasks};

/// Requests being admitted at once: past it, the broker is the bottleneck and waiting in memory helps nobody.
const ADMITTING_MAX: usize = 1024;
/// Tasks in all: those being admitted, and refusals on their way out.
const TASKS_MAX: usize = 4 * ADMITTING_MAX;
/// How long a request waits for a broker that cannot store it, before it is answered `unavailable`.
const STORE_FOR: Duration = Duration::from_secs(10);
/// Between two tries to store.
const STORE_EVERY: Duration = Duration::from_millis(100);
/// When to ask again after a full queue. The measured rate will replace it.
const RETRY_AFTER_MS: u64 = 1000;

/// What an ingress is started with.
#[derive(Clone)]
pub struct IngressStart {
    /// Models that this replica runs.
    pub models: Vec<RunsModel>,
    /// What other replicas run.
    pub known: watch::Receiver<Known>,
    /// Where requests come from.
    pub requests: Arc<dyn Requests>,
    /// Where jobs are put.
    pub intake: Arc<dyn JobIntake>,
    /// Outcomes of jobs with an idempotency key.
    pub outcomes: Arc<dyn OutcomeStore>,
    /// For refusals.
    pub inboxes: Arc<dyn Inboxes>,
    /// For requests that name no deadline.
    pub deadline_default: Duration,
}

/// What an ingress is told.
pub enum IngressMsg {
    /// A request came.
    Heard(Box<Heard>),
    /// No more will come: after [`IngressMsg::Drain`], or as a fault.
    Deaf(Result<(), String>),
    /// Hear no more; answer when everything heard was stored or refused.
    Drain(RpcReplyPort<()>),
    /// A request was stored or refused.
    Admitted,
}

/// The actor.
pub struct Ingress;

/// Its state.
pub struct IngressState {
    start: IngressStart,
    tasks: Tasks,
    admitting: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    deaf: bool,
    drained: Vec<RpcReplyPort<()>>,
}

impl Actor for Ingress {
    type Msg = IngressMsg;
    type State = IngressState;
    type Arguments = IngressStart;

    async fn pre_start(
        &self,
        myself: ActorRef<IngressMsg>,
        start: IngressStart,
    ) -> Result<IngressState, ActorProcessingErr> {
        let mut tasks = Tasks::with_limit(myself.get_cell(), TASKS_MAX);
        let myself = Mailbox::of(&myself);
        let (to, closing) = (myself.clone(), watch::Sender::new(false));
        let hand_on = Box::new(move |heard| {
            let _ = to.send(IngressMsg::Heard(Box::new(heard)));
        });
        let listening = start.requests.listen(hand_on, closing.subscribe());
        tasks.spawn(async move {
            let _ = myself.send(IngressMsg::Deaf(listening.await));
        })?;
        let admitting = Arc::new(Semaphore::new(ADMITTING_MAX));
        Ok(IngressState { start, tasks, admitting, closing, deaf: false, drained: Vec::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<IngressMsg>,
        message: IngressMsg,
        state: &mut IngressState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            IngressMsg::Heard(heard) => state.hear(&heard, &myself)?,
            IngressMsg::Deaf(Ok(())) => state.deaf = true,
            IngressMsg::Deaf(Err(why)) => return Err(why.into()),
            IngressMsg::Drain(reply) => {
                state.closing.send_replace(true);
                state.drained.push(reply);
            }
            IngressMsg::Admitted => {}
        }
        if state.deaf && state.admitting.available_permits() == ADMITTING_MAX {
            for reply in state.drained.drain(..) {
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<IngressMsg>,
        _event: ractor::SupervisionEvent,
        _state: &mut IngressState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children.
        Ok(())
    }
}

impl IngressState {
    fn hear(&mut self, heard: &Heard, myself: &ActorRef<IngressMsg>) -> Result<(), TooManyTasks> {
        let Ok(inbox) = Inbox::try_from(heard.reply.as_str()) else {
            // Nothing may be published anywhere else, whoever asks.
            tracing::warn!(reply = heard.reply, "request without a plain inbox to answer to was dropped");
            return Ok(());
        };
        let mut models = self.start.models.clone();
        models.extend(self.start.known.borrow().models.iter().cloned());
        match admit(heard, &inbox, &models, self.start.deadline_default) {
            Err(refusal) => self.refuse(&inbox, refusal),
            Ok(job) => match Arc::clone(&self.admitting).try_acquire_owned() {
                Err(_) => {
                    let message = "too many requests are being admitted at once";
                    let refusal = Refusal::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_AFTER_MS);
                    self.refuse(&inbox, refusal);
                }
                Ok(permit) => {
                    let (start, keyed, myself) = (self.start.clone(), heard.key.is_some(), Mailbox::of(myself));
                    self.tasks.spawn(async move {
                        store(start, job, keyed).await;
                        drop(permit);
                        let _ = myself.send(IngressMsg::Admitted);
                    })?;
                }
            },
        }
        Ok(())
    }

    fn refuse(&mut self, inbox: &Inbox, refusal: Refusal) {
        tracing::debug!(code = %refusal.code, param = refusal.param, "request refused");
        let sending = self.start.inboxes.send(inbox, &Outcome::Refusal(refusal));
        if let Err(error) = self.tasks.spawn(sending) {
            // A flood of bad requests must not take the good ones along.
            tracing::warn!(%error, "refusal was not sent");
        }
    }
}

/// Stores a job, or answers why not.
async fn store(start: IngressStart, job: JobSpec, keyed: bool) {
    let until = tokio::time::Instant::now() + STORE_FOR;
    let refusal = loop {
        if keyed && answered(&start, &job).await {
            return;
        }
        match start.intake.admit(&job).await {
            Ok(Admitted::Stored) => return,
            // The same request again, while the first runs or after it ended.
            Ok(Admitted::Duplicate) if answered(&start, &job).await || !keyed => return,
            Ok(Admitted::Duplicate) => {
                let message = "a request with this key is running already; ask again for its answer";
                break Refusal::new(ErrorCode::Unavailable, message).retry_after_ms(RETRY_AFTER_MS);
            }
            Err(IntakeFault::Refused(refusal)) => break refusal,
            Err(IntakeFault::Full) => {
                let message = "the queue of this model is full";
                break Refusal::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_AFTER_MS);
            }
            Err(IntakeFault::Unavailable(fault)) if tokio::time::Instant::now() >= until => {
                tracing::warn!(fault, "request could not be stored");
                let message = "the request could not be stored; ask again later";
                break Refusal::new(ErrorCode::Unavailable, message).retry_after_ms(RETRY_AFTER_MS);
            }
            Err(IntakeFault::Unavailable(_)) => tokio::time::sleep(STORE_EVERY).await,
        }
    };
    start.inboxes.send(&job.inbox, &Outcome::Refusal(refusal.for_job(job.id.clone()))).await;
}

/// Answers with the stored outcome, if there is one.
async fn answered(start: &IngressStart, job: &JobSpec) -> bool {
    let Ok(Some(outcome)) = start.outcomes.read(&job.id).await else { return false };
    start.inboxes.send(&job.inbox, &outcome).await;
    true
}
