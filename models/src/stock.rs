//! A loaded model: engine, tokenizer, template and facts.
//!
//! Owns everything that one file on disk becomes, and the opening of requests against it: rendering, tokenizing,
//! validating. It holds no queue and no clock, and runs one unit of work at a time when asked to. Called by a worker
//! process, and by tests.

mod error;

pub use error::{LoadError, OpenError, TextError};

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::engine::{Chunk, Engine, SequenceId, StepError, Wanted};
use crate::forward::{Architecture, FAMILIES, Network, ROWS_MAX};
use crate::generation::{Generation, GenerationSpec, Input, Need, Opening, Progress};
use crate::gguf::{MappedGguf, Metadata};
use crate::kernel::Isa;
use crate::template::{ChatMessage, ChatTemplate, Rendered};
use crate::tokenizer::{Specials, TokenId, Tokenizer};

/// Stop strings of a request, at most; the OpenAI API allows four.
pub const STOP_STRINGS_MAX: usize = 16;

/// Bytes of a stop string, at most: so much text may be held back.
pub const STOP_BYTES_MAX: usize = 256;

/// How to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads to compute with.
    pub threads: NonZeroUsize,
    /// See less of the past than the model could; `None` for all of it.
    pub context_tokens_max: Option<usize>,
    /// Instructions to compute with. All give the same bits.
    pub isa: Isa,
    /// A file with the packed weights, for all processes that load this model; it is made if it is not there. `None`: they
    /// are packed in memory.
    pub packed: Option<PathBuf>,
}

impl Default for LoadOptions {
    /// One thread, the whole context, the best instructions that this processor has.
    fn default() -> Self {
        Self { threads: NonZeroUsize::MIN, context_tokens_max: None, isa: Isa::best(), packed: None }
    }
}

/// What is wanted of a text that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading {
    /// The logits after each token from this position on.
    LogitsFrom(usize),
    /// Every token's state behind the last layer.
    States,
}

/// What is known about a loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// The family of its forward pass, as its file calls it.
    pub architecture: String,
    /// Prompt and answer together, at most.
    pub context_tokens: usize,
    /// Tokens in its vocabulary.
    pub vocabulary: usize,
    /// Whether it can take messages.
    pub has_chat_template: bool,
    /// Bytes of its tensors in the file.
    pub weights_bytes: u64,
    /// Bytes that each token reads: the packed matrices, of which a separate embedding table is no part.
    pub packed_bytes: usize,
    /// Threads it computes with.
    pub threads: NonZeroUsize,
}

/// A model, ready to answer.
#[derive(Debug)]
pub struct Model {
    facts: ModelFacts,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    engine: Box<dyn Engine>,
}

