//! The supervisors of the crate `ractor-supervisor`, as fast as their settings let them be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ractor::ActorRef;
use ractor_supervisor::{
    ChildSpec, DynamicSupervisor, DynamicSupervisorMsg, DynamicSupervisorOptions, Restart, SpawnFn, Supervisor,
    SupervisorArguments, SupervisorMsg, SupervisorOptions, SupervisorStrategy,
};

use crate::worker::{Hall, Place, Worker};
use crate::{CHILDREN, Subject, WINDOW};

pub(crate) struct Fixed;
pub(crate) struct Dynamic;

/// Children of the dynamic supervisor that are crashed: it sleeps 10 ms for each.
const DYNAMIC_CRASHES: usize = 20;

/// A name that the global registry has never seen: names of what has ended are free only some time later.
fn new_name() -> String {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    NAMES.fetch_add(1, Ordering::Relaxed).to_string()
}

fn child(place: Place) -> ChildSpec {
    let spawn_fn = SpawnFn::new(move |supervisor, id| {
        let place = place.clone();
        async move {
            let (child, _) = Supervisor::spawn_linked(id, Worker, place, supervisor).await?;
            Ok(child.get_cell())
        }
    });
    ChildSpec { id: new_name(), restart: Restart::Permanent, spawn_fn, backoff_fn: None, reset_after: None }
}

impl Subject for Fixed {
    const NAME: &'static str = "ractor-supervisor, static";
    const CRASHES: usize = CHILDREN;
    type Tree = ActorRef<SupervisorMsg>;

    async fn start(hall: &Arc<Hall>) -> Self::Tree {
        let options = SupervisorOptions {
            strategy: SupervisorStrategy::OneForOne,
            max_restarts: usize::MAX,
            max_window: WINDOW,
            reset_after: None,
        };
        let arguments = SupervisorArguments { child_specs: hall.places().map(child).collect(), options };
        let (supervisor, _) = Supervisor::spawn(new_name(), arguments).await.expect("starts");
        supervisor
    }

    async fn settle(supervisor: &Self::Tree) {
        ractor::call!(supervisor, SupervisorMsg::InspectState).expect("it lives");
    }

    async fn stop(supervisor: Self::Tree) {
        supervisor.stop_and_wait(None, None).await.expect("it lives");
    }
}

impl Subject for Dynamic {
    const NAME: &'static str = "ractor-supervisor, dynamic";
    const CRASHES: usize = DYNAMIC_CRASHES;
    type Tree = ActorRef<DynamicSupervisorMsg>;

    async fn start(hall: &Arc<Hall>) -> Self::Tree {
        let options = DynamicSupervisorOptions {
            max_children: None,
            max_restarts: usize::MAX,
            max_window: WINDOW,
            reset_after: None,
        };
        let (supervisor, _) = DynamicSupervisor::spawn(new_name(), options).await.expect("starts");
        for place in hall.places() {
            DynamicSupervisor::spawn_child(supervisor.clone(), child(place)).await.expect("starts");
        }
        supervisor
    }

    async fn settle(supervisor: &Self::Tree) {
        ractor::call!(supervisor, DynamicSupervisorMsg::InspectState).expect("it lives");
    }

    async fn stop(supervisor: Self::Tree) {
        supervisor.stop_and_wait(None, None).await.expect("it lives");
    }
}
