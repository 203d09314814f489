//! Crash reports: who ended, why, after how long, how often before, what it was doing, and what its supervisor does
//! about it.
//!
//! Owns the report, its log event, the bounded history of a tree and the totals that the history forgets. It must never
//! be the only place that something is known: supervisors decide without it. Every supervisor of a tree writes to the
//! tree's one history.

mod evidence;
pub(crate) mod panics;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use halm_protocol::{CrashCounts, CrashRecord};

use crate::supervisor::{Action, ChildPath, ExitReason, Report};

pub use evidence::{Crash, Evidence};

/// Reports that a tree keeps: a night of trouble, in a few hundred kB.
pub const CRASH_REPORTS_MAX: usize = 256;

/// Places of panics whose frames were logged. Each is logged with its frames once: giving them names takes
/// milliseconds, and a panic that comes back comes back the same way.
const PLACES_MAX: usize = 256;

/// One report.
#[derive(Clone, Debug)]
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
    /// What else is known.
    pub evidence: Evidence,
}

/// The last reports of a tree; clones share it.
#[derive(Clone, Debug, Default)]
pub struct CrashHistory(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Invariant: no longer than `CRASH_REPORTS_MAX`, oldest first.
    reports: VecDeque<CrashReport>,
    counts: CrashCounts,
    /// Invariant: no more than `PLACES_MAX`.
    places: HashSet<Arc<str>>,
}

impl CrashReport {
    /// Completes the core's report with the supervisor's path, the time of day and what is known beside.
    pub(crate) fn new(supervisor: &ChildPath, report: Report, evidence: Evidence) -> Self {
        Self {
            path: supervisor.child(&report.child),
            incarnation: report.incarnation,
            reason: report.reason,
            uptime: report.uptime,
            restarts: report.restarts,
            action: report.action,
            at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, in_ms),
            evidence,
        }
    }

    /// Writes the report as a log event, with its frames if they are wanted.
    fn log(&self, with_frames: bool) {
        let delay_ms = match &self.action {
            Action::Restart { after } => Some(in_ms(*after)),
            Action::Forget
            | Action::WasStopping
            | Action::Escalate
            | Action::AbortStart
            | Action::Refuse
            | Action::Abandon => None,
        };
        let doing: Vec<String> = self.evidence.doing.iter().map(ToString::to_string).collect();
        let frames = self.evidence.trace.as_ref().filter(|_| with_frames).map(|trace| trace.lines().join("\n"));
        tracing::warn!(
            path = %self.path,
            incarnation = self.incarnation,
            reason = %self.reason,
            kind = self.reason.kind(),
            uptime_ms = self.uptime.map(in_ms),
            restarts = self.restarts,
            action = self.action.name(),
            delay_ms,
            location = self.evidence.location.as_deref(),
            doing = (!doing.is_empty()).then(|| doing.join(", ")),
            stderr = (!self.evidence.stderr_tail.is_empty()).then(|| self.evidence.stderr_tail.join("\n")),
            backtrace = frames,
            "child ended"
        );
    }

    /// The report as it is shown to people and programs.
    pub fn record(&self) -> CrashRecord {
        CrashRecord {
            path: self.path.to_string(),
            incarnation: self.incarnation,
            reason: self.reason.to_string(),
            kind: self.reason.kind().to_owned(),
            at_ms: self.at_ms,
            uptime_ms: self.uptime.map(in_ms),
            restarts: self.restarts,
            action: self.action.to_string(),
            doing: self.evidence.doing.clone(),
            location: self.evidence.location.as_deref().map(str::to_owned),
            backtrace: self.evidence.trace.as_ref().map(|trace| trace.lines().to_vec()).unwrap_or_default(),
            stderr_tail: self.evidence.stderr_tail.clone(),
        }
    }
}

impl CrashHistory {
    /// The reports, oldest first.
    pub fn reports(&self) -> Vec<CrashReport> {
        self.kept().reports.iter().cloned().collect()
    }

    /// How many reports there were since the tree began, those included that are kept no more.
    pub fn counts(&self) -> CrashCounts {
        self.kept().counts.clone()
    }

    /// Logs, counts and keeps a report.
    pub(crate) fn push(&self, report: CrashReport) {
        let mut kept = self.kept();
        let with_frames = kept.is_new_place(report.evidence.location.as_ref());
        kept.count(&report);
        if kept.reports.len() == CRASH_REPORTS_MAX {
            kept.reports.pop_front();
        }
        kept.reports.push_back(report.clone());
        drop(kept);
        report.log(with_frames);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_new_place(&mut self, location: Option<&Arc<str>>) -> bool {
        let Some(location) = location else { return false };
        self.places.len() < PLACES_MAX && self.places.insert(Arc::clone(location))
    }

    fn count(&mut self, report: &CrashReport) {
        self.counts.reports += 1;
        *self.counts.by_kind.entry(report.reason.kind().to_owned()).or_default() += 1;
        match report.action {
            Action::Restart { .. } => self.counts.restarts += 1,
            Action::Escalate => self.counts.escalations += 1,
            Action::Forget | Action::WasStopping | Action::AbortStart | Action::Refuse | Action::Abandon => {}
        }
    }
}

/// Whole milliseconds.
pub(crate) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
