//! The pipe between a runtime and its worker process: length-delimited JSON, a 4-byte big-endian length before each.
//!
//! Commands go to the worker's standard input, events come from its standard output. A worker's first event is a
//! [`Event::Beat`] that tells who it is; [`Event::Ready`] follows when the model is loaded.

use serde::{Deserialize, Serialize};

use crate::{Class, Digest, ErrorCode, FinishReason, Input, JobId, Sampling};

/// Largest frame, in bytes: a full request, and room for the tokens generated so far. What is longer is garbage.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A worker's right to run one attempt of a job. Never reused within a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lease(pub u64);

/// What a worker is asked to compute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The lease under which results come back.
    pub lease: Lease,
    /// For logs and crash reports.
    pub job: JobId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// What the model reads.
    pub input: Input,
    /// Most tokens in all, those in `generated` included.
    pub max_tokens: Option<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Pinned at admission.
    pub seed: u64,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// Who waits for it: the interactive go first within the worker too.
    #[serde(default)]
    pub class: Class,
    /// Tokens of earlier attempts; the worker goes on after them.
    pub generated: Vec<u32>,
    /// W3C trace context of the job's span.
    pub traceparent: Option<String>,
}

/// To a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Run this.
    Start(Box<Work>),
    /// Forget this lease; no event follows.
    Cancel {
        /// The lease.
        lease: Lease,
    },
    /// Exit with status 0.
    Shutdown,
}

/// A token and the text that it made safe to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Token id.
    pub token: u32,
    /// May be empty.
    pub text: String,
}

/// What a worker is doing in this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPulse {
    /// Forward passes finished since the process began.
    pub steps: u64,
    /// Rows of the pass that is running; 0 when idle.
    pub rows: u32,
    /// How long that pass has been running, in microseconds.
    pub running_us: u64,
    /// Recent time of one row, in microseconds; 0 before the first.
    pub row_us: u64,
}

/// From a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// Sent regularly, by a thread that does not compute; the first one before anything is loaded.
    Beat {
        /// The process.
        pid: u32,
        /// halm's version.
        build: String,
        /// The weights that it was told to load.
        digest: Digest,
        /// What the computing thread does.
        pulse: StepPulse,
    },
    /// The model is loaded.
    Ready {
        /// Most tokens of prompt and answer together.
        context_tokens: u32,
        /// How long loading took, in milliseconds.
        load_ms: u64,
    },
    /// New tokens.
    Tokens {
        /// Under which lease.
        lease: Lease,
        /// Index of the first in the whole answer.
        offset: u32,
        /// The tokens.
        pieces: Vec<Piece>,
    },
    /// The text is complete.
    Done {
        /// Under which lease.
        lease: Lease,
        /// Text held back until now.
        text: String,
        /// Why it ended.
        reason: FinishReason,
        /// Tokens of the prompt.
        prompt_tokens: u32,
    },
    /// This attempt failed; the process goes on.
    Failed {
        /// Under which lease.
        lease: Lease,
        /// What the client will read, if nothing else can be done.
        code: ErrorCode,
        /// For people.
        message: String,
        /// The request's field that is wrong.
        param: Option<String>,
        /// True if another worker may succeed.
        retry: bool,
    },
}

/// A frame that cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Its declared length is beyond [`FRAME_BYTES_MAX`]: most often text that somebody printed to the pipe.
    #[error("a frame of {0} bytes is declared; at most {FRAME_BYTES_MAX} are taken")]
    TooLong(usize),
    /// It is no message of this protocol.
    #[error("a frame is no message: {0}")]
    NotAMessage(#[from] serde_json::Error),
}

/// A message as it stands on the pipe, its length before it.
///
/// # Errors
/// If it is longer than [`FRAME_BYTES_MAX`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let bytes = frame.len() - 4;
    let declared = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX).ok_or(FrameError::TooLong(bytes))?;
    frame[..4].copy_from_slice(&declared.to_be_bytes());
    Ok(frame)
}

/// The length that a frame's first four bytes declare.
///
/// # Errors
/// If it is longer than [`FRAME_BYTES_MAX`].
pub fn declared_length(head: [u8; 4]) -> Result<usize, FrameError> {
    let bytes = u32::from_be_bytes(head) as usize;
    if bytes <= FRAME_BYTES_MAX { Ok(bytes) } else { Err(FrameError::TooLong(bytes)) }
}

/// Reads the message of a frame's body.
///
/// # Errors
/// If it is none.
pub fn decode<'a, M: Deserialize<'a>>(body: &'a [u8]) -> Result<M, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_as_its_message_and_garbage_does_not() {
        let event = Event::Tokens { lease: Lease(3), offset: 2, pieces: vec![Piece { token: 5, text: "é".into() }] };
        let frame = encode(&event).expect("a small message");
        let (head, body) = frame.split_at(4);
        assert_eq!(declared_length(head.try_into().expect("four bytes")).expect("its own length"), body.len());
        assert_eq!(decode::<Event>(body).expect("its own bytes"), event);
        assert!(matches!(declared_length(*b"Load"), Err(FrameError::TooLong(_))));
        assert!(decode::<Event>(b"{\"event\":\"tokens\"}").is_err());
    }
}
