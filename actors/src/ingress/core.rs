//! A request from being heard to being stored or refused: `(Event, now) -> Effects`.
//!
//! Every replica hears every request. The one that the broker picked *takes* it: it says so, stores it, and says what
//! came of it. The others *witness*: one of them takes the request if nobody says that they did, or if whoever did is
//! lost before it said what came of it. They act in turns, and a refusal is never overruled: a request that one replica
//! had no room for is not stored by another.

mod taking;
mod witnessing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use halm_protocol::subject::Inbox;
use halm_protocol::{Incarnation, JobId, ModelToken, Notice, Outcome, Pace, Refusal, ReplicaName, Verdict};

use super::backlog::Backlog;
use super::memory::Memory;
use crate::moment::Moment;
use crate::ports::{Admitted, IntakeFault, JobSpec, LogTarget, QueueLength, ReadFault};

/// Requests being stored at once: past it, the broker is the bottleneck and waiting in memory helps nobody.
const ADMITTING_MAX: usize = 1024;
/// Requests of others that are witnessed at once; more are left to those who took them.
const WITNESSED_MAX: usize = 4096;
/// Clients that follow jobs which others asked for first; each is a read of a log every tenth of a second.
const FOLLOWING_MAX: usize = 256;
/// How long a request waits for a broker that cannot store it, before it is answered `unavailable`.
const STORE_FOR: Duration = Duration::from_secs(10);
/// Between two tries to store.
const STORE_EVERY: Duration = Duration::from_millis(100);
/// When to ask again where nothing tells how long it will take.
const RETRY_AFTER_MS: u64 = 1000;
/// A request that nobody has said to have taken for this long was taken by somebody who is dead. A busy machine must
/// not look like that, for a second replica that stores may overrule the first one's refusal.
const UNHEARD_AFTER: Duration = Duration::from_millis(150);
/// What each witness waits for the one before it to act.
const TURN: Duration = Duration::from_millis(100);
/// Whoever took a request, and is no peer that we know, has beaten by then: a beat comes every tenth of a second.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// Whoever took a request has said what came of it by then, or is lost.
const WITNESS_FOR: Duration = Duration::from_secs(15);
/// A notice may come a little before the request that it is of. One that is older is of an earlier request for the same
/// job.
const SAME_WITHIN: Duration = Duration::from_millis(100);
/// Who was refused may not have been told yet, if whoever refused is lost within this.
const TELL_WITHIN: Duration = Duration::from_secs(3);
/// Longer between two events while something waits than this, and it was we who were away.
const LOOKED_AWAY: Duration = Duration::from_millis(500);

/// A call to the store. Its result counts only while its request still waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op(pub u64);

/// A request, as every replica that hears it reads it alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The job that it is, or would be.
    pub id: JobId,
    /// Where the answer goes.
    pub inbox: Inbox,
    /// It has an idempotency key, so that it may have been asked before.
    pub keyed: bool,
    /// The first token of the answer that its client does not have.
    pub from: u32,
    /// How long its client waits for the whole answer.
    pub within: Duration,
    /// The job, or why it can be none.
    pub job: Result<Box<JobSpec>, Refusal>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The broker picked this replica for a request.
    Taken(Asked),
    /// A request was heard, whoever was picked.
    Witnessed(Asked),
    /// A replica says what it does with a request.
    Noticed(Notice),
    /// The living peers, and which life of each it is.
    Peers(BTreeMap<ReplicaName, Incarnation>),
    /// How fast jobs of each model are computed, by all replicas together.
    Paces(BTreeMap<ModelToken, Pace>),
    /// A model's queue was counted.
    Counted(ModelToken, Result<QueueLength, ReadFault>),
    /// The connection was lost and is back: notices were missed.
    ConnectionRestored,
    /// A job was settled.
    Settled(JobId),
    /// The broker has forgotten its queue, or some of it.
    QueueLost,
    /// An outcome was looked for.
    Looked(Op, Result<Option<Outcome>, ReadFault>),
    /// A job was to be stored.
    Stored(Op, Result<Admitted, IntakeFault>),
    /// A client that followed a job was told the end, or its time is over.
    Followed(Op),
    /// Witness no more: this replica is about to leave.
    Drain,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Say to the other replicas what we do with a request.
    Tell(Notice),
    /// Count what stands in a model's queue.
    Count(ModelToken),
    /// Look for the outcome of a job.
    Look(Op, JobId),
    /// Store a job.
    Store(Op, Box<JobSpec>),
    /// Show a job that runs to one more client.
    Follow(Op, Box<Following>),
    /// Answer a request.
    Answer(Inbox, Outcome),
}

