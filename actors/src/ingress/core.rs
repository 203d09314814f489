//! A request from being heard to being stored or refused: `(Event, now) -> Effects`.
//!
//! Every replica hears every request. The one that the broker picked *takes* it: it says so, stores it, and says what
//! came of it. The others *witness*: one of them takes the request if nobody says that they did, or if whoever did is
//! lost before it said what came of it. They act in turns, and a refusal is never overruled: a request that one replica
//! had no room for is not stored by another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use halm_protocol::subject::Inbox;
use halm_protocol::{ErrorCode, Incarnation, JobId, Notice, Outcome, Refusal, ReplicaName, Verdict};

use crate::moment::Moment;
use crate::ports::{Admitted, IntakeFault, JobSpec, ReadFault};

/// Requests being stored at once: past it, the broker is the bottleneck and waiting in memory helps nobody.
const ADMITTING_MAX: usize = 1024;
/// Requests of others that are witnessed at once; more are left to those who took them.
const WITNESSED_MAX: usize = 4096;
/// How long a request waits for a broker that cannot store it, before it is answered `unavailable`.
const STORE_FOR: Duration = Duration::from_secs(10);
/// Between two tries to store.
const STORE_EVERY: Duration = Duration::from_millis(100);
/// When to ask again after a full queue. The measured rate will replace it.
const RETRY_AFTER_MS: u64 = 1000;
/// A request that nobody has said to have taken for this long was taken by somebody who is dead. A busy machine must
/// not look like that, for a second replica that stores may overrule the first one's refusal.
const UNHEARD_AFTER: Duration = Duration::from_millis(150);
/// What each witness waits for the one before it to act.
const TURN: Duration = Duration::from_millis(100);
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
    /// The connection was lost and is back: notices were missed.
    ConnectionRestored,
    /// An outcome was looked for.
    Looked(Op, Result<Option<Outcome>, ReadFault>),
    /// A job was to be stored.
    Stored(Op, Result<Admitted, IntakeFault>),
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
    /// Look for the outcome of a job.
    Look(Op, JobId),
    /// Store a job.
    Store(Op, Box<JobSpec>),
    /// Answer a request.
    Answer(Inbox, Outcome),
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
    /// Ours: its outcome is looked for.
    Looking { duplicate: bool, until: Moment },
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
}

