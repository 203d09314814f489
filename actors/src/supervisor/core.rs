//! The supervisor's decisions, pure: `(Event, now) -> Effects`.
//!
//! Owns the table of children and the one operation under way. It must never await, read a clock, draw a number or log;
//! the [`super::Supervisor`] actor calls it, and so do tests by the million.
//!
//! OTP's supervisor blocks while it starts or stops a child, and so has one operation at a time, everything else waiting
//! in its mailbox. This core has one operation at a time too, but does not block: what happens meanwhile waits in its
//! queue, in order, while questions are answered. One thing is quicker than in OTP: a request to stop does not wait for
//! the operation to end, it takes over.

mod calls;
mod operation;
mod outcome;

use std::collections::VecDeque;
use std::time::Duration;

use super::child::{Cancelled, Child, ChildStanding, State, Table};
use super::exit::ExitReason;
use super::intensity::Window;
use super::policy::{ChildKind, Policy, Settings, Strategy};
use super::protocol::{
    Action, CallError, CallId, Change, ChildCount, ChildKey, ChildView, Effect, Ending, Event, Report, RunId, TimerId,
};
use operation::Operation;

/// How long a killed child, or a cancelled start, may take to be gone. ractor's `kill` acts at the next await, which is
/// microseconds away in an actor that behaves; one that computes for longer must not hold up everybody else's restart.
pub const KILL_WAIT_MAX: Duration = Duration::from_secs(5);

/// Calls that may wait for the operation under way: more means that somebody calls in a loop.
pub const CALLS_WAITING_MAX: usize = 1024;

/// A supervisor's state and rules.
#[derive(Clone, Debug)]
pub struct Core {
    settings: Settings,
    template: Option<Policy>,
    table: Table,
    window: Window,
    seed: u64,
    phase: Phase,
    operation: Option<Operation>,
    queue: VecDeque<Pending>,
    calls_waiting: usize,
    effects: Vec<Effect>,
    restarts_total: u64,
    timers_total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first children are being started, or that has not begun.
    Booting,
    /// Anything but the other three.
    Running,
    /// Children are being stopped for good.
    Ending,
    /// Nothing is left.
    Ended,
}

/// What waits for the operation under way.
#[derive(Clone, Debug)]
enum Pending {
    /// A child ended by itself.
    Exit(ChildKey),
    /// A child's back-off is over.
    Retry(ChildKey),
    /// A call.
    Call(CallId, Change),
}

impl Core {
    /// A supervisor before [`Event::Boot`]. The specification must have passed [`Settings::check`]; for
    /// [`Strategy::Dynamic`] the one child is the template and is not started. Keys ascend, those of children that are
    /// added later too. `seed` is for the back-off's jitter.
    pub fn new(settings: Settings, children: impl IntoIterator<Item = (ChildKey, Policy)>, seed: u64) -> Self {
        let mut template = None;
        let mut table = Table::default();
        if settings.strategy == Strategy::Dynamic {
            template = children.into_iter().next().map(|(_, policy)| policy);
        } else {
            table = children.into_iter().map(|(key, policy)| Child::new(key, policy)).collect();
        }
        Self {
            settings,
            template,
            table,
            window: Window::new(settings.intensity),
            seed,
            phase: Phase::Booting,
            operation: None,
            queue: VecDeque::new(),
            calls_waiting: 0,
            effects: Vec::new(),
            restarts_total: 0,
            timers_total: 0,
        }
    }

