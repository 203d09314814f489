//! A supervisor's timers: one task that sleeps until the first of them, rather than one task each.
//!
//! Owns when which timer is due. It must never feed the core: it says what is due, and the shell does. Nearly every
//! timer is a limit that is not reached, so setting and cancelling one must cost next to nothing: one that is cancelled in
//! the turn that set it never meets the clock, and a task that wakes up for a timer that was cancelled costs less than a
//! task for each.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::protocol::TimerId;
use super::{Msg, SupervisorMsg};
use crate::mailbox::Mailbox;
use crate::serial::SerialMap;
use crate::tasks::{Tasks, TooManyTasks};

#[derive(Default)]
pub(super) struct Timers {
    /// Set in this turn, to be counted from its end.
    fresh: Vec<(TimerId, Duration)>,
    /// Invariant: ascending, the same timers as `times`, and no more of them than children.
    due: VecDeque<(Instant, TimerId)>,
    times: SerialMap<TimerId, Instant>,
    /// Invariant: not later than the first timer.
    alarm: Option<(Instant, AbortHandle)>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: TimerId, after: Duration) {
        self.fresh.push((timer, after));
    }

    pub(super) fn cancel(&mut self, timer: TimerId) {
        if let Some(at) = self.fresh.iter().rposition(|(fresh, _)| *fresh == timer) {
            self.fresh.swap_remove(at);
        } else if let Some(at) = self.times.remove(&timer) {
            self.due.remove(place_of((at, timer), &self.due));
        }
    }

    /// The turn is over: the clock runs for what it set.
    pub(super) fn wind(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        let now = Instant::now();
        for (timer, after) in self.fresh.drain(..) {
            let entry = (now + after, timer);
            self.times.insert(timer, now + after);
            self.due.insert(place_of(entry, &self.due), entry);
        }
    }

    /// When the first timer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    /// Takes the first timer if it is due at this time.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<TimerId> {
        let (_, timer) = self.due.pop_front_if(|(at, _)| *at <= now)?;
        self.times.remove(&timer);
        Some(timer)
    }

    /// At the end of a turn: sees to it that [`Msg::AlarmRang`] comes when the first timer is due, or before.
    pub(super) fn set_alarm(
        &mut self,
        tasks: &mut Tasks,
        mailbox: &Mailbox<SupervisorMsg>,
    ) -> Result<(), TooManyTasks> {
        self.wind();
        let Some(at) = self.next() else { return Ok(()) };
        if self.alarm.as_ref().is_some_and(|(set, _)| *set <= at) {
            return Ok(());
        }
        if let Some((_, later)) = self.alarm.take() {
            later.abort();
        }
        let mailbox = mailbox.clone();
        let sleeping = tasks.spawn_named("alarm", async move {
            tokio::time::sleep_until(at).await;
            // A supervisor that is gone needs no alarm.
            let _ = mailbox.send(SupervisorMsg(Msg::AlarmRang));
        })?;
        self.alarm = Some((at, sleeping));
        Ok(())
    }

    /// The alarm rang; says for which time, which the clock may not show yet by a fraction of a millisecond.
    pub(super) fn rang(&mut self) -> Instant {
        let now = Instant::now();
        self.alarm.take().map_or(now, |(at, _)| at.max(now))
    }
}

/// Where an entry is, or belongs: mostly at one of the ends.
fn place_of(entry: (Instant, TimerId), due: &VecDeque<(Instant, TimerId)>) -> usize {
    match (due.front(), due.back()) {
        (Some(first), _) if entry <= *first => 0,
        (_, Some(last)) if *last < entry => due.len(),
        (_, _) => due.partition_point(|other| *other < entry),
    }
}
