//! Why a file did not become a model, why a request cannot be opened, and why a text cannot be read.
//!
//! Owns the three enums, their texts, which say what to do, and their dispositions. Returned by [`super::Model`]; whoever
//! settles a request matches on the disposition, never on the text.

use std::path::PathBuf;

use crate::engine::{Disposition, StepError};
use crate::forward::TensorError;
use crate::gguf::GgufError;
use crate::kernel::Isa;
use crate::sampler::InvalidSampling;
use crate::scheduler::Refusal;
use crate::template::TemplateError;
use crate::tokenizer::TokenizerError;

/// Why a file did not become a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be opened or mapped.
    #[error("open {path:?}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("open {path:?}: it is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file's structure is not sound.
    #[error("read {path:?}: {source}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GgufError,
    },
    /// A family of models that halm cannot compute.
    #[error("read {path:?}: architecture {architecture:?} is not supported, only {}", crate::forward::FAMILIES.join(", "))]
    UnsupportedArchitecture {
        /// The file.
        path: PathBuf,
        /// `general.architecture`.
        architecture: String,
    },
    /// The file's tokenizer cannot be used.
    #[error("read the tokenizer of {path:?}: {source}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TokenizerError,
    },
    /// The file's chat template cannot be used.
    #[error("read the chat template of {path:?}: {source}")]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TemplateError,
    },
    /// Instructions that this processor does not have.
    #[error("compute with {}: this processor has only {}", .wanted.name(), names(.available))]
    Isa {
        /// What was asked for.
        wanted: Isa,
        /// What there is.
        available: Vec<Isa>,
    },
    /// A tensor that no kernel takes.
    #[error("load the weights of {path:?}: {source}")]
    Pack {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        source: TensorError,
    },
}

fn names(available: &[Isa]) -> String {
    available.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

impl LoadError {
    /// What to do about it. A file that is bad stays bad; one that cannot be opened may be there later.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Open { .. } => Disposition::Retry,
            Self::NotAFile { .. }
            | Self::Gguf { .. }
            | Self::UnsupportedArchitecture { .. }
            | Self::Tokenizer { .. }
            | Self::Template { .. }
            | Self::Pack { .. } => Disposition::Poison,
            Self::Isa { .. } => Disposition::Fatal,
        }
    }
}

/// Why a request cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nothing to continue.
    #[error("the prompt is empty; send some text or a message")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt_tokens} tokens or more, and with an answer of one at least they exceed the context of {context_tokens}; shorten it"
    )]
    ContextExceeded {
        /// Tokens of the prompt; a lower bound where it is so long that it was not tokenized.
        prompt_tokens: usize,
        /// Prompt and answer together, at most.
        context_tokens: usize,
    },
    /// More tokens asked for than fit behind the prompt.
    #[error(
        "max_tokens {max_tokens} and a prompt of {prompt_tokens} exceed the context of {context_tokens}; ask for at most {room}"
    )]
    MaxTokensBeyondContext {
        /// What was asked for.
        max_tokens: u32,
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Prompt and answer together, at most.
        context_tokens: usize,
        /// What would fit.
        room: usize,
    },
    /// No token asked for.
    #[error("max_tokens is 0; ask for 1 at least, or leave it out for as many as fit")]
    ZeroMaxTokens,
    /// Messages for a model that knows no conversation.
    #[error("this model has no chat template; send a prompt instead of messages")]
    NoChatTemplate,
    /// The template refuses the messages.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The text cannot be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A sampling parameter out of its range.
    #[error(transparent)]
    Sampling(#[from] InvalidSampling),
    /// A stop string that is empty or too long, or too many of them.
    #[error("stop {problem}")]
    InvalidStop {
        /// What is wrong, in words.
        problem: String,
    },
    /// The tokens of the earlier attempt cannot have come from this request.
    #[error("token {index} of the record to resume from lies behind the end of the answer; the record is damaged")]
    InvalidReplay {
        /// Index of the first such token.
        index: usize,
    },
    /// There is no room for it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl OpenError {
    /// What to do about it: all of these but a refusal are the request's own fault and stay so on every worker.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::EmptyPrompt
            | Self::ContextExceeded { .. }
            | Self::MaxTokensBeyondContext { .. }
            | Self::ZeroMaxTokens
            | Self::NoChatTemplate
            | Self::Template(_)
            | Self::Tokenizer(_)
            | Self::Sampling(_)
            | Self::InvalidStop { .. }
            | Self::InvalidReplay { .. } => Disposition::Poison,
            Self::Refused(refusal) => refusal.disposition(),
        }
    }
}

/// Why a text was not scored or embedded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The text cannot be taken.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be computed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Windows that cannot be moved over a text.
    #[error(
        "windows of {tokens} tokens moved by {stride} cannot be computed; there may be from 2 to {context_tokens} tokens, moved by fewer than they are"
    )]
    InvalidWindows {
        /// Tokens of a window.
        tokens: usize,
        /// By how many it is moved.
        stride: usize,
        /// The most there may be.
        context_tokens: usize,
    },
    /// A text of one token.
    #[error("the text is a single token, which nothing precedes; its probability is not defined")]
    SingleToken,
}

impl TextError {
    /// What to do about it.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Open(error) => error.disposition(),
            Self::Step(error) => error.disposition(),
            Self::InvalidWindows { .. } | Self::SingleToken => Disposition::Poison,
        }
    }
}
