//! A replica: the whole tree of one `halm serve`, and the ways in from outside it.
//!
//! ```text
//! root                     rest_for_one
//! ├─ broker                one_for_one   only when no NATS is configured
//! │  └─ nats-server
//! ├─ connection
//! ├─ peers
//! ├─ pools                 one_for_one
//! │  └─ smollm2@1          rest_for_one
//! │     ├─ dispatcher
//! │     ├─ workers         one_for_one
//! │     │  ├─ 1
//! │     │  └─ 2
//! │     └─ consumer
//! └─ ingress
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use halm_protocol::{
    ActorStatus, CrashRecord, Incarnation, JobStatus, ReplicaName, ReplicaStatus, RunsModel, StatusQuestion,
    WorkerStatus,
};
use ractor::RpcReplyPort;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::address::Address;
use crate::connection::{Connection, ConnectionMsg, ConnectionStart};
use crate::consumer::ConsumerMsg;
use crate::crash_report::CrashReport;
use crate::dispatcher::{DispatcherMsg, DispatcherPorts, Event};
use crate::ingress::{Ingress, IngressMsg, IngressStart};
use crate::local_broker;
use crate::moment::Clock;
use crate::peers::{Known, Peers, PeersMsg, PeersStart};
use crate::pool::{PoolAddresses, PoolSpec};
use crate::ports::{Broker, BrokerProcess, JobIntake, PeerBus, Requests};
use crate::supervisor::{ChildSpec, Ended, Root, StartError, Strategy, Supervisor, SupervisorSpec};
use crate::tree::TreeNode;
use crate::worker::WorkerMsg;

/// The root's id.
const ROOT: &str = "root";
/// Crash reports that one answer shows.
const REPORTS_SHOWN: usize = 20;
/// Restarts of the root's children before the replica gives up and leaves the rest to its orchestrator.
const ROOT_RESTARTS: (u32, Duration) = (5, Duration::from_secs(60));
/// Opening the connection, streams and consumers included; a cluster that is electing leaders needs some seconds.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// An actor that does not tell its status in this time is left out.
const STATUS_WITHIN: Duration = Duration::from_millis(300);

/// Who a replica is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name.
    pub replica: ReplicaName,
    /// This life of it.
    pub incarnation: Incarnation,
    /// halm's version.
    pub version: String,
}

/// Everything that a replica needs from outside.
#[derive(Clone)]
pub struct ReplicaSpec {
    /// Who it is.
    pub identity: Identity,
    /// The broker to run, if none is configured.
    pub local_broker: Option<Arc<dyn BrokerProcess>>,
    /// The broker to connect to.
    pub broker: Arc<dyn Broker>,
    /// Where requests come from.
    pub requests: Arc<dyn Requests>,
    /// Where accepted jobs are put.
    pub intake: Arc<dyn JobIntake>,
    /// How replicas hear of each other.
    pub bus: Arc<dyn PeerBus>,
    /// What the dispatchers call.
    pub ports: DispatcherPorts,
    /// One per model.
    pub pools: Vec<PoolSpec>,
    /// For requests that name no deadline.
    pub deadline_default: Duration,
}

/// Where the actors of a replica are to be found.
#[derive(Clone)]
struct Addresses {
    ingress: Address<IngressMsg>,
    peers: Address<PeersMsg>,
    connection: Address<ConnectionMsg>,
    pools: Vec<PoolAddresses>,
}

impl Addresses {
    fn new(pools: &[PoolSpec]) -> Self {
        Self {
            ingress: Address::new(),
            peers: Address::new(),
            connection: Address::new(),
            pools: pools
                .iter()
                .map(|pool| PoolAddresses::new(format!("{ROOT}/pools/{}", pool.id()), pool.workers))
                .collect(),
        }
    }
}

/// A running replica.
pub struct Replica {
    identity: Identity,
    models: Vec<RunsModel>,
    root: Root,
    addresses: Addresses,
    known: watch::Receiver<Known>,
    clock: Clock,
    draining: watch::Sender<bool>,
}

