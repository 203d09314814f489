//! Text to tokens and back, as the model's own file defines it.
//!
//! Owns the vocabulary, the pre-tokenizer and the special tokens of a byte-level BPE (`gpt2` in GGUF's
//! words). Text that users send never turns into control tokens, only what a chat template wrote does: see
//! [`Specials`]. It never guesses a pre-tokenizer: an unknown one is an error that names it, because a
//! wrong one gives plausible, wrong tokens. Called by [`crate::Model`]; the incremental way back to text
//! is [`Detokenizer`].

mod bpe;
mod detokenizer;
mod error;

pub(crate) use bpe::byte_letters;
pub use detokenizer::Detokenizer;
pub use error::TokenizerError;

use std::fmt;

use crate::gguf::{GgufError, Metadata};

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

/// A byte-level BPE read from a GGUF file.
pub struct Tokenizer {
    bpe: bpe::ByteLevelBpe,
    /// What each token stands for; empty for control tokens.
    pieces: Vec<Box<[u8]>>,
    /// Control tokens, the longest text first, so that none is hidden by its own prefix.
    control: Vec<(String, TokenId)>,
    /// Tokens that are matched as whole strings in any text (`user defined` in GGUF's words).
    user_defined: Vec<(String, TokenId)>,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    add_bos: bool,
    add_eos: bool,
    end_of_generation: Vec<TokenId>,
    /// The longest piece in bytes, at least 1.
    piece_bytes_max: usize,
}

/// GGUF's token types.
const TYPE_UNKNOWN: i32 = 2;
const TYPE_CONTROL: i32 = 3;
const TYPE_USER_DEFINED: i32 = 4;

/// Control tokens that end an answer whatever the metadata says, by their text: the list that llama.cpp
/// keeps, without its fill-in-the-middle markers.
const END_TEXTS: [&str; 8] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>", "</s>"];

impl Tokenizer {
    /// Reads the tokenizer that `metadata` describes.
    ///
    /// # Errors
    /// A [`TokenizerError`] that names the key and what is wrong with it.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let model = required(metadata, "tokenizer.ggml.model", Metadata::string)?;
        if model != "gpt2" {
            return Err(TokenizerError::UnsupportedModel { model: model.to_owned() });
        }
        let tokens = required(metadata, TOKENS, Metadata::strings)?;
        let types = token_types(metadata, tokens.len())?;
        let mut pieces = Vec::with_capacity(tokens.len());
        let (mut control, mut user_defined) = (Vec::new(), Vec::new());
        for (index, (text, kind)) in tokens.iter().zip(&types).enumerate() {
            let id = TokenId(u32::try_from(index).map_err(|_| bad(TOKENS, text, "is out of range"))?);
            match *kind {
                TYPE_CONTROL | TYPE_UNKNOWN => {
                    control.push((text.clone(), id));
                    pieces.push(Box::default());
                }
                TYPE_USER_DEFINED => {
                    user_defined.push((text.clone(), id));
                    pieces.push(text.as_bytes().into());
                }
                _ => pieces.push(bpe::piece_bytes(text)),
            }
        }
        let longest_first = |list: &mut Vec<(String, TokenId)>| {
            list.retain(|(text, _)| !text.is_empty());
            list.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        };
        longest_first(&mut control);
        longest_first(&mut user_defined);

        let eos = token_key(metadata, "tokenizer.ggml.eos_token_id", tokens.len())?;
        let eot = token_key(metadata, "tokenizer.ggml.eot_token_id", tokens.len())?;
        let by_text = control.iter().filter(|(text, _)| END_TEXTS.contains(&text.as_str())).map(|(_, id)| *id);
        let mut end_of_generation: Vec<_> = eos.into_iter().chain(eot).chain(by_text).collect();
        end_of_generation.sort_unstable();
        end_of_generation.dedup();

