//! Byte-pair encoding by score, as SentencePiece does it (`llama` in GGUF's words).
//!
//! Owns the search for a text's tokens in a vocabulary where each has a score: neighbours are joined, those first whose
//! joint token has the highest score, from left to right among equals, until no two have one. A character without a
//! token becomes the tokens of its bytes. Spaces are spaces here: the `▁` that vocabularies write for one is taken for
//! a space in tokens and in texts, which says the same and saves a copy. It knows no special tokens, and never makes
//! a control token or a byte token out of letters, which llama.cpp can. Called by [`super::Tokenizer`] only.
//!
//! Sources: <https://github.com/google/sentencepiece/blob/master/src/bpe_model.cc>, and `llm_tokenizer_spm` in
//! <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp>.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::keys::{TokenKind, bad, required};
use super::pieces::Pieces;
use super::{TokenId, TokenizerError};
use crate::gguf::Metadata;

/// What vocabularies write for a space.
const SPACE_LETTER: &str = "\u{2581}";

/// The scores of one file's tokens, and their texts turned around.
pub(super) struct ScoredMerges {
    /// Tokens that letters can become, by their bytes.
    by_bytes: HashTable<TokenId>,
    hasher: DefaultHashBuilder,
    /// One for each token.
    scores: Vec<f32>,
    /// What stands for a byte of a character without a token.
    bytes: Box<[TokenId; 256]>,
    space_prefix: bool,
}

impl ScoredMerges {
    pub(super) fn from_metadata(
        metadata: &Metadata,
        tokens: &[String],
        kinds: &[TokenKind],
        pieces: &Pieces,
    ) -> Result<Self, TokenizerError> {
        let scores = scores(metadata, tokens.len())?;
        let bytes = Box::new(byte_tokens(tokens, kinds)?);
        let hasher = DefaultHashBuilder::default();
        let mut by_bytes = HashTable::with_capacity(tokens.len());
        for (id, kind) in (0_u32..).map(TokenId::from).zip(kinds) {
            let piece = pieces.get(id);
            if !kind.is_letters() || piece.is_empty() {
                continue;
            }
            let entry = by_bytes.entry(
                hasher.hash_one(piece),
                |other| pieces.get(*other) == piece,
                |other| hasher.hash_one(pieces.get(*other)),
            );
            let Entry::Vacant(vacant) = entry else {
                return Err(bad("tokenizer.ggml.tokens", &tokens[id.index()], "occurs twice"));
            };
            vacant.insert(id);
        }
        let space_prefix = metadata.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(Self { by_bytes, hasher, scores, bytes, space_prefix })
    }

    /// Whether a text gets a space in front, at its start and behind each special token.
    pub(super) fn space_prefix(&self) -> bool {
        self.space_prefix
    }

    /// Appends the tokens of `text`, in which spaces are spaces.
    pub(super) fn encode(&self, text: &str, pieces: &Pieces, out: &mut Vec<TokenId>) {
        let mut search =
            Search { merges: self, pieces, text: text.as_bytes(), symbols: symbols(text), open: BinaryHeap::new() };
        for right in 1..search.symbols.len() {
            search.propose(right - 1, right);
        }
        search.run();
        for symbol in search.symbols.iter().filter(|symbol| symbol.length > 0) {
            let bytes = &text.as_bytes()[symbol.start..][..symbol.length];
            match symbol.token.or_else(|| self.find(bytes, pieces)) {
                Some(token) => out.push(token),
                None => out.extend(bytes.iter().map(|byte| self.bytes[usize::from(*byte)])),
            }
        }
    }

    fn find(&self, bytes: &[u8], pieces: &Pieces) -> Option<TokenId> {
        if bytes.len() > pieces.longest() {
            return None;
        }
        self.by_bytes.find(self.hasher.hash_one(bytes), |token| pieces.get(*token) == bytes).copied()
    }
}

/// A character, or characters that were joined.
struct Symbol {
    start: usize,
    /// Bytes; 0 for one that was joined to its left neighbour.
    length: usize,
    left: Option<usize>,
    right: Option<usize>,
    /// What it was joined to; `None` for a single character.
    token: Option<TokenId>,
}

fn symbols(text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<_> = text
        .char_indices()
        .enumerate()
        .map(|(index, (start, character))| Symbol {
            start,
            length: character.len_utf8(),
            left: index.checked_sub(1),
            right: Some(index + 1),
            token: None,
        })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.right = None;
    }
    symbols
}

/// Two neighbours that have a token together.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both when it was found: another sum says that one of them has changed since.
    length: usize,
    token: TokenId,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| Reverse(self.left).cmp(&Reverse(other.left)))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

struct Search<'a> {
    merges: &'a ScoredMerges,
    pieces: &'a Pieces,
    text: &'a [u8],
    symbols: Vec<Symbol>,
    /// Pairs that may be joined, the best on top.
    open: BinaryHeap<Pair>,
}

impl Search<'_> {
    fn propose(&mut self, left: usize, right: usize) {
        let length = self.symbols[left].length + self.symbols[right].length;
        let bytes = &self.text[self.symbols[left].start..][..length];
        if let Some(token) = self.merges.find(bytes, self.pieces) {
            let score = self.merges.scores[token.index()];
            self.open.push(Pair { score, left, right, length, token });
        }
    }

    fn run(&mut self) {
        while let Some(pair) = self.open.pop() {
            let (left, right) = (&self.symbols[pair.left], &self.symbols[pair.right]);
            if left.length == 0 || right.length == 0 || left.length + right.length != pair.length {
                continue;
            }
            let (before, after) = (left.left, right.right);
            self.symbols[pair.right].length = 0;
            let joined = &mut self.symbols[pair.left];
            joined.length = pair.length;
            joined.token = Some(pair.token);
            joined.right = after;
            if let Some(after) = after {
                self.symbols[after].left = Some(pair.left);
                self.propose(pair.left, after);
            }
            if let Some(before) = before {
                self.propose(before, pair.left);
            }
        }
    }
}

/// `text` with spaces for the letter that stands for one.
pub(super) fn spaced(text: &str) -> Cow<'_, str> {
    if text.contains(SPACE_LETTER) { Cow::Owned(text.replace(SPACE_LETTER, " ")) } else { Cow::Borrowed(text) }
}

/// The byte that a byte token such as `<0x0A>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || digits.starts_with('+') {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

fn byte_tokens(tokens: &[String], kinds: &[TokenKind]) -> Result<[TokenId; 256], TokenizerError> {
    let mut found = [None; 256];
    for ((id, text), kind) in (0_u32..).map(TokenId::from).zip(tokens).zip(kinds) {
        if *kind == TokenKind::Byte {
            let byte = byte_of(text)
                .ok_or_else(|| bad("tokenizer.ggml.tokens", text, "is a byte token and not of the form \"<0x0A>\""))?;
            found[usize::from(byte)] = Some(id);
        }
    }
    if let Some(byte) = found.iter().position(Option::is_none) {
        return Err(TokenizerError::MissingByte { byte: byte as u8 });
    }
    Ok(found.map(|token| token.expect("none is missing")))
}

fn scores(metadata: &Metadata, vocabulary: usize) -> Result<Vec<f32>, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.scores";
    let scores = required(metadata, KEY, Metadata::floats)?;
    if scores.len() == vocabulary {
        return Ok(scores.to_vec());
    }
    Err(TokenizerError::LengthMismatch { key: KEY, found: scores.len(), vocabulary })
}
