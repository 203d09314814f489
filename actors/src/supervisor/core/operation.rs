//! The one operation under way: children to stop, then children to start, then something to conclude.
//!
//! Owns the order of starts and stops. It must never decide who is restarted; `outcome` and `calls` make operations.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::child::{Cancelled, State};
use super::super::exit::ExitReason;
use super::super::policy::{Restart, Shutdown, Strategy};
use super::super::protocol::{Action, Answer, CallId, ChildKey, Effect, Ending, RunId};
use super::{Core, KILL_WAIT_MAX, Pending, Phase};

#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// Children still to be stopped, the next one first.
    pub(super) stops: VecDeque<ChildKey>,
    /// Stop all of them at once rather than one after the other.
    pub(super) together: bool,
    /// Children still to be started, the next one first.
    pub(super) starts: VecDeque<ChildKey>,
    /// Children that must settle before the next step; those that have settled may still be among them.
    pub(super) waiting: Vec<ChildKey>,
    pub(super) then: Then,
}

#[derive(Clone, Debug)]
pub(super) enum Then {
    /// The first children run.
    Boot,
    /// The group of this child is down; restart it after a delay. `again`: it was a restart that failed.
    BackOff { key: ChildKey, delay: Duration, again: bool },
    /// A group was restarted.
    Restarted,
    /// A child was added.
    AnswerStart { call: CallId },
    /// A child was stopped.
    AnswerTerminate { call: CallId },
    /// A stopped child was started again.
    AnswerRestart { call: CallId },
    /// All children are down.
    End(Ending),
}

impl Operation {
    pub(super) fn new(then: Then) -> Self {
        Self { stops: VecDeque::new(), together: false, starts: VecDeque::new(), waiting: Vec::new(), then }
    }

    pub(super) fn stopping(mut self, stops: impl IntoIterator<Item = ChildKey>) -> Self {
        self.stops.extend(stops);
        self
    }

    pub(super) fn starting(mut self, starts: impl IntoIterator<Item = ChildKey>) -> Self {
        self.starts.extend(starts);
        self
    }
}

impl Core {
    /// Takes the operation as far as it goes; true when it ended.
    pub(super) fn advance(&mut self) -> bool {
        while let Some(operation) = &mut self.operation {
            // One look at each child, not at all that wait at each end: thousands are stopped together.
            while operation.waiting.last().is_some_and(|key| !self.table.is_in_transition(*key)) {
                operation.waiting.pop();
            }
            if !operation.waiting.is_empty() {
                return false;
            }
            if operation.together {
                operation.waiting.extend(operation.stops.drain(..));
                operation.together = false;
                for key in operation.waiting.clone() {
                    self.begin_stop(key);
                }
            } else if let Some(key) = operation.stops.pop_front() {
                operation.waiting.push(key);
                self.begin_stop(key);
            } else if let Some(key) = operation.starts.pop_front() {
                operation.waiting.push(key);
                self.begin_start(key);
            } else if let Some(done) = self.operation.take() {
                self.conclude(done.then);
                return true;
            }
        }
        true
    }

    fn conclude(&mut self, then: Then) {
        match then {
            Then::Boot => {
                self.phase = Phase::Running;
                self.effects.push(Effect::Booted);
            }
            Then::BackOff { key, delay, again } => self.back_off(key, delay, again),
            Then::Restarted => {}
            Then::AnswerStart { call } | Then::AnswerRestart { call } => {
                self.reply(call, Ok(Answer::Started));
            }
            Then::AnswerTerminate { call } => self.reply(call, Ok(Answer::Terminated)),
            Then::End(ending) => {
                self.phase = Phase::Ended;
                self.queue.clear();
                self.effects.push(Effect::Terminate { ending });
            }
        }
    }

    fn back_off(&mut self, key: ChildKey, delay: Duration, again: bool) {
        let Some(at) = self.table.index_of(key) else { return };
        if !delay.is_zero() {
            let timer = Some(self.set_timer(key, delay));
            self.table.enter(at, State::BackingOff { timer });
        } else if again {
            // As in OTP, a restart that failed is tried again only after what already waits.
            self.queue.push_back(Pending::Retry(key));
        } else {
            self.retry(key);
        }
    }

