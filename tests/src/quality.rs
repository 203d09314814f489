//! How far the engine's numbers are from those of the same weights computed in floats.
//!
//! Owns the measurement: windows of a text, each position of each of them through the engine and through the
//! [`Reference`], and what is counted. It judges nothing: bounds are with the tests.

mod rows;
mod text;

use candle_core::{Device, Tensor};
use halm_models::{Model, TokenId};

use crate::reference::Reference;
use rows::Row;
pub use text::{PERSUASION, windows};

/// Positions whose logits are held at once.
const POSITIONS_HELD: usize = 64;

/// What was found over some windows. Errors are in standard deviations of a position's reference logits, both sides less
/// their mean: a constant added to all logits changes no probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Positions whose logits were compared.
    pub positions: usize,
    /// Those of them whose next token is known: all but the last of each window.
    pub scored: usize,
    /// Of the text, as the floats have it.
    pub perplexity_of_reference: f64,
    /// Of the text, as the engine has it.
    pub perplexity: f64,
    /// The mean of KL(reference ‖ engine), nats.
    pub divergence: f64,
    /// The largest of them.
    pub divergence_max: f64,
    /// Mean absolute error.
    pub error: f64,
    /// The largest error of any logit.
    pub error_max: f64,
    /// The share of positions where both have the same likeliest token.
    pub same_top: f64,
    /// Where they have not, by how much the reference prefers its own, at most. It is at least the margin of its first
    /// over its second: wherever that margin is wider than this, both have the same likeliest token.
    pub margin_lost: f64,
}

impl Quality {
    /// By how much the engine's perplexity is off, as a share.
    #[must_use]
    pub fn perplexity_error(&self) -> f64 {
        (self.perplexity / self.perplexity_of_reference - 1.0).abs()
    }

    /// Computes the windows on both sides and compares them position by position.
    ///
    /// # Panics
    /// When one side cannot compute, or computes what is no number.
    #[must_use]
    pub fn measure(model: &mut Model, reference: &Reference, windows: &[Vec<TokenId>]) -> Self {
        let vocabulary = model.facts().vocabulary;
        let mut rows = Vec::new();
        for window in windows {
            let ids: Vec<u32> = window.iter().map(|token| token.get()).collect();
            let hidden = reference.hidden(&ids);
            let mut held: Vec<f32> = Vec::new();
            let mut look = |at: usize, logits: &[f32]| {
                held.extend_from_slice(logits);
                let count = held.len() / vocabulary;
                if count < POSITIONS_HELD && at + 1 < window.len() {
                    return;
                }
                let first = at + 1 - count;
                let next: Vec<_> = (first..=at).map(|at| window.get(at + 1).copied()).collect();
                let ours = Tensor::from_vec(std::mem::take(&mut held), (count, vocabulary), &Device::Cpu);
                let compared = hidden
                    .narrow(0, first, count)
                    .and_then(|hidden| rows::compare(&reference.logits(&hidden), &ours?, &next));
                rows.extend(compared.expect("both sides have the same rows"));
            };
            model.logits_of_each(window, &mut look).expect("it computes");
        }
        Self::of(&rows)
    }

    fn of(rows: &[Row]) -> Self {
        let mean = |value: fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / rows.len() as f64;
        let most = |value: fn(&Row) -> f64| rows.iter().map(value).fold(0.0, f64::max);
        let surprises: Vec<_> = rows.iter().filter_map(|row| row.surprise).collect();
        let surprise = |side: usize| surprises.iter().map(|both| both[side]).sum::<f64>() / surprises.len() as f64;
        Self {
            positions: rows.len(),
            scored: surprises.len(),
            perplexity_of_reference: surprise(0).exp(),
            perplexity: surprise(1).exp(),
            divergence: mean(|row| row.divergence),
            divergence_max: most(|row| row.divergence),
            error: mean(|row| row.error),
            error_max: most(|row| row.error_max),
            same_top: mean(|row| if row.preference == 0.0 { 1.0 } else { 0.0 }),
            margin_lost: most(|row| row.preference),
        }
    }
}
