//! Why a request gets no text: one closed list of codes, one body.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::JobId;

/// The closed list of error codes. A program may match on them; texts are for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong; asking again changes nothing.
    InvalidRequest,
    /// No replica runs this model.
    UnknownModel,
    /// Prompt and answer do not fit into the model's context.
    ContextExceeded,
    /// The queue is full: ask again after `retry_after_ms`.
    Overloaded,
    /// The deadline passed before the answer was complete.
    DeadlineExceeded,
    /// The client, or an operator, cancelled the job.
    Cancelled,
    /// The job killed worker after worker and was quarantined.
    Poison,
    /// Nothing can answer now; asking again later may help.
    Unavailable,
    /// A fault of halm's own.
    Internal,
}

impl ErrorCode {
    /// All codes, for documents and tests.
    pub const ALL: [Self; 9] = [
        Self::InvalidRequest,
        Self::UnknownModel,
        Self::ContextExceeded,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Poison,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownModel => "unknown_model",
            Self::ContextExceeded => "context_exceeded",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Poison => "poison",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The number in the `Nats-Service-Error-Code` header: the nearest HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::ContextExceeded => 400,
            Self::UnknownModel => 404,
            Self::Overloaded => 429,
            Self::DeadlineExceeded => 504,
            Self::Cancelled => 499,
            Self::Poison => 422,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as a client receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// What kind of error.
    pub code: ErrorCode,
    /// What happened and what to do, for people.
    pub message: String,
    /// The field of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// When asking again has a chance, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The job, if the request had become one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
}

/// The body on the wire: `{"error": {…}}`, as in the OpenAI API.
#[derive(Serialize, Deserialize)]
struct Body {
    error: Refusal,
}

/// Longest message, in characters: what quotes a request must not grow with it.
const MESSAGE_CHARS_MAX: usize = 1000;
/// Longest name of a field that is said back, in characters.
const PARAM_CHARS_MAX: usize = 64;

impl Refusal {
    /// A refusal with a code and a message, which is cut to 1,000 characters.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = cut(message.into(), MESSAGE_CHARS_MAX);
        Self { code, message, param: None, retry_after_ms: None, job: None }
    }

    /// A refusal of one field, whose name is cut to 64 characters.
    #[must_use]
    pub fn of_param(param: &str, message: impl Into<String>) -> Self {
        let param = cut(param.chars().take(PARAM_CHARS_MAX + 1).collect(), PARAM_CHARS_MAX);
        Self { param: Some(param), ..Self::new(ErrorCode::InvalidRequest, message) }
    }

    /// The same, for a job.
    #[must_use]
    pub fn for_job(self, job: JobId) -> Self {
        Self { job: Some(job), ..self }
    }

    /// The same, with a time after which to ask again.
    #[must_use]
    pub fn retry_after_ms(self, after_ms: u64) -> Self {
        Self { retry_after_ms: Some(after_ms), ..self }
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&Body { error: self.clone() }).expect("a refusal has only strings and numbers")
    }

    /// Reads the bytes on the wire, if they are a refusal.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Body>(bytes).ok().map(|body| body.error)
    }
}

fn cut(text: String, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_the_wire_as_itself() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).expect("a code is a string"), code.as_str());
            let refusal = Refusal::new(code, "because").retry_after_ms(5);
            assert_eq!(Refusal::from_bytes(&refusal.to_bytes()), Some(refusal));
        }
    }

    #[test]
    fn a_refusal_stays_short_whatever_it_quotes() {
        let refusal = Refusal::of_param(&"é".repeat(500_000), "é".repeat(500_000));
        assert!(refusal.to_bytes().len() < 3000);
    }
}
