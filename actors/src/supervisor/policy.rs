//! What a child and its supervisor may ask for: the pure part of a specification, and its validity.
//!
//! Owns OTP's child-spec and supervisor-flag words. It must never hold a closure or an actor, so that the core can be
//! driven without either; [`super::ChildSpec`] adds how a child is started.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;

use super::backoff::Backoff;
use super::intensity::Intensity;
use super::names::{ChildId, InvalidId};

/// Most children of one supervisor. Operations walk the table, so it is bounded; a set that grows further is a set of
/// jobs, not of children.
pub const CHILDREN_MAX: usize = 4096;

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Restart {
    /// Always.
    Permanent,
    /// Only when it ended abnormally: not by `normal`, `shutdown` or `shutdown: …`.
    Transient,
    /// Never; its entry is deleted when it ends.
    Temporary,
}

/// How a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Shutdown {
    /// Killed at once.
    Brutal,
    /// Asked, and killed after this time.
    Timeout(Duration),
    /// Asked, and waited for without limit: for supervisors, whose own children have limits.
    Infinity,
}

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChildKind {
    /// An actor that works.
    Worker,
    /// An actor that supervises.
    Supervisor,
}

/// Who is restarted with a child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Strategy {
    /// Nobody.
    OneForOne,
    /// Everybody.
    OneForAll,
    /// Those started after it.
    RestForOne,
    /// OTP's `simple_one_for_one`: children made at run time from one template, nobody restarted with them, stopped
    /// all at once.
    Dynamic,
}

/// When the end of significant children ends their supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum AutoShutdown {
    /// Never.
    Never,
    /// When any of them ended by itself and is not restarted.
    AnySignificant,
    /// When the last of them did.
    AllSignificant,
}

/// The pure part of a child's specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The child's id, unique under its supervisor.
    pub id: ChildId,
    /// When it is restarted.
    pub restart: Restart,
    /// Whether auto-shutdown looks at it.
    pub significant: bool,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// What it is.
    pub kind: ChildKind,
    /// How long its start may take; `None` is as long as it takes, which is for supervisors: their children have limits.
    pub start_timeout: Option<Duration>,
}

/// The pure part of a supervisor's specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who is restarted with a child.
    pub strategy: Strategy,
    /// How many restarts in which time are borne.
    pub intensity: Intensity,
    /// How long to wait before a restart.
    pub backoff: Backoff,
    /// Whether significant children end the supervisor.
    pub auto_shutdown: AutoShutdown,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            intensity: Intensity::default(),
            backoff: Backoff::default(),
            auto_shutdown: AutoShutdown::Never,
        }
    }
}

/// A specification that OTP would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// An id that cannot be a path segment.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// Two children with one id.
    #[error("child id {0} is used twice: give each child of a supervisor its own id")]
    DuplicateId(ChildId),
    /// A significant child that is always restarted can never end its supervisor.
    #[error("child {0} is significant and permanent: make it transient or temporary")]
    SignificantPermanent(ChildId),
    /// A significant child under a supervisor that does not look.
    #[error("child {0} is significant but auto_shutdown is never: set auto_shutdown or drop significant")]
    SignificantWithoutAutoShutdown(ChildId),
    /// No time to count restarts in.
    #[error("intensity period is zero: give it a time, such as 5 s")]
    ZeroPeriod,
    /// A dynamic supervisor has one template.
    #[error("a dynamic supervisor needs exactly one template and has {0}")]
    Template(usize),
    /// Too many children.
    #[error("a supervisor may have {CHILDREN_MAX} children and has {0}: split it")]
    TooManyChildren(usize),
}

impl Policy {
    /// Checks one child against its supervisor.
    ///
    /// # Errors
    /// When the child is significant where that cannot mean anything.
    pub fn check(&self, auto_shutdown: AutoShutdown) -> Result<(), SpecError> {
        if self.significant && self.restart == Restart::Permanent {
            return Err(SpecError::SignificantPermanent(self.id.clone()));
        }
        if self.significant && auto_shutdown == AutoShutdown::Never {
            return Err(SpecError::SignificantWithoutAutoShutdown(self.id.clone()));
        }
        Ok(())
    }
}

impl Settings {
    /// Checks a supervisor with its first children (for [`Strategy::Dynamic`]: its template).
    ///
    /// # Errors
    /// The first thing that OTP would refuse.
    pub fn check(&self, children: &[Policy]) -> Result<(), SpecError> {
        if self.intensity.period.is_zero() {
            return Err(SpecError::ZeroPeriod);
        }
        if self.strategy == Strategy::Dynamic && children.len() != 1 {
            return Err(SpecError::Template(children.len()));
        }
        if children.len() > CHILDREN_MAX {
            return Err(SpecError::TooManyChildren(children.len()));
        }
        let mut seen = HashSet::with_capacity(children.len());
        for child in children {
            if !seen.insert(&child.id) {
                return Err(SpecError::DuplicateId(child.id.clone()));
            }
            child.check(self.auto_shutdown)?;
        }
        Ok(())
    }
}