impl Model {
    /// Maps the GGUF file at `path`, checks it and loads it.
    ///
    /// # Errors
    /// A [`LoadError`] that names the file and what is wrong with it.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        let file = MappedGguf::open(path)?;
        let metadata = file.gguf().metadata();
        let architecture = architecture(&file)?;
        let tokenizer = Tokenizer::from_metadata(metadata)
            .map_err(|source| LoadError::Tokenizer { path: path.to_owned(), source })?;
        let template = chat_template(&file)?;
        let vocabulary = tokenizer.vocabulary();
        let engine = Network::load(&file, vocabulary, options)?;
        let facts = ModelFacts {
            architecture,
            context_tokens: engine.context_tokens(),
            vocabulary: tokenizer.vocabulary(),
            has_chat_template: template.is_some(),
            weights_bytes: file.gguf().tensors().total_bytes(),
            packed_bytes: engine.packed_bytes(),
            threads: options.threads,
        };
        Ok(Self { facts, tokenizer, template, engine: Box::new(engine) })
    }

    /// Checks all of a file but the numbers in its weights: structure, architecture, tokenizer and template. Takes
    /// milliseconds and no memory to speak of, so that a file which no worker could load is refused before any starts.
    ///
    /// # Errors
    /// The [`LoadError`] that loading would end with.
    pub fn inspect(path: &Path) -> Result<(), LoadError> {
        let file = MappedGguf::open(path)?;
        architecture(&file)?;
        let tokenizer = Tokenizer::from_metadata(file.gguf().metadata())
            .map_err(|source| LoadError::Tokenizer { path: path.to_owned(), source })?;
        chat_template(&file)?;
        Architecture::read(file.gguf(), tokenizer.vocabulary())
            .map_err(|source| LoadError::Gguf { path: path.to_owned(), source })?;
        Ok(())
    }

    /// What is known about the model.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What computes, for measuring it.
    pub(crate) fn engine_mut(&mut self) -> &mut dyn Engine {
        self.engine.as_mut()
    }

    /// Validates a request and tokenizes its prompt. Computes nothing: that happens in [`Self::advance`].
    ///
    /// `generated` are the tokens of an earlier attempt, empty at the first. They are put in place one by one, each a
    /// [`Progress::Replayed`], and what follows is what that attempt would have generated. Where they already are the
    /// whole answer, nothing is computed.
    ///
    /// # Errors
    /// An [`OpenError`] that says what to change.
    pub fn open(&mut self, spec: &GenerationSpec, generated: &[TokenId]) -> Result<Generation, OpenError> {
        spec.sampling.validate()?;
        validate_stop(&spec.stop)?;
        if spec.max_tokens == Some(0) {
            return Err(OpenError::ZeroMaxTokens);
        }
        let prompt = self.tokenize(&spec.input)?;
        let tokens_max = self.tokens_max(prompt.len(), spec.max_tokens)?;
        let opening = Opening {
            prompt,
            replay: generated.to_vec(),
            sampling: spec.sampling.clone(),
            stop: spec.stop.clone(),
            tokens_max,
        };
        Generation::start(opening, &self.tokenizer).map_err(|index| OpenError::InvalidReplay { index })
    }

    /// Does one unit of work: puts a replayed token in place, computes some of the prompt, or generates a token.
    ///
    /// # Errors
    /// A [`StepError`], after which the generation can only be closed.
    pub fn advance(&mut self, generation: &mut Generation) -> Result<Progress, StepError> {
        let rows_max = self.engine.rows_max();
        let mut progress = self.advance_all(&mut [generation], rows_max)?;
        progress.pop().unwrap_or(Err(StepError::NotRunning))
    }

    /// Does one unit of work for each of these generations, what is to be computed in one step of `rows_max` tokens at
    /// most. Those that only want their next token come first, then the others in the order given; whoever finds no room
    /// is answered with [`Progress::Prefilling`] where it stands.
    ///
    /// What a generation says does not depend on who is with it.
    ///
    /// # Errors
    /// A [`StepError`] of the step itself, after which this model must not be used; those of single generations are in the
    /// list.
    pub fn advance_all(
        &mut self,
        generations: &mut [&mut Generation],
        rows_max: usize,
    ) -> Result<Vec<Result<Progress, StepError>>, StepError> {
        let mut progress: Vec<Option<Result<Progress, StepError>>> = generations.iter().map(|_| None).collect();
        let mut order: Vec<usize> = (0..generations.len()).collect();
        order.sort_by_key(|at| generations[*at].pending_tokens() > 1);
        let mut room = rows_max.min(self.engine.rows_max());
        let mut planned = Vec::new();
        for at in order {
            let generation = &mut *generations[at];
            match generation.need(room, &self.tokenizer) {
                Err(error) => progress[at] = Some(Err(error)),
                Ok(Need::Nothing(came)) => progress[at] = Some(Ok(came)),
                Ok(Need::Tokens(range)) if range.is_empty() => {
                    let (done, of) = (range.start, range.start + generation.pending_tokens());
                    progress[at] = Some(Ok(Progress::Prefilling { done, of }));
                }
                Ok(Need::Tokens(range)) => match generation.sequence_or(|| self.engine.open()) {
                    Err(error) => progress[at] = Some(Err(error)),
                    Ok(sequence) => {
                        room -= range.len();
                        planned.push((at, sequence, range));
                    }
                },
            }
        }
        // Copies of the tokens: their owners choose new ones while the step lends its logits.
        let tokens: Vec<Vec<TokenId>> =
            planned.iter().map(|(at, _, range)| generations[*at].tokens(range.clone()).to_vec()).collect();
        let chunks: Vec<Chunk<'_>> = planned
            .iter()
            .zip(&tokens)
            .map(|((at, sequence, range), tokens)| Chunk {
                sequence: *sequence,
                tokens,
                wanted: generations[*at].wanted_after(range.end),
            })
            .collect();
        if !chunks.is_empty() {
            self.engine.step(&chunks, &mut |computed| {
                let (at, _, range) = &planned[computed.chunk];
                progress[*at] = Some(generations[*at].computed(range.end, computed.values, &self.tokenizer));
            })?;
        }
        for (at, _, range) in planned {
            progress[at].get_or_insert_with(|| generations[at].prefilled(range.end));
        }
        Ok(progress.into_iter().map(|progress| progress.unwrap_or(Err(StepError::NotRunning))).collect())
    }

    /// Frees what a generation holds. To be called for each, finished or not.
    pub fn close(&mut self, generation: Generation) {
        if let Some(sequence) = generation.sequence() {
            self.engine.close(sequence);
        }
    }

    /// The logits of the token after `tokens`, computed at once: for checks against other implementations.
    ///
    /// # Errors
    /// A [`StepError`].
    pub fn logits_after(&mut self, tokens: &[TokenId]) -> Result<Vec<f32>, StepError> {
        let mut logits = Vec::new();
        let last = tokens.len().saturating_sub(1);
        self.read(tokens, Reading::LogitsFrom(last), ROWS_MAX, &mut |_, values| logits.extend_from_slice(values))?;
        Ok(logits)
    }

    /// Computes `tokens` in a sequence of their own, so many in a step, and lends what is wanted: the position of a
    /// token, and what was computed for it.
    pub(crate) fn read(
        &mut self,
        tokens: &[TokenId],
        reading: Reading,
        rows: usize,
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), StepError> {
        let context_tokens = self.engine.context_tokens();
        if tokens.is_empty() {
            return Err(StepError::NoTokens);
        }
        if tokens.len() > context_tokens {
            return Err(StepError::ContextExceeded { tokens: tokens.len(), context_tokens });
        }
        let sequence = self.engine.open()?;
        let read = self.read_in(sequence, tokens, reading, rows, take);
        self.engine.close(sequence);
        read
    }

    fn read_in(
        &mut self,
        sequence: SequenceId,
        tokens: &[TokenId],
        reading: Reading,
        rows: usize,
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), StepError> {
        let mut start = 0;
        for tokens in tokens.chunks(rows.min(self.engine.rows_max())) {
            let wanted = match reading {
                Reading::LogitsFrom(first) => Wanted::Logits((start + tokens.len()).saturating_sub(first)),
                Reading::States => Wanted::States,
            };
            let chunk = Chunk { sequence, tokens, wanted };
            self.engine.step(&[chunk], &mut |computed| take(start + computed.token, computed.values))?;
            start += tokens.len();
        }
        Ok(())
    }

    pub(crate) fn tokenize(&self, input: &Input) -> Result<Vec<TokenId>, OpenError> {
        let prompt = match input {
            Input::Prompt(text) if text.is_empty() => return Err(OpenError::EmptyPrompt),
            Input::Messages(messages) if messages.is_empty() => return Err(OpenError::EmptyPrompt),
            Input::Prompt(text) => {
                self.refuse_enormous(text.len())?;
                self.tokenizer.encode_prompt(text, Specials::AsText)?
            }
            Input::Messages(messages) => {
                let template = self.template.as_ref().ok_or(OpenError::NoChatTemplate)?;
                self.refuse_enormous(messages.iter().map(|message| message.content.len()).sum())?;
                let Rendered { text, mark } = self.render(template, messages)?;
                self.tokenizer.encode_prompt_marked(&text, Specials::AsControl, mark)?
            }
        };
        if prompt.is_empty() {
            return Err(OpenError::EmptyPrompt);
        }
        Ok(prompt)
    }

    fn render(&self, template: &ChatTemplate, messages: &[ChatMessage]) -> Result<Rendered, OpenError> {
        Ok(template.render(messages, &self.tokenizer)?)
    }

    /// Refuses a text that cannot fit however well it tokenizes, before any time is spent on it.
    pub(crate) fn refuse_enormous(&self, bytes: usize) -> Result<(), OpenError> {
        let prompt_tokens = self.tokenizer.tokens_min(bytes);
        let context_tokens = self.facts.context_tokens;
        if prompt_tokens < context_tokens {
            return Ok(());
        }
        Err(OpenError::ContextExceeded { prompt_tokens, context_tokens })
    }

    /// How many tokens the answer may have.
    fn tokens_max(&self, prompt_tokens: usize, max_tokens: Option<u32>) -> Result<usize, OpenError> {
        let context_tokens = self.facts.context_tokens;
        let room = context_tokens.saturating_sub(prompt_tokens);
        if room == 0 {
            return Err(OpenError::ContextExceeded { prompt_tokens, context_tokens });
        }
        match max_tokens {
            Some(max_tokens) if max_tokens as usize > room => {
                Err(OpenError::MaxTokensBeyondContext { max_tokens, prompt_tokens, context_tokens, room })
            }
            Some(max_tokens) => Ok(max_tokens as usize),
            None => Ok(room),
        }
    }
}

