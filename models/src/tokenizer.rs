//! Text to tokens and back, as the model's own file defines it.
//!
//! Owns the vocabulary and the special tokens of two families: byte-level BPE with a pre-tokenizer (`gpt2` in GGUF's
//! words) and BPE by score (`llama`). Text that users send never turns into control tokens, only what a chat template
//! wrote does: see [`Specials`]. It never guesses a pre-tokenizer: an unknown one is an error that names it, because a
//! wrong one gives plausible, wrong tokens. Where llama.cpp and a model's authors differ, it follows the authors.
//! Called by [`crate::Model`]; the incremental way back to text is [`Detokenizer`].

mod bpe;
mod detokenizer;
mod error;
mod keys;
mod pieces;
mod special;
mod spm;

pub(crate) use bpe::byte_letters;
pub use detokenizer::Detokenizer;
pub use error::TokenizerError;
pub(crate) use special::SpecialTokens;

use std::fmt;

use self::bpe::ByteLevelBpe;
use self::keys::{TokenKind, required};
use self::pieces::Pieces;
use self::special::Part;
use self::spm::ScoredMerges;
use crate::gguf::Metadata;

/// A token's number in the model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(u32);

impl TokenId {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl From<u32> for TokenId {
    fn from(id: u32) -> Self {
        Self(id)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the text of a control token (`<|im_end|>`) in a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specials {
    /// Letters like any others: right for whatever a user wrote.
    AsText,
    /// The control token: right for what a chat template wrote.
    AsControl,
}

/// Where a text without control tokens stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// At the start, or behind a control token.
    OfText,
    /// Behind other text.
    Within,
}

/// The tokenizer of one GGUF file.
pub struct Tokenizer {
    merges: Merges,
    /// What each token stands for; nothing for control tokens.
    pieces: Pieces,
    control: SpecialTokens,
    user_defined: SpecialTokens,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    add_bos: bool,
    add_eos: bool,
    /// Ascending.
    end_of_generation: Vec<TokenId>,
}

/// How letters become tokens, by `tokenizer.ggml.model`.
enum Merges {
    /// `gpt2`.
    ByteLevel(Box<ByteLevelBpe>),
    /// `llama`.
    Scored(ScoredMerges),
}

/// What is known before any token is read.
#[derive(Clone, Copy)]
enum Family {
    ByteLevel,
    Scored,
}

impl Family {
    fn of(metadata: &Metadata) -> Result<Self, TokenizerError> {
        match required(metadata, "tokenizer.ggml.model", Metadata::string)? {
            "gpt2" => Ok(Self::ByteLevel),
            "llama" => Ok(Self::Scored),
            model => Err(TokenizerError::UnsupportedModel { model: model.to_owned() }),
        }
    }

    fn pieces(self, tokens: &[String], kinds: &[TokenKind]) -> Pieces {
        let mut pieces = Pieces::with_capacity(tokens.len());
        for (text, kind) in tokens.iter().zip(kinds) {
            match (self, kind) {
                (_, TokenKind::Control) => pieces.push(&[]),
                (Self::ByteLevel, TokenKind::UserDefined) => pieces.push(text.as_bytes()),
                (Self::ByteLevel, TokenKind::Normal | TokenKind::Unused | TokenKind::Byte) => {
                    pieces.push(&bpe::piece_bytes(text));
                }
                (Self::Scored, TokenKind::Byte) => pieces.push(spm::byte_of(text).as_slice()),
                (Self::Scored, TokenKind::Normal | TokenKind::Unused | TokenKind::UserDefined) => {
                    pieces.push(spm::spaced(text).as_bytes());
                }
            }
        }
        pieces
    }
}

impl Tokenizer {
    /// Reads the tokenizer that `metadata` describes.
    ///
    /// # Errors
    /// A [`TokenizerError`] that names the key and what is wrong with it.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let family = Family::of(metadata)?;
        let tokens = required(metadata, "tokenizer.ggml.tokens", Metadata::strings)?;
        let vocabulary = u32::try_from(tokens.len()).map_or(0, |count| count as usize);
        if vocabulary == 0 {
            return Err(TokenizerError::BadVocabulary { tokens: tokens.len() });
        }
        let kinds = TokenKind::of_all(metadata, vocabulary)?;
        let pieces = family.pieces(tokens, &kinds);
        let special = |kind| {
            let all = (0_u32..).map(TokenId::from).zip(tokens).zip(&kinds);
            all.filter(move |(_, other)| **other == kind).map(|((id, text), _)| (text, id))
        };
        let control = SpecialTokens::new(special(TokenKind::Control).map(|(text, id)| (text.clone(), id)).collect())?;
        let (merges, user_defined) = match family {
            Family::ByteLevel => {
                let merges = Merges::ByteLevel(Box::new(ByteLevelBpe::from_metadata(metadata, tokens)?));
                (merges, special(TokenKind::UserDefined).map(|(text, id)| (text.clone(), id)).collect())
            }
            Family::Scored => {
                let merges = Merges::Scored(ScoredMerges::from_metadata(metadata, tokens, &kinds, &pieces)?);
                let entries = special(TokenKind::UserDefined).map(|(text, id)| (spm::spaced(text).into_owned(), id));
                (merges, entries.collect())
            }
        };
        Ok(Self {
            bos: keys::token(metadata, "tokenizer.ggml.bos_token_id", vocabulary)?,
            eos: keys::token(metadata, "tokenizer.ggml.eos_token_id", vocabulary)?,
            add_bos: metadata.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(merges.adds_bos()),
            add_eos: metadata.boolean("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            end_of_generation: keys::end_of_generation(metadata, &control, vocabulary)?,
            user_defined: SpecialTokens::new(user_defined)?,
            control,
            merges,
            pieces,
        })
    }

