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
    /// A tokenizer family that is not known.
    #[error("tokenizer model {model:?} is not supported, only \"gpt2\" (byte-level BPE) and \"llama\" (BPE by score)")]
    UnsupportedModel {
        /// `tokenizer.ggml.model`.
        model: String,
    },
    /// A pre-tokenizer that nobody taught halm.
    #[error("pre-tokenizer {pre:?} is not supported, only {known}; another one would give wrong tokens")]
    UnsupportedPreTokenizer {
        /// `tokenizer.ggml.pre`.
        pre: String,
        /// The names that are supported, with commas between.
        known: String,
    },
    /// No token at all, or more than their numbers can count.
    #[error("\"tokenizer.ggml.tokens\" has {tokens} entries; from 1 to 4294967295 are possible")]
    BadVocabulary {
        /// Its entries.
        tokens: usize,
    },
    /// A vocabulary that cannot express every text.
    #[error("\"tokenizer.ggml.tokens\" has no byte token \"<0x{byte:02X}>\"")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// The search for special tokens cannot be built.
    #[error("the search for special tokens failed: {0}")]
    SpecialTokens(#[source] Box<dyn std::error::Error + Send + Sync>),
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
