//! What the core hears and what it orders: events, calls, effects, reports.
//!
//! Owns the contract between the core and whoever performs for it: the [`super::Supervisor`] actor, or a test. It must
//! never carry an actor or a closure; children are known by [`ChildKey`], their incarnations by [`RunId`].

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::child::ChildStanding;
use super::exit::ExitReason;
use super::names::ChildId;
use super::policy::{ChildKind, Policy, SpecError};

/// An entry of a supervisor's table, never used twice by one supervisor. The performer draws it for children that it
/// adds, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildKey(pub u64);

/// One incarnation of a child, never used twice by one supervisor. The core draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    pub(super) child: ChildKey,
    /// How often the child was started, this time included.
    pub(super) incarnation: u64,
}

impl RunId {
    /// Whose incarnation it is.
    pub fn child(self) -> ChildKey {
        self.child
    }
}

/// A timer that the core asked for, and the child that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    pub(super) number: u64,
    pub(super) child: ChildKey,
}

/// A call that waits for its [`Effect::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Start the first children, in order.
    Boot,
    /// A start ended well.
    ChildStarted {
        /// Whose.
        run: RunId,
    },
    /// A start ended badly, or was cancelled. Each [`Effect::Start`] is answered by exactly one of the two.
    ChildStartFailed {
        /// Whose.
        run: RunId,
        /// Why.
        reason: ExitReason,
    },
    /// A started child ended, by itself or because it was asked or killed.
    ChildExited {
        /// Which.
        run: RunId,
        /// Why.
        reason: ExitReason,
    },
    /// A timer's time is over.
    TimerFired {
        /// Which.
        timer: TimerId,
    },
    /// Somebody wants the table changed.
    Called {
        /// Whom to answer.
        call: CallId,
        /// What is wanted.
        change: Change,
    },
    /// The supervisor shall stop, with all its children.
    StopRequested,
}

/// A change of a supervisor's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add a child at the end and start it. For a dynamic supervisor the policy is the template's with a new id.
    Start {
        /// Its key.
        key: ChildKey,
        /// Its policy.
        policy: Policy,
    },
    /// Stop a child and keep its specification (not of a temporary or dynamic child).
    Terminate(ChildId),
    /// Start a child again that does not run.
    Restart(ChildId),
    /// Forget a child that does not run.
    Delete(ChildId),
}

/// What a call got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A child was started.
    Started,
    /// A child was stopped, or did not run.
    Terminated,
    /// A child was forgotten.
    Deleted,
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such child.
    #[error("child {0} is not in the table")]
    NotFound(ChildId),
    /// It has a specification already, and does not run.
    #[error("child {0} is present already: restart it or delete it")]
    AlreadyPresent(ChildId),
    /// It runs already.
    #[error("child {0} is started already")]
    AlreadyStarted(ChildId),
    /// It runs.
    #[error("child {0} is running: terminate it first")]
    Running(ChildId),
    /// It waits for its restart.
    #[error("child {0} is about to be restarted: terminate it first")]
    Restarting(ChildId),
    /// Children of a dynamic supervisor can be started and terminated only.
    #[error("a dynamic supervisor does not keep the specifications of its children")]
    Dynamic,
    /// Only dynamic supervisors have a template.
    #[error("the supervisor is not dynamic: start a child with its own specification")]
    NotDynamic,
    /// It could not be started.
    #[error("child {child} failed to start: {reason}")]
    StartFailed {
        /// Which.
        child: ChildId,
        /// Why.
        reason: ExitReason,
    },
    /// The specification is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Too many calls wait.
    #[error("too many calls are waiting: call again later")]
    Busy,
    /// The supervisor is ending.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
}