    /// Tokens in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.pieces.len()
    }

    /// The tokens of `text`, nothing added.
    ///
    /// # Errors
    /// [`TokenizerError::Bpe`] when the BPE library fails.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<TokenId>, TokenizerError> {
        let mut out = Vec::new();
        self.encode_marked(text, specials, None, &mut out)?;
        Ok(out)
    }

    /// The tokens of a whole prompt: `text` with the start and end tokens that the file asks for. A start
    /// token that a template already wrote is not doubled.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_prompt(&self, text: &str, specials: Specials) -> Result<Vec<TokenId>, TokenizerError> {
        self.encode_prompt_marked(text, specials, None)
    }

    /// The tokens of `text` where it goes on after other text: nothing is put in front, not even the space that some
    /// vocabularies put before a text.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let mut out = Vec::new();
        self.encode_text(text, Start::Within, &mut out)?;
        Ok(out)
    }

    /// As [`Self::encode_prompt`]; occurrences of `mark` are dropped, and a control token with a mark in
    /// it stays text.
    pub(crate) fn encode_prompt_marked(
        &self,
        text: &str,
        specials: Specials,
        mark: Option<char>,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let mut out = Vec::new();
        self.encode_marked(text, specials, mark, &mut out)?;
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && out.first() != Some(bos)) {
            out.insert(0, bos);
        }
        if let Some(eos) = self.eos.filter(|_| self.add_eos) {
            out.push(eos);
        }
        Ok(out)
    }

    /// Control tokens are cut out first, so that what a user wrote between them becomes the tokens that it would
    /// become alone.
    fn encode_marked(
        &self,
        text: &str,
        specials: Specials,
        mark: Option<char>,
        out: &mut Vec<TokenId>,
    ) -> Result<(), TokenizerError> {
        let parts = match specials {
            Specials::AsControl => self.control.split(text),
            Specials::AsText => vec![Part::Text(text)],
        };
        for part in parts {
            match part {
                Part::Special(id) => out.push(id),
                Part::Text(text) => match mark {
                    Some(mark) if text.contains(mark) => {
                        self.encode_text(&text.replace(mark, ""), Start::OfText, out)?;
                    }
                    Some(_) | None => self.encode_text(text, Start::OfText, out)?,
                },
            }
        }
        Ok(())
    }

    /// Appends the tokens of `text`, which has no control token in it.
    fn encode_text(&self, text: &str, start: Start, out: &mut Vec<TokenId>) -> Result<(), TokenizerError> {
        match &self.merges {
            Merges::ByteLevel(bpe) => {
                for part in self.user_defined.split(text) {
                    match part {
                        Part::Special(id) => out.push(id),
                        Part::Text(text) => bpe.encode(text, out)?,
                    }
                }
            }
            Merges::Scored(merges) => {
                let mut prefix = merges.space_prefix() && start == Start::OfText;
                for part in self.user_defined.split(&spm::spaced(text)) {
                    match part {
                        Part::Special(id) => out.push(id),
                        Part::Text(text) if prefix => merges.encode(&format!(" {text}"), &self.pieces, out),
                        Part::Text(text) => merges.encode(text, &self.pieces, out),
                    }
                    prefix = merges.space_prefix() && matches!(part, Part::Special(_));
                }
            }
        }
        Ok(())
    }

    /// The bytes that `token` stands for: none for a control token or a number beyond the vocabulary.
    /// They may be half a character.
    pub fn piece(&self, token: TokenId) -> &[u8] {
        self.pieces.get(token)
    }

    /// The text of `tokens`, broken characters replaced by U+FFFD.
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.piece(*token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether `token` ends an answer.
    pub fn is_end_of_generation(&self, token: TokenId) -> bool {
        self.end_of_generation.binary_search(&token).is_ok()
    }

    /// The tokens that end an answer, ascending.
    pub fn end_of_generation(&self) -> &[TokenId] {
        &self.end_of_generation
    }

    /// The control tokens, which only a template may write.
    pub(crate) fn control(&self) -> &SpecialTokens {
        &self.control
    }

    /// The text of the token that starts a prompt, for templates.
    pub(crate) fn bos_text(&self) -> Option<&str> {
        self.control.text_of(self.bos?)
    }

    /// The text of the token that ends an answer, for templates.
    pub(crate) fn eos_text(&self) -> Option<&str> {
        self.control.text_of(self.eos?)
    }

    /// No text of fewer tokens than this can have `bytes` bytes: a bound that costs nothing, to refuse an
    /// enormous prompt before tokenizing it.
    pub(crate) fn tokens_min(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.pieces.longest().max(1).saturating_mul(self.merges.bytes_of_text_for_one()))
    }
}

impl Merges {
    /// Whether a prompt gets a start token where the file says nothing, as llama.cpp has it.
    fn adds_bos(&self) -> bool {
        match self {
            Self::ByteLevel(bpe) => bpe.adds_bos(),
            Self::Scored(_) => true,
        }
    }

    /// How many bytes of a text can become one byte of a token, at most: three are one where `\u{2581}` becomes a
    /// space and, for one, where three Hangul letters are composed.
    fn bytes_of_text_for_one(&self) -> usize {
        match self {
            Self::ByteLevel(bpe) if bpe.composes() => 3,
            Self::ByteLevel(_) => 1,
            Self::Scored(_) => 3,
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocabulary", &self.vocabulary())
            .field("end_of_generation", &self.end_of_generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
