//! Why a child ended, and what class of end that is.
//!
//! Owns the one vocabulary for ends that the core, the crash reports and the escalation share. It must never keep a
//! child's state or an error object: reasons are plain values, so that they can be compared, replayed and printed.

use std::fmt;
use std::time::Duration;

use super::names::{ChildId, ChildPath};
use super::process_end::ProcessEnd;

/// The callback of an actor in which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `pre_start`, which builds the state.
    PreStart,
    /// `post_start`, the first thing a started actor runs.
    PostStart,
    /// `handle`, for a message.
    Handle,
    /// `handle_supervisor_evt`.
    HandleSupervision,
    /// `post_stop`.
    PostStop,
    /// A task that the actor owns.
    Task,
    /// The closure or future that starts the child, outside the actor.
    Start,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreStart => "pre_start",
            Self::PostStart => "post_start",
            Self::Handle => "handle",
            Self::HandleSupervision => "handle_supervisor_evt",
            Self::PostStop => "post_stop",
            Self::Task => "a task",
            Self::Start => "start",
        })
    }
}

/// Why a child ended, or why its start failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It stopped itself, without a reason or with `normal`.
    Normal,
    /// It stopped because it was asked to, or stopped itself with `shutdown` or `shutdown: <detail>`.
    Shutdown {
        /// What follows `shutdown: `.
        detail: Option<String>,
    },
    /// A nested supervisor gave up: OTP's `shutdown`, with the chain of causes.
    Escalated(Box<Escalation>),
    /// A panic.
    Panicked {
        /// Where.
        hook: Hook,
        /// The panic's message.
        message: String,
    },
    /// An error returned.
    Failed {
        /// Where.
        hook: Hook,
        /// The error and its sources, joined by `: `.
        message: String,
    },
    /// Killed.
    Killed,
    /// Its task was cancelled under it, as when the async runtime shuts down.
    Cancelled,
    /// It stopped itself with a reason that is neither `normal` nor `shutdown`.
    Stopped {
        /// The reason.
        reason: String,
    },
    /// Its start did not end in time and was cancelled.
    StartTimedOut {
        /// The time it had.
        after: Duration,
    },
    /// A supervisor could not start one of its children.
    ChildStartFailed {
        /// Which child.
        child: ChildId,
        /// Why.
        reason: Box<ExitReason>,
    },
    /// A specification is not valid.
    InvalidSpec {
        /// What is wrong.
        message: String,
    },
    /// The OS process that it owned ended.
    Process(ProcessEnd),
    /// Something that it was given ended it, and is known to end whoever has it. It is restarted as for the reason
    /// itself, and neither the restart intensity nor the back-off counts it.
    Attributed {
        /// To what, for people.
        to: String,
        /// What happened.
        reason: Box<ExitReason>,
    },
    /// It was killed and did not die in time: it does not await, and is left behind.
    Unkillable,
}

/// The three ways in which OTP looks at a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitClass {
    /// `normal`.
    Normal,
    /// `shutdown` and `{shutdown, Term}`.
    Shutdown,
    /// All else.
    Abnormal,
}

/// A supervisor that gave up: restarts came more often than its intensity allows, or auto-shutdown fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// The supervisor that gave up.
    pub supervisor: ChildPath,
    /// The child whose end made it.
    pub child: ChildId,
    /// How that child ended; an [`ExitReason::Escalated`] again when the child was a supervisor that gave up.
    pub reason: ExitReason,
}

impl ExitReason {
    /// OTP's view of this reason.
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Normal => ExitClass::Normal,
            Self::Shutdown { .. } | Self::Escalated(_) => ExitClass::Shutdown,
            Self::Panicked { .. }
            | Self::Failed { .. }
            | Self::Killed
            | Self::Cancelled
            | Self::Stopped { .. }
            | Self::StartTimedOut { .. }
            | Self::ChildStartFailed { .. }
            | Self::InvalidSpec { .. }
            | Self::Process(_)
            | Self::Unkillable => ExitClass::Abnormal,
            Self::Attributed { reason, .. } => reason.class(),
        }
    }

    /// Its name in counters: a closed list of a dozen.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown { .. } => "shutdown",
            Self::Escalated(_) => "escalated",
            Self::Panicked { .. } => "panicked",
            Self::Failed { .. } => "failed",
            Self::Killed => "killed",
            Self::Cancelled => "cancelled",
            Self::Stopped { .. } => "stopped",
            Self::StartTimedOut { .. } => "start_timed_out",
            Self::ChildStartFailed { .. } => "child_start_failed",
            Self::InvalidSpec { .. } => "invalid_spec",
            Self::Process(end) => end.kind(),
            Self::Attributed { reason, .. } => reason.kind(),
            Self::Unkillable => "unkillable",
        }
    }

    /// Whether a transient child that ended so is restarted.
    pub fn is_abnormal(&self) -> bool {
        self.class() == ExitClass::Abnormal
    }

    /// The reason that an actor's stop text stands for; ractor says `killed`, `Drained` and `actor_task_cancelled`.
    pub fn from_stop_text(text: Option<&str>) -> Self {
        match text {
            None | Some("normal" | "Drained") => Self::Normal,
            Some("shutdown") => Self::Shutdown { detail: None },
            Some("killed") => Self::Killed,
            Some("actor_task_cancelled") => Self::Cancelled,
            Some(text) => {
                if let Some(detail) = text.strip_prefix("shutdown: ") {
                    Self::Shutdown { detail: Some(detail.to_owned()) }
                } else {
                    Self::Stopped { reason: text.to_owned() }
                }
            }
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Shutdown { detail: None } => f.write_str("shutdown"),
            Self::Shutdown { detail: Some(detail) } => write!(f, "shutdown: {detail}"),
            Self::Escalated(escalation) => write!(f, "shutdown: {escalation}"),
            Self::Panicked { hook, message } => write!(f, "panicked in {hook}: {message}"),
            Self::Failed { hook, message } => write!(f, "failed in {hook}: {message}"),
            Self::Killed => f.write_str("killed"),
            Self::Cancelled => f.write_str("its task was cancelled"),
            Self::Stopped { reason } => write!(f, "stopped: {reason}"),
            Self::StartTimedOut { after } => write!(f, "start timed out after {after:?}"),
            Self::ChildStartFailed { child, reason } => write!(f, "child {child} failed to start: {reason}"),
            Self::InvalidSpec { message } => write!(f, "invalid specification: {message}"),
            Self::Process(end) => end.fmt(f),
            Self::Attributed { to, reason } => write!(f, "{reason}, attributed to {to}"),
            Self::Unkillable => f.write_str("killed, but still running code that does not await"),
        }
    }
}

impl fmt::Display for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} gave up after {}: {}", self.supervisor, self.child, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_texts_are_classed_as_otp_classes_reasons() {
        let class = |text| ExitReason::from_stop_text(text).class();
        assert_eq!(class(None), ExitClass::Normal);
        assert_eq!(class(Some("normal")), ExitClass::Normal);
        assert_eq!(class(Some("Drained")), ExitClass::Normal);
        assert_eq!(class(Some("shutdown")), ExitClass::Shutdown);
        assert_eq!(class(Some("shutdown: scaled in")), ExitClass::Shutdown);
        assert_eq!(class(Some("killed")), ExitClass::Abnormal);
        assert_eq!(class(Some("actor_task_cancelled")), ExitClass::Abnormal);
        assert_eq!(class(Some("disk full")), ExitClass::Abnormal);
    }
}
