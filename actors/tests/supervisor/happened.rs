//! What two sides that live the same life tell each other: what was made to happen, and what came of it.
//!
//! Owns in which respects two accounts must be the same. It must never know how a life is lived.

use std::cmp::Ordering;
use std::time::Duration;

use halm_actors::supervisor::{Action, ChildId, ChildView, ExitReason, Policy};

/// What happened since somebody looked; each line with the supervisor that it happened at.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Happened {
    /// Starts and ends of workers.
    pub(crate) lives: Vec<(String, String)>,
    pub(crate) reports: Vec<(String, String)>,
    pub(crate) replies: Vec<(String, String)>,
    /// Whether the topmost supervisor has started, and how it ended.
    pub(crate) booted: bool,
    pub(crate) ended: Option<String>,
}

/// One small thing that happened, for whoever lives the same life beside.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    Nothing,
    /// The worker at this path takes its order.
    Takes(String, Take),
    /// The child at this path ends by itself.
    Exits(String, ExitReason),
    /// Somebody calls the supervisor at this path.
    Calls(u64, String, Call),
    /// The tree shall stop.
    Stops,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Succeeds,
    Fails,
    DiesAtOnce,
    Obeys,
    Panics,
}

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Start(Policy),
    StartDynamic,
    Terminate(ChildId),
    Restart(ChildId),
    Delete(ChildId),
}

impl Happened {
    /// Leaves open what happened first at two supervisors, and even at one if it is `loose`; and whether a start that
    /// was given up in the instant when it was ordered had come to run.
    pub(crate) fn sort(&mut self, loose: impl Fn(&str) -> bool) {
        while let Some((start, fail)) = self.start_for_nothing() {
            self.lives.remove(fail);
            self.lives.remove(start);
        }
        for lines in [&mut self.lives, &mut self.reports, &mut self.replies] {
            lines.sort_by(|(at, line), (other, other_line)| {
                at.cmp(other).then_with(|| if loose(at) { line.cmp(other_line) } else { Ordering::Equal })
            });
        }
    }

    fn start_for_nothing(&self) -> Option<(usize, usize)> {
        self.lives.iter().enumerate().find_map(|(at, (_, line))| {
            let fail = format!("fail {}", line.strip_prefix("start ")?);
            let after = self.lives[at..].iter().position(|(_, line)| *line == fail)?;
            Some((at, at + after))
        })
    }
}

/// The path above.
pub(crate) fn parent_of(path: &str) -> String {
    path.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.to_owned())
}

/// A line of a table.
pub(crate) fn row(view: &ChildView) -> String {
    format!("{} {:?} {}", view.id, view.standing, view.restarts)
}

/// A line about a crash report.
pub(crate) fn report_text(
    path: &str,
    incarnation: u64,
    restarts: u64,
    uptime: Option<Duration>,
    action: &Action,
    reason: &ExitReason,
) -> String {
    format!("report {path} incarnation {incarnation} restarts {restarts} uptime {uptime:?} {action:?}: {reason:?}")
}
