//! Gemma's tokens, on the real vocabulary, beside those of Google's own SentencePiece.

use halm_models::gguf::MappedGguf;
use halm_models::{Detokenizer, Specials, TokenId, Tokenizer};
use halm_tests::weights;
use serde::Deserialize;

/// A text and its tokens, from `fixtures/make_tokens.py`.
#[derive(Deserialize)]
struct Case {
    text: String,
    /// Whether control tokens in the text are control tokens.
    templated: bool,
    ids: Vec<u32>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../fixtures/gemma3_tokens.json")).expect("the fixture is JSON")
}

fn tokenizer() -> Tokenizer {
    let file = MappedGguf::open(&weights::gemma3()).expect("the file is sound");
    Tokenizer::from_metadata(file.gguf().metadata()).expect("its tokenizer is sound")
}

#[test]
fn every_text_becomes_the_tokens_that_sentencepiece_makes() {
    let (tokenizer, cases) = (tokenizer(), cases());
    assert!(cases.len() > 80);
    for Case { text, templated, ids } in cases {
        let specials = if templated { Specials::AsControl } else { Specials::AsText };
        let tokens = tokenizer.encode(&text, specials).expect("it encodes");
        assert_eq!(tokens.iter().map(|token| token.get()).collect::<Vec<_>>(), ids, "{text:?}");
    }
}

#[test]
fn every_text_comes_back_token_by_token() {
    let tokenizer = tokenizer();
    for Case { text, ids, .. } in cases().into_iter().filter(|case| !case.templated) {
        let mut detokenizer = Detokenizer::new();
        let mut seen: String = ids.iter().map(|id| detokenizer.push(tokenizer.piece(TokenId::from(*id)))).collect();
        seen.push_str(&detokenizer.finish());
        assert_eq!(seen, text.replace('\u{2581}', " "));
    }
}

#[test]
fn a_prompt_starts_once_and_an_answer_ends_with_its_text_or_its_turn() {
    let tokenizer = tokenizer();
    let [start, hello] = [2, 9259].map(TokenId::from);
    for (text, specials) in [("Hello", Specials::AsText), ("<bos>Hello", Specials::AsControl)] {
        assert_eq!(tokenizer.encode_prompt(text, specials).expect("it encodes"), [start, hello]);
    }
    assert_eq!(tokenizer.end_of_generation(), [1, 106].map(TokenId::from));
}
