//! What is kept of a job that killed workers, for people to look into.

use serde::{Deserialize, Serialize};

use crate::{CrashRecord, Digest, JobId, ModelToken, Refusal, ReplicaName, Request};

/// A quarantined job with everything that is needed to run it again, and what is known of its deeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The job.
    pub job: JobId,
    /// Its model.
    pub model: ModelToken,
    /// The weights that it was pinned to.
    pub digest: Digest,
    /// What was asked, with the seed pinned.
    #[serde(with = "as_asked")]
    pub request: Request,
    /// What its client was told.
    pub refusal: Refusal,
    /// Leases given, over all replicas.
    pub attempts: u32,
    /// Deaths of workers attributed to it, over all replicas.
    pub deaths: u32,
    /// How many tokens it came to.
    pub tokens: u32,
    /// Who quarantined it.
    pub replica: ReplicaName,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Crash reports of the workers of that replica that died of it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crash_reports: Vec<CrashRecord>,
}

/// A request within a letter stands as it stands on the wire.
mod as_asked {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    use crate::Request;

    pub(super) fn serialize<S: Serializer>(request: &Request, to: S) -> Result<S::Ok, S::Error> {
        serde_json::from_slice::<Value>(&request.to_bytes()).map_err(S::Error::custom)?.serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Request, D::Error> {
        Request::parse(Value::deserialize(from)?.to_string().as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn a_letter_reads_back_with_its_request() {
        let mut request = Request::prompt("The sea");
        request.seed = Some(7);
        let letter = DeadLetter {
            job: JobId::try_from("j1").expect("a plain token"),
            model: ModelToken::try_from("smollm2-135m").expect("a token"),
            digest: Digest::try_from("0".repeat(64)).expect("a digest"),
            request,
            refusal: Refusal::new(ErrorCode::Poison, "3 workers died of this job; it was quarantined"),
            attempts: 4,
            deaths: 3,
            tokens: 12,
            replica: ReplicaName::try_from("a").expect("a plain name"),
            at_ms: 5,
            crash_reports: Vec::new(),
        };
        let bytes = serde_json::to_vec(&letter).expect("strings and numbers");
        assert_eq!(serde_json::from_slice::<DeadLetter>(&bytes).expect("its own bytes"), letter);
    }
}
