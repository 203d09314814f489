//! Specifications with the closures that start children, for people to write.
//!
//! Owns how a child is started. It must never decide when. An application builds a [`SupervisorSpec`] and hands it to
//! [`super::Supervisor::start_root`], or returns it from the closure of [`ChildSpec::supervisor`].

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorCell};
use tokio::sync::oneshot;

use super::backoff::Backoff;
use super::exit::ExitReason;
use super::intensity::Intensity;
use super::names::{ChildId, ChildPath, InvalidId};
use super::policy::{AutoShutdown, ChildKind, Policy, Restart, Settings, Shutdown, SpecError, Strategy};
use super::shell::{self, Place, SupervisorMsg};
use super::watched::{Watched, spawn_failure};
use crate::address::Address;
use crate::crash_report::{Crash, CrashHistory};
use crate::vitals::Vitals;

/// How long a worker's start may take: `pre_start` only builds state, so this is a hundred times too long already.
pub const WORKER_START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a worker may take to stop: OTP's default.
pub const WORKER_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a child's start gets to know.
#[derive(Clone)]
pub struct StartContext {
    /// Its supervisor's place, and its own name there.
    pub(super) above: ChildPath,
    pub(super) id: ChildId,
    /// How often it was started, this time included.
    pub incarnation: u64,
    /// Its supervisor, to which it must be linked.
    pub supervisor: ActorCell,
    pub(super) argument: Option<Argument>,
    pub(super) crashes: CrashHistory,
}

pub(super) type Argument = Arc<dyn Any + Send + Sync>;
pub(super) type StartFn = Arc<dyn Fn(StartContext) -> BoxFuture<'static, Result<Spawned, Crash>> + Send + Sync>;

/// A started child. Dropping it kills the actor if it lives, and empties its address.
pub struct Spawned {
    pub(super) cell: ActorCell,
    /// What the start still waits for: a supervisor has started when its children have.
    pub(super) ready: Option<oneshot::Receiver<Result<(), ExitReason>>>,
    pub(super) vitals: Arc<Vitals>,
    kill_on_drop: bool,
}

/// A child: who it is, what it may do, how it is started.
#[derive(Clone)]
pub struct ChildSpec {
    id: Result<ChildId, InvalidId>,
    restart: Restart,
    significant: bool,
    shutdown: Shutdown,
    kind: ChildKind,
    start_timeout: Option<Duration>,
    pub(super) start: StartFn,
}

/// A supervisor: its rules and its first children. Defaults: one_for_one, 3 restarts in 5 s, back-off from 50 ms to
/// 5 s forgotten after a quiet minute, no auto-shutdown.
#[derive(Clone, Debug, Default)]
pub struct SupervisorSpec {
    settings: Settings,
    children: Vec<ChildSpec>,
    seed: Option<u64>,
}

impl StartContext {
    /// The child's place. Put together when asked: few children want to know.
    pub fn path(&self) -> ChildPath {
        self.above.child(&self.id)
    }

    /// The last crash reports of the whole tree, as they come.
    pub fn crashes(&self) -> CrashHistory {
        self.crashes.clone()
    }

    /// What a dynamic child was started with; `None` for other children and other types.
    pub fn argument<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(self.argument.as_ref()?).downcast().ok()
    }
}

impl ChildSpec {
    /// A permanent worker with 10 s to start and 5 s to stop. `make` gives handler and arguments for each incarnation,
    /// which then lives at `address`. Its `pre_start` is polled by the supervisor first and by a task beside it if it
    /// waits: it may wait as long as it likes, and must not block.
    pub fn actor<A: Actor>(
        id: &str,
        address: Address<A::Msg>,
        make: impl Fn(&StartContext) -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        Self::actor_at::<A>(id, move |context| {
            let (handler, arguments) = make(context);
            (address.clone(), handler, arguments)
        })
    }

    /// As [`Self::actor`], but each incarnation says where it lives: for the template of a dynamic supervisor, whose
    /// children must not share one address.
    #[expect(clippy::disallowed_methods, reason = "this is where the others are started, by their supervisor")]
    pub fn actor_at<A: Actor>(
        id: &str,
        make: impl Fn(&StartContext) -> (Address<A::Msg>, A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        let start: StartFn = Arc::new(move |context: StartContext| {
            let (address, handler, arguments) = make(&context);
            let vitals = Arc::<Vitals>::default();
            let watched = Watched::new(handler, address, Arc::clone(&vitals));
            // A combinator, because an `async` block would keep the handler and its arguments twice.
            Watched::spawn_linked(None, watched, arguments, context.supervisor)
                .map(move |spawned| match spawned {
                    Ok((actor, _)) => Ok(Spawned::new(actor.get_cell(), None, vitals)),
                    Err(error) => Err(spawn_failure(&error)),
                })
                .boxed()
        });
        Self {
            id: ChildId::try_from(id),
            restart: Restart::Permanent,
            significant: false,
            shutdown: Shutdown::Timeout(WORKER_SHUTDOWN_TIMEOUT),
            kind: ChildKind::Worker,
            start_timeout: Some(WORKER_START_TIMEOUT),
            start,
        }
    }

    /// A permanent supervisor that has as long as its children need to start and to stop. `spec` is asked anew for each
    /// incarnation.
    pub fn supervisor(id: &str, spec: impl Fn() -> SupervisorSpec + Send + Sync + 'static) -> Self {
        Self::supervisor_at(id, Address::new(), spec)
    }

    /// As [`Self::supervisor`], living at an address for those who add children to it.
    pub fn supervisor_at(
        id: &str,
        address: Address<SupervisorMsg>,
        spec: impl Fn() -> SupervisorSpec + Send + Sync + 'static,
    ) -> Self {
        let spec = Arc::new(spec);
        let start: StartFn = Arc::new(move |context: StartContext| {
            let (spec, address) = (Arc::clone(&spec), address.clone());
            async move {
                let vitals = Arc::<Vitals>::default();
                let path = context.path();
                let birth = Place { parent: Some(context.supervisor), address, vitals: Arc::clone(&vitals) };
                let (actor, ready) = shell::spawn(path, spec(), context.crashes, None, birth).await?;
                Ok(Spawned::new(actor.get_cell(), Some(ready), vitals))
            }
            .boxed()
        });
        Self {
            id: ChildId::try_from(id),
            restart: Restart::Permanent,
            significant: false,
            shutdown: Shutdown::Infinity,
            kind: ChildKind::Supervisor,
            start_timeout: None,
            start,
        }
    }

    /// When it is restarted.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Its end counts for auto-shutdown.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.significant = true;
        self
    }

