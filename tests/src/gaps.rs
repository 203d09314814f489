//! The pauses that clients saw: measured and told, never asserted.

use std::time::SystemTime;

use crate::Transcript;

/// How often a test breaks something: `HALM_TEST_KILLS`, or else as often as is enough for every run.
#[must_use]
pub fn kills_or(enough: u32) -> u32 {
    std::env::var("HALM_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(enough)
}

/// Pauses of one kind of fault.
#[derive(Debug)]
pub struct Gaps {
    what: &'static str,
    gaps: Vec<Gap>,
}

/// The pause that one client saw, and what its reply says about it.
#[derive(Debug)]
struct Gap {
    ms: u128,
    attempts: u32,
    resumed_at: Vec<u32>,
}

impl Gaps {
    /// None yet.
    #[must_use]
    pub fn of(what: &'static str) -> Self {
        Self { what, gaps: Vec::new() }
    }

    /// One more: the longest pause in a stream after something was broken.
    pub fn push(&mut self, seen: &Transcript, broken_at: SystemTime) {
        let reply = seen.reply();
        let ms = seen.longest_silence_after(broken_at).as_millis();
        self.gaps.push(Gap { ms, attempts: reply.attempts, resumed_at: reply.resumed_at.clone() });
    }

    /// Prints median, 99th percentile (nearest rank) and maximum; `--nocapture` shows it.
    ///
    /// # Panics
    /// When nothing was measured.
    pub fn print(mut self) {
        self.gaps.sort_by_key(|gap| gap.ms);
        let (what, count) = (self.what, self.gaps.len());
        let ranked = |percent: usize| self.gaps[(count * percent).div_ceil(100) - 1].ms;
        let (median, high, worst) = (ranked(50), ranked(99), self.gaps.last().expect("a test breaks something"));
        println!(
            "{what}: {count} of {count} streams identical; gap p50 {median} ms, p99 {high} ms, maximum {} ms (resumed at {:?}, {} attempts)",
            worst.ms, worst.resumed_at, worst.attempts
        );
    }
}
