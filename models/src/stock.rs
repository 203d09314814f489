//! A loaded model: engine, tokenizer, template and facts.
//!
//! Owns everything that one file on disk becomes, and the opening of requests against it: rendering, tokenizing,
//! validating. It holds no clock, and performs one step at a time when asked to, which its scheduler plans. Called by a
//! worker process, and by tests.

mod error;
mod step;

pub use error::{LoadError, OpenError, TextError};
pub use step::Step;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::engine::{Chunk, Engine, PAGE_TOKENS, PageId, StepError, Wanted};
use crate::forward::{Architecture, FAMILIES, Network, ROWS_MAX};
use crate::generation::{Generation, GenerationSpec, Input, Opening};
use crate::gguf::{MappedGguf, Metadata};
use crate::kernel::Isa;
use crate::scheduler::{Arrival, Counters, Limits, Scheduler, Terms};
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
    /// A file with the packed weights, for all processes that load this model; it is made if it is not there. `None`:
    /// they are packed in memory.
    pub packed: Option<PathBuf>,
    /// How much at once.
    pub limits: Limits,
}

impl Default for LoadOptions {
    /// One thread, the whole context, the best instructions that this processor has.
    fn default() -> Self {
        Self {
            threads: NonZeroUsize::MIN,
            context_tokens_max: None,
            isa: Isa::best(),
            packed: None,
            limits: Limits::default(),
        }
    }
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

/// What is wanted of a text that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading {
    /// The logits after each token from this position on.
    LogitsFrom(usize),
    /// Every token's state behind the last layer.
    States,
}

/// A model, ready to answer.
#[derive(Debug)]
pub struct Model {
    facts: ModelFacts,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    engine: Box<dyn Engine>,
    scheduler: Scheduler,
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
        let scheduler = Scheduler::new(options.limits.of_engine(&engine));
        Ok(Self { facts, tokenizer, template, engine: Box::new(engine), scheduler })
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

    /// Prompt and answer together, at most: what the model can see, or what there is memory for if that is less.
    pub fn tokens_max(&self) -> usize {
        self.facts.context_tokens.min(self.scheduler.tokens_max())
    }

    /// What was scheduled, and the state of the pages of keys and values.
    pub fn counters(&self) -> Counters {
        self.scheduler.counters()
    }

    /// Of all memory, keys and values may take so many bytes at most. To be called before the first request.
    pub fn limit_pages_to(&mut self, bytes: u64) {
        let pages = bytes / self.engine.page_bytes().max(1) as u64;
        self.scheduler.limit_pages(usize::try_from(pages).unwrap_or(usize::MAX));
    }

    /// Validates a request and tokenizes its prompt. Computes nothing: that happens in [`Self::advance`].
    ///
    /// `generated` are the tokens of an earlier attempt, empty at the first. They are put in place one by one, each a
    /// [`Progress::Replayed`](crate::Progress::Replayed), and what follows is what that attempt would have generated.
    /// Where they already are the whole answer, nothing is computed.
    ///
    /// # Errors
    /// An [`OpenError`] that says what to change.
    pub fn open(&mut self, spec: &GenerationSpec, generated: &[TokenId]) -> Result<Generation, OpenError> {
        self.open_on(Terms::default(), spec, generated)
    }

    /// As [`Self::open`], with a priority and a deadline.
    ///
    /// # Errors
    /// An [`OpenError`] that says what to change.
    pub fn open_on(
        &mut self,
        terms: Terms,
        spec: &GenerationSpec,
        generated: &[TokenId],
    ) -> Result<Generation, OpenError> {
        spec.sampling.validate()?;
        validate_stop(&spec.stop)?;
        if spec.max_tokens == Some(0) {
            return Err(OpenError::ZeroMaxTokens);
        }
        let prompt = self.tokenize(&spec.input)?;
        let tokens_max = self.answer_tokens_max(prompt.len(), spec.max_tokens)?;
        let opening = Opening {
            prompt,
            replay: generated.to_vec(),
            sampling: spec.sampling.clone(),
            stop: spec.stop.clone(),
            tokens_max,
        };
        opening.check_replay(&self.tokenizer).map_err(|index| OpenError::InvalidReplay { index })?;
        let tokens = [opening.prompt.as_slice(), generated].concat();
        let tokens_max = opening.prompt.len() + opening.tokens_max;
        let sequence = self.scheduler.add(Arrival { tokens, tokens_max, terms })?;
        Ok(Generation::start(opening, sequence))
    }

    /// Frees what a generation holds. To be called for each, finished or not.
    pub fn close(&mut self, generation: Generation) {
        self.scheduler.remove(generation.sequence());
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

    /// The logits after each of `tokens`, computed at once and lent one after the other, with the token's index: for checks
    /// against other implementations.
    ///
    /// # Errors
    /// A [`StepError`].
    pub fn logits_of_each(&mut self, tokens: &[TokenId], take: &mut dyn FnMut(usize, &[f32])) -> Result<(), StepError> {
        self.read(tokens, Reading::LogitsFrom(0), ROWS_MAX, take)
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
        self.aside(1, tokens.len(), |engine, pages| {
            let rows = rows.min(engine.rows_max());
            for (start, tokens) in (0..).step_by(rows).zip(tokens.chunks(rows)) {
                let wanted = match reading {
                    Reading::LogitsFrom(first) => Wanted::Logits((start + tokens.len()).saturating_sub(first)),
                    Reading::States => Wanted::States,
                };
                let chunk = Chunk { start, tokens, pages: &pages[0], wanted };
                engine.step(&[chunk], &mut |computed| take(start + computed.token, computed.values))?;
            }
            Ok(())
        })
    }

    /// Computes with pages for so many sequences of so many tokens that are none of the scheduler's, which are not
    /// reused and leave nothing behind.
    pub(crate) fn aside<T>(
        &mut self,
        sequences: usize,
        tokens: usize,
        compute: impl FnOnce(&mut dyn Engine, &[Vec<PageId>]) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let count = tokens.div_ceil(PAGE_TOKENS);
        let none = StepError::NoPage { tokens, pages: self.scheduler.tokens_max() / PAGE_TOKENS };
        let lent = self.scheduler.lend(sequences.saturating_mul(count)).ok_or(none)?;
        let pages: Vec<_> = (0..sequences).map(|at| lent[at * count..(at + 1) * count].to_vec()).collect();
        let computed = compute(self.engine.as_mut(), &pages);
        self.scheduler.give_back(lent);
        computed
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
    fn answer_tokens_max(&self, prompt_tokens: usize, max_tokens: Option<u32>) -> Result<usize, OpenError> {
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
            // What there is memory for must not show in it: another worker has more or less.
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
