//! How each pre-tokenizer cuts a text into words, expected from reading the patterns.

use super::super::samples::{NORMAL, byte_level, load};
use super::super::{Merges, Specials};

fn words(pre: &str, text: &str) -> Vec<String> {
    let tokenizer = load(byte_level(pre, &[("12", NORMAL)])).expect("sound");
    match &tokenizer.merges {
        Merges::ByteLevel(bpe) => bpe.word_texts(text),
        Merges::Scored(_) => unreachable!("the file says gpt2"),
    }
}

#[test]
fn qwen2_cuts_words_as_its_authors_do() {
    let cases: [(&str, &[&str]); 11] = [
        ("I'LL don'T we're", &["I", "'LL", " don", "'T", " we", "'re"]),
        ("12 345", &["1", "2", " ", "3", "4", "5"]),
        ("a   b", &["a", "  ", " b"]),
        ("x\n\n  y ", &["x", "\n\n", " ", " y", " "]),
        ("wow!!!\n\nok", &["wow", "!!!\n\n", "ok"]),
        ("(hello) -x", &["(hello", ")", " -", "x"]),
        ("\tfoo\r\n", &["\tfoo", "\r\n"]),
        ("漢字かな ไทย", &["漢字かな", " ไทย"]),
        ("¾ ²x", &["¾", " ", "²", "x"]),
        ("🦀🦀 a", &["🦀🦀", " a"]),
        ("  \n \n x", &["  \n \n", " x"]),
    ];
    for (text, expected) in cases {
        assert_eq!(words("qwen2", text), expected, "{text:?}");
    }
}

#[test]
fn llama3_takes_digits_by_threes() {
    assert_eq!(words("llama-bpe", "12345 we'LL"), ["123", "45", " we", "'LL"]);
}

#[test]
fn gpt2_keeps_digits_together_and_knows_small_letters_only() {
    assert_eq!(words("gpt-2", "a 12345 we'll we'LL\n"), ["a", " 12345", " we", "'ll", " we", "'", "LL", "\n"]);
}

#[test]
fn default_takes_punctuation_first() {
    assert_eq!(words("default", "don't a+b 12345"), ["don", "'", "t", " a", "+", "b", " ", "123", "45"]);
}

#[test]
fn qwen2_composes_characters_and_nobody_else_does() {
    assert_eq!(words("qwen2", "e\u{301}"), ["\u{e9}"]);
    assert_eq!(words("llama-bpe", "e\u{301}"), ["e", "\u{301}"]);
    let tokenizer = load(byte_level("qwen2", &[("12", NORMAL)])).expect("sound");
    let ids = |text| tokenizer.encode(text, Specials::AsText).expect("it encodes");
    assert_eq!(ids("\u{1112}\u{1161}\u{11ab}"), ids("\u{d55c}"));
    assert_eq!(tokenizer.decode(&ids("e\u{301}")), "\u{e9}");
}

#[test]
fn a_bound_on_tokens_holds_for_what_is_composed() {
    let tokenizer = load(byte_level("qwen2", &[("12", NORMAL)])).expect("sound");
    let text = "\u{1112}\u{1161}\u{11ab}".repeat(4);
    let tokens = tokenizer.encode(&text, Specials::AsText).expect("it encodes").len();
    assert!(tokenizer.tokens_min(text.len()) <= tokens, "{} of {tokens}", tokenizer.tokens_min(text.len()));
}
