//! What came out of a run: `report.json`, word for word.

use std::collections::BTreeMap;

use serde::Serialize;

use super::judge::availability::Availability;
use super::judge::promises::Finding;
use super::judge::reading::Flaws;

/// What is demanded of a run beyond the promises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Slo {
    /// A silence longer than this is no service.
    pub(crate) gap_ms: u64,
    /// The least share of client-seconds that must be good.
    pub(crate) availability: f64,
}

/// How the run was set up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Setting {
    pub(crate) version: &'static str,
    pub(crate) target: String,
    pub(crate) seed: u64,
    /// Of faults, in seconds.
    pub(crate) faults_s: f64,
    /// Requests per second that are sent; 0 until it is measured, if it was not given.
    pub(crate) rate: f64,
    pub(crate) clients: usize,
    pub(crate) model: String,
    pub(crate) slo: Slo,
}

/// Requests by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Requests {
    pub(crate) offered: u64,
    /// Stored, or begun to be answered.
    pub(crate) accepted: u64,
    /// Answered, and rightly.
    pub(crate) right: u64,
    /// Answered, and wrongly.
    pub(crate) wrong: u64,
    /// Refused before they were accepted, by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Accepted, and ended in an error that was not asked for, by code.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Had no end.
    pub(crate) unsettled: u64,
    /// Ended as `poison`, as they had to.
    pub(crate) quarantined: u64,
    /// Not sent, for too many were under way.
    pub(crate) not_sent: u64,
    /// Of the right ones, those that took more than one attempt.
    pub(crate) resumed: u64,
}

/// Tokens by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tokens {
    /// Of right answers.
    pub(crate) delivered: u64,
    pub(crate) flaws: Flaws,
    /// Of streams, what came with the final record only: the connection of the client was away.
    pub(crate) late: u64,
}

/// A promise and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Invariant {
    pub(crate) id: &'static str,
    pub(crate) says: &'static str,
    pub(crate) finding: Finding,
}

/// A fault and what it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Fault {
    /// Since the beginning, in seconds.
    pub(crate) at_s: f64,
    pub(crate) rung: &'static str,
    pub(crate) what: String,
    /// The longest silence that any stream alive meanwhile saw; `None` if there was no stream.
    pub(crate) gap_ms: Option<u64>,
    /// Until every broker, replica and worker was as before; `None` if they never were.
    pub(crate) whole_ms: Option<u64>,
}

/// 50th and 99th percentile by nearest rank, and the largest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Spread {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

impl Spread {
    /// Of nothing: nothing.
    pub(crate) fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let max = *values.last()?;
        let ranked = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self { p50: ranked(50), p99: ranked(99), max })
    }
}

/// All faults of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RungFigures {
    pub(crate) rung: &'static str,
    pub(crate) times: usize,
    pub(crate) gap_ms: Option<Spread>,
    pub(crate) whole_ms: Option<Spread>,
}

/// Tokens of right answers per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Goodput {
    /// Before anything was broken, in the same run and with the same load; `None` if there was no such time.
    pub(crate) undisturbed: Option<f64>,
    pub(crate) under_faults: f64,
}

/// What plots are made of. A bin is a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Timeline {
    /// When faults began and ended, in seconds.
    pub(crate) faults_s: [f64; 2],
    /// Tokens of right answers that came in each second.
    pub(crate) tokens: Vec<u64>,
    /// The longest silence that was over, or still went on, in each second.
    pub(crate) silence_ms: Vec<u64>,
    /// All silences of streams of 50 ms and more, under faults.
    pub(crate) silences_ms: Vec<u64>,
    /// Each client's seconds: 0 nothing asked, 1 good, 2 a silence within the bound, 3 bad.
    pub(crate) clients: Vec<Vec<u8>>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// Whether every promise that was judged was kept, nothing failed, and the objectives were met.
    pub(crate) kept: bool,
    /// The last line.
    pub(crate) line: String,
    pub(crate) setting: Setting,
    pub(crate) requests: Requests,
    pub(crate) tokens: Tokens,
    pub(crate) invariants: Vec<Invariant>,
    pub(crate) availability: Availability,
    pub(crate) goodput: Goodput,
    /// Silences of streams before anything was broken.
    pub(crate) undisturbed_gap_ms: Option<Spread>,
    pub(crate) gap_ms: Option<Spread>,
    pub(crate) rungs: Vec<RungFigures>,
    pub(crate) faults: Vec<Fault>,
    /// Rungs that could not be done, and why.
    pub(crate) not_done: Vec<(&'static str, String)>,
    /// What ended without having been hit, and was started again.
    pub(crate) restarted: Vec<String>,
    pub(crate) timeline: Timeline,
}
