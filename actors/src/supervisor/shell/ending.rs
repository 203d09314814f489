//! How a supervisor ends, in the words that its parent and its root hear.
//!
//! Owns the translation of the core's verdict into an exit. It must never end anything the core did not.

use super::super::exit::{Escalation, ExitReason};
use super::super::protocol::Ending;
use super::super::root::Ended;
use super::State;

impl State {
    pub(super) fn terminate(&mut self, ending: Ending) {
        let reason = self.reason_of(&ending);
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Err(reason.clone()));
        }
        if let Some(ended) = &self.ended {
            ended.send_replace(Some(Ended::of(&self.path, &ending)));
        }
        self.ending = Some(ending);
        self.myself.stop(Some(reason.to_string()));
    }

    /// Why it ended, for its parent.
    pub(super) fn epitaph(&self) -> Option<ExitReason> {
        self.ending.as_ref().map(|ending| self.reason_of(ending))
    }

    fn reason_of(&self, ending: &Ending) -> ExitReason {
        match ending.clone() {
            Ending::Stopped => ExitReason::Shutdown { detail: None },
            Ending::Intensity { child, reason } => {
                ExitReason::Escalated(Box::new(Escalation { supervisor: self.path.clone(), child, reason }))
            }
            Ending::AutoShutdown { child, reason } => {
                ExitReason::Shutdown { detail: Some(format!("significant child {child} ended: {reason}")) }
            }
            Ending::StartFailed { child, reason } => ExitReason::ChildStartFailed { child, reason: Box::new(reason) },
        }
    }
}