    fn begin_start(&mut self, key: ChildKey) {
        let Some(at) = self.table.index_of(key) else { return };
        match *self.table[at].state() {
            State::Stopped | State::BackingOff { .. } => {}
            State::Starting { .. }
            | State::Cancelling { .. }
            | State::Running { .. }
            | State::Exited { .. }
            | State::Stopping { .. } => return,
        }
        self.forget_what_waits(key);
        self.cancel_timer(at);
        self.table[at].incarnation += 1;
        let run = RunId { child: key, incarnation: self.table[at].incarnation };
        self.effects.push(Effect::Start { run });
        let timer = self.table[at].policy.start_timeout.map(|after| self.set_timer(key, after));
        self.table.enter(at, State::Starting { run, timer });
    }

    fn begin_stop(&mut self, key: ChildKey) {
        let Some(at) = self.table.index_of(key) else { return };
        match self.table[at].state().clone() {
            State::Stopped => {}
            State::Starting { .. } => self.cancel_start(at, Cancelled::Unwanted),
            State::Cancelling { run, timer, .. } => {
                self.table.enter(at, State::Cancelling { run, timer, why: Cancelled::Unwanted });
            }
            State::Stopping { run, since, killed, timer, late } => {
                let late = late.map(|_| Cancelled::Unwanted);
                self.table.enter(at, State::Stopping { run, since, killed, timer, late });
            }
            State::Running { run, since } => {
                let (killed, wait) = match self.table[at].policy.shutdown {
                    Shutdown::Brutal => (true, Some(KILL_WAIT_MAX)),
                    Shutdown::Timeout(limit) => (false, Some(limit)),
                    Shutdown::Infinity => (false, None),
                };
                self.effects.push(if killed { Effect::Kill { run } } else { Effect::Stop { run } });
                let timer = wait.map(|after| self.set_timer(key, after));
                self.table.enter(at, State::Stopping { run, since, killed, timer, late: None });
            }
            State::Exited { reason, uptime } => {
                self.forget_what_waits(key);
                self.stop_done(at, reason, uptime);
            }
            State::BackingOff { .. } => {
                self.forget_what_waits(key);
                self.cancel_timer(at);
                self.drop_or_keep(at);
            }
        }
    }

    /// What waits about a child's last incarnation must not be taken for news of the next: OTP, too, takes the exit of a
    /// child that it stops out of its mailbox.
    fn forget_what_waits(&mut self, key: ChildKey) {
        self.queue.retain(|pending| match pending {
            Pending::Exit(other) | Pending::Retry(other) => *other != key,
            Pending::Call(..) => true,
        });
    }

    pub(super) fn cancel_start(&mut self, at: usize, why: Cancelled) {
        let State::Starting { run, .. } = *self.table[at].state() else { return };
        self.cancel_timer(at);
        self.effects.push(Effect::CancelStart { run });
        let timer = self.set_timer(run.child, KILL_WAIT_MAX);
        self.table.enter(at, State::Cancelling { run, why, timer });
    }

    /// A child that was being stopped has ended.
    pub(super) fn stop_done(&mut self, at: usize, reason: ExitReason, uptime: Duration) {
        if self.table[at].ended_badly_while_stopping(&reason) {
            self.report(at, reason.clone(), Some(uptime), Action::WasStopping);
        }
        self.settle_stopped(at, reason);
    }

    pub(super) fn settle_stopped(&mut self, at: usize, reason: ExitReason) {
        self.table[at].last_exit = Some(reason);
        self.drop_or_keep(at);
    }

    /// The child is down: its entry stays if its specification is worth keeping.
    pub(super) fn drop_or_keep(&mut self, at: usize) {
        self.table.enter(at, State::Stopped);
        let temporary = self.table[at].policy.restart == Restart::Temporary;
        if temporary || self.settings.strategy == Strategy::Dynamic {
            self.forget(at);
        }
    }
}
