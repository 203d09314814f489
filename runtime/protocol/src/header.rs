//! Header names: NATS's own and ours.

/// The idempotency key of a request; the id of a job.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Compare-and-append: the sequence that must be the last on the named subject.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// Compare-and-append: the subject whose last sequence is meant, when it is not the one published to.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
/// How long a stream keeps this message.
pub const TTL: &str = "Nats-TTL";
/// The message of an error reply (NATS services).
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// The number of an error reply (NATS services).
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The first token of the answer that whoever asks again with the same key does not have.
pub const OFFSET: &str = "Halm-Offset";
/// Where a job's answer goes.
pub const REPLY: &str = "Halm-Reply";
/// The digest of the weights that a job is pinned to.
pub const DIGEST: &str = "Halm-Digest";
/// The engine revision that a job is pinned to.
pub const ENGINE: &str = "Halm-Engine";
/// When a job's answer must be complete: milliseconds since the Unix epoch.
pub const DEADLINE: &str = "Halm-Deadline";
/// Which lease of a job wrote this record.
pub const ATTEMPT: &str = "Halm-Attempt";
