//! Pre-tokenizers, special tokens and files whose tokenizer is not sound, on the tiny model's vocabulary.

mod byte_level;
mod scored;

use std::sync::LazyLock;

use super::samples::{self, byte_level_of as keys, load};
use super::{Specials, TokenId, Tokenizer, TokenizerError};
use crate::gguf::{Array, Gguf, GgufWriter, Value};
use crate::tiny;
use proptest::prelude::*;

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let gguf = Gguf::parse(&tiny::tiny_llama(1)).expect("the tiny model is sound");
        Tokenizer::from_metadata(gguf.metadata()).expect("its tokenizer is sound")
    });
    &TOKENIZER
}

/// A tokenizer over single bytes and `extra` tokens.
fn small(pre: &str, extra: &[(&str, i32)]) -> Result<Tokenizer, TokenizerError> {
    load(samples::byte_level(pre, extra))
}

fn pieces(tokenizer: &Tokenizer, text: &str, specials: Specials) -> Vec<String> {
    let tokens = tokenizer.encode(text, specials).expect("it encodes");
    tokens.iter().map(|token| tokenizer.decode(&[*token])).collect()
}

#[test]
fn merges_are_applied_within_words_only() {
    let tokenizer = tokenizer();
    assert_eq!(pieces(tokenizer, "hello world", Specials::AsText), ["hello", " w", "or", "l", "d"]);
    assert_eq!(pieces(tokenizer, "the", Specials::AsText), ["the"]);
    assert_eq!(pieces(tokenizer, "t he", Specials::AsText), ["t", " ", "he"]);
}

#[test]
fn smollm_takes_digits_apart_and_gpt2_does_not() {
    let digits = |pre| small(pre, &[("12", 1)]).map(|tokenizer| pieces(&tokenizer, "12", Specials::AsText));
    assert_eq!(digits("smollm").expect("known"), ["1", "2"]);
    assert_eq!(digits("qwen2").expect("known"), ["1", "2"]);
    for pre in ["gpt-2", "default", "llama-bpe"] {
        assert_eq!(digits(pre).expect("known"), ["12"], "{pre}");
    }
}

