//! What a client receives: chunks of a stream, and the one reply.

use serde::{Deserialize, Serialize};

use crate::{ChatMessage, Digest, JobId, Refusal};

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// `max_tokens` was reached.
    Length,
}

/// How many tokens went in and came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, as the model read it.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
}

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The job whose stream this is.
    pub job: JobId,
    /// The index of the first of `tokens` in the whole answer; offsets are contiguous.
    pub offset: u32,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The text that these tokens made safe to show; the texts of all chunks, concatenated, are the reply's text. May
    /// be empty while half a character or a possible stop string is held back.
    pub text: String,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The job that answered.
    pub job: JobId,
    /// The model's name.
    pub model: String,
    /// Digest of the weights that answered.
    pub digest: Digest,
    /// The answer to a `prompt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The answer to `messages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<ChatMessage>,
    /// Why the text ended.
    pub finish_reason: FinishReason,
    /// Tokens in and out.
    pub usage: Usage,
    /// The seed that gives this text again.
    pub seed: u64,
    /// How many leases it took: 1 if nothing died.
    pub attempts: u32,
    /// The offsets at which another worker went on.
    pub resumed_at: Vec<u32>,
    /// Set on the last record of a stream.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
}

impl Reply {
    /// The answer's text, whichever way it was asked for.
    #[must_use]
    pub fn text(&self) -> &str {
        match (&self.text, &self.message) {
            (Some(text), _) => text,
            (None, Some(message)) => &message.content,
            (None, None) => "",
        }
    }
}

/// How a job ended: with an answer or with an error. Never with silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An answer.
    Reply(Box<Reply>),
    /// A typed error.
    Refusal(Refusal),
}

impl Outcome {
    /// The bytes that a client receives as its last record.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Reply(reply) => serde_json::to_vec(reply).expect("a reply has only strings and numbers"),
            Self::Refusal(refusal) => refusal.to_bytes(),
        }
    }
}
