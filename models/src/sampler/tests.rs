//! Filters, penalties and draws, by example and against plain definitions.

use super::{SamplingSpec, check_finite, choose, facts, filters, penalties};
use crate::engine::{Disposition, StepError};
use crate::tokenizer::TokenId;
use proptest::prelude::*;

fn warm() -> SamplingSpec {
    SamplingSpec { temperature: 1.0, ..SamplingSpec::GREEDY }
}

fn kept(logits: &[f32], spec: &SamplingSpec) -> Vec<u32> {
    filters::Candidates::new(logits, spec).ids()
}

#[test]
fn greedy_takes_the_largest_and_of_equals_the_lowest() {
    for (logits, token) in [([1.0, 3.0, 2.0], 1), ([5.0, 5.0, 5.0], 0), ([-9.0, -1.0, -1.0], 1)] {
        let chosen = choose(&logits, &SamplingSpec::GREEDY, &[]).expect("finite");
        assert_eq!(chosen, TokenId::from(token));
    }
}

#[test]
fn candidates_are_sorted_by_logit_then_by_id() {
    assert_eq!(kept(&[1.0, 2.0, 2.0, 0.0, -0.0], &warm()), [1, 2, 0, 3, 4]);
}

#[test]
fn top_k_keeps_so_many_of_the_likeliest() {
    let spec = |top_k| SamplingSpec { top_k: Some(top_k), ..warm() };
    let logits = [0.0, 3.0, 1.0, 3.0, 2.0];
    assert_eq!(kept(&logits, &spec(1)), [1]);
    assert_eq!(kept(&logits, &spec(3)), [1, 3, 4]);
    assert_eq!(kept(&logits, &spec(99)), [1, 3, 4, 2, 0]);
}