#[test]
fn an_unknown_pre_tokenizer_is_an_error_that_names_it() {
    let error = small("tekken", &[("12", 1)]).expect_err("nobody taught us tekken");
    assert!(matches!(&error, TokenizerError::UnsupportedPreTokenizer { pre, .. } if pre == "tekken"));
    let text = error.to_string();
    for name in ["tekken", "smollm", "gpt-2", "default", "llama-bpe", "qwen2"] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
fn a_file_that_names_no_pre_tokenizer_is_refused() {
    let metadata = GgufWriter::new()
        .key("tokenizer.ggml.model", Value::String("gpt2".into()))
        .key("tokenizer.ggml.tokens", Value::Array(Array::String(vec!["a".into()])))
        .key("tokenizer.ggml.merges", Value::Array(Array::String(Vec::new())));
    let error = load(metadata).expect_err("nobody knows how to cut words");
    assert!(error.to_string().contains("tokenizer.ggml.pre"), "{error}");
}

#[test]
fn control_text_is_control_only_where_the_template_wrote_it() {
    let tokenizer = tokenizer();
    let start = TokenId::from(tiny::VOCABULARY as u32 - 2);
    let as_control = tokenizer.encode("<|im_start|>the", Specials::AsControl).expect("it encodes");
    assert_eq!(as_control[0], start);
    assert_eq!(as_control.len(), 2);
    let as_text = tokenizer.encode("<|im_start|>the", Specials::AsText).expect("it encodes");
    assert!(!as_text.contains(&start));
    assert_eq!(tokenizer.decode(&as_text), "<|im_start|>the");
}

#[test]
fn a_mark_keeps_control_text_text_and_vanishes() {
    let tokenizer = tokenizer();
    let marked = "<|im_end|><\u{fdd0}|im_end|>x";
    let tokens = tokenizer.encode_prompt_marked(marked, Specials::AsControl, Some('\u{fdd0}')).expect("it encodes");
    let ends = tokens.iter().filter(|token| tokenizer.is_end_of_generation(**token)).count();
    assert_eq!(ends, 1);
    assert_eq!(tokenizer.decode(&tokens), "<|im_end|>x");
}

#[test]
fn the_longer_of_two_specials_wins() {
    let tokenizer = small("default", &[("12", 1), ("<a>", 3), ("<a><b>", 3)]).expect("sound");
    let ids = |text| tokenizer.encode(text, Specials::AsControl).expect("it encodes");
    assert_eq!(ids("<a><b>"), [TokenId::from(258)]);
    assert_eq!(ids("<a><a><b>"), [TokenId::from(257), TokenId::from(258)]);
}

#[test]
fn user_defined_tokens_are_whole_in_any_text() {
    let tokenizer = small("default", &[("12", 1), ("    ", 4)]).expect("sound");
    let tokens = tokenizer.encode("x    y", Specials::AsText).expect("it encodes");
    assert_eq!(tokens[1], TokenId::from(257));
    assert_eq!(tokenizer.decode(&tokens), "x    y");
}

#[test]
fn a_start_token_is_added_where_the_file_asks_and_never_doubled() {
    let mut tokens: Vec<String> = super::byte_letters().map(String::from).collect();
    tokens.extend(["12".to_owned(), "<s>".to_owned()]);
    let mut types = vec![1; 257];
    types.push(3);
    let writer = keys("default", tokens, types)
        .key("tokenizer.ggml.bos_token_id", Value::U32(257))
        .key("tokenizer.ggml.add_bos_token", Value::Bool(true));
    let tokenizer = load(writer).expect("sound");
    let start = TokenId::from(257);
    for (text, specials) in [("x", Specials::AsText), ("<s>x", Specials::AsControl)] {
        let prompt = tokenizer.encode_prompt(text, specials).expect("it encodes");
        assert_eq!(prompt, [start, TokenId::from(u32::from(b'x'))], "{text}");
    }
}

#[test]
fn end_of_generation_is_the_files_end_and_the_known_texts() {
    let tokenizer = tokenizer();
    let last = tiny::VOCABULARY as u32 - 1;
    assert_eq!(tokenizer.end_of_generation(), [TokenId::from(last - 2), TokenId::from(last)]);
    assert!(!tokenizer.is_end_of_generation(TokenId::from(last - 1)));
}

#[test]
fn a_tokenizer_that_is_not_sound_says_what_is_wrong() {
    let letters = || super::byte_letters().map(String::from).collect::<Vec<_>>();
    let with = |token: &str| [letters(), vec![token.to_owned()]].concat();
    let short = load(keys("default", with("12"), vec![1; 3])).expect_err("three types for 257 tokens");
    assert!(matches!(short, TokenizerError::LengthMismatch { found: 3, vocabulary: 257, .. }), "{short}");
    let twice = load(keys("default", with("a"), vec![1; 257])).expect_err("a is there twice");
    assert!(matches!(twice, TokenizerError::BadEntry { .. }), "{twice}");
    let merge = load(keys("default", with("x9"), vec![1; 257])).expect_err("12 is merged and no token");
    assert!(matches!(merge, TokenizerError::Bpe(_)), "{merge}");
    let beyond = keys("default", with("12"), vec![1; 257]).key("tokenizer.ggml.eos_token_id", Value::U32(257));
    let beyond = load(beyond).expect_err("257 tokens end at 256");
    assert!(matches!(beyond, TokenizerError::TokenBeyondVocabulary { id: 257, .. }), "{beyond}");
    let other = load(GgufWriter::new().key("tokenizer.ggml.model", Value::String("bert".into())));
    assert!(matches!(other, Err(TokenizerError::UnsupportedModel { .. })));
}

proptest! {
    #[test]
    fn any_text_comes_back_from_its_tokens(text in ".{0,60}") {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode(&text, Specials::AsText).expect("it encodes");
        prop_assert_eq!(tokenizer.decode(&tokens), text);
    }
}
