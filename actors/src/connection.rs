//! The connection: opens it, keeps the broker prepared, and tells everybody when it was lost and is back.
//!
//! Started before all that talks to the broker; its death restarts them (`rest_for_one`). The client library reconnects
//! by itself; what that means for jobs is the dispatchers' to decide.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::address::Address;
use crate::dispatcher::{DispatcherMsg, Event};
use crate::ingress::{self, IngressMsg};
use crate::mailbox::Mailbox;
use crate::peers::{self, PeersMsg};
use crate::ports::{Broker, ConnectionEvent, JobStream};
use crate::tasks::{Tasks, TooManyTasks};

/// Wait before streams and consumers are looked for again after a failure.
const PREPARE_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Between two looks whether they are still there: a client that asks while they are not waits for ten seconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a connection is started with.
#[derive(Clone)]
pub struct ConnectionStart {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Whom to tell.
    pub dispatchers: Vec<Address<DispatcherMsg>>,
    /// Whom to tell.
    pub peers: Address<PeersMsg>,
    /// Whom to tell.
    pub ingress: Address<IngressMsg>,
}

/// What a connection is told.
pub enum ConnectionMsg {
    /// It was lost, or is back.
    Changed(ConnectionEvent),
    /// Streams and consumers are there, or could not be made.
    Prepared(Result<JobStream, String>),
    /// Look for them again.
    Prepare,
}

/// The actor.
pub struct Connection;

/// Its state.
pub struct ConnectionState {
    start: ConnectionStart,
    tasks: Tasks,
    /// As it was seen last.
    jobs: Option<JobStream>,
    preparing: bool,
    up: bool,
}

impl Actor for Connection {
    type Msg = ConnectionMsg;
    type State = ConnectionState;
    type Arguments = ConnectionStart;

    /// Opens the connection: as with an OTP `init`, nothing to its right may start before it is there, and a failure to
    /// open it is a failure to start.
    async fn pre_start(
        &self,
        myself: ActorRef<ConnectionMsg>,
        start: ConnectionStart,
    ) -> Result<ConnectionState, ActorProcessingErr> {
        let to = Mailbox::of(&myself);
        let event = Box::new(move |event| {
            let _ = to.send(ConnectionMsg::Changed(event));
        });
        start.broker.open(event).await?;
        let mut tasks = Tasks::new(myself.get_cell());
        tasks.send_every(LOOK_EVERY, &myself, || ConnectionMsg::Prepare)?;
        Ok(ConnectionState { start, tasks, jobs: None, preparing: false, up: true })
    }

    async fn handle(
        &self,
        myself: ActorRef<ConnectionMsg>,
        message: ConnectionMsg,
        state: &mut ConnectionState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ConnectionMsg::Changed(ConnectionEvent::Lost) => {
                state.up = false;
                tracing::warn!("connection to the broker lost");
            }
            ConnectionMsg::Changed(ConnectionEvent::Restored) => {
                state.up = true;
                tracing::warn!("connection to the broker restored");
                // At once, not after the preparation: most often nothing is missing.
                for dispatcher in &state.start.dispatchers {
                    let _ = dispatcher.send(DispatcherMsg::Happened(Event::ConnectionRestored));
                }
                let _ = state.start.peers.send(PeersMsg::Happened(peers::Event::ConnectionRestored));
                let _ = state.start.ingress.send(IngressMsg::Happened(ingress::Event::ConnectionRestored));
                state.prepare(&myself)?;
            }
            ConnectionMsg::Prepare => state.prepare(&myself)?,
            ConnectionMsg::Prepared(Ok(jobs)) => state.prepared(jobs),
            ConnectionMsg::Prepared(Err(fault)) => {
                state.preparing = false;
                tracing::warn!(fault, "streams and consumers could not be prepared");
                state.tasks.send_after(PREPARE_AGAIN_AFTER, &myself, ConnectionMsg::Prepare)?;
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<ConnectionMsg>,
        _event: ractor::SupervisionEvent,
        _state: &mut ConnectionState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children.
        Ok(())
    }
}

impl ConnectionState {
    fn prepare(&mut self, myself: &ActorRef<ConnectionMsg>) -> Result<(), TooManyTasks> {
        if !self.up || std::mem::replace(&mut self.preparing, true) {
            return Ok(());
        }
        let (call, myself) = (self.start.broker.prepare(), Mailbox::of(myself));
        self.tasks.spawn(async move {
            let _ = myself.send(ConnectionMsg::Prepared(call.await));
        })
    }

    fn prepared(&mut self, jobs: JobStream) {
        self.preparing = false;
        if self.jobs.replace(jobs.clone()).is_some_and(|before| before.was_lost(&jobs)) {
            tracing::warn!(
                last = jobs.last,
                "the broker has forgotten jobs; those that are remembered are stored again"
            );
            let _ = self.start.ingress.send(IngressMsg::Happened(ingress::Event::QueueLost));
        }
    }
}
