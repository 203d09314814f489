//! Small vocabularies made by hand, for tests.

use super::{Tokenizer, TokenizerError, byte_letters};
use crate::gguf::{Array, Gguf, GgufWriter, Value};

pub(crate) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// The number of the first token that is not a byte.
pub(super) const FIRST: u32 = 256;

/// A tokenizer as Gemma's, of bytes, its control tokens and some words.
pub(crate) fn gemma() -> Tokenizer {
    let writer = scored(&[
        ("<bos>", 0.0, CONTROL),
        ("<eos>", 0.0, CONTROL),
        ("<start_of_turn>", 0.0, CONTROL),
        ("<end_of_turn>", 0.0, CONTROL),
        ("user", -1.0, NORMAL),
        ("\n", -1.0, USER_DEFINED),
    ])
    .key("tokenizer.ggml.bos_token_id", Value::U32(FIRST))
    .key("tokenizer.ggml.eos_token_id", Value::U32(FIRST + 1))
    .key("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    load(writer).expect("the vocabulary is sound")
}

/// The keys of a vocabulary with scores: all bytes, then `extra`.
pub(super) fn scored(extra: &[(&str, f32, i32)]) -> GgufWriter {
    let mut tokens: Vec<_> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let (mut scores, mut types) = (vec![0.0; 256], vec![BYTE; 256]);
    for (text, score, kind) in extra {
        tokens.push((*text).to_owned());
        scores.push(*score);
        types.push(*kind);
    }
    scored_of(tokens, scores, types)
}

/// The keys of a vocabulary with scores.
pub(super) fn scored_of(tokens: Vec<String>, scores: Vec<f32>, types: Vec<i32>) -> GgufWriter {
    GgufWriter::new()
        .key("tokenizer.ggml.model", Value::String("llama".into()))
        .key("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .key("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))
        .key("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))
}

/// The keys of a byte-level vocabulary: all bytes, then `extra`, of which the first is what `1 2` merges to.
pub(crate) fn byte_level(pre: &str, extra: &[(&str, i32)]) -> GgufWriter {
    let mut tokens: Vec<String> = byte_letters().map(String::from).collect();
    let mut types = vec![NORMAL; tokens.len()];
    for (text, kind) in extra {
        tokens.push((*text).to_owned());
        types.push(*kind);
    }
    byte_level_of(pre, tokens, types)
}

/// The keys of a byte-level vocabulary with one merge.
pub(super) fn byte_level_of(pre: &str, tokens: Vec<String>, types: Vec<i32>) -> GgufWriter {
    GgufWriter::new()
        .key("tokenizer.ggml.model", Value::String("gpt2".into()))
        .key("tokenizer.ggml.pre", Value::String(pre.into()))
        .key("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .key("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))
        .key("tokenizer.ggml.merges", Value::Array(Array::String(vec!["1 2".into()])))
}

pub(crate) fn load(writer: GgufWriter) -> Result<Tokenizer, TokenizerError> {
    let gguf = Gguf::parse(&writer.encode()).expect("the file is sound");
    Tokenizer::from_metadata(gguf.metadata())
}
