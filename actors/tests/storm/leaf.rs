//! An actor that ends in every way there is, and the ledger in which its ends are counted.
//!
//! Owns what the supervisor's counts are compared with. An incarnation counts its own end, once, when its state is
//! dropped: as a crash unless it went through `post_stop` without having crashed before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use halm_actors::address::Address;
use halm_actors::mailbox::Mailbox;
use halm_actors::supervisor::ChildSpec;
use halm_actors::tasks::Tasks;
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// How every panic here begins, so that the panic hook can tell it from a failure of the test.
pub(crate) const MARK: &str = "storm: ";

/// How a child can be made to crash.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    Panic,
    Fail,
    Kill,
    PanicInTask,
    Stop,
    /// Fail, and let the next incarnation do this.
    Haunt(Plan),
}

/// What an incarnation is to do when it comes up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    PostStartPanics,
    PreStartFails,
    PreStartPanics,
}

/// What has happened to one child in all its incarnations.
pub(crate) struct Ledger {
    pub(crate) attempts: AtomicU64,
    pub(crate) crashes: AtomicU64,
    plan: Mutex<Option<Plan>>,
    /// The living incarnation, until it is struck.
    target: Mutex<Option<ActorRef<LeafMsg>>>,
    living: Arc<AtomicU64>,
}

struct Leaf;

#[derive(Debug)]
pub(crate) enum LeafMsg {
    Panic,
    Fail,
    PanicInTask,
    Stop,
}

struct Life {
    ledger: Arc<Ledger>,
    tasks: Tasks,
    crashed: bool,
    stopped: bool,
}

impl Ledger {
    pub(crate) fn new(living: &Arc<AtomicU64>, plan: Option<Plan>) -> Arc<Self> {
        Arc::new(Self {
            attempts: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
            plan: Mutex::new(plan),
            target: Mutex::new(None),
            living: Arc::clone(living),
        })
    }

    /// Strikes the living incarnation, once; false when it was struck already, or is not up.
    pub(crate) fn strike(&self, blow: Blow) -> bool {
        let Some(target) = self.target.lock().unwrap_or_else(PoisonError::into_inner).take() else { return false };
        let message = match blow {
            Blow::Kill => {
                target.kill();
                return true;
            }
            Blow::Haunt(plan) => {
                *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
                LeafMsg::Fail
            }
            Blow::Panic => LeafMsg::Panic,
            Blow::Fail => LeafMsg::Fail,
            Blow::PanicInTask => LeafMsg::PanicInTask,
            Blow::Stop => LeafMsg::Stop,
        };
        // One that is being stopped hears nothing more, and does not crash.
        let _ = Mailbox::of(&target).send(message);
        true
    }

    /// Whether an incarnation is up that has not been struck.
    pub(crate) fn is_up(&self) -> bool {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// The template: each child is started with its ledger.
pub(crate) fn template() -> ChildSpec {
    ChildSpec::actor_at("template", |context| {
        let ledger = context.argument::<Arc<Ledger>>().expect("given");
        (Address::new(), Leaf, Arc::clone(&ledger))
    })
}

impl Drop for Life {
    fn drop(&mut self) {
        if self.crashed || !self.stopped {
            self.ledger.crashes.fetch_add(1, Ordering::SeqCst);
        }
        self.ledger.living.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Actor for Leaf {
    type Msg = LeafMsg;
    type State = (Life, Option<Plan>);
    type Arguments = Arc<Ledger>;

    async fn pre_start(
        &self,
        myself: ActorRef<LeafMsg>,
        ledger: Arc<Ledger>,
    ) -> Result<Self::State, ActorProcessingErr> {
        let is_restart = ledger.attempts.fetch_add(1, Ordering::SeqCst) > 0;
        let plan = ledger.plan.lock().unwrap_or_else(PoisonError::into_inner).take();
        let fails = matches!(plan, Some(Plan::PreStartFails | Plan::PreStartPanics));
        if fails && is_restart {
            ledger.crashes.fetch_add(1, Ordering::SeqCst);
        }
        match plan {
            Some(Plan::PreStartFails) => return Err("no luck in pre_start".into()),
            Some(Plan::PreStartPanics) => panic!("{MARK}in pre_start"),
            Some(Plan::PostStartPanics) | None => {}
        }
        ledger.living.fetch_add(1, Ordering::SeqCst);
        let tasks = Tasks::new(myself.get_cell());
        Ok((Life { ledger, tasks, crashed: false, stopped: false }, plan))
    }

    async fn post_start(
        &self,
        myself: ActorRef<LeafMsg>,
        (life, plan): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        assert!(plan.is_none(), "{MARK}in post_start");
        *life.ledger.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(myself);
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<LeafMsg>,
        (life, _): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        life.stopped = true;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<LeafMsg>,
        message: LeafMsg,
        (life, _): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        life.crashed = true;
        match message {
            LeafMsg::Panic => panic!("{MARK}in handle"),
            LeafMsg::Fail => return Err("no luck in handle".into()),
            LeafMsg::PanicInTask => life.tasks.spawn(async { panic!("{MARK}in a task") })?,
            LeafMsg::Stop => myself.stop(Some("enough".to_owned())),
        }
        Ok(())
    }
}
