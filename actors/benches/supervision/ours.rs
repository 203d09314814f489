//! Our supervisor, with children from its specification and with dynamic ones.

use std::sync::Arc;

use halm_actors::address::Address;
use halm_actors::supervisor::{Backoff, ChildSpec, Root, Strategy, Supervisor, SupervisorSpec};

use crate::worker::{Hall, Place, Worker};
use crate::{CHILDREN, Subject, WINDOW};

pub(crate) struct Fixed;
pub(crate) struct Dynamic;

fn unbounded(spec: SupervisorSpec) -> SupervisorSpec {
    spec.backoff(Backoff::NONE).intensity(u32::MAX, WINDOW)
}

impl Subject for Fixed {
    const NAME: &'static str = "halm, static";
    const CRASHES: usize = CHILDREN;
    type Tree = Root;

    async fn start(hall: &Arc<Hall>) -> Root {
        let mut spec = unbounded(SupervisorSpec::new(Strategy::OneForOne));
        for place in hall.places() {
            let id = place.number.to_string();
            spec = spec.child(ChildSpec::actor(&id, Address::new(), move |_| (Worker, place.clone())));
        }
        Supervisor::start_root("root", spec).await.expect("starts")
    }

    async fn settle(root: &Root) {
        root.supervisor().count_children().await.expect("it lives");
    }

    async fn stop(root: Root) {
        root.shutdown().await;
    }
}

impl Subject for Dynamic {
    const NAME: &'static str = "halm, dynamic";
    const CRASHES: usize = CHILDREN;
    type Tree = Root;

    async fn start(hall: &Arc<Hall>) -> Root {
        let template = ChildSpec::actor_at("template", |context| {
            let place = context.argument::<Place>().expect("given");
            (Address::new(), Worker, place.as_ref().clone())
        });
        let spec = unbounded(SupervisorSpec::dynamic(template));
        let root = Supervisor::start_root("root", spec).await.expect("starts");
        for place in hall.places() {
            root.supervisor().start_dynamic(place).await.expect("starts");
        }
        root
    }

    async fn settle(root: &Root) {
        root.supervisor().count_children().await.expect("it lives");
    }

    async fn stop(root: Root) {
        root.shutdown().await;
    }
}
