//! BPE by score, on vocabularies made by hand.

use super::super::samples::{BYTE, CONTROL, FIRST, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, load, scored, scored_of};
use super::super::{Detokenizer, Specials, TokenId, Tokenizer, TokenizerError};
use crate::gguf::Value;
use proptest::prelude::*;

/// A tokenizer of bytes and `extra`, without a space in front of texts.
fn small(extra: &[(&str, f32, i32)]) -> Tokenizer {
    load(scored(extra).key("tokenizer.ggml.add_space_prefix", Value::Bool(false))).expect("sound")
}

fn normal<'a>(extra: &[(&'a str, f32)]) -> Vec<(&'a str, f32, i32)> {
    extra.iter().map(|(text, score)| (*text, *score, NORMAL)).collect()
}

fn ids(tokenizer: &Tokenizer, text: &str, specials: Specials) -> Vec<u32> {
    tokenizer.encode(text, specials).expect("it encodes").iter().map(|token| token.get()).collect()
}

fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let tokens = tokenizer.encode(text, Specials::AsText).expect("it encodes");
    tokens.iter().map(|token| tokenizer.decode(&[*token])).collect()
}

#[test]
fn the_pair_with_the_highest_score_is_joined_first() {
    let letters = [("b", -9.0), ("c", -9.0), ("d", -9.0)];
    let joined = |bc, cd| small(&normal(&[letters.as_slice(), &[("bc", bc), ("cd", cd)]].concat()));
    assert_eq!(pieces(&joined(-2.0, -1.0), "bcd"), ["b", "cd"]);
    assert_eq!(pieces(&joined(-1.0, -2.0), "bcd"), ["bc", "d"]);
}

#[test]
fn among_equal_scores_the_leftmost_pair_is_joined_first() {
    let tokenizer = small(&normal(&[("a", -9.0), ("b", -9.0), ("aa", -1.0), ("ab", -1.0)]));
    assert_eq!(pieces(&tokenizer, "aab"), ["aa", "b"]);
    assert_eq!(pieces(&tokenizer, "aaaaa"), ["aa", "aa", "a"]);
}

#[test]
fn what_was_joined_is_joined_further() {
    let words = normal(&[("a", -9.0), ("b", -9.0), ("c", -9.0), ("ab", -2.0), ("abab", -1.0), ("ababc", -5.0)]);
    let tokenizer = small(&words);
    assert_eq!(pieces(&tokenizer, "ababcab"), ["ababc", "ab"]);
}

#[test]
fn a_character_without_a_token_becomes_its_bytes() {
    let tokenizer = small(&normal(&[("a", -1.0), ("ö", -1.0)]));
    assert_eq!(ids(&tokenizer, "aé\nö", Specials::AsText), [FIRST, 0xc3, 0xa9, 0x0a, FIRST + 1]);
    let mut detokenizer = Detokenizer::new();
    let tokens = tokenizer.encode("🦀é", Specials::AsText).expect("it encodes");
    let seen: Vec<_> = tokens.iter().map(|token| detokenizer.push(tokenizer.piece(*token))).collect();
    assert_eq!(seen, ["", "", "", "🦀", "", "é"]);
}

#[test]
fn letters_never_become_a_control_token_or_a_byte_token_or_an_unused_one() {
    let tokenizer = small(&[
        ("<s>", 9.0, CONTROL),
        ("<unk>", 9.0, UNKNOWN),
        ("xy", 9.0, UNUSED),
        ("<", -9.0, NORMAL),
        ("s", -9.0, NORMAL),
        (">", -9.0, NORMAL),
        ("<s", -1.0, NORMAL),
        ("<0x4", -1.0, NORMAL),
    ]);
    assert_eq!(ids(&tokenizer, "<s>", Specials::AsText), [FIRST + 6, FIRST + 5]);
    assert_eq!(ids(&tokenizer, "<s>", Specials::AsControl), [FIRST]);
    let no_bytes = ids(&tokenizer, "<0x41>", Specials::AsText);
    assert_eq!(no_bytes[1..5], [0x30, 0x78, 0x34, 0x31]);
    assert_eq!(ids(&tokenizer, "xy", Specials::AsText), [0x78, 0x79]);
}