impl Replica {
    /// Starts the tree and returns when every actor runs; models may still be loading.
    ///
    /// # Errors
    /// When a part cannot be started: the broker refuses, the local broker does not come up.
    pub async fn start(spec: ReplicaSpec) -> Result<Self, StartError> {
        let addresses = Addresses::new(&spec.pools);
        let clock = Clock::start();
        let (known_sender, known) = watch::channel(Known::default());
        let models: Vec<_> = spec.pools.iter().map(|pool| pool.model.clone()).collect();
        let tree = tree(&spec, &addresses, clock, &models, known_sender, &known);
        let root = Supervisor::start_root(ROOT, tree).await?;
        let draining = watch::channel(false).0;
        Ok(Self { identity: spec.identity, models, root, addresses, known, clock, draining })
    }

    /// Waits until the tree has ended by itself.
    pub async fn ended(&mut self) -> Ended {
        self.root.stopped().await
    }

    /// Takes no more work and waits until what it holds is settled; what is left after `grace` goes back to the queue.
    pub async fn drain(&self, grace: Duration) {
        self.draining.send_replace(true);
        let _ = self.addresses.peers.send(PeersMsg::Draining);
        let settled = async {
            ask(&self.addresses.ingress, IngressMsg::Drain).await;
            let pools =
                self.addresses.pools.iter().map(|pool| {
                    join(ask(&pool.dispatcher, DispatcherMsg::Drain), ask(&pool.consumer, ConsumerMsg::Drain))
                });
            join_all(pools).await;
        };
        if timeout(grace, settled).await.is_err() {
            tracing::warn!("grace is over: jobs are handed over");
            for pool in &self.addresses.pools {
                let _ = pool.dispatcher.send(DispatcherMsg::Happened(Event::HandOver));
                // Answered when the hand-over is done.
                let _ = timeout(STATUS_WITHIN, ask(&pool.dispatcher, DispatcherMsg::Status)).await;
            }
        }
    }

    /// Stops the tree, last child first.
    pub async fn shutdown(&self) {
        self.root.shutdown().await;
    }

    /// What `halm status` shows of this replica: all of it, or what is at and below a path, with its crash reports.
    pub async fn status(&self, question: &StatusQuestion) -> ReplicaStatus {
        let within = |path: &str| question.path.as_deref().is_none_or(|above| is_within(path, above));
        let mut tree = Vec::new();
        if let Ok(root) = self.root.tree().await {
            flatten(&root, &mut tree);
            tree.retain(|actor| within(&actor.path));
        }
        let (mut jobs, mut workers) = (Vec::new(), Vec::new());
        for pool in &self.addresses.pools {
            let (pool_jobs, pool_workers) = pool_status(pool).await;
            jobs.extend(pool_jobs);
            workers.extend(pool_workers.into_iter().filter(|worker| within(&worker.path)));
        }
        if question.path.is_some() {
            jobs.clear();
        }
        ReplicaStatus {
            replica: self.identity.replica.clone(),
            incarnation: self.identity.incarnation.clone(),
            version: self.identity.version.clone(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.clock.now().since(crate::Moment::default()).as_millis()).unwrap_or(u64::MAX),
            draining: *self.draining.borrow(),
            models: self.models.clone(),
            tree,
            workers,
            jobs,
            peers: self.known.borrow().replicas.keys().cloned().collect(),
            crashes: self.root.crash_counts(),
            crash_reports: self.crash_reports(question),
        }
    }

    fn crash_reports(&self, question: &StatusQuestion) -> Vec<CrashRecord> {
        let Some(above) = &question.path else { return Vec::new() };
        let reports = self.root.crash_reports();
        let mut shown: Vec<_> = reports.iter().filter(|report| is_within(report.path.as_str(), above)).collect();
        let forgotten = shown.len().saturating_sub(REPORTS_SHOWN);
        shown.drain(..forgotten).for_each(drop);
        shown.into_iter().map(CrashReport::record).collect()
    }
}

