//! The consumer: takes jobs from the work queue, and only as many as the dispatcher has room for.
//!
//! It is started after the dispatcher and the workers; its death costs the pulls under way, whose jobs the queue
//! delivers again. How many of which class to ask for is decided in [`credit`], pure.

mod credit;

use std::sync::Arc;
use std::time::Duration;

use halm_protocol::Class;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

pub use credit::{Credit, Pull};

use crate::address::Address;
use crate::dispatcher::{DispatcherMsg, Room};
use crate::mailbox::Mailbox;
use crate::moment::{Clock, Moment};
use crate::ports::{Delivery, JobQueue, JobSpec, Pulled};
use crate::tasks::{Tasks, TooManyTasks};

/// Wait after a pull that failed, so that a broker that is away is not asked in a tight loop.
const PULL_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a consumer is started with.
#[derive(Clone)]
pub struct ConsumerStart {
    /// Where jobs come from.
    pub queue: Arc<dyn JobQueue>,
    /// Where they go.
    pub dispatcher: Address<DispatcherMsg>,
    /// The replica's clock.
    pub clock: Clock,
}

/// What a consumer is told.
pub enum ConsumerMsg {
    /// How many jobs the dispatcher has room for, having received so many.
    Demand {
        /// More jobs that it can take.
        room: Room,
        /// Deliveries that it has seen; what came later is not accounted for in `room` yet.
        received: u64,
    },
    /// A pull brought a job.
    Pulled(Box<JobSpec>, Delivery),
    /// A pull for `asked` jobs ended; `got` of them came.
    PullEnded {
        /// Of this class.
        class: Class,
        /// How many were asked for.
        asked: usize,
        /// How many came.
        got: usize,
        /// Why it ended early.
        fault: Option<String>,
    },
    /// It is time to see whether a queue is empty.
    LookDue(Moment),
    /// Pull no more; answer when nothing is under way.
    Drain(RpcReplyPort<()>),
}

/// The actor.
pub struct Consumer;

/// Its state.
pub struct ConsumerState {
    start: ConsumerStart,
    tasks: Tasks,
    credit: Credit,
    look: Option<Moment>,
    draining: Vec<RpcReplyPort<()>>,
}

impl Actor for Consumer {
    type Msg = ConsumerMsg;
    type State = ConsumerState;
    type Arguments = ConsumerStart;

    async fn pre_start(
        &self,
        myself: ActorRef<ConsumerMsg>,
        start: ConsumerStart,
    ) -> Result<ConsumerState, ActorProcessingErr> {
        let tasks = Tasks::new(myself.get_cell());
        Ok(ConsumerState { start, tasks, credit: Credit::default(), look: None, draining: Vec::new() })
    }

    async fn post_start(
        &self,
        _myself: ActorRef<ConsumerMsg>,
        state: &mut ConsumerState,
    ) -> Result<(), ActorProcessingErr> {
        // An earlier incarnation was told the demand; this one must ask.
        let _ = state.start.dispatcher.send(DispatcherMsg::ConsumerBegan);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<ConsumerMsg>,
        message: ConsumerMsg,
        state: &mut ConsumerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ConsumerMsg::Demand { room, received } => state.credit.demand(room, received),
            ConsumerMsg::Pulled(spec, delivery) => {
                state.credit.came(spec.request.class, state.start.clock.now());
                let _ = state.start.dispatcher.send(DispatcherMsg::Received(spec, delivery));
            }
            ConsumerMsg::PullEnded { class, asked, got, fault } => {
                state.credit.ended(class, asked.saturating_sub(got));
                if let Some(fault) = fault {
                    tracing::debug!(fault, "pull failed");
                }
            }
            ConsumerMsg::LookDue(at) => {
                if state.look == Some(at) {
                    state.look = None;
                }
            }
            ConsumerMsg::Drain(reply) => {
                state.credit.close();
                state.draining.push(reply);
            }
        }
        state.pull(&myself)?;
        if state.credit.is_over() {
            for reply in state.draining.drain(..) {
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<ConsumerMsg>,
        _event: ractor::SupervisionEvent,
        _state: &mut ConsumerState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children.
        Ok(())
    }
}

impl ConsumerState {
    fn pull(&mut self, myself: &ActorRef<ConsumerMsg>) -> Result<(), TooManyTasks> {
        let now = self.start.clock.now();
        for pull in self.credit.pulls(now) {
            self.ask(pull, myself)?;
        }
        let Some(next) = self.credit.next_look().filter(|next| self.look.is_none_or(|set| set > *next)) else {
            return Ok(());
        };
        self.look = Some(next);
        self.tasks.send_after(next - now, myself, ConsumerMsg::LookDue(next)).map(drop)
    }

    fn ask(&mut self, Pull { class, jobs }: Pull, myself: &ActorRef<ConsumerMsg>) -> Result<(), TooManyTasks> {
        let to = Mailbox::of(myself);
        let deliver = Box::new(move |pulled| match pulled {
            Pulled::Job(spec, delivery) => {
                let _ = to.send(ConsumerMsg::Pulled(spec, delivery));
            }
            Pulled::NotAJob(reason) => tracing::warn!(reason, "message on the job stream is no job"),
        });
        let (call, myself) = (self.start.queue.pull(class, jobs, deliver), Mailbox::of(myself));
        self.tasks.spawn(async move {
            let (got, fault) = match call.await {
                Ok(got) => (got, None),
                Err((got, fault)) => {
                    tokio::time::sleep(PULL_AGAIN_AFTER).await;
                    (got, Some(fault))
                }
            };
            let _ = myself.send(ConsumerMsg::PullEnded { class, asked: jobs, got, fault });
        })
    }
}
