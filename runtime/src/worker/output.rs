//! Standard output, kept for the protocol.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use halm_protocol::worker::{Event, encode};

/// Writes whole frames, from any thread.
pub(super) struct Output(Mutex<File>);

impl Output {
    /// Takes standard output away from everybody else: what is printed from now on goes to standard error.
    pub(super) fn take_stdout() -> std::io::Result<Self> {
        let protocol = rustix::io::dup(rustix::stdio::stdout())?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(Self(Mutex::new(File::from(protocol))))
    }

    /// Sends an event. Waits while the reader is slow: a pipe holds some thousand tokens.
    ///
    /// # Errors
    /// When the reader is gone.
    pub(super) fn send(&self, event: &Event) -> std::io::Result<()> {
        let frame = encode(event).map_err(std::io::Error::other)?;
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&frame)
    }
}
