//! What is known about an end beyond its reason: where it panicked, what the process said last, what it was doing.
//!
//! Owns what a crash report shows and no decision looks at. It must never hold a prompt or an answer: activities are
//! ids and counts. Whoever fails says what it knows by returning a [`Crash`] as its error.

use std::fmt;
use std::sync::Arc;

use halm_protocol::Activity;

use super::panics::Trace;
use crate::supervisor::ExitReason;

/// What is known about an end.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Where it panicked, as `file:line:column`.
    pub location: Option<Arc<str>>,
    /// How it came there.
    pub(crate) trace: Option<Arc<Trace>>,
    /// The last lines that its process wrote to standard error, oldest first.
    pub stderr_tail: Vec<String>,
    /// What it was doing.
    pub doing: Vec<Activity>,
}

/// An end with its evidence. An actor that knows more than an error's text returns this as its error.
#[derive(Clone, Debug)]
pub struct Crash {
    /// Why.
    pub reason: ExitReason,
    /// What is known.
    pub evidence: Evidence,
}

impl Evidence {
    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { location, trace, stderr_tail, doing } = self;
        location.is_none() && trace.is_none() && stderr_tail.is_empty() && doing.is_empty()
    }
}

impl Crash {
    /// An end with its evidence.
    pub fn new(reason: ExitReason, evidence: Evidence) -> Self {
        Self { reason, evidence }
    }
}

impl From<ExitReason> for Crash {
    fn from(reason: ExitReason) -> Self {
        Self { reason, evidence: Evidence::default() }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Crash {}