/// A job that runs, and who follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Following {
    /// The job's log.
    pub target: LogTarget,
    /// Where to show it.
    pub to: Inbox,
    /// The first token to show.
    pub from: u32,
    /// How long.
    pub within: Duration,
}

/// Where a request stands.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// Another one's; taken by us at this time, if nobody has said anything by then.
    Unheard { act_at: Moment },
    /// Another one's, who took it.
    Taken { by: Incarnation, until: Moment },
    /// Another one's, who refused it and may have been lost before telling the client.
    Refused { by: Incarnation, refusal: Refusal, since: Moment },
    /// Ours: its outcome is looked for. A duplicate is of a job that is answered there, if it is still known.
    Looking { duplicate: Option<Option<Inbox>>, until: Moment },
    /// Ours: it is being stored.
    Storing { until: Moment },
    /// Ours: it is stored again soon.
    Waiting { again_at: Moment, until: Moment },
}

impl Stage {
    fn is_ours(&self) -> bool {
        match self {
            Self::Looking { .. } | Self::Storing { .. } | Self::Waiting { .. } => true,
            Self::Unheard { .. } | Self::Taken { .. } | Self::Refused { .. } => false,
        }
    }

    /// When [`Event::Tick`] is due for it.
    fn due(&self) -> Option<Moment> {
        match self {
            Self::Unheard { act_at } => Some(*act_at),
            Self::Taken { until, .. } => Some(*until),
            Self::Refused { since, .. } => Some(*since + TELL_WITHIN),
            Self::Waiting { again_at, .. } => Some(*again_at),
            Self::Looking { .. } | Self::Storing { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    asked: Asked,
    stage: Stage,
    /// Another had it before.
    late: bool,
}

/// The requests that were heard and are neither stored nor refused.
#[derive(Debug)]
pub struct Core {
    replica: ReplicaName,
    incarnation: Incarnation,
    entries: BTreeMap<JobId, Entry>,
    ops: BTreeMap<Op, JobId>,
    ours: usize,
    following: BTreeSet<Op>,
    /// What others said lately, oldest first.
    notices: VecDeque<(Moment, Notice)>,
    /// Without us.
    living: BTreeMap<ReplicaName, Incarnation>,
    memory: Memory,
    /// Jobs that are stored again, out of `memory`.
    restoring: BTreeMap<Op, JobId>,
    /// By model. Invariant: only of models that somebody has a pace for.
    backlogs: BTreeMap<ModelToken, Backlog>,
    last_number: u64,
    handled_at: Moment,
    draining: bool,
}

impl Core {
    /// Of this replica, with nothing heard.
    #[must_use]
    pub fn new(replica: ReplicaName, incarnation: Incarnation) -> Self {
        Self {
            replica,
            incarnation,
            entries: BTreeMap::new(),
            ops: BTreeMap::new(),
            ours: 0,
            following: BTreeSet::new(),
            notices: VecDeque::new(),
            living: BTreeMap::new(),
            memory: Memory::default(),
            restoring: BTreeMap::new(),
            backlogs: BTreeMap::new(),
            last_number: 0,
            handled_at: Moment::default(),
            draining: false,
        }
    }

    /// Whether nothing that we took waits, and nobody follows.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ours == 0 && self.following.is_empty()
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_tick(&self) -> Option<Moment> {
        self.entries.values().filter_map(|entry| entry.stage.due()).chain(self.memory.next_due()).min()
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut out = Vec::new();
        self.look_around(now);
        match event {
            Event::Taken(asked) => self.take(asked, false, now, &mut out),
            Event::Witnessed(asked) => self.witness(asked, now),
            Event::Noticed(notice) => self.noticed(notice, now),
            Event::Peers(living) => self.peers(living, now, &mut out),
            Event::Paces(paces) => self.paces(paces),
            Event::Counted(model, length) => {
                if let Some(backlog) = self.backlogs.get_mut(&model) {
                    backlog.counted(length.ok(), now);
                }
            }
            Event::ConnectionRestored => self.forget_others(),
            Event::Settled(id) => self.memory.forget(&id),
            Event::QueueLost => {
                self.memory.queue_lost(now);
                self.restore(now, &mut out);
            }
            Event::Looked(op, outcome) => self.looked(op, outcome, now, &mut out),
            Event::Stored(op, result) => self.stored(op, result, now, &mut out),
            Event::Followed(op) => drop(self.following.remove(&op)),
            Event::Drain => {
                self.draining = true;
                self.forget_others();
            }
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// Whoever was away has not heard what was said meanwhile: it waits there to be read.
    fn look_around(&mut self, now: Moment) {
        let away = now - self.handled_at > LOOKED_AWAY;
        self.handled_at = now;
        for entry in self.entries.values_mut().filter(|_| away) {
            if let Stage::Unheard { act_at } = &mut entry.stage {
                *act_at = (*act_at).max(now + UNHEARD_AFTER);
            }
        }
        while self.notices.front().is_some_and(|(at, _)| now - *at > SAME_WITHIN) {
            self.notices.pop_front();
        }
    }

    fn paces(&mut self, paces: BTreeMap<ModelToken, Pace>) {
        self.backlogs.retain(|model, _| paces.contains_key(model));
        for (model, pace) in paces {
            self.backlogs.entry(model).or_default().set_pace(Some(pace));
        }
    }

    /// Stores again what the broker forgot.
    fn restore(&mut self, now: Moment, out: &mut Vec<Effect>) {
        for spec in self.memory.due(now) {
            self.last_number += 1;
            self.restoring.insert(Op(self.last_number), spec.id.clone());
            out.push(Effect::Store(Op(self.last_number), Box::new(spec)));
        }
    }

    fn op(&mut self, id: &JobId) -> Op {
        self.last_number += 1;
        self.ops.insert(Op(self.last_number), id.clone());
        Op(self.last_number)
    }

    fn tell(&mut self, job: &JobId, verdict: Verdict, out: &mut Vec<Effect>) {
        let (replica, incarnation) = (self.replica.clone(), self.incarnation.clone());
        let notice = Notice { job: job.clone(), replica, incarnation, verdict };
        // We hear it as a witness too, perhaps after this.
        self.remember(notice.clone());
        out.push(Effect::Tell(notice));
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.restore(now, out);
        let due = |entry: &Entry| entry.stage.due().is_some_and(|due| now >= due);
        let due: Vec<JobId> = self.entries.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(entry) = self.entries.get(&id) else { continue };
            let asked = entry.asked.clone();
            match entry.stage {
                Stage::Unheard { .. } => self.take(asked, true, now, out),
                // It lives, and has said nothing for so long: what it had is lost with its ingress.
                Stage::Taken { .. } => {
                    let act_at = now + TURN * self.rank(&id);
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.stage = Stage::Unheard { act_at };
                    }
                }
                Stage::Refused { .. } => drop(self.entries.remove(&id)),
                Stage::Waiting { until, .. } => {
                    let stage = match asked.job {
                        Ok(_) if asked.keyed => self.look(&id, None, until, out),
                        Ok(job) => self.store(&id, job, until, out),
                        Err(_) => continue,
                    };
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.stage = stage;
                    }
                }
                Stage::Looking { .. } | Stage::Storing { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
