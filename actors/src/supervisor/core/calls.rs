//! Changes of the table on somebody's word: start, terminate, restart and delete a child.
//!
//! Owns which change is refused and why, as OTP's `supervisor` module documents. It must never wait: a change that has
//! to wait stands in the queue.

use super::super::child::{Child, State};
use super::super::names::ChildId;
use super::super::policy::{CHILDREN_MAX, Policy, SpecError, Strategy};
use super::super::protocol::{Answer, CallError, CallId, Change, ChildKey, Effect};
use super::operation::{Operation, Then};
use super::{CALLS_WAITING_MAX, Core, Pending, Phase};

impl Core {
    pub(super) fn called(&mut self, call: CallId, change: Change) {
        let refusal = if matches!(self.phase, Phase::Ending | Phase::Ended) {
            CallError::ShuttingDown
        } else if self.calls_waiting == CALLS_WAITING_MAX {
            CallError::Busy
        } else {
            self.calls_waiting += 1;
            self.queue.push_back(Pending::Call(call, change));
            return;
        };
        self.refuse(call, &change, refusal);
    }

    /// Refuses a change that never came to be acted on.
    pub(super) fn refuse(&mut self, call: CallId, change: &Change, refusal: CallError) {
        if let Change::Start { key, .. } = change {
            self.effects.push(Effect::Forget { key: *key });
        }
        self.reply(call, Err(refusal));
    }

    pub(super) fn act_on_call(&mut self, call: CallId, change: Change) {
        let outcome = match change {
            Change::Start { key, policy } => self.add(call, key, policy),
            Change::Terminate(id) => self.terminate_child(call, &id),
            Change::Restart(id) => self.restart_child(call, &id),
            Change::Delete(id) => self.delete_child(call, &id),
        };
        if let Err(refusal) = outcome {
            self.reply(call, Err(refusal));
        }
    }

    fn add(&mut self, call: CallId, key: ChildKey, policy: Policy) -> Result<(), CallError> {
        if let Err(refusal) = self.check_new(&policy) {
            self.effects.push(Effect::Forget { key });
            return Err(refusal);
        }
        self.table.push(Child::new(key, policy));
        self.operation = Some(Operation::new(Then::AnswerStart { call }).starting([key]));
        Ok(())
    }

    fn check_new(&self, policy: &Policy) -> Result<(), CallError> {
        policy.check(self.settings.auto_shutdown)?;
        if self.table.len() == CHILDREN_MAX {
            return Err(SpecError::TooManyChildren(CHILDREN_MAX + 1).into());
        }
        match self.table.index_of_id(&policy.id).map(|at| self.table[at].state()) {
            None => Ok(()),
            Some(State::Stopped | State::BackingOff { .. }) => Err(CallError::AlreadyPresent(policy.id.clone())),
            Some(
                State::Starting { .. }
                | State::Cancelling { .. }
                | State::Running { .. }
                | State::Exited { .. }
                | State::Stopping { .. },
            ) => Err(CallError::AlreadyStarted(policy.id.clone())),
        }
    }

    fn terminate_child(&mut self, call: CallId, id: &ChildId) -> Result<(), CallError> {
        let at = self.table.index_of_id(id).ok_or_else(|| CallError::NotFound(id.clone()))?;
        let key = self.table[at].key;
        self.operation = Some(Operation::new(Then::AnswerTerminate { call }).stopping([key]));
        Ok(())
    }

    fn restart_child(&mut self, call: CallId, id: &ChildId) -> Result<(), CallError> {
        let at = self.stopped_child(id)?;
        let key = self.table[at].key;
        self.operation = Some(Operation::new(Then::AnswerRestart { call }).starting([key]));
        Ok(())
    }

    fn delete_child(&mut self, call: CallId, id: &ChildId) -> Result<(), CallError> {
        let at = self.stopped_child(id)?;
        self.forget(at);
        self.reply(call, Ok(Answer::Deleted));
        Ok(())
    }

    fn stopped_child(&self, id: &ChildId) -> Result<usize, CallError> {
        if self.settings.strategy == Strategy::Dynamic {
            return Err(CallError::Dynamic);
        }
        let at = self.table.index_of_id(id).ok_or_else(|| CallError::NotFound(id.clone()))?;
        match *self.table[at].state() {
            State::Stopped => Ok(at),
            State::BackingOff { .. } => Err(CallError::Restarting(id.clone())),
            State::Starting { .. }
            | State::Cancelling { .. }
            | State::Running { .. }
            | State::Exited { .. }
            | State::Stopping { .. } => Err(CallError::Running(id.clone())),
        }
    }
}
