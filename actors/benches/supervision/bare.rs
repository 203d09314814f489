//! ractor alone: linked actors under a parent that restarts nobody.
//!
//! Owns the floor below which no supervisor can be.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::Subject;
use crate::worker::{Hall, Worker, WorkerMsg};

pub(crate) struct Linked;

/// Hears of its children and does nothing about it.
struct Parent;

/// Asks a parent whether it has heard so far.
pub(crate) struct Question(RpcReplyPort<()>);

impl Actor for Parent {
    type Msg = Question;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Question>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Question>,
        Question(reply): Question,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(reply.send(())?)
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Question>,
        _event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Subject for Linked {
    const NAME: &'static str = "ractor, linked";
    const CRASHES: usize = 0;
    type Tree = (ActorRef<Question>, Vec<ActorRef<WorkerMsg>>);

    async fn start(hall: &Arc<Hall>) -> Self::Tree {
        let (parent, _) = Actor::spawn(None, Parent, ()).await.expect("starts");
        let mut children = Vec::new();
        for place in hall.places() {
            let (child, _) = Actor::spawn_linked(None, Worker, place, parent.get_cell()).await.expect("starts");
            children.push(child);
        }
        (parent, children)
    }

    async fn settle((parent, _): &Self::Tree) {
        ractor::call!(parent, Question).expect("it lives");
    }

    async fn stop((parent, children): Self::Tree) {
        children.iter().for_each(|child| child.stop(None));
        parent.stop_and_wait(None, None).await.expect("it lives");
    }
}
