//! Candidates for the next token: sorted, cut by top-k, top-p and min-p, and drawn from.
//!
//! Owns the order among tokens, logit descending and then id ascending, which makes every cut exact and the same
//! on every machine. Probabilities are summed in 64-bit floats in that order. Called by the sampler with
//! logits that are finite.

use std::cmp::Ordering;

use super::SamplingSpec;
use crate::tokenizer::TokenId;

/// Tokens that may be drawn, the likeliest first.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Invariant: not empty.
    tokens: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
    /// Relative to the likeliest token's, which is 1.
    weight: f64,
}

fn likelier_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// The token with the largest logit, of several the one with the lowest id.
pub(super) fn likeliest(logits: &[f32]) -> TokenId {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0_u32..).zip(logits) {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    TokenId::from(best.0)
}

impl Candidates {
    /// The tokens that `spec` lets through.
    pub(super) fn new(logits: &[f32], spec: &SamplingSpec) -> Self {
        let mut tokens: Vec<_> = (0_u32..)
            .zip(logits)
            // Adding zero makes -0 and 0 one value, as a comparison of floats has it.
            .map(|(id, logit)| Candidate { id, logit: logit + 0.0, weight: 0.0 })
            .collect();
        let keep = spec.top_k.map_or(tokens.len(), |top_k| tokens.len().min(top_k as usize));
        if keep < tokens.len() {
            tokens.select_nth_unstable_by(keep, likelier_first);
            tokens.truncate(keep);
        }
        tokens.sort_unstable_by(likelier_first);
        let temperature = f64::from(spec.temperature);
        let largest = f64::from(tokens[0].logit);
        for token in &mut tokens {
            token.weight = ((f64::from(token.logit) - largest) / temperature).exp();
        }
        let mut candidates = Self { tokens };
        if let Some(top_p) = spec.top_p {
            candidates.cut_top_p(f64::from(top_p));
        }
        if let Some(min_p) = spec.min_p {
            candidates.tokens.retain(|token| token.weight >= f64::from(min_p));
        }
        candidates
    }

    /// Keeps the fewest of the likeliest tokens whose probabilities reach `top_p`, one at least.
    fn cut_top_p(&mut self, top_p: f64) {
        let wanted = self.total() * top_p;
        let mut sum = 0.0;
        let keep = self.tokens.iter().position(|token| {
            sum += token.weight;
            sum >= wanted
        });
        if let Some(last) = keep {
            self.tokens.truncate(last + 1);
        }
    }

    fn total(&self) -> f64 {
        self.tokens.iter().map(|token| token.weight).sum()
    }

    /// The token at the fraction `random` of the summed probabilities.
    pub(super) fn draw(&self, random: f64) -> TokenId {
        let target = self.total() * random;
        let mut sum = 0.0;
        let drawn = self.tokens.iter().find(|token| {
            sum += token.weight;
            sum > target
        });
        // Rounding may leave the sum a hair below the target: then it is the last token's turn.
        let drawn = drawn.or(self.tokens.last());
        TokenId::from(drawn.expect("there is a candidate at least").id)
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}
