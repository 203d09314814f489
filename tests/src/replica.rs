//! A replica: a real `halm serve`.

use rustix::process::Signal;

use crate::{Halm, Process};

/// A running replica. Dropping it kills it, and its workers die with it.
#[derive(Debug)]
pub struct Replica {
    name: String,
    process: Process,
}

impl Replica {
    /// Starts one; it may be loading still.
    #[must_use]
    pub fn of(halm: Halm, name: &str) -> Self {
        let level = std::env::var("TEST_LOG").unwrap_or_else(|_| "info".to_owned());
        let halm = halm.env("HALM_TELEMETRY_FORMAT", "text").env("HALM_TELEMETRY_LOG", level);
        Self { name: name.to_owned(), process: halm.spawn() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub async fn kill9(&mut self) {
        self.process.kill9().await;
    }

    /// Freezes it, but not its workers.
    pub fn sigstop(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Thaws it.
    pub fn sigcont(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Asks it to go: once to drain, twice to end at once.
    pub fn sigterm(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until it has ended, and returns its exit code.
    pub async fn wait_exit(&mut self) -> Option<i32> {
        self.process.exit().await.code()
    }

    /// Waits until its log has a line with these words.
    pub async fn says(&self, words: &str) {
        crate::until(&format!("{} says {words:?}", self.name), async || {
            let log = self.process.stderr();
            if log.contains(words) { Ok(()) } else { Err(log) }
        })
        .await;
    }
}
