//! Chaos: a real deployment under load, broken on a schedule, and judged.
//!
//! Owns the ladder of faults, the load whose right texts are known, and the verdict. It must never be lenient: what
//! was not measured is said to be not judged. `halm chaos` is its only caller.
//!
//! The judging is pure: a [`schedule::Schedule`] follows from a seed, and a [`judge::Judge`] is told
//! [`event::Happened`] after [`event::Happened`] and ends in a [`verdict::Verdict`]. Around it stand the shells:
//! [`load`] asks, [`host`] breaks what it started on this host, [`witness`] reads the broker's own log, and [`report`]
//! writes down what came out.

pub(crate) mod event;
pub(crate) mod host;
pub(crate) mod judge;
pub(crate) mod ladder;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod random;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod target;
pub(crate) mod texts;
pub(crate) mod verdict;
pub(crate) mod witness;
