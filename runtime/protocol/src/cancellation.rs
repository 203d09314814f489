//! What is told of a cancellation that was asked for.

use serde::{Deserialize, Serialize};

use crate::JobId;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelState {
    /// The job is marked: nothing more is computed, and its client is told `cancelled`. An answer whose last record was
    /// on its way stands.
    Cancelled,
    /// The job had its outcome already.
    Ended,
    /// The broker cannot take the mark now; ask again.
    Unavailable,
}

/// The reply to a request on `halm.v1.cancel.<job>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// The job.
    pub job: JobId,
    /// What became of it.
    pub state: CancelState,
}

impl Cancellation {
    /// Reads a cancellation.
    ///
    /// # Errors
    /// If the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a cancellation has only strings")
    }
}
