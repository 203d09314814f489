//! What follows from a child's end: restart, back-off, escalation, auto-shutdown; and the supervisor's own beginning
//! and end.
//!
//! Owns the rules of OTP's `do_restart`, `restart` and `do_auto_shutdown`. It must never order a start or a stop itself;
//! it makes operations.

use std::ops::Range;
use std::time::Duration;

use super::super::child::{Cancelled, Child, State};
use super::super::exit::ExitReason;
use super::super::policy::{AutoShutdown, Restart, Strategy};
use super::super::protocol::{Action, CallError, ChildKey, Ending};
use super::operation::{Operation, Then};
use super::{Core, Pending, Phase};

impl Core {
    pub(super) fn boot(&mut self) {
        if self.phase == Phase::Booting && self.operation.is_none() {
            let starts: Vec<ChildKey> = self.table.iter().map(|child| child.key).collect();
            self.operation = Some(Operation::new(Then::Boot).starting(starts));
        }
    }

    /// Stops all children, last first (a dynamic supervisor's all at once), and then ends.
    pub(super) fn end(&mut self, ending: Ending) {
        if matches!(self.phase, Phase::Ending | Phase::Ended) {
            return;
        }
        self.phase = Phase::Ending;
        if let Some(operation) = self.operation.take() {
            match operation.then {
                Then::AnswerStart { call, .. } | Then::AnswerTerminate { call } | Then::AnswerRestart { call } => {
                    self.reply(call, Err(CallError::ShuttingDown));
                }
                Then::Boot | Then::BackOff { .. } | Then::Restarted | Then::End(_) => {}
            }
        }
        for pending in std::mem::take(&mut self.queue) {
            match pending {
                Pending::Call(call, change) => self.refuse(call, &change, CallError::ShuttingDown),
                Pending::Exit(_) | Pending::Retry(_) => {}
            }
        }
        self.calls_waiting = 0;
        let stops: Vec<ChildKey> = self.table.iter().rev().map(|child| child.key).collect();
        let mut operation = Operation::new(Then::End(ending)).stopping(stops);
        operation.together = self.settings.strategy == Strategy::Dynamic;
        self.operation = Some(operation);
    }

