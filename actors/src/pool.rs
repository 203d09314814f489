//! A pool: dispatcher, workers and consumer of one model, in this order, under `rest_for_one`.
//!
//! The dispatcher's death takes the workers along, for nobody knows any more what they compute; a worker's death takes
//! nobody along.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use halm_protocol::RunsModel;

use crate::address::Address;
use crate::consumer::{Consumer, ConsumerMsg, ConsumerStart};
use crate::crash_report::CrashHistory;
use crate::dispatcher::{self, Dispatcher, DispatcherMsg, DispatcherPorts, DispatcherStart, WorkerId};
use crate::moment::Clock;
use crate::peers::PeersMsg;
use crate::ports::{JobQueue, WorkerProcess};
use crate::replica::Identity;
use crate::supervisor::{Backoff, ChildSpec, Strategy, SupervisorSpec};
use crate::worker::{Worker, WorkerMsg, WorkerStart};

/// Worker restarts borne before the pool gives up: one a second, for a minute. A worker that dies for ever is tried
/// twice a second on average, so a pool of two that cannot run at all escalates within a minute.
const WORKER_RESTARTS: (u32, Duration) = (60, Duration::from_secs(60));
/// Restarts of a pool's other parts.
const PART_RESTARTS: (u32, Duration) = (5, Duration::from_secs(30));

/// A pool, as it is configured.
#[derive(Clone)]
pub struct PoolSpec {
    /// What it runs.
    pub model: RunsModel,
    /// Worker processes.
    pub workers: u32,
    /// Jobs that one worker computes together.
    pub slots_per_worker: u32,
    /// How long a worker may take to load the model.
    pub ready_within: Duration,
    /// Starts its worker processes.
    pub process: Arc<dyn WorkerProcess>,
    /// Its jobs.
    pub queue: Arc<dyn JobQueue>,
}

/// Where a pool's actors are to be found.
#[derive(Clone)]
pub struct PoolAddresses {
    /// The pool's place in the tree.
    pub path: String,
    /// The dispatcher.
    pub dispatcher: Address<DispatcherMsg>,
    /// The consumer.
    pub consumer: Address<ConsumerMsg>,
    /// The workers.
    pub workers: BTreeMap<WorkerId, Address<WorkerMsg>>,
}

impl PoolAddresses {
    /// Places for a pool of this size.
    #[must_use]
    pub fn new(path: String, workers: u32) -> Self {
        Self {
            path,
            dispatcher: Address::new(),
            consumer: Address::new(),
            workers: (1..=workers).map(|number| (WorkerId(number), Address::new())).collect(),
        }
    }
}

impl PoolSpec {
    /// The pool's name among pools.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@1", self.model.alias)
    }

    /// The supervisor to start.
    #[must_use]
    pub fn supervisor(
        &self,
        identity: &Identity,
        ports: &DispatcherPorts,
        clock: Clock,
        addresses: &PoolAddresses,
        peers: &Address<PeersMsg>,
    ) -> SupervisorSpec {
        let dispatcher = DispatcherStart {
            settings: dispatcher::Settings {
                replica: identity.replica.clone(),
                incarnation: identity.incarnation.clone(),
                model: self.model.name.clone(),
                digest: self.model.digest.clone(),
                workers: self.workers,
                slots_per_worker: self.slots_per_worker,
                deaths_max: 3,
                failures_max: 3,
                progress_every: Duration::from_secs(1),
            },
            ports: ports.clone(),
            clock,
            workers: addresses.workers.clone(),
            consumer: addresses.consumer.clone(),
            peers: peers.clone(),
            crashes: CrashHistory::default(),
        };
        let consumer =
            ConsumerStart { queue: Arc::clone(&self.queue), dispatcher: addresses.dispatcher.clone(), clock };
        let workers = self.workers(addresses, clock);
        SupervisorSpec::new(Strategy::RestForOne)
            .intensity(PART_RESTARTS.0, PART_RESTARTS.1)
            .child(ChildSpec::actor("dispatcher", addresses.dispatcher.clone(), move |context| {
                (Dispatcher, DispatcherStart { crashes: context.crashes(), ..dispatcher.clone() })
            }))
            .child(ChildSpec::supervisor("workers", move || workers.clone()))
            .child(ChildSpec::actor("consumer", addresses.consumer.clone(), move |_| (Consumer, consumer.clone())))
    }

    fn workers(&self, addresses: &PoolAddresses, clock: Clock) -> SupervisorSpec {
        // The first restart is at once or nearly so: most deaths are single. The last ones come every half second on
        // average, so that a crash loop costs little and still reaches the intensity.
        let backoff = Backoff {
            first: Duration::from_millis(20),
            max: Duration::from_secs(1),
            reset_after: Duration::from_secs(10),
        };
        let spec =
            SupervisorSpec::new(Strategy::OneForOne).intensity(WORKER_RESTARTS.0, WORKER_RESTARTS.1).backoff(backoff);
        addresses.workers.iter().fold(spec, |spec, (worker, address)| {
            let (worker, pool, dispatcher) = (*worker, self.clone(), addresses.dispatcher.clone());
            spec.child(ChildSpec::actor(&worker.to_string(), address.clone(), move |context| {
                let start = WorkerStart {
                    worker,
                    path: context.path(),
                    process: Arc::clone(&pool.process),
                    digest: pool.model.digest.clone(),
                    ready_within: pool.ready_within,
                    dispatcher: dispatcher.clone(),
                    clock,
                };
                (Worker, start)
            }))
        })
    }
}