    /// Takes one event, `now` counted from the supervisor's own beginning and never decreasing; the effects are to be
    /// performed in order.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        match event {
            Event::Boot => self.boot(),
            Event::ChildStarted { run } => self.child_started(run, now),
            Event::ChildStartFailed { run, reason } => self.child_start_failed(run, reason, now),
            Event::ChildExited { run, reason } => self.child_exited(run, reason, now),
            Event::TimerFired { timer } => self.timer_fired(timer, now),
            Event::Called { call, change } => self.called(call, change),
            Event::StopRequested => self.end(Ending::Stopped),
        }
        self.pump(now);
        self.window.set_paused(self.table.is_backing_off(), now);
        std::mem::take(&mut self.effects)
    }

    /// Takes back what [`Self::handle`] returned, once it is performed: its room is used for the next event's effects.
    pub fn reuse(&mut self, mut performed: Vec<Effect>) {
        performed.clear();
        self.effects = performed;
    }

    /// The children in start order: OTP's `which_children`.
    pub fn children(&self, now: Duration) -> Vec<ChildView> {
        self.table.iter().map(|child| child.view(now)).collect()
    }

    /// OTP's `count_children`.
    pub fn count(&self) -> ChildCount {
        let kind_count = |kind| self.table.iter().filter(|child| child.policy.kind == kind).count();
        ChildCount {
            specs: if self.template.is_some() { 1 } else { self.table.len() },
            active: self.table.iter().filter(|child| child.standing() == ChildStanding::Running).count(),
            supervisors: kind_count(ChildKind::Supervisor),
            workers: kind_count(ChildKind::Worker),
        }
    }

    /// The template of a dynamic supervisor.
    pub fn template(&self) -> Option<&Policy> {
        self.template.as_ref()
    }

    /// Whether [`Effect::Terminate`] was given.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether the supervisor is ending or has ended.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Ended)
    }

    fn child_started(&mut self, run: RunId, now: Duration) {
        let Some(at) = self.table.index_of_run(run) else {
            // A start that was given up succeeded after all.
            self.effects.push(Effect::Kill { run });
            return;
        };
        match *self.table[at].state() {
            State::Starting { .. } => {
                self.cancel_timer(at);
                self.table.enter(at, State::Running { run, since: now });
            }
            State::Cancelling { why, timer, .. } => {
                self.effects.push(Effect::Kill { run });
                let late = Some(why);
                self.table.enter(at, State::Stopping { run, since: now, killed: true, timer: Some(timer), late });
            }
            State::Running { .. }
            | State::Stopping { .. }
            | State::Stopped
            | State::Exited { .. }
            | State::BackingOff { .. } => {}
        }
    }

    fn child_start_failed(&mut self, run: RunId, reason: ExitReason, now: Duration) {
        let Some(at) = self.table.index_of_run(run) else { return };
        match *self.table[at].state() {
            State::Starting { .. } => {
                self.cancel_timer(at);
                self.start_failed(at, reason, now);
            }
            State::Cancelling { why, .. } => {
                self.cancel_timer(at);
                self.start_cancelled(at, why, now);
            }
            State::Running { .. } | State::Stopping { .. } => self.child_exited(run, reason, now),
            State::Stopped | State::Exited { .. } | State::BackingOff { .. } => {}
        }
    }

    fn child_exited(&mut self, run: RunId, reason: ExitReason, now: Duration) {
        let Some(at) = self.table.index_of_run(run) else { return };
        match *self.table[at].state() {
            State::Running { since, .. } => {
                self.table[at].last_exit = Some(reason.clone());
                self.table.enter(at, State::Exited { reason, uptime: now.saturating_sub(since) });
                self.queue.push_back(Pending::Exit(self.table[at].key));
            }
            State::Stopping { since, late, .. } => {
                self.cancel_timer(at);
                match late {
                    Some(why) => self.start_cancelled(at, why, now),
                    None => self.stop_done(at, reason, now.saturating_sub(since)),
                }
            }
            State::Starting { .. } | State::Cancelling { .. } => self.child_start_failed(run, reason, now),
            State::Stopped | State::Exited { .. } | State::BackingOff { .. } => {}
        }
    }

    fn timer_fired(&mut self, timer: TimerId, now: Duration) {
        let Some(at) = self.table.index_of_timer(timer) else { return };
        match *self.table[at].state() {
            State::Starting { .. } => self.cancel_start(at, Cancelled::TimedOut),
            State::Cancelling { run, why, .. } => {
                self.report(at, ExitReason::Unkillable, None, Action::Abandon);
                self.effects.push(Effect::Abandon { run });
                self.start_cancelled(at, why, now);
            }
            State::Stopping { run, since, killed: false, late, .. } => {
                self.effects.push(Effect::Kill { run });
                let timer = Some(self.set_timer(run.child, KILL_WAIT_MAX));
                self.table.enter(at, State::Stopping { run, since, killed: true, timer, late });
            }
            State::Stopping { run, since, killed: true, late, .. } => {
                let uptime = now.saturating_sub(since);
                self.report(at, ExitReason::Unkillable, Some(uptime), Action::Abandon);
                self.effects.push(Effect::Abandon { run });
                match late {
                    Some(why) => self.start_cancelled(at, why, now),
                    None => self.settle_stopped(at, ExitReason::Unkillable),
                }
            }
            State::BackingOff { .. } => {
                self.table.enter(at, State::BackingOff { timer: None });
                self.queue.push_back(Pending::Retry(self.table[at].key));
            }
            State::Stopped | State::Running { .. } | State::Exited { .. } => {}
        }
    }

    /// Works until something has to be waited for.
    fn pump(&mut self, now: Duration) {
        loop {
            if self.operation.is_some() {
                if !self.advance() {
                    return;
                }
                continue;
            }
            if self.phase == Phase::Ended || self.phase == Phase::Booting {
                return;
            }
            match self.queue.pop_front() {
                None => return,
                Some(Pending::Exit(key)) => self.act_on_exit(key, now),
                Some(Pending::Retry(key)) => self.retry(key),
                Some(Pending::Call(call, change)) => {
                    self.calls_waiting -= 1;
                    self.act_on_call(call, change);
                }
            }
        }
    }

    fn set_timer(&mut self, child: ChildKey, after: Duration) -> TimerId {
        let timer = TimerId { number: self.timers_total, child };
        self.timers_total += 1;
        self.effects.push(Effect::SetTimer { timer, after });
        timer
    }

    fn cancel_timer(&mut self, at: usize) {
        if let Some(timer) = self.table[at].timer() {
            self.effects.push(Effect::CancelTimer { timer });
        }
    }

    fn report(&mut self, at: usize, reason: ExitReason, uptime: Option<Duration>, action: Action) {
        let child = &self.table[at];
        self.effects.push(Effect::Report(Box::new(Report {
            key: child.key,
            child: child.policy.id.clone(),
            incarnation: child.incarnation,
            reason,
            uptime,
            restarts: child.restarts,
            action,
        })));
    }

    fn reply(&mut self, call: CallId, answer: Result<super::protocol::Answer, CallError>) {
        self.effects.push(Effect::Reply { call, answer });
    }

    /// Drops an entry of the table.
    fn forget(&mut self, at: usize) {
        let child = self.table.remove(at);
        self.effects.push(Effect::Forget { key: child.key });
    }
}
