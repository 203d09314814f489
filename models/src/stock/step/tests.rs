//! Generations that share steps and pages: what they say does not change, and what they hold is known.

use std::time::Duration;

use proptest::prelude::*;

use crate::engine::{Disposition, StepError};
use crate::generation::{Generation, GenerationSpec, Input, Progress};
use crate::sampler::SamplingSpec;
use crate::scheduler::{Counters, Limits, Priority, Refusal, Terms};
use crate::stock::{LoadOptions, Model, OpenError};
use crate::tiny::{self, Family};
use crate::tokenizer::TokenId;

fn model(family: Family, limits: Limits) -> Model {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), tiny::tiny(family, 1).encode()).expect("a few kilobytes fit");
    let options = LoadOptions { limits, ..LoadOptions::default() };
    Model::load(file.path(), &options).expect("the tiny model loads")
}

fn pages(pages: usize) -> Limits {
    Limits { pages, ..Limits::default() }
}

fn spec(prompt: &str, max_tokens: impl Into<Option<u32>>, seed: u64) -> GenerationSpec {
    GenerationSpec {
        input: Input::Prompt(prompt.to_owned()),
        max_tokens: max_tokens.into(),
        sampling: SamplingSpec { temperature: 1.0, seed, ..SamplingSpec::GREEDY },
        stop: Vec::new(),
    }
}

/// Each step of all of them, until all are finished; their texts.
fn finish(model: &mut Model, generations: Vec<Generation>) -> Vec<String> {
    let mut open: Vec<(Generation, String, bool)> =
        generations.into_iter().map(|generation| (generation, String::new(), false)).collect();
    while open.iter().any(|(_, _, over)| !over) {
        let (mut left, mut texts): (Vec<_>, Vec<_>) = open
            .iter_mut()
            .filter(|(_, _, over)| !over)
            .map(|(generation, text, over)| (generation, (text, over)))
            .unzip();
        let step = model.plan(left.iter_mut().map(|generation| &mut **generation), Duration::ZERO);
        for (progress, (text, over)) in model.perform(step).expect("it computes").into_iter().zip(&mut texts) {
            match progress.expect("it computes") {
                Progress::Prefilling { done, of } => assert!(done < of),
                Progress::Replayed { text: piece, .. } | Progress::Generated { text: piece, .. } => {
                    text.push_str(&piece)
                }
                Progress::Finished { text: rest, .. } => {
                    text.push_str(&rest);
                    **over = true;
                }
            }
        }
    }
    open.into_iter()
        .map(|(generation, text, _)| {
            model.close(generation);
            text
        })
        .collect()
}

fn open(model: &mut Model, spec: &GenerationSpec) -> Generation {
    model.open(spec, &[]).expect("valid")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn generations_that_share_steps_and_too_few_pages_say_what_each_says_alone(
        family in prop::sample::select(Family::ALL.to_vec()),
        prompts in prop::collection::vec((0..60_usize, 0..20_usize, 1..40_u32), 1..6),
        count in 4..9_usize,
        rows_beside_others in 8..64_usize,
    ) {
        let specs: Vec<_> = (0..).zip(prompts).map(|(seed, (common, own, length))| {
            let own = format!("{seed} {}", "hello ".repeat(own / 6));
            spec(&("the world ".repeat(common / 10) + &own), length, seed)
        }).collect();
        let mut free = model(family, Limits::default());
        let alone: Vec<_> = specs.iter().flat_map(|spec| {
            let generation = open(&mut free, spec);
            finish(&mut free, vec![generation])
        }).collect();
        let mut crowded = model(family, Limits { rows_beside_others, sequences: 8, ..pages(count) });
        for _ in 0..2 {
            let generations = specs.iter().map(|spec| open(&mut crowded, spec)).collect();
            prop_assert_eq!(&finish(&mut crowded, generations), &alone);
        }
        prop_assert_eq!(crowded.counters().pages_used, 0);
    }
}