        Ok(Self {
            bpe: bpe::ByteLevelBpe::from_metadata(metadata, tokens)?,
            piece_bytes_max: pieces.iter().map(|piece| piece.len()).max().unwrap_or(0).max(1),
            pieces,
            control,
            user_defined,
            bos: token_key(metadata, "tokenizer.ggml.bos_token_id", tokens.len())?,
            eos,
            add_bos: metadata.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(false),
            add_eos: metadata.boolean("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            end_of_generation,
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

    fn encode_marked(
        &self,
        text: &str,
        specials: Specials,
        mark: Option<char>,
        out: &mut Vec<TokenId>,
    ) -> Result<(), TokenizerError> {
        let control: &[_] = match specials {
            Specials::AsControl => &self.control,
            Specials::AsText => &[],
        };
        for part in split(text, control, &self.user_defined) {
            match part {
                Part::Special(id) => out.push(id),
                Part::Text(text) => match mark {
                    Some(mark) if text.contains(mark) => {
                        self.bpe.encode(&text.replace(mark, ""), out)?;
                    }
                    Some(_) | None => self.bpe.encode(text, out)?,
                },
            }
        }
        Ok(())
    }

    /// The bytes that `token` stands for: none for a control token or a number beyond the vocabulary.
    /// They may be half a character.
    pub fn piece(&self, token: TokenId) -> &[u8] {
        self.pieces.get(token.index()).map_or(&[], |piece| piece)
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

    /// The texts of the control tokens, the longest first.
    pub(crate) fn control_texts(&self) -> impl Iterator<Item = &str> {
        self.control.iter().map(|(text, _)| text.as_str())
    }

    /// The text of the token that starts a prompt, for templates.
    pub(crate) fn bos_text(&self) -> Option<&str> {
        self.control_text(self.bos)
    }

    /// The text of the token that ends an answer, for templates.
    pub(crate) fn eos_text(&self) -> Option<&str> {
        self.control_text(self.eos)
    }

    fn control_text(&self, id: Option<TokenId>) -> Option<&str> {
        let id = id?;
        let entry = self.control.iter().find(|(_, other)| *other == id);
        entry.map(|(text, _)| text.as_str())
    }

    /// No text of fewer tokens than this can have `bytes` bytes: a bound that costs nothing, to refuse an
    /// enormous prompt before tokenizing it.
    pub(crate) fn tokens_min(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.piece_bytes_max)
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

enum Part<'a> {
    Text(&'a str),
    Special(TokenId),
}

/// Cuts `text` at the special tokens, the longest first, as llama.cpp does.
fn split<'a>(text: &'a str, control: &[(String, TokenId)], user_defined: &[(String, TokenId)]) -> Vec<Part<'a>> {
    let mut specials: Vec<_> = control.iter().chain(user_defined).collect();
    specials.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    let mut parts = vec![Part::Text(text)];
    for (special, id) in specials {
        if !text.contains(special.as_str()) {
            continue;
        }
        parts = parts
            .into_iter()
            .flat_map(|part| match part {
                Part::Special(_) => vec![part],
                Part::Text(text) => cut(text, special, *id),
            })
            .collect();
    }
    parts
}

fn cut<'a>(text: &'a str, special: &str, id: TokenId) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for (index, piece) in text.split(special).enumerate() {
        if index > 0 {
            parts.push(Part::Special(id));
        }
        if !piece.is_empty() {
            parts.push(Part::Text(piece));
        }
    }
    parts
}

fn bad(key: &'static str, entry: &str, problem: &'static str) -> TokenizerError {
    TokenizerError::BadEntry { key, entry: entry.to_owned(), problem }
}

fn required<'a, T>(
    metadata: &'a Metadata,
    key: &str,
    get: impl FnOnce(&'a Metadata, &str) -> Result<Option<T>, GgufError>,
) -> Result<T, GgufError> {
    Metadata::required(key, get(metadata, key)?)
}

/// The type of each token; a file without the key has normal tokens only.
fn token_types(metadata: &Metadata, vocabulary: usize) -> Result<Vec<i32>, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(types) = metadata.integers(KEY)? else {
        return Ok(vec![1; vocabulary]);
    };
    if types.len() == vocabulary {
        return Ok(types.to_vec());
    }
    Err(TokenizerError::LengthMismatch { key: KEY, found: types.len(), vocabulary })
}

fn token_key(metadata: &Metadata, key: &'static str, vocabulary: usize) -> Result<Option<TokenId>, TokenizerError> {
    let Some(id) = metadata.integer(key)? else {
        return Ok(None);
    };
    match u32::try_from(id) {
        Ok(token) if (token as usize) < vocabulary => Ok(Some(TokenId(token))),
        Ok(_) | Err(_) => Err(TokenizerError::TokenBeyondVocabulary { key, id, vocabulary }),
    }
}

#[cfg(test)]
mod tests;
