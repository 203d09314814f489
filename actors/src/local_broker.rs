//! The broker that a replica runs itself, when no other is configured.
//!
//! The actor lives as long as the process: its end is the actor's failure, and its supervisor starts both again. It
//! stands under a supervisor of its own, so that its restart is a lost connection to its siblings and not their death.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::ports::BrokerProcess;
use crate::tasks::Tasks;

/// What it is told.
pub enum LocalBrokerMsg {
    /// The process is gone.
    Exited(String),
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
        tasks.spawn(async move {
            let how = started.run.await;
            let _ = tell_ended.send(());
            let _ = myself.cast(LocalBrokerMsg::Exited(how));
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
            LocalBrokerMsg::Exited(how) => Err(format!("nats-server {how}").into()),
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
