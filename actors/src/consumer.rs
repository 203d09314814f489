//! The consumer: takes jobs from the work queue, and only as many as the dispatcher has room for.
//!
//! It is started after the dispatcher and the workers; its death costs the pulls under way, whose jobs the queue
//! delivers again. It decides nothing but how many more to ask for.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::address::Address;
use crate::dispatcher::DispatcherMsg;
use crate::mailbox::Mailbox;
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
}

/// What a consumer is told.
pub enum ConsumerMsg {
    /// How many jobs the dispatcher has room for, having received so many.
    Demand {
        /// More jobs that it can take.
        room: usize,
        /// Deliveries that it has seen; what came later is not accounted for in `room` yet.
        received: u64,
    },
    /// A pull brought a job.
    Pulled(Box<JobSpec>, Delivery),
    /// A pull for `asked` jobs ended; `got` of them came.
    PullEnded {
        /// How many were asked for.
        asked: usize,
        /// How many came.
        got: usize,
        /// Why it ended early.
        fault: Option<String>,
    },
    /// Pull no more; answer when nothing is under way.
    Drain(RpcReplyPort<()>),
}

/// The actor.
pub struct Consumer;

/// Its state.
pub struct ConsumerState {
    start: ConsumerStart,
    tasks: Tasks,
    /// Jobs that the dispatcher had room for when it had seen `received` deliveries.
    room: usize,
    received: u64,
    /// Deliveries handed to the dispatcher. Invariant: `received <= delivered`, within one life of the dispatcher.
    delivered: u64,
    /// Jobs asked for that have not come yet.
    outstanding: usize,
    draining: Vec<RpcReplyPort<()>>,
    closed: bool,
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
        Ok(ConsumerState {
            start,
            tasks,
            room: 0,
            received: 0,
            delivered: 0,
            outstanding: 0,
            draining: Vec::new(),
            closed: false,
        })
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
            ConsumerMsg::Demand { room, received } => (state.room, state.received) = (room, received),
            ConsumerMsg::Pulled(spec, delivery) => {
                state.outstanding = state.outstanding.saturating_sub(1);
                state.delivered += 1;
                let _ = state.start.dispatcher.send(DispatcherMsg::Received(spec, delivery));
            }
            ConsumerMsg::PullEnded { asked, got, fault } => {
                state.outstanding = state.outstanding.saturating_sub(asked.saturating_sub(got));
                if let Some(fault) = fault {
                    tracing::debug!(fault, "pull failed");
                }
            }
            ConsumerMsg::Drain(reply) => {
                state.closed = true;
                state.draining.push(reply);
            }
        }
        state.pull(&myself)?;
        if state.closed && state.outstanding == 0 {
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
        let unseen = usize::try_from(self.delivered.saturating_sub(self.received)).unwrap_or(usize::MAX);
        let wanted = self.room.saturating_sub(unseen).saturating_sub(self.outstanding);
        if self.closed || wanted == 0 {
            return Ok(());
        }
        self.outstanding += wanted;
        let to = Mailbox::of(myself);
        let deliver = Box::new(move |pulled| match pulled {
            Pulled::Job(spec, delivery) => {
                let _ = to.send(ConsumerMsg::Pulled(spec, delivery));
            }
            Pulled::NotAJob(reason) => tracing::warn!(reason, "message on the job stream is no job"),
        });
        let (call, myself) = (self.start.queue.pull(wanted, deliver), Mailbox::of(myself));
        self.tasks.spawn(async move {
            let (got, fault) = match call.await {
                Ok(got) => (got, None),
                Err((got, fault)) => {
                    tokio::time::sleep(PULL_AGAIN_AFTER).await;
                    (got, Some(fault))
                }
            };
            let _ = myself.send(ConsumerMsg::PullEnded { asked: wanted, got, fault });
        })
    }
}
