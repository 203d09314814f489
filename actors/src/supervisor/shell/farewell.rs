//! The ordered stop of a supervisor that somebody stopped through ractor rather than by message.
//!
//! Owns driving the core when the mailbox is closed already: in `post_stop` ractor delivers nothing, so ends are seen by
//! waiting for the actors, and their reasons are lost. It must never be the usual way; supervisors stop by message.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::super::exit::ExitReason;
use super::super::protocol::{Effect, Event, RunId};
use super::State;

/// A wait that never ends is woken this often to look again; nothing depends on it.
const IDLE: Duration = Duration::from_secs(3600);

impl State {
    pub(super) async fn take_leave(&mut self) {
        let mut deaths = FuturesUnordered::new();
        for (run, child) in &self.living {
            let (run, cell) = (*run, child.cell.clone());
            deaths.push(async move {
                // Without a time-out it cannot time out.
                let _ = cell.wait(None).await;
                run
            });
        }
        let mut events = VecDeque::from([Event::StopRequested]);
        while !self.core.has_ended() {
            let Some(event) = events.pop_front() else {
                self.timers.wind();
                let wake = self.timers.next().unwrap_or_else(|| Instant::now() + IDLE);
                tokio::select! {
                    Some(run) = deaths.next() => events.push_back(self.death_of(run)),
                    () = tokio::time::sleep_until(wake) => {
                        if let Some(timer) = self.timers.take_due(wake) {
                            events.push_back(Event::TimerFired { timer });
                        }
                    }
                }
                continue;
            };
            for effect in self.core.handle(event, self.born.elapsed()) {
                match effect {
                    Effect::CancelStart { run } => {
                        // Its report would come by message; dropping the cancel handle ends it.
                        self.cancels.remove(&run);
                        events.push_back(Event::ChildStartFailed { run, reason: ExitReason::Cancelled });
                    }
                    Effect::SetTimer { .. }
                    | Effect::CancelTimer { .. }
                    | Effect::Stop { .. }
                    | Effect::Kill { .. }
                    | Effect::Abandon { .. }
                    | Effect::Forget { .. }
                    | Effect::Report(_)
                    | Effect::Reply { .. }
                    | Effect::Terminate { .. } => {
                        // Only starts need tasks.
                        let _ = self.perform(effect);
                    }
                    // An ending supervisor starts nothing.
                    Effect::Start { .. } | Effect::Booted => {}
                }
            }
        }
    }

    fn death_of(&mut self, run: RunId) -> Event {
        self.living.remove(&run);
        Event::ChildExited { run, reason: ExitReason::Shutdown { detail: None } }
    }
}
