//! ractor alone: linked actors under a parent that restarts nobody.
//!
//! Owns the floor below which no supervisor can be.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::Subject;
use crate::worker::{Hall, Worker, WorkerMsg};

pub(crate) struct Linked;

/// Hears of its children's ends and does nothing about them.
struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        _event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Subject for Linked {
    const NAME: &'static str = "ractor, linked";
    const CRASHES: usize = 0;
    type Tree = (ActorRef<()>, Vec<ActorRef<WorkerMsg>>);

    async fn start(hall: &Arc<Hall>) -> Self::Tree {
        let (parent, _) = Actor::spawn(None, Parent, ()).await.expect("starts");
        let mut children = Vec::new();
        for place in hall.places() {
            let (child, _) = Actor::spawn_linked(None, Worker, place, parent.get_cell()).await.expect("starts");
            children.push(child);
        }
        (parent, children)
    }

    async fn stop((parent, children): Self::Tree) {
        children.iter().for_each(|child| child.stop(None));
        parent.stop(None);
    }
}
