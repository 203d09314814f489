//! What the computing thread does, for the beating one to tell.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Instant;

use halm_protocol::worker::StepPulse;

/// Written by the computing thread, read by the beating one.
pub(super) struct Pulse {
    began: Instant,
    steps: AtomicU64,
    rows: AtomicU32,
    step_began_us: AtomicU64,
    row_us: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            steps: AtomicU64::new(0),
            rows: AtomicU32::new(0),
            step_began_us: AtomicU64::new(0),
            row_us: AtomicU64::new(0),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A pass over `rows` rows begins.
    pub(super) fn step_began(&self, rows: u32) {
        self.step_began_us.store(self.now_us(), Relaxed);
        // Whoever sees the rows sees when their pass began.
        self.rows.store(rows, Release);
    }

    /// The pass ended.
    pub(super) fn step_ended(&self) {
        let took_us = self.now_us().saturating_sub(self.step_began_us.load(Relaxed));
        let row_us = took_us / u64::from(self.rows.swap(0, AcqRel).max(1));
        let before = self.row_us.load(Relaxed);
        // An average over the last eight or so.
        let average = if before == 0 { row_us } else { before - before / 8 + row_us / 8 };
        self.row_us.store(average.max(1), Relaxed);
        self.steps.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> StepPulse {
        let rows = self.rows.load(Acquire);
        let since = self.step_began_us.load(Relaxed);
        let running_us = if rows == 0 { 0 } else { self.now_us().saturating_sub(since) };
        StepPulse { steps: self.steps.load(Relaxed), rows, running_us, row_us: self.row_us.load(Relaxed) }
    }
}
