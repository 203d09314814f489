//! The broker that a replica runs itself, when no other is configured.
//!
//! The actor lives as long as the process: its end is the actor's failure, and its supervisor starts both again. It
//! stands under a supervisor of its own, so that its restart is a lost connection to its siblings and not their death.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::address::Address;
use crate::crash_report::{Crash, Evidence};
use crate::mailbox::Mailbox;
use crate::ports::{BrokerProcess, Exit};
use crate::supervisor::{Backoff, ChildSpec, ExitReason, Strategy, SupervisorSpec};
use crate::tasks::Tasks;

/// Restarts of a local broker: it may be killed now and then, but not for ever.
const RESTARTS: (u32, Duration) = (20, Duration::from_secs(60));
/// Starting one that replays a large store.
const START_WITHIN: Duration = Duration::from_secs(150);

/// A supervisor of one broker process, whose restart is nobody else's.
pub fn supervisor(process: &Arc<dyn BrokerProcess>) -> SupervisorSpec {
    let process = Arc::clone(process);
    let child = ChildSpec::actor("nats-server", Address::new(), move |_| (LocalBroker, Arc::clone(&process)));
    let backoff =
        Backoff { first: Duration::from_millis(20), max: Duration::from_secs(1), reset_after: Duration::from_secs(10) };
    SupervisorSpec::new(Strategy::OneForOne)
        .intensity(RESTARTS.0, RESTARTS.1)
        .backoff(backoff)
        .child(child.start_timeout(START_WITHIN))
}

/// What it is told.
pub enum LocalBrokerMsg {
    /// The process is gone.
    Exited(Exit),
}

/// The actor.
pub struct LocalBroker;

/// Its state: the task that is the process, killed when this is dropped.
pub struct LocalBrokerState {
    _tasks: Tasks,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Actor for LocalBroker {
    type Msg = LocalBrokerMsg;
    type State = LocalBrokerState;
    type Arguments = Arc<dyn BrokerProcess>;

    /// Waits until the process takes connections: what stands to its right needs it.
    async fn pre_start(
        &self,
        myself: ActorRef<LocalBrokerMsg>,
        process: Arc<dyn BrokerProcess>,
    ) -> Result<LocalBrokerState, ActorProcessingErr> {
        let started = process.start().await?;
        tracing::info!(pid = started.pid, "local broker ready");
        let mut tasks = Tasks::new(myself.get_cell());
        let (tell_ended, ended) = oneshot::channel();
        let to = Mailbox::of(&myself);
        tasks.spawn(async move {
            let exit = started.run.await;
            let _ = tell_ended.send(());
            let _ = to.send(LocalBrokerMsg::Exited(exit));
        })?;
        Ok(LocalBrokerState { _tasks: tasks, stop: Some(started.stop), ended: Some(ended) })
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<LocalBrokerMsg>,
        state: &mut LocalBrokerState,
    ) -> Result<(), ActorProcessingErr> {
        if let (Some(stop), Some(ended)) = (state.stop.take(), state.ended.take()) {
            // One that has ended already hears nothing, and needs nothing.
            let _ = stop.send(());
            let _ = ended.await;
        }
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<LocalBrokerMsg>,
        message: LocalBrokerMsg,
        _state: &mut LocalBrokerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LocalBrokerMsg::Exited(Exit { end, stderr_tail }) => {
                let evidence = Evidence { stderr_tail, ..Evidence::default() };
                Err(Crash::new(ExitReason::Process(end), evidence).into())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<LocalBrokerMsg>,
        _event: ractor::SupervisionEvent,
        _state: &mut LocalBrokerState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children that are actors.
        Ok(())
    }
}