/// The requests that were heard and are neither stored nor refused.
#[derive(Debug)]
pub struct Core {
    replica: ReplicaName,
    incarnation: Incarnation,
    entries: BTreeMap<JobId, Entry>,
    ops: BTreeMap<Op, JobId>,
    ours: usize,
    /// What others said lately, oldest first.
    notices: VecDeque<(Moment, Notice)>,
    /// Without us.
    living: BTreeMap<ReplicaName, Incarnation>,
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
            notices: VecDeque::new(),
            living: BTreeMap::new(),
            last_number: 0,
            handled_at: Moment::default(),
            draining: false,
        }
    }

    /// Whether nothing that we took waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ours == 0
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_tick(&self) -> Option<Moment> {
        self.entries.values().filter_map(|entry| entry.stage.due()).min()
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut out = Vec::new();
        self.look_around(now);
        match event {
            Event::Taken(asked) => self.take(asked, now, &mut out),
            Event::Witnessed(asked) => self.witness(asked, now),
            Event::Noticed(notice) => self.noticed(notice, now),
            Event::Peers(living) => self.peers(living, now, &mut out),
            Event::ConnectionRestored => self.forget_others(),
            Event::Looked(op, outcome) => self.looked(op, outcome, &mut out),
            Event::Stored(op, result) => self.stored(op, result, now, &mut out),
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

    fn take(&mut self, asked: Asked, now: Moment, out: &mut Vec<Effect>) {
        if let Some(entry) = self.entries.get(&asked.id).filter(|entry| entry.stage.is_ours()) {
            // Asked again while we are at it; perhaps by another, to whom nothing of this will come.
            if entry.asked.inbox != asked.inbox {
                self.refuse(&asked, running(), out);
            }
            return;
        }
        self.entries.remove(&asked.id);
        let job = match &asked.job {
            Ok(job) => job.clone(),
            Err(refusal) => return self.refuse(&asked, refusal.clone(), out),
        };
        if self.ours >= ADMITTING_MAX {
            let message = "too many requests are being admitted at once";
            let refusal = Refusal::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_AFTER_MS);
            return self.refuse(&asked, refusal, out);
        }
        self.tell(&asked.id, Verdict::Pending, out);
        let until = now + STORE_FOR;
        let stage =
            if asked.keyed { self.look(&asked.id, false, until, out) } else { self.store(&asked.id, job, until, out) };
        self.ours += 1;
        self.entries.insert(asked.id.clone(), Entry { asked, stage });
    }

    fn look(&mut self, id: &JobId, duplicate: bool, until: Moment, out: &mut Vec<Effect>) -> Stage {
        let op = self.op(id);
        out.push(Effect::Look(op, id.clone()));
        Stage::Looking { duplicate, until }
    }

    fn store(&mut self, id: &JobId, job: Box<JobSpec>, until: Moment, out: &mut Vec<Effect>) -> Stage {
        let op = self.op(id);
        out.push(Effect::Store(op, job));
        Stage::Storing { until }
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

    /// The verdict first: should we be lost in between, a witness tells the client the same.
    fn refuse(&mut self, asked: &Asked, refusal: Refusal, out: &mut Vec<Effect>) {
        let refusal = refusal.for_job(asked.id.clone());
        self.tell(&asked.id, Verdict::Refused { refusal: refusal.clone() }, out);
        out.push(Effect::Answer(asked.inbox.clone(), Outcome::Refusal(refusal)));
    }

    fn witness(&mut self, asked: Asked, now: Moment) {
        if self.draining || self.entries.len() >= WITNESSED_MAX {
            return;
        }
        match self.entries.get(&asked.id).map(|entry| &entry.stage) {
            // It was refused before, and is asked for again.
            Some(Stage::Refused { since, .. }) if now - *since > SAME_WITHIN => {}
            Some(_) => return,
            None => {}
        }
        let said = self.notices.iter().rev().find(|(_, notice)| notice.job == asked.id);
        let stage = match said.map(|(_, notice)| notice) {
            None => Stage::Unheard { act_at: now + UNHEARD_AFTER + TURN * self.rank(&asked.id) },
            // Ours: what came of it is said, or it would be among the entries.
            Some(notice) if notice.replica == self.replica => return,
            Some(notice) => match said_of(notice, now) {
                Some(stage) => stage,
                None => return,
            },
        };
        self.entries.insert(asked.id.clone(), Entry { asked, stage });
    }

    fn noticed(&mut self, notice: Notice, now: Moment) {
        if notice.replica == self.replica {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&notice.job)
            && !entry.stage.is_ours()
        {
            match said_of(&notice, now) {
                Some(stage) => entry.stage = stage,
                None => drop(self.entries.remove(&notice.job)),
            }
        }
        self.remember(notice);
    }

    fn remember(&mut self, notice: Notice) {
        if self.notices.len() >= WITNESSED_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back((self.handled_at, notice));
    }

    fn peers(&mut self, living: BTreeMap<ReplicaName, Incarnation>, now: Moment, out: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.living, living);
        let lives: BTreeSet<&Incarnation> = self.living.values().collect();
        let lived: BTreeSet<&Incarnation> = before.values().collect();
        let lost = |by: &Incarnation| lived.contains(by) && !lives.contains(by);
        let orphaned = |entry: &Entry| match &entry.stage {
            Stage::Taken { by, .. } | Stage::Refused { by, .. } => lost(by),
            Stage::Unheard { .. } | Stage::Looking { .. } | Stage::Storing { .. } | Stage::Waiting { .. } => false,
        };
        let orphans: Vec<JobId> =
            self.entries.iter().filter(|(_, entry)| orphaned(entry)).map(|(id, _)| id.clone()).collect();
        for id in orphans {
            let rank = self.rank(&id);
            let Some(mut entry) = self.entries.remove(&id) else { continue };
            match &entry.stage {
                Stage::Refused { refusal, .. } if rank == 0 => {
                    out.push(Effect::Answer(entry.asked.inbox, Outcome::Refusal(refusal.clone())));
                }
                Stage::Taken { .. } => {
                    entry.stage = Stage::Unheard { act_at: now + TURN * rank };
                    self.entries.insert(id, entry);
                }
                Stage::Refused { .. }
                | Stage::Unheard { .. }
                | Stage::Looking { .. }
                | Stage::Storing { .. }
                | Stage::Waiting { .. } => {}
            }
        }
        self.tick(now, out);
    }

    /// Our place among those who may act for a lost one: everyone who lives computes the same order without asking.
    fn rank(&self, job: &JobId) -> u32 {
        let mine = place(job, &self.replica);
        u32::try_from(self.living.keys().filter(|peer| place(job, peer) < mine).count()).unwrap_or(u32::MAX)
    }

    /// Notices were missed, so nothing that another took can be judged.
    fn forget_others(&mut self) {
        self.entries.retain(|_, entry| entry.stage.is_ours());
        self.notices.clear();
    }

    fn end(&mut self, id: &JobId) -> Option<Asked> {
        let entry = self.entries.remove(id)?;
        self.ours -= usize::from(entry.stage.is_ours());
        Some(entry.asked)
    }

    fn looked(&mut self, op: Op, outcome: Result<Option<Outcome>, ReadFault>, out: &mut Vec<Effect>) {
        let Some(id) = self.ops.remove(&op) else { return };
        let Some(&Stage::Looking { duplicate, until }) = self.entries.get(&id).map(|entry| &entry.stage) else {
            return;
        };
        if let Ok(Some(outcome)) = outcome {
            let Some(asked) = self.end(&id) else { return };
            self.tell(&id, Verdict::Answered, out);
            out.push(Effect::Answer(asked.inbox, outcome));
            return;
        }
        let Some(asked) = self.entries.get(&id).map(|entry| entry.asked.clone()) else { return };
        match (duplicate, asked.job.clone()) {
            (true, _) if asked.keyed => {
                self.end(&id);
                self.refuse(&asked, running(), out);
            }
            (true, _) => {
                self.end(&id);
                self.tell(&id, Verdict::Admitted, out);
            }
            (false, Ok(job)) => {
                let stage = self.store(&id, job, until, out);
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.stage = stage;
                }
            }
            (false, Err(_)) => {}
        }
    }

    fn stored(&mut self, op: Op, result: Result<Admitted, IntakeFault>, now: Moment, out: &mut Vec<Effect>) {
        let Some(id) = self.ops.remove(&op) else { return };
        let Some(&Stage::Storing { until }) = self.entries.get(&id).map(|entry| &entry.stage) else { return };
        let refusal = match result {
            Ok(Admitted::Stored) => {
                self.end(&id);
                return self.tell(&id, Verdict::Admitted, out);
            }
            // It is this very request, stored by another or by a try whose answer was lost.
            Ok(Admitted::Duplicate(Some(inbox))) if self.entries.get(&id).is_some_and(|of| of.asked.inbox == inbox) => {
                self.end(&id);
                return self.tell(&id, Verdict::Admitted, out);
            }
            // The same again, while the first runs or after it ended.
            Ok(Admitted::Duplicate(_)) => {
                let stage = self.look(&id, true, until, out);
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.stage = stage;
                }
                return;
            }
            Err(IntakeFault::Unavailable(_)) if now < until => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.stage = Stage::Waiting { again_at: now + STORE_EVERY, until };
                }
                return;
            }
            Err(IntakeFault::Refused(refusal)) => refusal,
            Err(IntakeFault::Full) => {
                let message = "the queue of this model is full";
                Refusal::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_AFTER_MS)
            }
            Err(IntakeFault::Unavailable(_)) => {
                let message = "the request could not be stored; ask again later";
                Refusal::new(ErrorCode::Unavailable, message).retry_after_ms(RETRY_AFTER_MS)
            }
        };
        if let Some(asked) = self.end(&id) {
            self.refuse(&asked, refusal, out);
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let due = |entry: &Entry| entry.stage.due().is_some_and(|due| now >= due);
        let due: Vec<JobId> = self.entries.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(entry) = self.entries.get(&id) else { continue };
            let asked = entry.asked.clone();
            match entry.stage {
                Stage::Unheard { .. } => self.take(asked, now, out),
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
                        Ok(_) if asked.keyed => self.look(&id, false, until, out),
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

fn running() -> Refusal {
    let message = "a request with this key is running already; ask again for its answer";
    Refusal::new(ErrorCode::Unavailable, message).retry_after_ms(RETRY_AFTER_MS)
}

/// What a witness makes of a notice; `None` if there is nothing left to witness.
fn said_of(notice: &Notice, now: Moment) -> Option<Stage> {
    let by = notice.incarnation.clone();
    match &notice.verdict {
        Verdict::Pending => Some(Stage::Taken { by, until: now + WITNESS_FOR }),
        Verdict::Refused { refusal } => Some(Stage::Refused { by, refusal: refusal.clone(), since: now }),
        Verdict::Admitted | Verdict::Answered => None,
    }
}

/// FNV-1a over job and replica: any order does, as long as it is the same everywhere and another for each job.
fn place(job: &JobId, replica: &ReplicaName) -> (u64, ReplicaName) {
    let bytes = job.as_str().bytes().chain(replica.as_str().bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash, replica.clone())
}

#[cfg(test)]
mod tests;
