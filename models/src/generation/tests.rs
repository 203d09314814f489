//! Generations on the tiny model: resumes, stop strings, interleaving and broken numbers.

use super::{FinishReason, Generation, GenerationSpec, Input, Progress};
use crate::engine::{Disposition, StepError};
use crate::gguf::GgufWriter;
use crate::sampler::SamplingSpec;
use crate::stock::{LoadOptions, Model, OpenError};
use crate::tiny;
use crate::tokenizer::TokenId;
use proptest::prelude::*;

fn load(writer: &GgufWriter) -> Model {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), writer.encode()).expect("a few kilobytes fit");
    let options = LoadOptions::default();
    Model::load(file.path(), &options).expect("the tiny model loads")
}

fn model() -> Model {
    load(&tiny::tiny_llama_writer(1))
}

fn spec(prompt: &str, max_tokens: u32, seed: u64) -> GenerationSpec {
    GenerationSpec {
        input: Input::Prompt(prompt.to_owned()),
        max_tokens: Some(max_tokens),
        sampling: SamplingSpec { temperature: 1.0, seed, ..SamplingSpec::GREEDY },
        stop: Vec::new(),
    }
}

/// What a run showed: tokens, the text with each, the rest, the reason.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    tokens: Vec<TokenId>,
    texts: Vec<String>,
    rest: String,
    reason: FinishReason,
}

impl Answer {
    fn text(&self) -> String {
        self.texts.concat() + &self.rest
    }
}

fn run(model: &mut Model, spec: &GenerationSpec, resume: &[TokenId]) -> Answer {
    let generation = model.open(spec, resume).expect("the request is valid");
    run_open(model, generation)
}

fn run_open(model: &mut Model, mut generation: Generation) -> Answer {
    let mut texts = Vec::new();
    loop {
        match model.advance(&mut generation).expect("it computes") {
            Progress::Prefilling { done, of } => assert!(done < of),
            Progress::Replayed { text, .. } | Progress::Generated { text, .. } => texts.push(text),
            Progress::Finished { text: rest, reason } => {
                let tokens = generation.generated().to_vec();
                assert!(matches!(model.advance(&mut generation), Err(StepError::NotRunning)));
                model.close(generation);
                return Answer { tokens, texts, rest, reason };
            }
        }
    }
}

#[test]
fn a_resume_at_every_token_repeats_every_text() {
    let mut model = model();
    for seed in 0..3 {
        let spec = spec("hello the world", 24, seed);
        let whole = run(&mut model, &spec, &[]);
        for cut in 0..=whole.tokens.len() {
            assert_eq!(run(&mut model, &spec, &whole.tokens[..cut]), whole, "seed {seed}, cut at {cut}");
        }
    }
}

#[test]
fn texts_together_are_the_text_of_all_tokens() {
    let mut model = model();
    for seed in 0..20 {
        let answer = run(&mut model, &spec("hello", 30, seed), &[]);
        assert_eq!(answer.text(), model.tokenizer().decode(&answer.tokens), "seed {seed}");
    }
}

#[test]
fn an_answer_may_end_by_itself_or_by_its_length() {
    let mut model = model();
    let reasons: Vec<_> = (0..20).map(|seed| run(&mut model, &spec("hello", 40, seed), &[])).collect();
    for answer in &reasons {
        match answer.reason {
            FinishReason::Length => assert_eq!(answer.tokens.len(), 40),
            FinishReason::Stop => assert!(answer.tokens.len() < 40),
        }
        assert!(!answer.tokens.iter().any(|token| model.tokenizer().is_end_of_generation(*token)));
    }
    assert!(reasons.iter().any(|answer| answer.reason == FinishReason::Stop));
    assert!(reasons.iter().any(|answer| answer.reason == FinishReason::Length));
}

