//! One entry of a supervisor's table: a policy, what the child is doing, and what it has been through.
//!
//! Owns the states of a child. It must never decide: the core moves it from state to state.

mod table;

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::exit::ExitReason;
use super::policy::{Policy, Restart, Shutdown};
use super::protocol::{ChildKey, ChildView, RunId, TimerId};
pub(super) use table::Table;

/// Restarts of which the reason is kept, for each child: enough to see a pattern, few enough to print.
pub const LAST_RESTARTS_MAX: usize = 8;

/// Why a child was restarted, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRestart {
    /// Since its supervisor was started.
    pub at: Duration,
    /// Why it had ended, or why the restart before failed.
    pub reason: ExitReason,
}

/// What a child is doing, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildStanding {
    /// Being started.
    Starting,
    /// Running.
    Running,
    /// Waiting to be restarted.
    BackingOff,
    /// Being stopped, or its start being given up.
    Stopping,
    /// Not running.
    Stopped,
}

/// Why a start is being given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// It took too long.
    TimedOut,
    /// Nobody wants it any more.
    Unwanted,
}

/// The states of a child.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Does not run, and nothing will make it but a call or a restart of its group.
    Stopped,
    /// `Start` was ordered.
    Starting { run: RunId, timer: Option<TimerId> },
    /// `CancelStart` was ordered; the start has still to report.
    Cancelling { run: RunId, why: Cancelled, timer: TimerId },
    /// Runs.
    Running { run: RunId, since: Duration },
    /// Has ended by itself, which is still to be acted on.
    Exited { reason: ExitReason, uptime: Duration },
    /// `Stop` or `Kill` was ordered. `why` is set when it is the late child of a start that had timed out.
    Stopping { run: RunId, since: Duration, killed: bool, timer: Option<TimerId>, late: Option<Cancelled> },
    /// Will be restarted when the timer fires; without a timer, when its turn comes.
    BackingOff { timer: Option<TimerId> },
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) key: ChildKey,
    pub(super) policy: Policy,
    /// The table changes it, and counts.
    state: State,
    pub(super) incarnation: u64,
    pub(super) restarts: u64,
    /// Consecutive ends and failed restarts without a quiet time between.
    pub(super) failures: u32,
    pub(super) last_exit: Option<ExitReason>,
    /// Invariant: no longer than `LAST_RESTARTS_MAX`.
    last_restarts: VecDeque<LastRestart>,
}

impl Child {
    pub(super) fn new(key: ChildKey, policy: Policy) -> Self {
        Self {
            key,
            policy,
            state: State::Stopped,
            incarnation: 0,
            restarts: 0,
            failures: 0,
            last_exit: None,
            last_restarts: VecDeque::new(),
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The incarnation that is alive, or may be.
    pub(super) fn run(&self) -> Option<RunId> {
        match &self.state {
            State::Starting { run, .. }
            | State::Cancelling { run, .. }
            | State::Running { run, .. }
            | State::Stopping { run, .. } => Some(*run),
            State::Stopped | State::Exited { .. } | State::BackingOff { .. } => None,
        }
    }

    pub(super) fn timer(&self) -> Option<TimerId> {
        match &self.state {
            State::Starting { timer, .. } | State::Stopping { timer, .. } | State::BackingOff { timer } => *timer,
            State::Cancelling { timer, .. } => Some(*timer),
            State::Stopped | State::Running { .. } | State::Exited { .. } => None,
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    pub(super) fn is_backing_off(&self) -> bool {
        matches!(self.state, State::BackingOff { .. })
    }

    /// Whether an operation on it has still to end.
    pub(super) fn is_in_transition(&self) -> bool {
        match self.state {
            State::Starting { .. } | State::Cancelling { .. } | State::Stopping { .. } => true,
            State::Stopped | State::Running { .. } | State::Exited { .. } | State::BackingOff { .. } => false,
        }
    }

    /// Notes one more restart and why.
    pub(super) fn note_restart(&mut self, reason: ExitReason, now: Duration) {
        if self.last_restarts.len() == LAST_RESTARTS_MAX {
            self.last_restarts.pop_front();
        }
        self.last_restarts.push_back(LastRestart { at: now, reason });
        self.restarts += 1;
    }

    /// Whether an end with this reason, while it was being stopped, is worth a report (OTP's `shutdown_error`).
    pub(super) fn ended_badly_while_stopping(&self, reason: &ExitReason) -> bool {
        let (permanent, brutal) = (self.policy.restart == Restart::Permanent, self.policy.shutdown == Shutdown::Brutal);
        match reason {
            // Nobody asked a child that was to be killed at once: it ended by itself just before.
            ExitReason::Shutdown { detail: None } => permanent && brutal,
            ExitReason::Shutdown { .. } | ExitReason::Escalated(_) | ExitReason::Normal => permanent,
            ExitReason::Killed => !brutal,
            ExitReason::Panicked { .. }
            | ExitReason::Failed { .. }
            | ExitReason::Cancelled
            | ExitReason::Stopped { .. }
            | ExitReason::StartTimedOut { .. }
            | ExitReason::ChildStartFailed { .. }
            | ExitReason::InvalidSpec { .. }
            | ExitReason::Process(_)
            | ExitReason::Unkillable => true,
            ExitReason::Attributed { reason, .. } => self.ended_badly_while_stopping(reason),
        }
    }

    pub(super) fn standing(&self) -> ChildStanding {
        match &self.state {
            State::Stopped => ChildStanding::Stopped,
            State::Starting { .. } => ChildStanding::Starting,
            State::Running { .. } => ChildStanding::Running,
            State::BackingOff { .. } | State::Exited { .. } => ChildStanding::BackingOff,
            State::Cancelling { .. } | State::Stopping { .. } => ChildStanding::Stopping,
        }
    }

    pub(super) fn view(&self, now: Duration) -> ChildView {
        let uptime = match &self.state {
            State::Running { since, .. } | State::Stopping { since, .. } => Some(now.saturating_sub(*since)),
            State::Stopped
            | State::Starting { .. }
            | State::Cancelling { .. }
            | State::Exited { .. }
            | State::BackingOff { .. } => None,
        };
        ChildView {
            key: self.key,
            id: self.policy.id.clone(),
            kind: self.policy.kind,
            standing: self.standing(),
            run: self.run(),
            uptime,
            restarts: self.restarts,
            last_exit: self.last_exit.clone(),
            last_restarts: self.last_restarts.iter().cloned().collect(),
        }
    }
}
