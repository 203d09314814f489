//! Byte-level byte-pair encoding and its pre-tokenizers.
//!
//! Owns the table from a file's pre-tokenizer name to regular expressions, and the mapping between bytes
//! and the printable letters that byte-level vocabularies are written in. It knows no special tokens.
//! Called by [`super::Tokenizer`] only.

use std::sync::LazyLock;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::{TokenId, TokenizerError, bad, required};
use crate::gguf::Metadata;

/// Digits one by one, before anything else.
const DIGIT: &str = r"\p{N}";

/// GPT-2's words, from <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Llama 3's words, from its published `tokenizer.json`.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen 2's words, from its published `tokenizer.json`.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a text is prepared for the merges.
struct Recipe {
    /// Applied one after the other; each isolates what it matches.
    patterns: &'static [&'static str],
    /// Compose characters first (Unicode NFC).
    compose: bool,
    /// A word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
}

fn recipe(pre: &str) -> Option<Recipe> {
    let (patterns, compose, ignore_merges): (&[_], _, _) = match pre {
        "smollm" => (&[DIGIT, GPT2], false, false),
        "gpt-2" | "gpt2" | "default" => (&[GPT2], false, false),
        "llama-bpe" | "llama3" => (&[LLAMA3], false, true),
        "qwen2" => (&[QWEN2], true, false),
        _ => return None,
    };
    Some(Recipe { patterns, compose, ignore_merges })
}

/// The merges of one file behind its pre-tokenizer.
pub(super) struct ByteLevelBpe {
    model: BPE,
    splits: Vec<Split>,
    to_letters: ByteLevel,
    compose: bool,
}

impl ByteLevelBpe {
    pub(super) fn from_metadata(metadata: &Metadata, tokens: &[String]) -> Result<Self, TokenizerError> {
        let pre = metadata.string("tokenizer.ggml.pre")?.unwrap_or("default");
        let recipe = recipe(pre).ok_or_else(|| TokenizerError::UnsupportedPreTokenizer { pre: pre.to_owned() })?;
        let splits = recipe
            .patterns
            .iter()
            .map(|pattern| {
                let pattern = SplitPattern::Regex((*pattern).to_owned());
                Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            })
            .collect::<Result<_, _>>()
            .map_err(TokenizerError::Bpe)?;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary(tokens)?, merges(metadata)?)
            .ignore_merges(recipe.ignore_merges)
            .build()
            .map_err(TokenizerError::Bpe)?;
        Ok(Self { model, splits, to_letters: ByteLevel::new(false, false, false), compose: recipe.compose })
    }

    /// Appends the tokens of `text`. A byte that the vocabulary has no token for is left out, as llama.cpp does:
    /// published vocabularies lack some control characters (SmolLM2's lacks byte 4, for one).
    pub(super) fn encode(&self, text: &str, out: &mut Vec<TokenId>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        let mut normalized = NormalizedString::from(text);
        if self.compose {
            NFC.normalize(&mut normalized).map_err(TokenizerError::Bpe)?;
        }
        let mut words = PreTokenizedString::from(normalized);
        for split in &self.splits {
            split.pre_tokenize(&mut words).map_err(TokenizerError::Bpe)?;
        }
        self.to_letters.pre_tokenize(&mut words).map_err(TokenizerError::Bpe)?;
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            let tokens = self.model.tokenize(word).map_err(TokenizerError::Bpe)?;
            out.extend(tokens.into_iter().map(|token| TokenId::from(token.id)));
        }
        Ok(())
    }
}

fn vocabulary(tokens: &[String]) -> Result<Vocab, TokenizerError> {
    let mut vocabulary = Vocab::with_capacity(tokens.len());
    for (id, text) in (0_u32..).zip(tokens) {
        if vocabulary.insert(text.clone(), id).is_some() {
            return Err(bad("tokenizer.ggml.tokens", text, "occurs twice"));
        }
    }
    Ok(vocabulary)
}

fn merges(metadata: &Metadata) -> Result<Merges, TokenizerError> {
    const KEY: &str = "tokenizer.ggml.merges";
    required(metadata, KEY, Metadata::strings)?
        .iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(bad(KEY, merge, "is not two tokens with a space between")),
        })
        .collect()
}

/// The printable letter of each byte, as GPT-2 chose them: printable Latin-1 stands for itself, the
/// other 68 bytes are the letters from U+0100 on.
static LETTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let own = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if own {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).expect("below U+0200 every number is a character")
    })
});

/// The letters of all bytes, from byte 0 on.
pub(crate) fn byte_letters() -> impl Iterator<Item = char> {
    LETTERS.iter().copied()
}

/// The bytes that a token's letters stand for. A letter that stands for none is itself, in UTF-8.
pub(super) fn piece_bytes(text: &str) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match byte_of(letter) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes.into()
}

fn byte_of(letter: char) -> Option<u8> {
    static BYTES: LazyLock<[Option<u8>; 0x200]> = LazyLock::new(|| {
        let mut table = [None; 0x200];
        for (byte, letter) in (0_u8..=255).zip(LETTERS.iter()) {
            table[*letter as usize] = Some(byte);
        }
        table
    });
    BYTES.get(letter as usize).copied().flatten()
}
