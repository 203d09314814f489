//! Scores beside a plain log-softmax of the logits that each token has before it, on tiny models.

use super::{Perplexity, ScoredToken, Windows};
use crate::engine::{Disposition, StepError};
use crate::generation::{GenerationSpec, Input};
use crate::sampler::{SamplingSpec, uniform};
use crate::stock::{LoadOptions, Model, OpenError, TextError};
use crate::template::ChatMessage;
use crate::tiny::{self, Family};
use crate::tokenizer::TokenId;

fn model(family: Family) -> Model {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), tiny::tiny(family, 1).encode()).expect("a few kilobytes fit");
    Model::load(file.path(), &LoadOptions::default()).expect("the tiny model loads")
}

fn tokens(seed: u64, count: u64) -> Vec<TokenId> {
    let token = |at| (uniform(seed, 0, at) * tiny::VOCABULARY as f64) as u32;
    (0..count).map(|at| TokenId::from(token(at))).collect()
}

/// The log-probability of the last of `tokens`, by the definition.
fn plain(model: &mut Model, tokens: &[TokenId]) -> f64 {
    let (last, before) = tokens.split_last().expect("two at least");
    let logits = model.logits_after(before).expect("it computes");
    let probability = |logit: f32| f64::from(logit).exp();
    (probability(logits[last.get() as usize]) / logits.iter().copied().map(probability).sum::<f64>()).ln()
}

fn assert_close(found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
    }
}

#[test]
fn a_score_is_the_log_softmax_of_the_logits_before_each_token() {
    for family in Family::ALL {
        let mut model = model(family);
        let text = tokens(1, 60);
        for prompt in [1, 33, 59, 60] {
            let expected: Vec<f64> = (prompt..60).map(|at| plain(&mut model, &text[..=at])).collect();
            let scores = model.score_tokens(&text[..prompt], &text[prompt..]).expect("it computes");
            assert_close(&scores, &expected);
        }
    }
}

#[test]
fn a_score_has_the_same_bits_however_its_text_is_cut_into_steps() {
    let mut model = model(Family::Gemma3);
    let text = tokens(2, 100);
    let mut bits = |rows| -> Vec<u64> {
        let scores = model.score_after(&text, 20, rows).expect("it computes");
        scores.into_iter().map(f64::to_bits).collect()
    };
    let whole = bits(512);
    assert_eq!(whole.len(), 80);
    for rows in [1, 7, 20, 64] {
        assert_eq!(bits(rows), whole, "{rows} rows in a step");
    }
}

#[test]
fn logits_far_apart_are_scored_without_loss() {
    let logprob = |logits: &[f32], token| crate::sampler::logprob(logits, TokenId::from(token));
    assert_eq!(logprob(&[2000.0, 2000.0], 0), -libm::log(2.0));
    assert_eq!(logprob(&[2000.0, -2000.0], 0), 0.0);
    assert_eq!(logprob(&[2000.0, -2000.0], 1), -4000.0);
    // The difference of these is no 32-bit float.
    assert_eq!(logprob(&[16_777_216.0, -1.0], 1), -16_777_217.0);
}

#[test]
fn a_text_is_tokenized_as_a_request_with_this_prompt_and_answer_is() {
    let mut model = model(Family::Llama);
    let message = ChatMessage { role: "user".to_owned(), content: "hello<|im_end|>".to_owned() };
    for input in [Input::Prompt("hello the ".to_owned()), Input::Messages(vec![message])] {
        let spec = GenerationSpec { input, max_tokens: Some(1), sampling: SamplingSpec::GREEDY, stop: Vec::new() };
        let generation = model.open(&spec, &[]).expect("valid");
        let prompt = generation.prompt().to_vec();
        model.close(generation);
        let scored = model.score(&spec.input, "world").expect("it computes");
        let answer: Vec<TokenId> = scored.iter().map(|ScoredToken { token, .. }| *token).collect();
        assert_eq!(model.tokenizer().decode(&answer), "world");
        let logprobs: Vec<f64> = scored.iter().map(|ScoredToken { logprob, .. }| *logprob).collect();
        assert_eq!(logprobs, model.score_tokens(&prompt, &answer).expect("it computes"));
        assert_eq!(model.score(&spec.input, "").expect("nothing to compute"), []);
    }
}

#[test]
fn a_perplexity_scores_each_token_once_with_what_its_window_has_before_it() {
    let mut model = model(Family::Qwen3);
    let text = "hello the world, or the other ".repeat(3);
    let tokens = model.tokenizer().encode_prompt(&text, crate::tokenizer::Specials::AsText).expect("it encodes");
    let count = tokens.len();
    for (window, stride) in [(24, 8), (24, 23), (7, 1), (256, 100)] {
        // The window that scores a token is the first that reaches it.
        let start = |at: usize| (at + 1).saturating_sub(window).div_ceil(stride) * stride;
        let expected: Vec<f64> = (1..count).map(|at| plain(&mut model, &tokens[start(at)..=at])).collect();
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        let found = model.perplexity(&text, Windows { tokens: window, stride }).expect("it computes");
        assert_eq!(found.tokens, count - 1);
        assert_close(&[found.mean_logprob, found.value()], &[mean, (-mean).exp()]);
    }
    assert_eq!(Perplexity { tokens: 1, mean_logprob: -libm::log(8.0) }.value().round(), 8.0);
}

#[test]
fn what_cannot_be_scored_is_refused_and_says_why() {
    let mut model = model(Family::Llama);
    let (token, unknown) = (TokenId::from(65), TokenId::from(tiny::VOCABULARY as u32));
    assert!(matches!(model.score_tokens(&[], &[token]), Err(StepError::NoTokens)));
    assert!(matches!(model.score_tokens(&[token], &[unknown]), Err(StepError::UnknownToken { .. })));
    assert!(matches!(model.score_tokens(&[token; 200], &[token; 58]), Err(StepError::ContextExceeded { .. })));
    // What follows the last token is not computed, so that one more fits.
    assert_eq!(model.score_tokens(&[token; 200], &[token; 57]).expect("it fits").len(), 57);
    let empty = Input::Prompt(String::new());
    assert!(matches!(model.score(&empty, "x"), Err(TextError::Open(OpenError::EmptyPrompt))));
    for (tokens, stride) in [(1, 1), (257, 1), (8, 0), (8, 8)] {
        let error = model.perplexity("hello", Windows { tokens, stride }).expect_err("no such windows");
        assert!(matches!(error, TextError::InvalidWindows { context_tokens: 256, .. }), "{error}");
        assert_eq!(error.disposition(), Disposition::Poison);
    }
    let windows = Windows { tokens: 8, stride: 4 };
    assert!(matches!(model.perplexity("x", windows), Err(TextError::SingleToken)));
    assert!(matches!(model.perplexity("", windows), Err(TextError::Open(OpenError::EmptyPrompt))));
}

#[test]
fn a_nan_among_the_weights_is_an_error_and_not_a_score() {
    let mut bytes = tiny::tiny_llama(1);
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a few kilobytes fit");
    let mut model = Model::load(file.path(), &LoadOptions::default()).expect("weights are not looked at");
    let error = model.score_tokens(&tokens(1, 3), &tokens(2, 3)).expect_err("NaN spreads to the logits");
    assert!(matches!(error, StepError::NotFiniteLogits { position: 0, .. }), "{error}");
}
