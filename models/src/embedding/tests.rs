//! Embeddings beside the plain definition, on tiny models.

use super::Pooling;
use crate::engine::{Disposition, StepError};
use crate::generation::{GenerationSpec, Input};
use crate::sampler::SamplingSpec;
use crate::stock::{LoadOptions, Model, OpenError, Reading, TextError};
use crate::tiny::{self, Family};
use crate::tokenizer::{Specials, TokenId};

const TEXT: &str = "hello the world, or the other hell, and so on until a page is full";

fn load(bytes: &[u8]) -> Model {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a few kilobytes fit");
    Model::load(file.path(), &LoadOptions::default()).expect("the tiny model loads")
}

fn model(family: Family) -> Model {
    load(&tiny::tiny(family, 1).encode())
}

fn tokens(model: &Model) -> Vec<TokenId> {
    model.tokenizer().encode_prompt(TEXT, Specials::AsText).expect("it encodes")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn length(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

#[test]
fn an_embedding_is_the_pooled_states_at_length_one() {
    for family in Family::ALL {
        let mut model = model(family);
        let tokens = tokens(&model);
        let mut states: Vec<Vec<f32>> = Vec::new();
        model.read(&tokens, Reading::States, 1, &mut |_, state| states.push(state.to_vec())).expect("it computes");
        assert_eq!(states.len(), tokens.len());
        let mean = |at: usize| states.iter().map(|state| state[at]).sum::<f32>() / states.len() as f32;
        let mean: Vec<f32> = (0..states[0].len()).map(mean).collect();
        for (pooling, pooled) in [(Pooling::Mean, mean), (Pooling::LastToken, states[states.len() - 1].clone())] {
            let embedding = model.embed(TEXT, pooling).expect("it computes");
            assert_eq!(embedding.len(), pooled.len());
            assert!((length(&embedding) - 1.0).abs() < 1e-6, "{family:?}: {}", length(&embedding));
            let length = length(&pooled) as f32;
            for (found, wanted) in embedding.iter().zip(&pooled) {
                assert!((found - wanted / length).abs() < 1e-5, "{family:?}, {pooling:?}: {found} is not {wanted}");
            }
        }
    }
}

#[test]
fn an_embedding_has_the_same_bits_in_any_steps_and_beside_any_generation() {
    let mut model = model(Family::Gemma3);
    let tokens = tokens(&model);
    for pooling in [Pooling::Mean, Pooling::LastToken] {
        let alone = bits(&model.embed(TEXT, pooling).expect("it computes"));
        let spec = GenerationSpec {
            input: Input::Prompt("somebody else".to_owned()),
            max_tokens: Some(30),
            sampling: SamplingSpec::GREEDY,
            stop: Vec::new(),
        };
        let mut company = model.open(&spec, &[]).expect("valid");
        for rows in [1, 3, 32, 50] {
            model.advance(&mut company).expect("it computes");
            let embedding = model.embed_tokens(&tokens, pooling, rows).expect("it computes");
            assert!(bits(&embedding) == alone, "{pooling:?} in steps of {rows}");
        }
        model.close(company);
    }
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let mut model = model(Family::Llama);
    let refused = |model: &mut Model, text: &str| model.embed(text, Pooling::default()).expect_err("it is refused");
    assert!(matches!(refused(&mut model, ""), TextError::Open(OpenError::EmptyPrompt)));
    let long = refused(&mut model, &"x".repeat(257));
    assert!(matches!(long, TextError::Step(StepError::ContextExceeded { tokens: 257, .. })), "{long}");
    let enormous = refused(&mut model, &"x".repeat(100_000_000));
    assert!(matches!(enormous, TextError::Open(OpenError::ContextExceeded { .. })), "{enormous}");
    assert_eq!(model.embed(&"x".repeat(256), Pooling::default()).expect("it fits").len(), 32);
}

#[test]
fn states_that_are_no_numbers_are_an_error_and_not_an_embedding() {
    // The norm behind the last layer, all ones, is the only run of so many.
    let mut bytes = tiny::tiny_llama(1);
    let one = 1.0_f32.to_le_bytes();
    let norm = bytes.windows(128).position(|run| run.chunks_exact(4).all(|four| four == one)).expect("it is there");
    bytes[norm..norm + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = load(&bytes).embed(TEXT, Pooling::Mean).expect_err("NaN");
    assert!(matches!(error, TextError::Step(StepError::NotAState { .. })), "{error}");
    assert_eq!(error.disposition(), Disposition::Fatal);
}
