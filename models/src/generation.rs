//! One request, driven over an engine.
//!
//! Owns the state of a generation: its prompt, the tokens so far, and the text that is held back. Each advance is one
//! unit of work, so that a loop over many generations stays fair and a heartbeat between units stays honest. What it
//! emits is a pure function of the tokens so far: a resumed generation replays the recorded tokens through the very
//! same path and so repeats the very same texts. It never computes on its own; [`crate::Model`] hands it the engine.

use std::collections::VecDeque;

use crate::engine::{Engine, SequenceId, StepError};
use crate::sampler::{self, LogitFacts, SamplingSpec};
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
    /// The prompt is computed.
    Prefilled {
        /// Its tokens.
        prompt_tokens: usize,
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
    sampling: SamplingSpec,
    prompt: Vec<TokenId>,
    /// Invariant: `generated.len() + replay.len() <= tokens_max`.
    generated: Vec<TokenId>,
    /// Tokens of an earlier attempt that are not in place yet.
    replay: VecDeque<TokenId>,
    tokens_max: usize,
    detokenizer: Detokenizer,
    stop: StopWatch,
    stage: Stage,
    /// Replayed tokens that this engine would not have chosen.
    divergences: usize,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is computed.
    Fresh,
    /// The sequence holds the prompt and all of `generated` except, perhaps, its last token.
    Running(Running),
    /// An earlier attempt had finished: its tokens are only turned into text again.
    Recital,
    /// Finished or failed.
    Over(Option<SequenceId>),
}

#[derive(Debug)]
struct Running {
    sequence: SequenceId,
    /// After the newest token in the sequence.
    logits: Vec<f32>,
    /// Tokens of `generated` that the sequence holds.
    fed: usize,
}

/// What [`Generation::start`] needs, all of it validated.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) replay: Vec<TokenId>,
    pub(crate) sampling: SamplingSpec,
    pub(crate) stop: Vec<String>,
    pub(crate) tokens_max: usize,
}

impl Generation {
    /// Starts a generation. `Err` is the index of a replayed token that lies behind the end of the answer.
    pub(crate) fn start(opening: Opening, tokenizer: &Tokenizer) -> Result<Self, usize> {
        let Opening { prompt, replay, sampling, stop, tokens_max } = opening;
        let mut generation = Self {
            sampling,
            prompt,
            generated: Vec::new(),
            replay: replay.into(),
            tokens_max,
            detokenizer: Detokenizer::new(),
            stop: StopWatch::new(stop),
            stage: Stage::Fresh,
            divergences: 0,
        };
        if generation.is_complete_after_replay(tokenizer)? {
            generation.stage = Stage::Recital;
        }
        Ok(generation)
    }

    /// The prompt.
    pub fn prompt(&self) -> &[TokenId] {
        &self.prompt
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// The tokens in place so far, replayed ones included.
    pub fn generated(&self) -> &[TokenId] {
        &self.generated
    }

    /// How many there are.
    pub fn completion_tokens(&self) -> usize {
        self.generated.len()
    }

    /// Replayed tokens that this engine would not have chosen: more than zero means that the earlier attempt ran on
    /// other weights, other kernels or another seed. The record wins; this only tells.
    pub fn divergences(&self) -> usize {
        self.divergences
    }

    /// One unit of work.
    pub(crate) fn advance(&mut self, engine: &mut dyn Engine, tokenizer: &Tokenizer) -> Result<Progress, StepError> {
        let progress = self.advance_unguarded(engine, tokenizer);
        if progress.is_err() {
            self.stage = Stage::Over(self.sequence());
        }
        progress
    }

    fn advance_unguarded(&mut self, engine: &mut dyn Engine, tokenizer: &Tokenizer) -> Result<Progress, StepError> {
        match self.stage {
            Stage::Fresh => self.prefill(engine),
            Stage::Over(_) => Err(StepError::NotRunning),
            Stage::Recital => Ok(match self.replay.pop_front() {
                Some(token) => Progress::Replayed { token, text: self.accept(token, tokenizer) },
                None => self.finish(),
            }),
            Stage::Running(_) if self.is_complete() => Ok(self.finish()),
            Stage::Running(_) => self.step(engine, tokenizer),
        }
    }

    fn prefill(&mut self, engine: &mut dyn Engine) -> Result<Progress, StepError> {
        let sequence = engine.open()?;
        // Known from here on, so that a failure below does not leak it.
        self.stage = Stage::Over(Some(sequence));
        let logits = engine.extend(sequence, &self.prompt)?;
        sampler::check_finite(&logits, 0)?;
        self.stage = Stage::Running(Running { sequence, logits, fed: 0 });
        Ok(Progress::Prefilled { prompt_tokens: self.prompt.len() })
    }

    fn step(&mut self, engine: &mut dyn Engine, tokenizer: &Tokenizer) -> Result<Progress, StepError> {
        let Stage::Running(running) = &mut self.stage else {
            return Err(StepError::NotRunning);
        };
        // One token a pass, replayed or new, so that the passes of every attempt are the same.
        for token in &self.generated[running.fed..] {
            running.logits = engine.extend(running.sequence, &[*token])?;
            running.fed += 1;
        }
        let chosen = sampler::choose(&running.logits, &self.sampling, &self.generated)?;
        if let Some(token) = self.replay.pop_front() {
            self.divergences += usize::from(token != chosen);
            let text = self.accept(token, tokenizer);
            return Ok(Progress::Replayed { token, text });
        }
        if tokenizer.is_end_of_generation(chosen) {
            return Ok(self.finish_with(FinishReason::Stop));
        }
        let facts = sampler::facts(&running.logits, chosen);
        let text = self.accept(chosen, tokenizer);
        Ok(Progress::Generated { token: chosen, text, facts })
    }

    /// Puts `token` in place and returns what became safe to show.
    fn accept(&mut self, token: TokenId, tokenizer: &Tokenizer) -> String {
        self.generated.push(token);
        let text = self.detokenizer.push(tokenizer.piece(token));
        self.stop.push(&text)
    }

    fn is_complete(&self) -> bool {
        self.stop.matched() || self.generated.len() >= self.tokens_max
    }

    fn finish(&mut self) -> Progress {
        let reason = if self.stop.matched() { FinishReason::Stop } else { FinishReason::Length };
        self.finish_with(reason)
    }

    fn finish_with(&mut self, reason: FinishReason) -> Progress {
        self.stage = Stage::Over(self.sequence());
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

    /// The sequence to close, if there is one.
    pub(crate) fn sequence(&self) -> Option<SequenceId> {
        match &self.stage {
            Stage::Fresh | Stage::Recital => None,
            Stage::Running(running) => Some(running.sequence),
            Stage::Over(sequence) => *sequence,
        }
    }

    /// Whether the replayed tokens already are the whole answer. `Err` is the index of one behind its end.
    fn is_complete_after_replay(&self, tokenizer: &Tokenizer) -> Result<bool, usize> {
        let (mut detokenizer, mut stop) = (self.detokenizer.clone(), self.stop.clone());
        for (index, token) in self.replay.iter().enumerate() {
            let known = token.index() < tokenizer.vocabulary();
            if !known || stop.matched() || index >= self.tokens_max || tokenizer.is_end_of_generation(*token) {
                return Err(index);
            }
            stop.push(&detokenizer.push(tokenizer.piece(*token)));
        }
        Ok(stop.matched() || self.replay.len() >= self.tokens_max)
    }
}

#[cfg(test)]
mod tests;
