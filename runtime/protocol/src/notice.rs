//! What a replica says of a request that it heard, so that those who heard it too know whether they must act.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, JobId, Refusal, ReplicaName};

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// None yet: it was heard, and is being stored.
    Pending,
    /// It is in the queue, now or since before.
    Admitted,
    /// It had its outcome already, which was told again.
    Answered,
    /// It was refused.
    Refused {
        /// As the client is told.
        refusal: Refusal,
    },
}

/// What is published on `halm.v1.heard.<job>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The job that the request is, or would be.
    pub job: JobId,
    /// Who took the request.
    pub replica: ReplicaName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// What became of it.
    pub verdict: Verdict,
}

impl Notice {
    /// Reads a notice.
    ///
    /// # Errors
    /// If the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a notice has only strings and numbers")
    }
}
