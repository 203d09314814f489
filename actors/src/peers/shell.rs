//! Beats, listens, pings and naks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use halm_protocol::{Beat, Held, Incarnation, JobId, ModelToken, Pace, ReplicaName, RunsModel};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use super::core::{Core, Effect, Event, Settings};
use crate::mailbox::Mailbox;
use crate::moment::Clock;
use crate::ports::{AckSubject, JobQueue, PeerBus};
use crate::tasks::{Tasks, TooManyTasks};

/// Between two beats.
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at the peers: a fraction of the shortest silence that counts.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the rest of the replica may know about the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The living without this one, and which life of each it is.
    pub replicas: BTreeMap<ReplicaName, Incarnation>,
    /// What they run.
    pub models: Vec<RunsModel>,
    /// How fast jobs of each model are computed by all together, this replica included.
    pub paces: BTreeMap<ModelToken, Pace>,
}

/// What `peers` is started with.
#[derive(Clone)]
pub struct PeersStart {
    /// This replica.
    pub replica: ReplicaName,
    /// This life of it.
    pub incarnation: Incarnation,
    /// What it runs.
    pub models: Vec<RunsModel>,
    /// Beats and pings.
    pub bus: Arc<dyn PeerBus>,
    /// For naks.
    pub queue: Arc<dyn JobQueue>,
    /// The replica's clock.
    pub clock: Clock,
    /// Where what is known is shown.
    pub known: watch::Sender<Known>,
}

/// What `peers` is told.
pub enum PeersMsg {
    /// A fact for the core.
    Happened(Event),
    /// A dispatcher holds this delivery.
    Hold {
        /// Whose dispatcher: the model's name.
        pool: String,
        /// The job.
        job: JobId,
        /// The delivery.
        ack: AckSubject,
    },
    /// The dispatcher of this model is a new one, and holds nothing of what the one before held.
    Abandon(String),
    /// A dispatcher holds this job no more.
    Release(JobId),
    /// A dispatcher's jobs take this long.
    Pace {
        /// Whose dispatcher: the model's name.
        pool: String,
        /// How fast it is.
        pace: Pace,
    },
    /// This replica takes no more work.
    Draining,
    /// Beat.
    BeatDue,
    /// Look.
    LookDue,
    /// No more beats will be heard: a fault.
    Deaf(String),
}

/// The actor.
pub struct Peers;

/// Its state.
pub struct PeersState {
    core: Core,
    start: PeersStart,
    tasks: Tasks,
    held: BTreeMap<JobId, (String, AckSubject)>,
    paces: BTreeMap<ModelToken, Pace>,
    draining: bool,
}

impl Actor for Peers {
    type Msg = PeersMsg;
    type State = PeersState;
    type Arguments = PeersStart;

    async fn pre_start(&self, myself: ActorRef<PeersMsg>, start: PeersStart) -> Result<PeersState, ActorProcessingErr> {
        let settings = Settings::default_for(start.replica.clone(), start.incarnation.clone());
        let mut tasks = Tasks::new(myself.get_cell());
        tasks.send_every(BEAT_EVERY, &myself, || PeersMsg::BeatDue)?;
        tasks.send_every(LOOK_EVERY, &myself, || PeersMsg::LookDue)?;
        let myself = Mailbox::of(&myself);
        let to = myself.clone();
        let listening = start.bus.listen(Box::new(move |beat| {
            let _ = to.send(PeersMsg::Happened(Event::Beat(beat)));
        }));
        tasks.spawn(async move {
            let _ = myself.send(PeersMsg::Deaf(listening.await));
        })?;
        Ok(PeersState {
            core: Core::new(settings),
            start,
            tasks,
            held: BTreeMap::new(),
            paces: BTreeMap::new(),
            draining: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<PeersMsg>,
        message: PeersMsg,
        state: &mut PeersState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PeersMsg::Happened(event) => state.decide(event, &myself)?,
            PeersMsg::LookDue => state.decide(Event::Tick, &myself)?,
            PeersMsg::BeatDue => state.beat()?,
            PeersMsg::Hold { pool, job, ack } => {
                state.held.insert(job, (pool, ack));
                state.beat()?;
            }
            PeersMsg::Abandon(pool) => {
                let (abandoned, held) = std::mem::take(&mut state.held).into_iter().partition(|(_, of)| of.0 == pool);
                state.held = held;
                let abandoned: BTreeMap<JobId, (String, AckSubject)> = abandoned;
                for (_, ack) in abandoned.into_values() {
                    state.tasks.spawn(state.start.queue.nak(&ack))?;
                }
            }
            PeersMsg::Release(job) => {
                if state.held.remove(&job).is_some() {
                    state.beat()?;
                }
            }
            PeersMsg::Pace { pool, pace } => {
                // With the next beat is soon enough.
                if let Some(model) = state.start.models.iter().find(|model| model.name == pool) {
                    state.paces.insert(model.token.clone(), pace);
                }
            }
            PeersMsg::Deaf(why) => return Err(why.into()),
            PeersMsg::Draining => {
                state.draining = true;
                state.beat()?;
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<PeersMsg>,
        _event: ractor::SupervisionEvent,
        _state: &mut PeersState,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children.
        Ok(())
    }
}

impl PeersState {
    fn beat(&mut self) -> Result<(), TooManyTasks> {
        let held =
            |(job, (_, ack)): (&JobId, &(String, AckSubject))| Held { job: job.clone(), ack: ack.as_str().to_owned() };
        let beat = Beat {
            replica: self.start.replica.clone(),
            incarnation: self.start.incarnation.clone(),
            models: self.start.models.clone(),
            held: self.held.iter().map(held).collect(),
            draining: self.draining,
            deaf: self.core.is_deaf(self.start.clock.now()),
            paces: self.paces.clone(),
        };
        self.tasks.spawn(self.start.bus.beat(&beat))
    }

    fn decide(&mut self, event: Event, myself: &ActorRef<PeersMsg>) -> Result<(), TooManyTasks> {
        for effect in self.core.handle(event, self.start.clock.now()) {
            match effect {
                Effect::Ping { replica, incarnation } => {
                    let (call, myself) = (self.start.bus.is_connected(&replica), Mailbox::of(myself));
                    self.tasks.spawn(async move {
                        let connected = call.await;
                        let event = Event::Pinged { replica, incarnation, connected };
                        let _ = myself.send(PeersMsg::Happened(event));
                    })?;
                }
                Effect::Nak { job, ack } => {
                    tracing::info!(job = %job, "job of a lost peer given back to the queue");
                    self.tasks.spawn(self.start.queue.nak(&ack))?;
                }
                Effect::Namesake(incarnation) => {
                    tracing::error!(%incarnation, "another replica has this one's name; give each its own with --name");
                }
                Effect::Joined(replica) => tracing::info!(peer = %replica, "peer joined"),
                Effect::Left { replica, why, held } => tracing::warn!(peer = %replica, why, held, "peer lost"),
            }
        }
        let known = Known {
            replicas: self.core.replicas().map(|(replica, life)| (replica.clone(), life.clone())).collect(),
            models: self.core.models().cloned().collect(),
            paces: self.core.paces(),
        };
        self.start.known.send_if_modified(|shown| {
            let changed = *shown != known;
            if changed {
                *shown = known;
            }
            changed
        });
        Ok(())
    }
}
