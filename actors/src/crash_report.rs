//! Crash reports: who ended, why, after how long, how often before, and what its supervisor does about it.
//!
//! Owns the report, its log event and the bounded history of a tree. It must never be the only place that something is
//! known: supervisors decide without it. Every supervisor of a tree writes to the tree's one history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::supervisor::{Action, ChildPath, ExitReason, Report};

/// Reports that a tree keeps: a night of trouble, in about 100 kB.
pub const CRASH_REPORTS_MAX: usize = 256;

/// One report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashReport {
    /// Who.
    pub path: ChildPath,
    /// Its how-manieth incarnation, from 1.
    pub incarnation: u64,
    /// Why.
    pub reason: ExitReason,
    /// How long it had run; `None` when it never did.
    pub uptime: Option<Duration>,
    /// How often it had been restarted before.
    pub restarts: u64,
    /// What the supervisor does about it.
    pub action: Action,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A report as it is shown to people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CrashRecord {
    /// [`CrashReport::path`].
    pub path: String,
    /// [`CrashReport::incarnation`].
    pub incarnation: u64,
    /// [`CrashReport::reason`].
    pub reason: String,
    /// [`CrashReport::uptime`], in milliseconds.
    pub uptime_ms: Option<u64>,
    /// [`CrashReport::restarts`].
    pub restarts: u64,
    /// [`CrashReport::action`].
    pub action: Action,
    /// [`CrashReport::at_ms`].
    pub at_ms: u64,
}

/// The last reports of a tree; clones share it.
#[derive(Clone, Debug, Default)]
pub struct CrashHistory {
    /// Invariant: no longer than `CRASH_REPORTS_MAX`, oldest first.
    reports: Arc<Mutex<VecDeque<CrashReport>>>,
}

impl CrashReport {
    /// Completes the core's report with the supervisor's path and the time of day.
    pub(crate) fn new(supervisor: &ChildPath, report: Report) -> Self {
        Self {
            path: supervisor.child(&report.child),
            incarnation: report.incarnation,
            reason: report.reason,
            uptime: report.uptime,
            restarts: report.restarts,
            action: report.action,
            at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, in_ms),
        }
    }

    /// Writes the report as a log event.
    pub(crate) fn log(&self) {
        let delay_ms = match &self.action {
            Action::Restart { after } => Some(in_ms(*after)),
            Action::Forget
            | Action::WasStopping
            | Action::Escalate
            | Action::AbortStart
            | Action::Refuse
            | Action::Abandon => None,
        };
        tracing::warn!(
            path = %self.path,
            incarnation = self.incarnation,
            reason = %self.reason,
            uptime_ms = self.uptime.map(in_ms),
            restarts = self.restarts,
            action = self.action.name(),
            delay_ms,
            "child ended"
        );
    }

    /// The report with texts for its parts.
    pub fn record(&self) -> CrashRecord {
        CrashRecord {
            path: self.path.to_string(),
            incarnation: self.incarnation,
            reason: self.reason.to_string(),
            uptime_ms: self.uptime.map(in_ms),
            restarts: self.restarts,
            action: self.action.clone(),
            at_ms: self.at_ms,
        }
    }
}

impl CrashHistory {
    /// The reports, oldest first.
    pub fn reports(&self) -> Vec<CrashReport> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn push(&self, report: CrashReport) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.len() == CRASH_REPORTS_MAX {
            reports.pop_front();
        }
        reports.push_back(report);
    }
}

/// Whole milliseconds.
pub(crate) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
