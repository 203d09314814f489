//! How probable a model finds a text.
//!
//! Owns the log-probabilities of a continuation's tokens, and the perplexity of a text. Both read: a text is computed
//! like a prompt, hundreds of tokens in a step, and each token's probability is taken from the logits before it while
//! the step lends them. They draw nothing and keep nothing open. Called by whoever checks a model, not to serve anyone:
//! a long text is computed in one go.

use crate::engine::StepError;
use crate::forward::ROWS_MAX;
use crate::generation::Input;
use crate::sampler;
use crate::stock::{Model, OpenError, Reading, TextError};
use crate::tokenizer::{Specials, TokenId};

/// A token, and how probable it was where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredToken {
    /// The token.
    pub token: TokenId,
    /// The natural logarithm of its probability, given all tokens before it.
    pub logprob: f64,
}

/// How a text longer than a model sees is read: windows, each beginning `stride` tokens after the one before, of which
/// each scores the tokens that none before it had. So every token has at least `tokens - stride` tokens before it that
/// count, but at the start of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window: at least 2, at most the model's context.
    pub tokens: usize,
    /// By how many tokens it is moved: at least 1, fewer than a window has.
    pub stride: usize,
}

/// How surprised a model is by a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// Tokens scored: all but the first.
    pub tokens: usize,
    /// The mean of the natural logarithms of their probabilities.
    pub mean_logprob: f64,
}

impl Perplexity {
    /// `e` to the negative mean: the number of equally likely tokens among which the model might as well have guessed.
    pub fn value(&self) -> f64 {
        libm::exp(-self.mean_logprob)
    }
}

impl Model {
    /// How probable `continuation` is after `input`, token by token: how a request with this input might be answered.
    ///
    /// Both are tokenized as in a request: the input as a prompt, alone, and the continuation as text that goes on
    /// behind it. So the tokens are those that follow this prompt, which may be others than those of the joint text.
    /// An empty continuation has no tokens.
    ///
    /// # Errors
    /// A [`TextError`].
    pub fn score(&mut self, input: &Input, continuation: &str) -> Result<Vec<ScoredToken>, TextError> {
        let prompt = self.tokenize(input)?;
        self.refuse_enormous(continuation.len())?;
        let continuation = self.tokenizer().encode_continuation(continuation).map_err(OpenError::from)?;
        let logprobs = self.score_tokens(&prompt, &continuation)?;
        let scored = continuation.into_iter().zip(logprobs);
        Ok(scored.map(|(token, logprob)| ScoredToken { token, logprob }).collect())
    }

    /// The natural logarithm of the probability of each token of `continuation`, given `prompt` and those before it.
    ///
    /// # Errors
    /// A [`StepError`]; [`StepError::NoTokens`] where the prompt has none.
    pub fn score_tokens(&mut self, prompt: &[TokenId], continuation: &[TokenId]) -> Result<Vec<f64>, StepError> {
        if prompt.is_empty() {
            return Err(StepError::NoTokens);
        }
        self.score_after(&[prompt, continuation].concat(), prompt.len(), ROWS_MAX)
    }

    /// How surprising `text` is on average, tokenized as a prompt would be. The start token, where the model has one,
    /// stands before the text and not before each window.
    ///
    /// # Errors
    /// A [`TextError`].
    pub fn perplexity(&mut self, text: &str, windows: Windows) -> Result<Perplexity, TextError> {
        let Windows { tokens, stride } = windows;
        let context_tokens = self.facts().context_tokens;
        if !(2..=context_tokens).contains(&tokens) || stride == 0 || stride >= tokens {
            return Err(TextError::InvalidWindows { tokens, stride, context_tokens });
        }
        let text = self.tokenizer().encode_prompt(text, Specials::AsText).map_err(OpenError::from)?;
        match text.len() {
            0 => return Err(OpenError::EmptyPrompt.into()),
            1 => return Err(TextError::SingleToken),
            _ => {}
        }
        let (mut start, mut scored, mut sum) = (0, 1, 0.0);
        while scored < text.len() {
            let end = text.len().min(start + tokens);
            let logprobs = self.score_after(&text[start..end], scored - start, ROWS_MAX)?;
            sum += logprobs.iter().sum::<f64>();
            (start, scored) = (start + stride, end);
        }
        let tokens = text.len() - 1;
        Ok(Perplexity { tokens, mean_logprob: sum / tokens as f64 })
    }

    /// The log-probabilities of `tokens` from the `first` on, which is 1 at least, computed in steps of `rows`.
    fn score_after(&mut self, tokens: &[TokenId], first: usize, rows: usize) -> Result<Vec<f64>, StepError> {
        let vocabulary = self.facts().vocabulary;
        if let Some(&token) = tokens.iter().find(|token| token.index() >= vocabulary) {
            return Err(StepError::UnknownToken { token, vocabulary });
        }
        let Some(read) = tokens.len().checked_sub(1).filter(|read| *read >= first) else { return Ok(Vec::new()) };
        let mut logprobs = Ok(Vec::with_capacity(tokens.len() - first));
        // What follows the last token is not asked for.
        self.read(&tokens[..read], Reading::LogitsFrom(first - 1), rows, &mut |at, logits| {
            let Ok(known) = &mut logprobs else { return };
            match sampler::check_finite(logits, known.len()) {
                Ok(()) => known.push(sampler::logprob(logits, tokens[at + 1])),
                Err(error) => logprobs = Err(error),
            }
        })?;
        logprobs
    }
}

#[cfg(test)]
mod tests;