fn architecture(file: &MappedGguf) -> Result<String, LoadError> {
    const KEY: &str = "general.architecture";
    let metadata = file.gguf().metadata();
    let architecture = metadata
        .string(KEY)
        .and_then(|value| Metadata::required(KEY, value))
        .map_err(|source| LoadError::Gguf { path: file.path().to_owned(), source })?;
    if FAMILIES.contains(&architecture) {
        return Ok(architecture.to_owned());
    }
    Err(LoadError::UnsupportedArchitecture { path: file.path().to_owned(), architecture: architecture.to_owned() })
}

fn chat_template(file: &MappedGguf) -> Result<Option<ChatTemplate>, LoadError> {
    let source = file
        .gguf()
        .metadata()
        .string("tokenizer.chat_template")
        .map_err(|source| LoadError::Gguf { path: file.path().to_owned(), source })?;
    source
        .map(ChatTemplate::compile)
        .transpose()
        .map_err(|source| LoadError::Template { path: file.path().to_owned(), source })
}

fn validate_stop(stop: &[String]) -> Result<(), OpenError> {
    let problem = if stop.len() > STOP_STRINGS_MAX {
        format!("has {} strings; {STOP_STRINGS_MAX} at most are possible", stop.len())
    } else if stop.iter().any(String::is_empty) {
        "has an empty string; leave it out".to_owned()
    } else if let Some(long) = stop.iter().find(|stop| stop.len() > STOP_BYTES_MAX) {
        format!("has a string of {} bytes; {STOP_BYTES_MAX} at most are possible", long.len())
    } else {
        return Ok(());
    };
    Err(OpenError::InvalidStop { problem })
}

#[cfg(test)]
mod tests;