#[test]
fn a_stop_string_is_hidden_and_its_last_token_is_reported() {
    let mut model = model();
    let free = run(&mut model, &spec("hello", 30, 3), &[]);
    // A printable character from the middle, and the one before it.
    let text = free.text();
    let characters: Vec<char> = text.chars().collect();
    let stop: String = characters[6..8].iter().collect();
    let spec = GenerationSpec { stop: vec![stop.clone()], ..spec("hello", 30, 3) };
    let stopped = run(&mut model, &spec, &[]);
    assert_eq!(stopped.reason, FinishReason::Stop);
    assert_eq!(stopped.text(), text[..text.find(&stop).expect("it is in there")]);
    assert_eq!(stopped.tokens, free.tokens[..stopped.tokens.len()]);
    assert!(model.tokenizer().decode(&stopped.tokens).contains(&stop));
}

#[test]
fn a_record_that_reaches_behind_the_end_is_refused() {
    let mut model = model();
    let spec = spec("hello", 4, 1);
    let letter = TokenId::from(u32::from(b'a'));
    let end = TokenId::from(tiny::VOCABULARY as u32 - 1);
    let unknown = TokenId::from(tiny::VOCABULARY as u32);
    for (record, index) in [(vec![letter; 5], 4), (vec![letter, end], 1), (vec![unknown], 0)] {
        let error = model.open(&spec, &record).expect_err("no attempt can have recorded this");
        assert!(matches!(error, OpenError::InvalidReplay { index: found } if found == index), "{error}");
    }
}

#[test]
fn a_nan_among_the_weights_is_an_error_and_not_a_token() {
    let mut bytes = tiny::tiny_llama(1);
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a few kilobytes fit");
    let options = LoadOptions::default();
    let mut model = Model::load(file.path(), &options).expect("weights are not looked at");
    let mut generation = model.open(&spec("hello", 4, 1), &[]).expect("valid");
    let error = model.advance(&mut generation).expect_err("NaN spreads to the logits");
    assert!(matches!(error, StepError::NotFiniteLogits { position: 0, nan, .. } if nan > 0), "{error}");
    assert_eq!(error.disposition(), Disposition::Fatal);
    assert!(matches!(model.advance(&mut generation), Err(StepError::NotRunning)));
    model.close(generation);
}

#[test]
fn sequences_are_bounded_and_closing_makes_room() {
    let mut model = model();
    let spec = spec("hello", 4, 1);
    let mut open = Vec::new();
    let refused = loop {
        match model.open(&spec, &[]) {
            Ok(generation) => open.push(generation),
            Err(error) => break error,
        }
        assert!(open.len() <= 1000, "no bound in sight");
    };
    assert_eq!(refused.disposition(), Disposition::Retry, "{refused}");
    model.close(open.pop().expect("some were open"));
    assert_eq!(run(&mut model, &spec, &[]).reason, FinishReason::Length);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn generations_in_any_interleaving_say_what_each_says_alone(
        turns in prop::collection::vec(0_usize..3, 0..60),
        seeds in prop::array::uniform3(any::<u64>()),
    ) {
        let mut model = model();
        let specs = seeds.map(|seed| spec("hello", 10, seed));
        let alone = specs.clone().map(|spec| run(&mut model, &spec, &[]).text());
        let mut open = specs.map(|spec| (model.open(&spec, &[]).expect("valid"), String::new(), false));
        for turn in turns.into_iter().chain((0..3).cycle().take(60)) {
            let (generation, text, over) = &mut open[turn];
            if *over {
                continue;
            }
            match model.advance(generation).expect("it computes") {
                Progress::Prefilling { .. } => {}
                Progress::Replayed { text: piece, .. } | Progress::Generated { text: piece, .. } => text.push_str(&piece),
                Progress::Finished { text: rest, .. } => {
                    text.push_str(&rest);
                    *over = true;
                }
            }
        }
        prop_assert!(open.iter().all(|(_, _, over)| *over));
        let together = open.map(|(generation, text, _)| {
            model.close(generation);
            text
        });
        prop_assert_eq!(together, alone);
    }
}