/// Logits of the probabilities 0.5, 0.3, 0.15 and 0.05.
fn quarters() -> [f32; 4] {
    [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln)
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it() {
    let spec = |top_p| SamplingSpec { top_p: Some(top_p), ..warm() };
    for (top_p, count) in [(0.01, 1), (0.49, 1), (0.6, 2), (0.79, 2), (0.9, 3), (0.96, 4), (1.0, 4)] {
        assert_eq!(kept(&quarters(), &spec(top_p)).len(), count, "top_p {top_p}");
    }
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    let spec = |min_p| SamplingSpec { min_p: Some(min_p), ..warm() };
    for (min_p, count) in [(0.0, 4), (0.09, 4), (0.2, 3), (0.5, 2), (0.7, 1), (1.0, 1)] {
        assert_eq!(kept(&quarters(), &spec(min_p)).len(), count, "min_p {min_p}");
    }
}

#[test]
fn penalties_are_counted_over_generated_tokens() {
    let spec = SamplingSpec { frequency_penalty: 0.5, presence_penalty: 0.25, ..warm() };
    let generated = [2, 0, 2].map(TokenId::from);
    let penalized = penalties::penalize(&[1.0, 1.0, 1.0], &spec, &generated);
    assert_eq!(penalized, Some(vec![0.25, 1.0, -0.25]));
    assert_eq!(penalties::penalize(&[1.0], &warm(), &generated), None);
}

#[test]
fn logits_that_are_no_numbers_are_an_error_never_a_token() {
    for (bad, nan, inf) in [(f32::NAN, 1, 0), (f32::INFINITY, 0, 1), (f32::NEG_INFINITY, 0, 1)] {
        for spec in [SamplingSpec::GREEDY, warm()] {
            let error = choose(&[0.0, bad, 1.0], &spec, &[TokenId::from(0)]).expect_err("no number");
            assert!(
                matches!(error, StepError::NotFiniteLogits { position: 1, nan: n, inf: i } if (n, i) == (nan, inf)),
                "{error}"
            );
            assert_eq!(error.disposition(), Disposition::Fatal);
        }
    }
    assert!(check_finite(&[f32::MAX, f32::MIN], 0).is_ok());
}

#[test]
fn draws_follow_the_probabilities() {
    const DRAWS: usize = 4_000;
    let mut counts = [0.0_f64; 4];
    for seed in 0..DRAWS as u64 {
        let spec = SamplingSpec { seed, ..warm() };
        counts[choose(&quarters(), &spec, &[]).expect("finite").index()] += 1.0;
    }
    for (count, probability) in counts.iter().zip([0.5, 0.3, 0.15, 0.05]) {
        let deviation = (DRAWS as f64 * probability * (1.0 - probability)).sqrt();
        let off = (count - DRAWS as f64 * probability).abs();
        assert!(off < 5.0 * deviation, "{counts:?}");
    }
}

#[test]
fn facts_are_about_the_models_own_logits() {
    let facts = facts(&quarters(), TokenId::from(1));
    assert!((facts.logprob - 0.3_f32.ln()).abs() < 1e-6, "{facts:?}");
    assert!((facts.margin - (0.5_f32 / 0.3).ln()).abs() < 1e-6, "{facts:?}");
}

#[test]
fn a_parameter_out_of_its_range_is_named() {
    let cases = [
        (SamplingSpec { temperature: f32::NAN, ..warm() }, "temperature"),
        (SamplingSpec { temperature: -0.1, ..warm() }, "temperature"),
        (SamplingSpec { temperature: f32::INFINITY, ..warm() }, "temperature"),
        (SamplingSpec { top_k: Some(0), ..warm() }, "top_k"),
        (SamplingSpec { top_p: Some(0.0), ..warm() }, "top_p"),
        (SamplingSpec { top_p: Some(1.1), ..warm() }, "top_p"),
        (SamplingSpec { top_p: Some(f32::NAN), ..warm() }, "top_p"),
        (SamplingSpec { min_p: Some(-0.1), ..warm() }, "min_p"),
        (SamplingSpec { min_p: Some(1.1), ..warm() }, "min_p"),
        (SamplingSpec { frequency_penalty: 2.1, ..warm() }, "frequency_penalty"),
        (SamplingSpec { presence_penalty: f32::NAN, ..warm() }, "presence_penalty"),
    ];
    for (spec, parameter) in cases {
        assert_eq!(spec.validate().expect_err("out of range").parameter, parameter);
    }
    assert_eq!(warm().validate(), Ok(()));
}

fn any_spec() -> impl Strategy<Value = SamplingSpec> {
    (
        0.0_f32..3.0,
        prop::option::of(1_u32..40),
        prop::option::of(0.01_f32..=1.0),
        prop::option::of(0.0_f32..=1.0),
        (-2.0_f32..=2.0, -2.0_f32..=2.0),
        any::<u64>(),
    )
        .prop_map(|(temperature, top_k, top_p, min_p, (frequency_penalty, presence_penalty), seed)| SamplingSpec {
            temperature,
            top_k,
            top_p,
            min_p,
            frequency_penalty,
            presence_penalty,
            seed,
            choice: 0,
        })
}

proptest! {
    #[test]
    fn a_choice_is_a_token_of_the_vocabulary_and_repeats_itself(
        logits in prop::collection::vec(-1e30_f32..1e30, 1..40),
        generated in prop::collection::vec(0_u32..40, 0..8),
        spec in any_spec(),
    ) {
        prop_assert_eq!(spec.validate(), Ok(()));
        let generated: Vec<_> = generated.into_iter().map(TokenId::from).collect();
        let first = choose(&logits, &spec, &generated).expect("finite");
        prop_assert!(first.index() < logits.len());
        prop_assert_eq!(choose(&logits, &spec, &generated).expect("finite"), first);
    }

    #[test]
    fn what_is_kept_is_the_top_of_the_sorted_vocabulary(
        logits in prop::collection::vec((-8_i8..8).prop_map(f32::from), 1..40),
        spec in any_spec(),
    ) {
        let spec = SamplingSpec { temperature: spec.temperature.max(0.01), ..spec };
        let mut sorted: Vec<_> = (0_u32..).zip(&logits).collect();
        sorted.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        let sorted: Vec<_> = sorted.into_iter().map(|(id, _)| id).collect();
        let kept = kept(&logits, &spec);
        prop_assert!(!kept.is_empty());
        prop_assert_eq!(&kept[..], &sorted[..kept.len()]);
        if let Some(top_k) = spec.top_k {
            prop_assert!(kept.len() <= top_k as usize);
        }
    }

    #[test]
    fn a_choice_is_among_what_is_kept(
        logits in prop::collection::vec(-8.0_f32..8.0, 1..40),
        spec in any_spec(),
    ) {
        let spec = SamplingSpec { temperature: spec.temperature.max(0.01), ..spec };
        let chosen = choose(&logits, &spec, &[]).expect("finite");
        prop_assert!(kept(&logits, &spec).contains(&chosen.get()));
    }
}
