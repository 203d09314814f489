//! A request that another took: whether it was taken at all, what came of it, and what to do when who took it is lost.

use std::collections::{BTreeMap, BTreeSet};

use halm_protocol::{Incarnation, JobId, Notice, Outcome, ReplicaName, Verdict};

use super::{
    Asked, Core, Effect, Entry, SAME_WITHIN, Stage, TURN, UNHEARD_AFTER, UNKNOWN_FOR, WITNESS_FOR, WITNESSED_MAX,
};
use crate::moment::Moment;

impl Core {
    pub(super) fn witness(&mut self, asked: Asked, now: Moment) {
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
            // It came after what was said of it.
            Some(notice) => {
                let (notice, unheard) = (notice.clone(), Stage::Unheard { act_at: now });
                return self.said(Entry { asked, stage: unheard, late: true }, &notice, now);
            }
        };
        self.entries.insert(asked.id.clone(), Entry { asked, stage, late: true });
    }

    pub(super) fn noticed(&mut self, notice: Notice, now: Moment) {
        if notice.replica == self.replica {
            return;
        }
        if let Some(entry) = self.entries.remove(&notice.job) {
            if entry.stage.is_ours() {
                self.entries.insert(notice.job.clone(), entry);
            } else {
                self.said(entry, &notice, now);
            }
        }
        self.remember(notice);
    }

    /// Another says what it does with a request that we witness.
    fn said(&mut self, entry: Entry, notice: &Notice, now: Moment) {
        let heard_first = matches!(entry.stage, Stage::Unheard { .. });
        match &notice.verdict {
            Verdict::Pending | Verdict::Admitted if heard_first => self.stands(&entry.asked, false),
            Verdict::Pending | Verdict::Admitted | Verdict::Answered | Verdict::Refused { .. } => {}
        }
        if notice.verdict == Verdict::Admitted {
            self.accepted(&entry.asked);
        }
        if let Some(stage) = self.said_of(notice, now) {
            self.entries.insert(entry.asked.id.clone(), Entry { stage, ..entry });
        }
    }

    /// What a witness makes of a notice; `None` if there is nothing left to witness.
    fn said_of(&self, notice: &Notice, now: Moment) -> Option<Stage> {
        let by = notice.incarnation.clone();
        match &notice.verdict {
            Verdict::Pending => {
                // Whoever was lost before its first beat is not seen to be lost.
                let known = self.living.values().any(|life| *life == by);
                let until = now + if known { WITNESS_FOR } else { UNKNOWN_FOR };
                Some(Stage::Taken { by, until })
            }
            Verdict::Refused { refusal } => Some(Stage::Refused { by, refusal: refusal.clone(), since: now }),
            Verdict::Admitted | Verdict::Answered => None,
        }
    }

    pub(super) fn remember(&mut self, notice: Notice) {
        if self.notices.len() >= WITNESSED_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back((self.handled_at, notice));
    }

    pub(super) fn peers(&mut self, living: BTreeMap<ReplicaName, Incarnation>, now: Moment, out: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.living, living);
        let lives: BTreeSet<&Incarnation> = self.living.values().collect();
        let lived: BTreeSet<&Incarnation> = before.values().collect();
        let lost = |by: &Incarnation| lived.contains(by) && !lives.contains(by);
        let orphaned = |entry: &Entry| match &entry.stage {
            Stage::Taken { by, .. } | Stage::Refused { by, .. } => lost(by),
            Stage::Unheard { .. } | Stage::Looking { .. } | Stage::Storing { .. } | Stage::Waiting { .. } => false,
        };
        for entry in self.entries.values_mut() {
            if let Stage::Taken { by, until } = &mut entry.stage
                && lives.contains(by)
                && !lived.contains(by)
            {
                *until = now + WITNESS_FOR;
            }
        }
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
    pub(super) fn rank(&self, job: &JobId) -> u32 {
        let mine = place(job, &self.replica);
        u32::try_from(self.living.keys().filter(|peer| place(job, peer) < mine).count()).unwrap_or(u32::MAX)
    }

    /// Notices were missed, so nothing that another took can be judged.
    pub(super) fn forget_others(&mut self) {
        self.entries.retain(|_, entry| entry.stage.is_ours());
        self.notices.clear();
    }
}

/// FNV-1a over job and replica: any order does, as long as it is the same everywhere and another for each job.
fn place(job: &JobId, replica: &ReplicaName) -> (u64, ReplicaName) {
    let bytes = job.as_str().bytes().chain(replica.as_str().bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash, replica.clone())
}
