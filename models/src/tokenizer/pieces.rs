//! What each token stands for, as bytes.
//!
//! Owns one buffer for the whole vocabulary instead of an allocation for each of a quarter of a million tokens: a
//! worker that starts again reads them all. It knows nothing of what the bytes mean. Called by [`super::Tokenizer`]
//! and by the search in [`super::spm`].

use super::TokenId;

/// The bytes of every token, in the order of their numbers.
#[derive(Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where each token's bytes end, and the next one's begin.
    ends: Vec<usize>,
    longest: usize,
}

impl Pieces {
    pub(super) fn with_capacity(tokens: usize) -> Self {
        // Published vocabularies have 5 to 8 bytes a token.
        Self { bytes: Vec::with_capacity(tokens.saturating_mul(8)), ends: Vec::with_capacity(tokens), longest: 0 }
    }

    /// Adds the next token.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.ends.push(self.bytes.len());
        self.longest = self.longest.max(piece.len());
    }

    /// The bytes of `token`; none for a number beyond the vocabulary.
    pub(super) fn get(&self, token: TokenId) -> &[u8] {
        let Some(end) = self.ends.get(token.index()) else {
            return &[];
        };
        let start = token.index().checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..*end]
    }

    /// Tokens in the vocabulary.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }
}
