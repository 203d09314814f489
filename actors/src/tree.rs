//! A snapshot of a supervision tree.
//!
//! Owns what such a snapshot says. It must never be a way to act: it is a picture, and out of date when it is read.
//! [`crate::supervisor::Root::tree`] takes it by asking every supervisor; whoever does not answer in time is shown so.

use serde::Serialize;

use crate::crash_report::in_ms;
use crate::supervisor::{ChildKind, ChildPath, ChildStanding, ChildView};

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Being started.
    Starting,
    /// Running.
    Running,
    /// Waiting to be restarted.
    BackingOff,
    /// Being stopped.
    Stopping,
    /// Not running.
    Stopped,
    /// A supervisor that did not answer in time, or ended while it was asked.
    NoAnswer,
}

/// A child with all that is below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TreeNode {
    /// Its place.
    pub path: String,
    /// What it is.
    pub kind: ChildKind,
    /// What it is doing.
    pub state: NodeState,
    /// How long it has run, in milliseconds.
    pub uptime_ms: Option<u64>,
    /// How often it was restarted.
    pub restarts: u64,
    /// Messages that wait in its mailbox.
    pub mailbox: Option<usize>,
    /// Why it ended last.
    pub last_exit: Option<String>,
    /// Its children, in start order.
    pub children: Vec<TreeNode>,
}

impl TreeNode {
    pub(crate) fn of_child(supervisor: &ChildPath, view: &ChildView, mailbox: Option<usize>) -> Self {
        Self {
            path: supervisor.child(&view.id).to_string(),
            kind: view.kind,
            state: view.standing.into(),
            uptime_ms: view.uptime.map(in_ms),
            restarts: view.restarts,
            mailbox,
            last_exit: view.last_exit.as_ref().map(ToString::to_string),
            children: Vec::new(),
        }
    }

    /// The node at a path, itself included.
    pub fn find(&self, path: &str) -> Option<&Self> {
        if self.path == path {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(path))
    }
}

impl From<ChildStanding> for NodeState {
    fn from(standing: ChildStanding) -> Self {
        match standing {
            ChildStanding::Starting => Self::Starting,
            ChildStanding::Running => Self::Running,
            ChildStanding::BackingOff => Self::BackingOff,
            ChildStanding::Stopping => Self::Stopping,
            ChildStanding::Stopped => Self::Stopped,
        }
    }
}
