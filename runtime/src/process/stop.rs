//! How a child process is ended in order: asked, then told by SIGTERM, then killed, each after a time of its own.
//!
//! Owns the ladder. It must never ask: that is done in the process's own way, by whoever knows it.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::signal_group;

/// The times that a process has on its way out.
#[derive(Debug, Clone, Copy)]
pub struct StopTimes {
    /// From being asked until SIGTERM.
    pub asked: Duration,
    /// From SIGTERM until SIGKILL.
    pub terminated: Duration,
}

impl StopTimes {
    /// In all.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.asked + self.terminated
    }
}

/// Waits until a process has ended, by itself or, once `stopping` is told, by the ladder. Reaps it.
pub(super) async fn wait(
    child: &mut Child,
    leader: u32,
    times: StopTimes,
    stopping: oneshot::Receiver<()>,
) -> std::io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        // A sender that is gone asks for nothing any more.
        Ok(()) = stopping => {}
    }
    for (time, signal) in [(times.asked, Signal::TERM), (times.terminated, Signal::KILL)] {
        match timeout(time, child.wait()).await {
            Ok(status) => return status,
            Err(_) => signal_group(leader, signal),
        }
    }
    child.wait().await
}
