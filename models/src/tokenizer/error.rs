//! Why a file's tokenizer cannot be used.
//!
//! Owns the error texts, each of which names the metadata key that is at fault. Returned by [`super::Tokenizer`].

use crate::gguf::GgufError;

/// Why a file's tokenizer cannot be used, or a text not be tokenized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key is missing or of the wrong kind.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// A tokenizer family that is not a byte-level BPE.
    #[error("tokenizer model {model:?} is not supported, only \"gpt2\" (byte-level BPE)")]
    UnsupportedModel {
        /// `tokenizer.ggml.model`.
        model: String,
    },
    /// A pre-tokenizer that nobody taught halm.
    #[error(
        "pre-tokenizer {pre:?} is not supported, only smollm, gpt-2, default, llama-bpe and qwen2; another one would give wrong tokens"
    )]
    UnsupportedPreTokenizer {
        /// `tokenizer.ggml.pre`.
        pre: String,
    },
    /// Arrays that should be of one length are not.
    #[error("{key:?} has {found} entries for a vocabulary of {vocabulary}")]
    LengthMismatch {
        /// The metadata key.
        key: &'static str,
        /// Its entries.
        found: usize,
        /// Tokens in the vocabulary.
        vocabulary: usize,
    },
    /// A token number beyond the vocabulary.
    #[error("{key:?} is {id}, beyond the vocabulary of {vocabulary}")]
    TokenBeyondVocabulary {
        /// The metadata key.
        key: &'static str,
        /// The number.
        id: u64,
        /// Tokens in the vocabulary.
        vocabulary: usize,
    },
    /// An entry of the vocabulary or the merges that makes no sense.
    #[error("{key:?} has the entry {entry:?}, which {problem}")]
    BadEntry {
        /// The metadata key.
        key: &'static str,
        /// The entry.
        entry: String,
        /// What is wrong, in words.
        problem: &'static str,
    },
    /// The BPE library refuses the vocabulary or a text.
    #[error("byte-pair encoding failed: {0}")]
    Bpe(#[source] Box<dyn std::error::Error + Send + Sync>),
}
