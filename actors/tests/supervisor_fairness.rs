//! A supervisor whose children never stop crashing still hears everybody else.

use std::time::Duration;

use halm_actors::address::Address;
use halm_actors::supervisor::{Backoff, ChildSpec, Ended, Strategy, Supervisor, SupervisorSpec};
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// Enough that there is always one that has just crashed.
const CHILDREN: usize = 300;

/// Ends as soon as it has begun.
struct Mayfly;

impl Actor for Mayfly {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(&self, _myself: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        Err("that was all".into())
    }
}

#[tokio::test]
async fn questions_and_a_stop_are_heard_while_all_children_crash_without_end() {
    let unlimited = SupervisorSpec::new(Strategy::OneForOne).backoff(Backoff::NONE).intensity(
        u32::MAX,
        // The window remembers each restart in it.
        Duration::from_millis(1),
    );
    let child = |number: usize| ChildSpec::actor(&number.to_string(), Address::new(), |_| (Mayfly, ()));
    let mut root = Supervisor::start_root("root", (0..CHILDREN).map(child).fold(unlimited, SupervisorSpec::child))
        .await
        .expect("starts");
    for _ in 0..20 {
        assert_eq!(root.supervisor().which_children().await.expect("it is answered").len(), CHILDREN);
        assert_eq!(root.supervisor().count_children().await.expect("it is answered").specs, CHILDREN);
    }
    assert!(root.crash_counts().restarts > CHILDREN as u64, "hardly anybody crashed: {:?}", root.crash_counts());
    root.shutdown().await;
    assert_eq!(root.stopped().await, Ended::Shutdown);
}