    /// A child ended by itself and its turn has come. If its group was stopped meanwhile, that took care of it.
    pub(super) fn act_on_exit(&mut self, key: ChildKey, now: Duration) {
        let Some(at) = self.table.index_of(key) else { return };
        let State::Exited { reason, uptime } = self.table[at].state().clone() else { return };
        let restart = match self.table[at].policy.restart {
            Restart::Permanent => true,
            Restart::Transient => reason.is_abnormal(),
            Restart::Temporary => false,
        };
        if restart {
            self.restart_or_escalate(at, reason, Some(uptime), now);
            return;
        }
        if reason.is_abnormal() {
            self.report(at, reason.clone(), Some(uptime), Action::Forget);
        }
        let (id, significant) = (self.table[at].policy.id.clone(), self.table[at].policy.significant);
        self.drop_or_keep(at);
        let shut_down = significant
            && match self.settings.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => !self.is_significant_left(),
            };
        if shut_down {
            self.end(Ending::AutoShutdown { child: id, reason });
        }
    }

    /// A start failed. What that means depends on who wanted it.
    pub(super) fn start_failed(&mut self, at: usize, reason: ExitReason, now: Duration) {
        let key = self.table[at].key;
        let id = self.table[at].policy.id.clone();
        self.table[at].last_exit = Some(reason.clone());
        self.table.enter(at, State::Stopped);
        if self.phase == Phase::Ending {
            self.drop_or_keep(at);
            return;
        }
        let Some(operation) = self.operation.take_if(|operation| operation.waiting.contains(&key)) else { return };
        match operation.then {
            Then::Boot => {
                self.report(at, reason.clone(), None, Action::AbortStart);
                self.end(Ending::StartFailed { child: id, reason });
            }
            Then::AnswerStart { call } => {
                self.report(at, reason.clone(), None, Action::Refuse);
                self.forget(at);
                self.reply(call, Err(CallError::StartFailed { child: id, reason }));
            }
            Then::AnswerRestart { call } => {
                self.report(at, reason.clone(), None, Action::Refuse);
                self.reply(call, Err(CallError::StartFailed { child: id, reason }));
            }
            Then::Restarted => self.restart_or_escalate(at, reason, None, now),
            // These start nothing, so nothing of theirs can fail to start.
            Then::BackOff { .. } | Then::AnswerTerminate { .. } | Then::End(_) => {}
        }
    }

    /// A start that was given up is gone.
    pub(super) fn start_cancelled(&mut self, at: usize, why: Cancelled, now: Duration) {
        match why {
            Cancelled::TimedOut => {
                let after = self.table[at].policy.start_timeout.unwrap_or(Duration::ZERO);
                self.start_failed(at, ExitReason::StartTimedOut { after }, now);
            }
            Cancelled::Unwanted => self.drop_or_keep(at),
        }
    }

    /// A child's back-off is over: restart its group, unless it was stopped meanwhile, or waits anew.
    pub(super) fn retry(&mut self, key: ChildKey) {
        let Some(at) = self.table.index_of(key) else { return };
        if !matches!(self.table[at].state(), State::BackingOff { timer: None }) {
            return;
        }
        let starts = self.group(at).map(|member| self.table[member].key);
        let operation = Operation::new(Then::Restarted).stopping(self.others_to_stop(at)).starting(starts);
        self.operation = Some(operation);
    }

    /// Counts a restart and prepares it, or gives up. `uptime` is `None` for a restart that failed.
    fn restart_or_escalate(&mut self, at: usize, reason: ExitReason, uptime: Option<Duration>, now: Duration) {
        let again = uptime.is_none();
        let own = !matches!(reason, ExitReason::Attributed { .. });
        if own && !self.window.admit(now) {
            self.report(at, reason.clone(), uptime, Action::Escalate);
            let child = self.table[at].policy.id.clone();
            self.drop_or_keep(at);
            self.end(Ending::Intensity { child, reason });
            return;
        }
        let backoff = self.settings.backoff;
        let child = &mut self.table[at];
        if uptime.is_some_and(|uptime| uptime >= backoff.reset_after) {
            child.failures = 0;
        }
        child.failures = child.failures.saturating_add(u32::from(own));
        let delay = backoff.delay(child.failures, self.seed, self.restarts_total);
        self.restarts_total += 1;
        self.report(at, reason.clone(), uptime, Action::Restart { after: delay });
        let child = &mut self.table[at];
        child.note_restart(reason, now);
        let key = child.key;
        self.table.enter(at, State::BackingOff { timer: None });
        let operation = Operation::new(Then::BackOff { key, delay, again }).stopping(self.others_to_stop(at));
        self.operation = Some(operation);
    }

    /// Whether a significant child runs, or will again: one that is down only because its group waits for its restart
    /// has not ended by itself.
    fn is_significant_left(&self) -> bool {
        let waiting = self.table.iter().position(Child::is_backing_off);
        // The first that waits has the largest group.
        let due = waiting.map_or(0..0, |at| self.group(at));
        (0..)
            .zip(self.table.iter())
            .any(|(at, child)| child.policy.significant && (!child.is_stopped() || due.contains(&at)))
    }

    /// The places of the children that are restarted with this one, itself included, in start order.
    fn group(&self, at: usize) -> Range<usize> {
        match self.settings.strategy {
            Strategy::OneForOne | Strategy::Dynamic => at..at + 1,
            Strategy::OneForAll => 0..self.table.len(),
            Strategy::RestForOne => at..self.table.len(),
        }
    }

    /// Last first.
    fn others_to_stop(&self, at: usize) -> impl Iterator<Item = ChildKey> {
        let up = move |member: &usize| *member != at && !self.table[*member].is_stopped();
        self.group(at).rev().filter(up).map(|member| self.table[member].key)
    }
}
