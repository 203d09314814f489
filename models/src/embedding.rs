//! A text as a vector.
//!
//! Owns the pooling of a text's states, and the vector's length, which is 1. The models here are decoders, trained to
//! go on with texts and not to compare them: the dot product of two vectors tells similar texts from unlike ones only
//! as far as such a model happens to. All vectors lie in a narrow cone, so similarities are to be compared with each
//! other, never with a threshold from elsewhere. A model made for embeddings does better.

use crate::engine::StepError;
use crate::forward::ROWS_MAX;
use crate::generation::Input;
use crate::stock::{Model, Reading, TextError};
use crate::tokenizer::TokenId;

/// How the states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The last one, which alone has seen the whole text.
    LastToken,
}

impl Model {
    /// The embedding of `text`, tokenized as a prompt would be: its tokens' states behind the last layer, normed as
    /// the head reads them, pooled, and scaled to length 1. As many numbers as the model is wide, of which no bit depends on
    /// anything but the text.
    ///
    /// # Errors
    /// A [`TextError`]; the text must fit into the context.
    pub fn embed(&mut self, text: &str, pooling: Pooling) -> Result<Vec<f32>, TextError> {
        let tokens = self.tokenize(&Input::Prompt(text.to_owned()))?;
        Ok(self.embed_tokens(&tokens, pooling, ROWS_MAX)?)
    }

    /// The same of tokens, computed in steps of `rows`.
    fn embed_tokens(&mut self, tokens: &[TokenId], pooling: Pooling, rows: usize) -> Result<Vec<f32>, StepError> {
        let mut pooled: Vec<f64> = Vec::new();
        let first = match pooling {
            Pooling::Mean => 0,
            Pooling::LastToken => tokens.len().saturating_sub(1),
        };
        // The mean's divisor would be scaled away again.
        self.read(tokens, Reading::States, rows, &mut |at, state| {
            pooled.resize(state.len(), 0.0);
            if at >= first {
                pooled.iter_mut().zip(state).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        })?;
        let length = pooled.iter().map(|value| value * value).sum::<f64>().sqrt();
        // Of numbers it is one, and above zero: states are normed.
        if !length.is_normal() {
            return Err(StepError::NotAState { tokens: tokens.len() });
        }
        Ok(pooled.into_iter().map(|value| (value / length) as f32).collect())
    }
}

#[cfg(test)]
mod tests;
