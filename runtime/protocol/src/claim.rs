//! A claim on a job's token log. The sequence at which the broker stores it is the fencing token.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, InvalidId, ReplicaName};

/// Tells one's own claim from another's when the acknowledgement of a claim was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(String);

impl Nonce {
    /// A nonce; unique per claim of one incarnation.
    #[must_use]
    pub fn new(incarnation: &Incarnation, counter: u64) -> Self {
        Self(format!("{incarnation}-{counter}"))
    }

    /// The same, of one who cancels and counts for itself.
    #[must_use]
    pub fn of_cancel(incarnation: &Incarnation, counter: u64) -> Self {
        Self(format!("{incarnation}-cancel-{counter}"))
    }
}

/// What is written to `halm.v1.fence.<job>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who claims.
    pub replica: ReplicaName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Tells this claim from every other.
    pub nonce: Nonce,
    /// Leases given so far, over all replicas.
    pub attempts: u32,
    /// Deaths of workers that were attributed to this job, over all replicas. Only these count towards quarantine.
    pub deaths: u32,
    /// How many of them came in a row, without the job getting past the place of the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strikes: u32,
    /// A worker died with this job: the number of tokens at which it is suspected no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_until: Option<u32>,
    /// The job is to end as cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<CancelledBy>,
}

/// Who says in a claim that the job is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelledBy {
    /// One who holds nothing, and claims only to say so: whoever holds the job goes on from there.
    Bystander,
    /// The holder, who keeps what it was told.
    Holder,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(strikes: &u32) -> bool {
    *strikes == 0
}

impl Claim {
    /// Reads a claim.
    ///
    /// # Errors
    /// If the bytes are no claim.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a claim has only strings and numbers")
    }
}

impl TryFrom<(&str, u64)> for Nonce {
    type Error = InvalidId;

    fn try_from((incarnation, counter): (&str, u64)) -> Result<Self, InvalidId> {
        Ok(Self::new(&Incarnation::try_from(incarnation)?, counter))
    }
}