fn tree(
    spec: &ReplicaSpec,
    addresses: &Addresses,
    clock: Clock,
    models: &[RunsModel],
    known_sender: watch::Sender<Known>,
    known: &watch::Receiver<Known>,
) -> SupervisorSpec {
    let connection = ConnectionStart {
        broker: Arc::clone(&spec.broker),
        dispatchers: addresses.pools.iter().map(|pool| pool.dispatcher.clone()).collect(),
        peers: addresses.peers.clone(),
        ingress: addresses.ingress.clone(),
    };
    let peers = PeersStart {
        replica: spec.identity.replica.clone(),
        incarnation: spec.identity.incarnation.clone(),
        models: models.to_vec(),
        bus: Arc::clone(&spec.bus),
        queue: Arc::clone(&spec.ports.queue),
        clock,
        known: known_sender,
    };
    let ingress = IngressStart {
        replica: spec.identity.replica.clone(),
        incarnation: spec.identity.incarnation.clone(),
        models: models.to_vec(),
        known: known.clone(),
        requests: Arc::clone(&spec.requests),
        intake: Arc::clone(&spec.intake),
        outcomes: Arc::clone(&spec.ports.outcomes),
        log: Arc::clone(&spec.ports.log),
        dispatchers: addresses.pools.iter().map(|pool| pool.dispatcher.clone()).collect(),
        inboxes: Arc::clone(&spec.ports.inboxes),
        deadline_default: spec.deadline_default,
        clock,
    };
    let pools: Vec<_> = spec
        .pools
        .iter()
        .zip(&addresses.pools)
        .map(|(pool, places)| {
            (pool.id(), pool.supervisor(&spec.identity, &spec.ports, clock, places, &addresses.peers))
        })
        .collect();
    let root = SupervisorSpec::new(Strategy::RestForOne).intensity(ROOT_RESTARTS.0, ROOT_RESTARTS.1);
    let root = match &spec.local_broker {
        None => root,
        Some(process) => {
            let process = Arc::clone(process);
            root.child(ChildSpec::supervisor("broker", move || local_broker::supervisor(&process)))
        }
    };
    root.child(
        ChildSpec::actor("connection", addresses.connection.clone(), move |_| (Connection, connection.clone()))
            .start_timeout(CONNECT_WITHIN),
    )
    .child(ChildSpec::actor("peers", addresses.peers.clone(), move |_| (Peers, peers.clone())))
    .child(ChildSpec::supervisor("pools", move || {
        let spec = SupervisorSpec::new(Strategy::OneForOne);
        pools.iter().fold(spec, |spec, (id, pool)| {
            let pool = pool.clone();
            spec.child(ChildSpec::supervisor(id, move || pool.clone()))
        })
    }))
    .child(ChildSpec::actor("ingress", addresses.ingress.clone(), move |_| (Ingress, ingress.clone())))
}

async fn pool_status(pool: &PoolAddresses) -> (Vec<JobStatus>, Vec<WorkerStatus>) {
    let jobs = async {
        let asked = timeout(STATUS_WITHIN, ask(&pool.dispatcher, DispatcherMsg::Status)).await;
        let mut jobs = asked.ok().flatten().unwrap_or_default();
        jobs.iter_mut().for_each(|job| job.pool.clone_from(&pool.path));
        jobs
    };
    let workers = pool.workers.iter().map(|(worker, address)| async move {
        let asked = timeout(STATUS_WITHIN, ask(address, WorkerMsg::Status)).await;
        // Between two incarnations there is nobody to ask, and no process.
        asked.ok().flatten().unwrap_or_else(|| WorkerStatus {
            path: format!("{}/workers/{worker}", pool.path),
            worker: worker.0,
            pid: None,
            ready: false,
            jobs: Vec::new(),
        })
    });
    join(jobs, join_all(workers)).await
}

/// Asks an actor; `None` if nobody lives there or it died before it answered.
async fn ask<M: ractor::Message, T: Send + 'static>(
    address: &Address<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    address.send(message(reply.into())).ok()?;
    answer.await.ok()
}

/// Whether a path is this place or below it.
fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn flatten(node: &TreeNode, out: &mut Vec<ActorStatus>) {
    let state = serde_json::to_value(node.state).ok().and_then(|state| state.as_str().map(str::to_owned));
    out.push(ActorStatus {
        path: node.path.clone(),
        state: state.unwrap_or_default(),
        uptime_ms: node.uptime_ms.unwrap_or(0),
        restarts: node.restarts,
        mailbox: node.mailbox.and_then(|waiting| u64::try_from(waiting).ok()),
        last_exit: node.last_exit.clone(),
    });
    for child in &node.children {
        flatten(child, out);
    }
}
