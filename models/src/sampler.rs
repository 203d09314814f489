//! From logits to a token.
//!
//! Owns the order of things: penalties → temperature → top-k → top-p → min-p → draw, which is the order of
//! Hugging Face's `generate`. Everything is deterministic: candidates are sorted by logit, ties by the lower
//! id, and the random number is a function of (seed, choice, position) alone, so a resumed request draws what the
//! first attempt would have drawn. A NaN or an infinity among the logits is an error, never a token. It keeps
//! no state between tokens. Called by [`crate::Generation`].

mod counter;
mod filters;
mod penalties;

pub use counter::{Philox, uniform};

use crate::engine::StepError;
use crate::tokenizer::TokenId;

/// How a request wants its tokens chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingSpec {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f32,
    /// Keep so many of the likeliest tokens.
    pub top_k: Option<u32>,
    /// Keep the likeliest tokens whose probabilities together reach this.
    pub top_p: Option<f32>,
    /// Keep tokens at least this fraction as probable as the likeliest.
    pub min_p: Option<f32>,
    /// Subtracted from a token's logit for each time it was generated.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of a token that was generated.
    pub presence_penalty: f32,
    /// Chooses the stream of random numbers.
    pub seed: u64,
    /// Which of several answers to the same request this is, from 0.
    pub choice: u32,
}

impl SamplingSpec {
    /// The likeliest token always, without penalties.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: None,
        top_p: None,
        min_p: None,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        seed: 0,
        choice: 0,
    };

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidSampling> {
        let check = |ok: bool, parameter, value: f32, allowed| {
            if ok {
                return Ok(());
            }
            Err(InvalidSampling { parameter, value, allowed })
        };
        let Self { temperature, top_k, top_p, min_p, frequency_penalty, presence_penalty, .. } = *self;
        check(temperature.is_finite() && temperature >= 0.0, "temperature", temperature, "a number from 0 up")?;
        check(top_k != Some(0), "top_k", 0.0, "at least 1, or absent for no limit")?;
        if let Some(top_p) = top_p {
            check(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0 and at most 1")?;
        }
        if let Some(min_p) = min_p {
            check((0.0..=1.0).contains(&min_p), "min_p", min_p, "from 0 to 1")?;
        }
        for (name, penalty) in [("frequency_penalty", frequency_penalty), ("presence_penalty", presence_penalty)] {
            check((-2.0..=2.0).contains(&penalty), name, penalty, "from -2 to 2")?;
        }
        Ok(())
    }
}

/// A sampling parameter out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{parameter} is {value}; it must be {allowed}")]
pub struct InvalidSampling {
    /// The field's name.
    pub parameter: &'static str,
    /// What was asked for.
    pub value: f32,
    /// The range, in words.
    pub allowed: &'static str,
}

/// What the model's own logits say about a chosen token, before penalties and temperature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitFacts {
    /// The token's logit.
    pub logit: f32,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// How far the largest logit is above the second largest: a small margin means that a different kernel
    /// might have chosen otherwise.
    pub margin: f32,
}

/// Chooses the token at `position`, the number of tokens generated before it.
///
/// # Errors
/// [`StepError::NotFiniteLogits`] when any logit is NaN or infinite.
pub fn choose(logits: &[f32], spec: &SamplingSpec, generated: &[TokenId]) -> Result<TokenId, StepError> {
    let position = generated.len();
    check_finite(logits, position)?;
    let penalized = penalties::penalize(logits, spec, generated);
    let logits = penalized.as_deref().unwrap_or(logits);
    if spec.temperature == 0.0 {
        return Ok(filters::likeliest(logits));
    }
    let candidates = filters::Candidates::new(logits, spec);
    let random = uniform(spec.seed, spec.choice, position as u64);
    Ok(candidates.draw(random))
}

/// The facts about `token` in `logits`, which must have passed [`check_finite`].
pub(crate) fn facts(logits: &[f32], token: TokenId) -> LogitFacts {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &logit in logits {
        if logit > first {
            (first, second) = (logit, first);
        } else if logit > second {
            second = logit;
        }
    }
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - first).exp()).sum();
    let logit = logits[token.index()];
    LogitFacts { logit, logprob: (f64::from(logit - first) - sum.ln()) as f32, margin: first - second }
}

/// The natural logarithm of `token`'s probability in `logits`, which must have passed [`check_finite`]: a log-softmax
/// in 64-bit floats, in the order of the vocabulary, with `libm`'s functions, so that every host has the same bits.
pub(crate) fn logprob(logits: &[f32], token: TokenId) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| libm::exp(f64::from(logit) - largest)).sum();
    (f64::from(logits[token.index()]) - largest) - libm::log(sum)
}

/// Refuses logits that are not numbers: what follows from them would be a random token.
pub(crate) fn check_finite(logits: &[f32], position: usize) -> Result<(), StepError> {
    if logits.iter().all(|logit| logit.is_finite()) {
        return Ok(());
    }
    Err(StepError::NotFiniteLogits {
        position,
        nan: logits.iter().filter(|logit| logit.is_nan()).count(),
        inf: logits.iter().filter(|logit| logit.is_infinite()).count(),
    })
}

#[cfg(test)]
mod tests;