#[test]
fn counters_tell_pages_reuse_and_losses() {
    let mut model = model(Family::Llama, pages(8));
    assert_eq!(model.counters(), Counters { pages_free: 8, ..Counters::default() });
    // 64 tokens and a few more, a byte each.
    let prompt = "abcdefgh".repeat(8);
    let first = open(&mut model, &spec(&prompt, 4, 1));
    finish(&mut model, vec![first]);
    assert_eq!(model.counters(), Counters { pages_cached: 2, pages_free: 6, ..Counters::default() });
    let mut second = open(&mut model, &spec(&(prompt + "ij"), 4, 1));
    model.advance(&mut second).expect("it computes");
    let held = Counters { sequences: 1, pages_used: 3, pages_free: 5, tokens_reused: 64, ..Counters::default() };
    assert_eq!(model.counters(), held);
    // The whole context, in all pages there are.
    model.logits_after(&[TokenId::from(65); 256]).expect("it computes");
    let lost = Counters { sequences: 1, pages_free: 8, tokens_reused: 64, preemptions: 1, ..Counters::default() };
    assert_eq!(model.counters(), lost);
    model.close(second);
    assert_eq!(model.counters(), Counters { sequences: 0, ..lost });
}

#[test]
fn a_finished_or_failed_generation_holds_nothing_even_if_it_is_not_closed() {
    let mut model = model(Family::Llama, Limits::default());
    let mut generation = open(&mut model, &spec("hello", 1, 3));
    while !matches!(model.advance(&mut generation), Ok(Progress::Finished { .. })) {}
    let counters = model.counters();
    assert_eq!((counters.sequences, counters.pages_used), (0, 0));
    model.close(generation);
}

#[test]
fn a_deadline_that_is_past_ends_a_generation_and_no_other() {
    let mut model = model(Family::Llama, Limits::default());
    let due = Terms { priority: Priority::Batch, deadline: Some(Duration::from_secs(5)) };
    let mut late = model.open_on(due, &spec("hello", 90, 3), &[]).expect("valid");
    let mut other = open(&mut model, &spec("hello", 90, 3));
    let mut step = |model: &mut Model, seconds| {
        let step = model.plan([&mut late, &mut other], Duration::from_secs(seconds));
        model.perform(step).expect("it computes")
    };
    assert!(step(&mut model, 4).iter().all(Result::is_ok));
    let outcome = step(&mut model, 5);
    let Err(error @ StepError::DeadlinePassed) = &outcome[0] else { panic!("{outcome:?}") };
    assert_eq!(error.disposition(), Disposition::Poison);
    assert!(outcome[1].is_ok());
    assert!(matches!(step(&mut model, 6)[0], Err(StepError::NotRunning)));
    assert_eq!(model.counters().sequences, 1);
}

#[test]
fn what_there_is_no_memory_for_is_refused_at_once_and_no_answer_is_cut_to_fit_it() {
    let mut model = model(Family::Llama, Limits::default());
    let page_bytes = 2 * 2 * 2 * 8 * 32 * 2;
    model.limit_pages_to(3 * page_bytes + page_bytes / 2);
    assert_eq!(model.tokens_max(), 96);
    let error = model.open(&spec(&"x".repeat(90), 7, 1), &[]).expect_err("97 tokens");
    assert!(matches!(error, OpenError::Refused(Refusal::NeverFits { tokens: 97, tokens_max: 96 })), "{error}");
    assert_eq!(error.disposition(), Disposition::Poison);
    let error = model.open(&spec(&"x".repeat(100), 1, 1), &[]).expect_err("the prompt alone");
    assert!(matches!(error, OpenError::Refused(Refusal::NeverFits { tokens: 101, .. })), "{error}");
    // An answer of as many tokens as there is room for would be another one on a worker with more memory.
    let error = model.open(&spec(&"x".repeat(90), None, 1), &[]).expect_err("an answer to the end of the context");
    assert!(matches!(error, OpenError::Refused(Refusal::NeverFits { tokens: 256, tokens_max: 96 })), "{error}");
    assert!(model.open(&spec(&"x".repeat(90), 6, 1), &[]).is_ok(), "96 tokens");
}

#[test]
fn a_step_that_is_dropped_was_not_computed() {
    let mut model = model(Family::Llama, Limits::default());
    let spec = spec("hello the world", 9, 7);
    let alone = open(&mut model, &spec);
    let alone = finish(&mut model, vec![alone]);
    let mut generation = open(&mut model, &spec);
    for _ in 0..3 {
        assert!(model.plan([&mut generation], Duration::ZERO).rows() > 0);
    }
    assert_eq!(finish(&mut model, vec![generation]), alone);
}