    /// How it is stopped.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// How long its start may take.
    #[must_use]
    pub fn start_timeout(mut self, start_timeout: Duration) -> Self {
        self.start_timeout = Some(start_timeout);
        self
    }

    pub(super) fn policy(&self) -> Result<Policy, SpecError> {
        Ok(Policy {
            id: self.id.clone()?,
            restart: self.restart,
            significant: self.significant,
            shutdown: self.shutdown,
            kind: self.kind,
            start_timeout: self.start_timeout,
        })
    }
}

impl SupervisorSpec {
    /// No children yet, and the defaults.
    pub fn new(strategy: Strategy) -> Self {
        Self { settings: Settings { strategy, ..Settings::default() }, children: Vec::new(), seed: None }
    }

    /// Children made at run time from one template.
    pub fn dynamic(template: ChildSpec) -> Self {
        Self::new(Strategy::Dynamic).child(template)
    }

    /// How many restarts in which time are borne.
    #[must_use]
    pub fn intensity(mut self, restarts_max: u32, period: Duration) -> Self {
        self.settings.intensity = Intensity { restarts_max, period };
        self
    }

    /// How long to wait before a restart.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// For tests and simulations: the same seed draws the same delays.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Whether significant children end the supervisor.
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.settings.auto_shutdown = auto_shutdown;
        self
    }

    /// Adds a child, started after those before it and stopped before them.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Where the jitter of the back-off comes from, if that is not left to chance.
    pub(super) fn chosen_seed(&self) -> Option<u64> {
        self.seed
    }

    /// The checked parts: the rules, and each child's rules and start.
    pub(super) fn into_parts(self) -> Result<(Settings, Vec<Policy>, impl Iterator<Item = StartFn>), SpecError> {
        let mut policies = Vec::with_capacity(self.children.len());
        for child in &self.children {
            policies.push(child.policy()?);
        }
        self.settings.check(&policies)?;
        Ok((self.settings, policies, self.children.into_iter().map(|child| child.start)))
    }
}

impl Spawned {
    pub(super) fn new(
        cell: ActorCell,
        ready: Option<oneshot::Receiver<Result<(), ExitReason>>>,
        vitals: Arc<Vitals>,
    ) -> Self {
        Self { cell, ready, vitals, kill_on_drop: true }
    }

    /// The actor has ended: nobody may find it any more. Says what a task of it died of.
    pub(super) fn bury(mut self) -> Option<Crash> {
        self.vitals.move_out();
        self.kill_on_drop = false;
        self.vitals.take_task_crash()
    }

    /// Lets the actor live on.
    pub(super) fn keep(mut self) {
        self.kill_on_drop = false;
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.kill_on_drop {
            self.vitals.move_out();
            self.cell.kill();
        }
    }
}

impl fmt::Debug for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spawned").field(&self.cell).finish()
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec").field("id", &self.id).field("restart", &self.restart).finish_non_exhaustive()
    }
}

impl fmt::Debug for StartContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartContext")
            .field("path", &self.path())
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ractor::{ActorProcessingErr, ActorRef};

    use super::*;

    struct Idle;

    impl Actor for Idle {
        type Msg = ();
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
    }

    #[test]
    fn a_worker_has_five_seconds_to_stop_and_a_supervisor_all_the_time() {
        let worker = ChildSpec::actor("worker", Address::new(), |_| (Idle, ())).policy().expect("a valid id");
        let pool = ChildSpec::supervisor("pool", SupervisorSpec::default).policy().expect("a valid id");
        assert_eq!(worker.shutdown, Shutdown::Timeout(Duration::from_secs(5)));
        assert_eq!((worker.kind, worker.start_timeout), (ChildKind::Worker, Some(WORKER_START_TIMEOUT)));
        assert_eq!((pool.kind, pool.shutdown, pool.start_timeout), (ChildKind::Supervisor, Shutdown::Infinity, None));
        for policy in [worker, pool] {
            assert_eq!((policy.restart, policy.significant), (Restart::Permanent, false));
        }
    }
}
