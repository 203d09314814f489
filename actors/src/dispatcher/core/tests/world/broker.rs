//! The broker of the world: it compares and appends as the server does, late writes included, and may forget its tail.

use super::super::desk::told;
use super::super::history::{Fact, Verdict};
use super::{Side, World};
use crate::dispatcher::{Effect, Event, OpResult};
use crate::ports::{FenceRecord, LogRecord, ReadFault, Record, Sequence, WriteFault};

impl World {
    /// A write that everybody has given up on is performed after all.
    pub(in super::super) fn haunt(&mut self, ghost: usize) -> Verdict {
        if self.ghosts.is_empty() {
            return Ok(());
        }
        let ghost = self.ghosts.remove(ghost % self.ghosts.len());
        self.say(|| format!("late: {ghost:?}"));
        if let Effect::Purge(target) = &ghost {
            let side = self.side(&target.job);
            let of = &mut self.sides[side];
            if of.fences.is_empty() {
                of.records.clear();
            } else {
                of.fences.clear();
                self.ghosts.push(ghost);
            }
            return Ok(());
        }
        self.perform(&ghost).map(drop)
    }

    pub(super) fn perform(&mut self, call: &Effect) -> Result<OpResult, (&'static str, String)> {
        let next = Sequence(self.sequence + 1);
        Ok(match call {
            Effect::ReadFence { job, .. } => OpResult::FenceRead(Ok(self.sides[self.side(job)].fences.last().cloned())),
            Effect::WriteFence { job, expected, claim, .. } => {
                let side = self.side(job);
                let fences = &mut self.sides[side].fences;
                OpResult::FenceWritten(if fences.last().map(|last| last.fence.sequence) == *expected {
                    self.sequence += 1;
                    fences.push(FenceRecord { fence: told(next), claim: claim.clone() });
                    Ok(told(next))
                } else {
                    Err(WriteFault::Superseded)
                })
            }
            Effect::ReadOutcome { job, .. } => OpResult::OutcomeRead(Ok(self.sides[self.side(job)].outcome.clone())),
            Effect::ReadLog { target, .. } => OpResult::LogRead(Ok(self.sides[self.side(&target.job)].records.clone())),
            Effect::Append { target, fence, record, .. } => {
                let side = self.side(&target.job);
                let last = self.sides[side].fences.last().map(|last| last.fence.sequence);
                OpResult::Appended(if fence.sequence.0 < self.connected_from {
                    Err(WriteFault::Unknown("the connection is another".to_owned()))
                } else if last == Some(fence.sequence) {
                    self.land(side, record)?;
                    Ok(())
                } else {
                    Err(WriteFault::Superseded)
                })
            }
            Effect::Bury { .. } => OpResult::Buried(Ok(())),
            Effect::StoreOutcome { job, outcome, .. } => {
                let side = self.side(job);
                OpResult::OutcomeStored(if self.sides[side].outcome.is_some() {
                    Err(WriteFault::Superseded)
                } else {
                    self.history.observe(job, Fact::Stored(outcome.clone()))?;
                    self.sides[side].outcome = Some(outcome.clone());
                    Ok(())
                })
            }
            other => unreachable!("{other:?} is no call"),
        })
    }

    fn land(&mut self, side: usize, record: &Record) -> Verdict {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        self.history.observe(&self.sides[side].id, Fact::Landed(record.clone()))?;
        self.sides[side].records.push(LogRecord { sequence, record: record.clone() });
        Ok(())
    }

    /// The broker is killed and forgets its newest records, whosever they are; everybody connects again.
    pub(in super::super) fn forget(&mut self, newest: u64) -> Verdict {
        let sequences = |side: &Side| {
            let fences = side.fences.iter().map(|record| record.fence.sequence.0);
            fences.chain(side.records.iter().map(|record| record.sequence.0)).collect::<Vec<_>>()
        };
        let mut all: Vec<u64> = self.sides.iter().flat_map(sequences).collect();
        all.sort_unstable_by_key(|sequence| std::cmp::Reverse(*sequence));
        all.truncate(usize::try_from(newest).expect("a small number"));
        self.say(|| format!("the broker forgets {} records", all.len()));
        for side in &mut self.sides {
            side.fences.retain(|record| !all.contains(&record.fence.sequence.0));
            let before = side.records.len();
            side.records.retain(|record| !all.contains(&record.sequence.0));
            self.history.observe(&side.id, Fact::Lost(before - side.records.len()))?;
        }
        self.connected_from = self.sequence + 1;
        for replica in &mut self.replicas {
            replica.mailbox.push_back(Event::ConnectionRestored);
        }
        Ok(())
    }
}

/// A call's answer when there is none.
pub(super) fn fault(call: &Effect, fault: WriteFault) -> OpResult {
    let read = || ReadFault("no answer".to_owned());
    match call {
        Effect::ReadFence { .. } => OpResult::FenceRead(Err(read())),
        Effect::ReadOutcome { .. } => OpResult::OutcomeRead(Err(read())),
        Effect::ReadLog { .. } => OpResult::LogRead(Err(read())),
        Effect::WriteFence { .. } => OpResult::FenceWritten(Err(fault)),
        Effect::Append { .. } => OpResult::Appended(Err(fault)),
        Effect::Bury { .. } => OpResult::Buried(Err(fault)),
        Effect::StoreOutcome { .. } => OpResult::OutcomeStored(Err(fault)),
        other => unreachable!("{other:?} is no call"),
    }
}
