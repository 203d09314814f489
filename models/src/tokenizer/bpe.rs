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

use super::keys::{bad, required};
use super::{TokenId, TokenizerError};
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

/// What llama.cpp means by `default`, beside GPT-2's words: punctuation first, digits in threes last.
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";
const DIGITS: &str = r"\p{N}+";
const THREE_DIGITS: &str = r"[0-9][0-9][0-9]";

/// How a text is prepared for the merges.
struct Recipe {
    /// As `tokenizer.ggml.pre` has it.
    names: &'static [&'static str],
    /// Applied one after the other; each isolates what it matches.
    patterns: &'static [&'static str],
    /// Compose characters first (Unicode NFC). llama.cpp does not; Qwen's own `tokenizer.json` does.
    compose: bool,
    /// A word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
    /// Whether a prompt gets a start token where the file says nothing.
    adds_bos: bool,
}

const PLAIN: Recipe = Recipe { names: &[], patterns: &[], compose: false, ignore_merges: false, adds_bos: false };

/// The pre-tokenizers that are known.
const RECIPES: [Recipe; 5] = [
    Recipe { names: &["smollm"], patterns: &[DIGIT, GPT2], ..PLAIN },
    Recipe { names: &["gpt-2"], patterns: &[GPT2], ..PLAIN },
    Recipe { names: &["default"], patterns: &[PUNCTUATION, GPT2, DIGITS, THREE_DIGITS], ..PLAIN },
    Recipe {
        names: &["llama-bpe", "llama3", "llama-v3"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    Recipe { names: &["qwen2"], patterns: &[QWEN2], compose: true, ..PLAIN },
];

fn recipe(pre: &str) -> Result<&'static Recipe, TokenizerError> {
    RECIPES.iter().find(|recipe| recipe.names.contains(&pre)).ok_or_else(|| {
        let known: Vec<_> = RECIPES.iter().flat_map(|recipe| recipe.names).copied().collect();
        TokenizerError::UnsupportedPreTokenizer { pre: pre.to_owned(), known: known.join(", ") }
    })
}

/// The merges of one file behind its pre-tokenizer.
pub(super) struct ByteLevelBpe {
    model: BPE,
    splits: Vec<Split>,
    to_letters: ByteLevel,
    recipe: &'static Recipe,
}

impl ByteLevelBpe {
    pub(super) fn from_metadata(metadata: &Metadata, tokens: &[String]) -> Result<Self, TokenizerError> {
        let recipe = recipe(required(metadata, "tokenizer.ggml.pre", Metadata::string)?)?;
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
        Ok(Self { model, splits, to_letters: ByteLevel::new(false, false, false), recipe })
    }

    /// Whether a prompt gets a start token where the file says nothing.
    pub(super) fn adds_bos(&self) -> bool {
        self.recipe.adds_bos
    }

    /// Whether characters are composed first, so that a text can have more bytes than its tokens.
    pub(super) fn composes(&self) -> bool {
        self.recipe.compose
    }

    /// Appends the tokens of `text`. A byte that the vocabulary has no token for is left out, as llama.cpp does:
    /// published vocabularies lack some control characters (SmolLM2's lacks byte 4, for one).
    pub(super) fn encode(&self, text: &str, out: &mut Vec<TokenId>) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        let mut words = self.words(text)?;
        self.to_letters.pre_tokenize(&mut words).map_err(TokenizerError::Bpe)?;
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            let tokens = self.model.tokenize(word).map_err(TokenizerError::Bpe)?;
            out.extend(tokens.into_iter().map(|token| TokenId::from(token.id)));
        }
        Ok(())
    }

    /// Cuts `text` into what merges stay within.
    fn words(&self, text: &str) -> Result<PreTokenizedString, TokenizerError> {
        let mut normalized = NormalizedString::from(text);
        if self.recipe.compose {
            NFC.normalize(&mut normalized).map_err(TokenizerError::Bpe)?;
        }
        let mut words = PreTokenizedString::from(normalized);
        for split in &self.splits {
            split.pre_tokenize(&mut words).map_err(TokenizerError::Bpe)?;
        }
        Ok(words)
    }

    /// The words of `text`, as texts.
    #[cfg(test)]
    pub(super) fn word_texts(&self, text: &str) -> Vec<String> {
        let words = self.words(text).expect("it splits");
        let splits = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
        splits.into_iter().map(|(word, _, _)| word.to_owned()).collect()
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