#[test]
fn user_defined_tokens_come_before_any_score() {
    let tokenizer = small(&[
        ("  ", -1000.0, USER_DEFINED),
        ("<b>", -1000.0, USER_DEFINED),
        ("▁", -9.0, NORMAL),
        ("x", -9.0, NORMAL),
        ("▁x", -1.0, NORMAL),
        ("x<", -1.0, NORMAL),
    ]);
    assert_eq!(pieces(&tokenizer, "x  x x"), ["x", "  ", "x", " x"]);
    assert_eq!(pieces(&tokenizer, "x<b>x"), ["x", "<b>", "x"]);
}

#[test]
fn the_letter_for_a_space_is_a_space() {
    let tokenizer = small(&[("▁", -9.0, NORMAL), ("a", -9.0, NORMAL), ("▁a", -1.0, NORMAL), ("  ", 0.0, USER_DEFINED)]);
    for text in [" a", "  a", "a  a "] {
        let letters = text.replace(' ', "▁");
        assert_eq!(ids(&tokenizer, &letters, Specials::AsText), ids(&tokenizer, text, Specials::AsText), "{text:?}");
    }
}

#[test]
fn a_space_goes_in_front_where_the_file_asks_or_says_nothing() {
    let words = [("<s>", 0.0, CONTROL), ("[x]", 0.0, USER_DEFINED), ("a", -9.0, NORMAL), ("▁a", -1.0, NORMAL)];
    let (control, user_defined, bare, spaced) = (FIRST, FIRST + 1, FIRST + 2, FIRST + 3);
    let asked = |flag| scored(&words).key("tokenizer.ggml.add_space_prefix", Value::Bool(flag));
    for writer in [scored(&words), asked(true)] {
        let tokenizer = load(writer).expect("sound");
        assert_eq!(ids(&tokenizer, "a<s>a", Specials::AsControl), [spaced, control, spaced]);
        assert_eq!(ids(&tokenizer, "a[x]a", Specials::AsControl), [spaced, user_defined, spaced]);
    }
    let tokenizer = load(asked(false)).expect("sound");
    assert_eq!(ids(&tokenizer, "a<s>a[x]a", Specials::AsControl), [bare, control, bare, user_defined, bare]);
}

#[test]
fn text_that_goes_on_gets_no_space_in_front() {
    let words = normal(&[(" a", -1.0), ("a", -2.0), (" ", -3.0)]);
    let tokenizer = load(scored(&words)).expect("sound");
    let all = |tokens: Vec<TokenId>| tokenizer.decode(&tokens);
    assert_eq!(all(tokenizer.encode("a a", Specials::AsText).expect("it encodes")), " a a");
    assert_eq!(all(tokenizer.encode_continuation("a a").expect("it encodes")), "a a");
}

#[test]
fn a_start_token_is_added_unless_the_file_says_no() {
    let words = [("<s>", 0.0, CONTROL), ("a", -9.0, NORMAL)];
    let writer = || {
        scored(&words)
            .key("tokenizer.ggml.bos_token_id", Value::U32(FIRST))
            .key("tokenizer.ggml.add_space_prefix", Value::Bool(false))
    };
    let prompt = |tokenizer: &Tokenizer| tokenizer.encode_prompt("a", Specials::AsText).expect("it encodes");
    let (start, letter) = (TokenId::from(FIRST), TokenId::from(FIRST + 1));
    assert_eq!(prompt(&load(writer()).expect("sound")), [start, letter]);
    let without = writer().key("tokenizer.ggml.add_bos_token", Value::Bool(false));
    assert_eq!(prompt(&load(without).expect("sound")), [letter]);
}

