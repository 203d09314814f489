//! The tokenizer's keys in a file's metadata, checked against each other.
//!
//! Owns the kinds of tokens and the rule that a number names a token that is there. It builds nothing. Called by
//! [`super::Tokenizer`] and its parts while a file is read.

use super::{SpecialTokens, TokenId, TokenizerError};
use crate::gguf::{GgufError, Metadata};

/// What a token is for, by GGUF's `token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Letters.
    Normal,
    /// Written by templates, never by users; also the token for what is unknown.
    Control,
    /// Matched as a whole string in any text.
    UserDefined,
    /// There to fill the vocabulary.
    Unused,
    /// One byte, as `<0x0A>`.
    Byte,
}

impl TokenKind {
    /// The kinds of all tokens; a file without the key has normal tokens only.
    pub(super) fn of_all(metadata: &Metadata, vocabulary: usize) -> Result<Vec<Self>, TokenizerError> {
        const KEY: &str = "tokenizer.ggml.token_type";
        let Some(types) = metadata.integers(KEY)? else {
            return Ok(vec![Self::Normal; vocabulary]);
        };
        if types.len() != vocabulary {
            return Err(TokenizerError::LengthMismatch { key: KEY, found: types.len(), vocabulary });
        }
        Ok(types.iter().map(|number| Self::from_number(*number)).collect())
    }

    /// Whether letters can become such a token.
    pub(super) fn is_letters(self) -> bool {
        match self {
            Self::Normal | Self::UserDefined => true,
            Self::Control | Self::Unused | Self::Byte => false,
        }
    }

    fn from_number(number: i32) -> Self {
        match number {
            2 | 3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// Control tokens that end an answer whatever the metadata says, by their text: the list that llama.cpp
/// keeps, without its fill-in-the-middle markers. A token that is not a control token ends nothing: Gemma's
/// vocabulary has HTML's `</s>`, which llama.cpp takes for an end.
const END_TEXTS: [&str; 8] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>", "</s>"];

/// The tokens that end an answer, ascending: the file's end of text, of turn and of message, and the known texts.
pub(super) fn end_of_generation(
    metadata: &Metadata,
    control: &SpecialTokens,
    vocabulary: usize,
) -> Result<Vec<TokenId>, TokenizerError> {
    let mut ends: Vec<_> =
        control.iter().filter(|(text, _)| END_TEXTS.contains(text)).map(|(_, token)| token).collect();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(token(metadata, key, vocabulary)?);
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// The token that `key` names, `None` if there is no such key.
pub(super) fn token(
    metadata: &Metadata,
    key: &'static str,
    vocabulary: usize,
) -> Result<Option<TokenId>, TokenizerError> {
    let Some(id) = metadata.integer(key)? else {
        return Ok(None);
    };
    match u32::try_from(id) {
        Ok(token) if (token as usize) < vocabulary => Ok(Some(TokenId::from(token))),
        Ok(_) | Err(_) => Err(TokenizerError::TokenBeyondVocabulary { key, id, vocabulary }),
    }
}

/// The value of `key`, which has to be there.
pub(super) fn required<'a, T>(
    metadata: &'a Metadata,
    key: &str,
    get: impl FnOnce(&'a Metadata, &str) -> Result<Option<T>, GgufError>,
) -> Result<T, GgufError> {
    Metadata::required(key, get(metadata, key)?)
}

/// An entry of an array that makes no sense.
pub(super) fn bad(key: &'static str, entry: &str, problem: &'static str) -> TokenizerError {
    TokenizerError::BadEntry { key, entry: entry.to_owned(), problem }
}
