//! Frequency and presence penalties.
//!
//! Owns their formula, that of the OpenAI API: `logit[t] -= count(t) × frequency + (count(t) > 0) × presence`,
//! counting generated tokens only, not the prompt. Called by the sampler.

use std::collections::BTreeMap;

use super::SamplingSpec;
use crate::tokenizer::TokenId;

/// The logits after penalties, or `None` where nothing changes.
pub(super) fn penalize(logits: &[f32], spec: &SamplingSpec, generated: &[TokenId]) -> Option<Vec<f32>> {
    if generated.is_empty() || (spec.frequency_penalty == 0.0 && spec.presence_penalty == 0.0) {
        return None;
    }
    let mut counts = BTreeMap::<TokenId, u32>::new();
    for token in generated {
        *counts.entry(*token).or_default() += 1;
    }
    let mut penalized = logits.to_vec();
    for (token, count) in counts {
        if let Some(logit) = penalized.get_mut(token.index()) {
            *logit -= count as f32 * spec.frequency_penalty + spec.presence_penalty;
        }
    }
    Some(penalized)
}