/// An order to the performer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start this incarnation, and report its end as [`Event::ChildStarted`] or [`Event::ChildStartFailed`].
    Start {
        /// Which.
        run: RunId,
    },
    /// Give up a start; it still reports.
    CancelStart {
        /// Which.
        run: RunId,
    },
    /// Ask a child to stop.
    Stop {
        /// Which.
        run: RunId,
    },
    /// Kill a child.
    Kill {
        /// Which.
        run: RunId,
    },
    /// A killed child, or a cancelled start, did not end in time: nobody may find it any more. What it still reports is
    /// ignored.
    Abandon {
        /// Which.
        run: RunId,
    },
    /// Report when this time is over.
    SetTimer {
        /// The timer's id.
        timer: TimerId,
        /// The time.
        after: Duration,
    },
    /// Do not report any more; a report that is under way does no harm.
    CancelTimer {
        /// Which.
        timer: TimerId,
    },
    /// A child left the table; its key is not used again.
    Forget {
        /// Which.
        key: ChildKey,
    },
    /// Something went wrong; tell people. Boxed: it is large, and most effects are not.
    Report(Box<Report>),
    /// Answer a call.
    Reply {
        /// Which.
        call: CallId,
        /// With what.
        answer: Result<Answer, CallError>,
    },
    /// All first children run.
    Booted,
    /// No child runs any more; end. No effect follows.
    Terminate {
        /// Why.
        ending: Ending,
    },
}

/// A crash report as the core knows it: without a path and without the time of day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who.
    pub key: ChildKey,
    /// Its id.
    pub child: ChildId,
    /// Its how-manieth incarnation.
    pub incarnation: u64,
    /// Why.
    pub reason: ExitReason,
    /// How long it had run; `None` when it never did.
    pub uptime: Option<Duration>,
    /// How often it was restarted before.
    pub restarts: u64,
    /// What the supervisor does about it.
    pub action: Action,
}

/// What a supervisor does about a child's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is started again after this time.
    Restart {
        /// The back-off's delay.
        after: Duration,
    },
    /// A temporary child: forgotten.
    Forget,
    /// It was being stopped anyway.
    WasStopping,
    /// The restart intensity is exceeded: the supervisor ends.
    Escalate,
    /// The supervisor's own start fails.
    AbortStart,
    /// Whoever asked for the start is told.
    Refuse,
    /// It does not die: left behind.
    Abandon,
}

impl Action {
    /// Its name in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restart { .. } => "restart",
            Self::Forget => "forget",
            Self::WasStopping => "was_stopping",
            Self::Escalate => "escalate",
            Self::AbortStart => "abort_start",
            Self::Refuse => "refuse",
            Self::Abandon => "abandon",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart { after } if after.is_zero() => f.write_str("restarted at once"),
            Self::Restart { after } => write!(f, "restarted after {} ms", after.as_millis()),
            Self::Forget => f.write_str("not restarted: it is temporary"),
            Self::WasStopping => f.write_str("it was being stopped anyway"),
            Self::Escalate => f.write_str("one restart too many: its supervisor ends"),
            Self::AbortStart => f.write_str("the start of its supervisor is given up"),
            Self::Refuse => f.write_str("whoever asked for the start is told"),
            Self::Abandon => f.write_str("left behind"),
        }
    }
}

/// Why a supervisor ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    Stopped,
    /// The restart intensity is exceeded.
    Intensity {
        /// By whom.
        child: ChildId,
        /// How that child ended.
        reason: ExitReason,
    },
    /// Significant children ended.
    AutoShutdown {
        /// The last of them.
        child: ChildId,
        /// How it ended.
        reason: ExitReason,
    },
    /// A first child could not be started.
    StartFailed {
        /// Which.
        child: ChildId,
        /// Why.
        reason: ExitReason,
    },
}

/// A child as `which_children` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView {
    /// Its key.
    pub key: ChildKey,
    /// Its id.
    pub id: ChildId,
    /// What it is.
    pub kind: ChildKind,
    /// What it is doing.
    pub standing: ChildStanding,
    /// Its living incarnation, started or starting.
    pub run: Option<RunId>,
    /// How long it has run.
    pub uptime: Option<Duration>,
    /// How often it was restarted.
    pub restarts: u64,
    /// Why it ended last.
    pub last_exit: Option<ExitReason>,
    /// The last restarts, oldest first.
    pub last_restarts: Vec<super::child::LastRestart>,
}

/// OTP's `count_children`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChildCount {
    /// Specifications; one for a dynamic supervisor.
    pub specs: usize,
    /// Children that run.
    pub active: usize,
    /// Children that are supervisors, running or not.
    pub supervisors: usize,
    /// Children that are workers, running or not.
    pub workers: usize,
}
