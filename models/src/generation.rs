//! One request, driven over an engine.
//!
//! Owns the state of a generation: its prompt, the tokens so far, and the text that is held back. It never computes, and
//! does not know what is computed already: [`crate::Model`] asks what comes next, has its tokens computed in steps with
//! those of others, and brings the logits after the last. What it emits is a pure function of the tokens so far: a
//! resumed generation puts the recorded tokens in place, which repeats the very same texts, and then computes them
//! together with the prompt, because how tokens are divided among steps shows in no bit.

use std::collections::VecDeque;

use crate::engine::StepError;
use crate::sampler::{self, LogitFacts, SamplingSpec};
use crate::scheduler::SequenceId;
use crate::stop::StopWatch;
use crate::template::ChatMessage;
use crate::tokenizer::{Detokenizer, TokenId, Tokenizer};

/// What to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Plain text. The text of a control token in it is text.
    Prompt(String),
    /// A conversation, which the model's chat template turns into text. Only the template writes control tokens; their
    /// text inside a message is text.
    Messages(Vec<ChatMessage>),
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationSpec {
    /// What to continue.
    pub input: Input,
    /// The most tokens to generate; `None` is to the end of the context.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingSpec,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// It has as many tokens as were asked for, or fills the context.
    Length,
}

/// What one unit of work brought about. The `text`s of a generation, one after the other, are its answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Some of the prompt, and of what an earlier attempt generated, is computed.
    Prefilling {
        /// Tokens computed so far.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// A token that an earlier attempt generated is in place again.
    Replayed {
        /// The token.
        token: TokenId,
        /// What became safe to show with it, the same as at the first time.
        text: String,
    },
    /// A new token.
    Generated {
        /// The token.
        token: TokenId,
        /// What became safe to show with it.
        text: String,
        /// What the logits say about it.
        facts: LogitFacts,
    },
    /// The answer is complete.
    Finished {
        /// What had been held back.
        text: String,
        /// Why it ended.
        reason: FinishReason,
    },
}

/// A request in progress. Opened, advanced and closed by [`crate::Model`].
#[derive(Debug)]
pub struct Generation {
    sequence: SequenceId,
    sampling: SamplingSpec,
    /// The prompt, and after it the tokens in place.
    tokens: Vec<TokenId>,
    prompt_tokens: usize,
    /// Tokens of an earlier attempt that are not in place yet.
    /// Invariant: `completion_tokens() + replay.len() <= tokens_max`.
    replay: VecDeque<TokenId>,
    tokens_max: usize,
    detokenizer: Detokenizer,
    stop: StopWatch,
    /// Finished or failed.
    is_over: bool,
}

/// What a generation starts with, all of it validated.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) replay: Vec<TokenId>,
    pub(crate) sampling: SamplingSpec,
    pub(crate) stop: Vec<String>,
    pub(crate) tokens_max: usize,
}

impl Opening {
    /// `Err` is the index of a replayed token that lies behind the end of the answer.
    pub(crate) fn check_replay(&self, tokenizer: &Tokenizer) -> Result<(), usize> {
        let (mut detokenizer, mut stop) = (Detokenizer::new(), StopWatch::new(self.stop.clone()));
        for (index, token) in self.replay.iter().enumerate() {
            let known = token.index() < tokenizer.vocabulary();
            if !known || stop.matched() || index >= self.tokens_max || tokenizer.is_end_of_generation(*token) {
                return Err(index);
            }
            stop.push(&detokenizer.push(tokenizer.piece(*token)));
        }
        Ok(())
    }
}

impl Generation {
    /// A generation whose tokens are computed as `sequence`.
    pub(crate) fn start(opening: Opening, sequence: SequenceId) -> Self {
        let Opening { prompt, replay, sampling, stop, tokens_max } = opening;
        Self {
            sequence,
            sampling,
            prompt_tokens: prompt.len(),
            tokens: prompt,
            replay: replay.into(),
            tokens_max,
            detokenizer: Detokenizer::new(),
            stop: StopWatch::new(stop),
            is_over: false,
        }
    }

    /// The prompt.
    pub fn prompt(&self) -> &[TokenId] {
        &self.tokens[..self.prompt_tokens]
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// The tokens in place so far, replayed ones included.
    pub fn generated(&self) -> &[TokenId] {
        &self.tokens[self.prompt_tokens..]
    }

    /// How many there are.
    pub fn completion_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    pub(crate) fn sequence(&self) -> SequenceId {
        self.sequence
    }

    /// Finished or failed.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What comes next without computing: a replayed token put in place, or the end. `None`: its tokens are to be computed.
    pub(crate) fn next(&mut self, tokenizer: &Tokenizer) -> Option<Result<Progress, StepError>> {
        if self.is_over {
            return Some(Err(StepError::NotRunning));
        }
        if let Some(token) = self.replay.pop_front() {
            return Some(Ok(Progress::Replayed { token, text: self.accept(token, tokenizer) }));
        }
        self.is_complete().then(|| Ok(self.finish()))
    }

    /// All its tokens are computed; with the logits after the last, the next one is chosen.
    pub(crate) fn computed(&mut self, logits: &[f32], tokenizer: &Tokenizer) -> Result<Progress, StepError> {
        let chosen = sampler::check_finite(logits, self.completion_tokens())
            .and_then(|()| sampler::choose(logits, &self.sampling, self.generated()))
            .inspect_err(|_| self.fail())?;
        if tokenizer.is_end_of_generation(chosen) {
            return Ok(self.finish_with(FinishReason::Stop));
        }
        let facts = sampler::facts(logits, chosen);
        let text = self.accept(chosen, tokenizer);
        Ok(Progress::Generated { token: chosen, text, facts })
    }

    /// It cannot go on.
    pub(crate) fn fail(&mut self) {
        self.is_over = true;
    }

    /// Puts `token` in place and returns what became safe to show.
    fn accept(&mut self, token: TokenId, tokenizer: &Tokenizer) -> String {
        self.tokens.push(token);
        let text = self.detokenizer.push(tokenizer.piece(token));
        self.stop.push(&text)
    }

    fn is_complete(&self) -> bool {
        self.stop.matched() || self.completion_tokens() >= self.tokens_max
    }

    fn finish(&mut self) -> Progress {
        let reason = if self.stop.matched() { FinishReason::Stop } else { FinishReason::Length };
        self.finish_with(reason)
    }

    fn finish_with(&mut self, reason: FinishReason) -> Progress {
        self.is_over = true;
        if self.stop.matched() {
            return Progress::Finished { text: String::new(), reason };
        }
        // What is left of a broken character may still complete a stop string.
        let rest = self.detokenizer.finish();
        let mut text = self.stop.push(&rest);
        if self.stop.matched() {
            return Progress::Finished { text, reason: FinishReason::Stop };
        }
        text.push_str(&self.stop.finish());
        Progress::Finished { text, reason }
    }
}

#[cfg(test)]
mod tests;