#[test]
fn a_turns_end_and_the_files_ends_end_an_answer_and_html_does_not() {
    let writer = scored(&[
        ("<eos>", 0.0, CONTROL),
        ("<end_of_turn>", 0.0, CONTROL),
        ("</s>", 0.0, USER_DEFINED),
        ("<x>", 0.0, CONTROL),
        ("<y>", 0.0, CONTROL),
        ("<z>", 0.0, CONTROL),
    ])
    .key("tokenizer.ggml.eos_token_id", Value::U32(FIRST))
    .key("tokenizer.ggml.eot_token_id", Value::U32(FIRST + 3))
    .key("tokenizer.ggml.eom_token_id", Value::U32(FIRST + 4));
    let ends = [0, 1, 3, 4].map(|index| TokenId::from(FIRST + index));
    assert_eq!(load(writer).expect("sound").end_of_generation(), ends);
}

#[test]
fn a_vocabulary_with_scores_that_is_not_sound_says_what_is_wrong() {
    let short = load(scored_of(vec!["a".into(), "b".into()], vec![0.0], vec![NORMAL; 2])).expect_err("no bytes");
    assert!(matches!(short, TokenizerError::LengthMismatch { found: 1, vocabulary: 2, .. }), "{short}");
    let bytes = load(scored_of(vec!["<0x00>".into(), "b".into()], vec![0.0; 2], vec![BYTE, NORMAL]));
    assert!(matches!(bytes, Err(TokenizerError::MissingByte { byte: 1 })), "{bytes:?}");
    let no_byte = load(scored(&[("<0x+1>", 0.0, BYTE)])).expect_err("no number");
    assert!(matches!(no_byte, TokenizerError::BadEntry { .. }), "{no_byte}");
    let twice = load(scored(&[("▁", 0.0, NORMAL), (" ", 0.0, USER_DEFINED)])).expect_err("one text, two tokens");
    assert!(matches!(twice, TokenizerError::BadEntry { .. }), "{twice}");
    let empty = load(scored_of(Vec::new(), Vec::new(), Vec::new())).expect_err("no tokens");
    assert!(matches!(empty, TokenizerError::BadVocabulary { tokens: 0 }), "{empty}");
}

/// Joins the best pair, the leftmost of the best, until there is none: slow and plain.
fn plainly(tokens: &[(String, f32)], text: &str) -> Vec<String> {
    let score = |text: &str| tokens.iter().find(|(other, _)| other == text).map(|(_, score)| *score);
    let mut symbols: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let mut best: Option<(usize, f32)> = None;
        for left in 1..symbols.len() {
            let joined = format!("{}{}", symbols[left - 1], symbols[left]);
            if let Some(score) = score(&joined)
                && best.is_none_or(|(_, other)| score > other)
            {
                best = Some((left - 1, score));
            }
        }
        let Some((left, _)) = best else {
            return symbols;
        };
        let right = symbols.remove(left + 1);
        symbols[left].push_str(&right);
    }
}

proptest! {
    #[test]
    fn tokens_are_those_of_the_plain_algorithm(
        words in prop::collection::btree_map("[abc]{2,4}", 0_u8..4, 0..12),
        text in "[abc]{0,24}",
    ) {
        let letters = ["a", "b", "c"].map(|letter| (letter.to_owned(), -9.0));
        let tokens: Vec<_> =
            letters.into_iter().chain(words.into_iter().map(|(word, score)| (word, f32::from(score)))).collect();
        let extra: Vec<_> = tokens.iter().map(|(text, score)| (text.as_str(), *score, NORMAL)).collect();
        prop_assert_eq!(pieces(&small(&extra), &text), plainly(&tokens, &text));
    }

    #[test]
    fn any_text_comes_back_from_its_bytes_and_words(text in "(\\PC|[ab \n\t]|<b>){0,40}") {
        let words = [("a", -1.0, NORMAL), ("▁a", -2.0, NORMAL), ("<b>", 0.0, USER_DEFINED), ("  ", 0.0, USER_DEFINED)];
        let tokenizer = small(&words);
        let tokens = tokenizer.encode(&text, Specials::AsText).expect("it encodes");
        prop_assert_eq!(tokenizer.decode(&tokens), text.replace('▁', " "));
    }
}
