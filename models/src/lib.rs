//! What a step computes: GGUF files, tokenizers, chat templates, sampling, the forward pass.
//!
//! This crate turns a file of weights into a [`Model`] and a request into tokens and text. It has no
//! clock, no network and no async runtime, and no threads but those that compute a step together: a worker process calls [`Model::advance`] in a loop and decides between two
//! calls what to do next. A crash between two calls loses nothing that was not recorded, because a request with its seed
//! and the tokens so far is all there is to know: [`Model::open`] with those tokens continues where they end.
//!
//! ```no_run
//! use halm_models::{GenerationSpec, Input, LoadOptions, Model, Progress, SamplingSpec};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = LoadOptions::default();
//! let mut model = Model::load(Path::new("SmolLM2-135M-Instruct.Q4_1.gguf"), &options)?;
//! let spec = GenerationSpec {
//!     input: Input::Prompt("Erlang taught us that".to_owned()),
//!     max_tokens: Some(16),
//!     sampling: SamplingSpec::GREEDY,
//!     stop: vec!["\n".to_owned()],
//! };
//! let mut generation = model.open(&spec, &[])?;
//! loop {
//!     match model.advance(&mut generation)? {
//!         Progress::Prefilling { done, of } => eprintln!("{done} of {of} tokens"),
//!         Progress::Replayed { text, .. } | Progress::Generated { text, .. } => print!("{text}"),
//!         Progress::Finished { text, reason } => {
//!             println!("{text} ({reason:?})");
//!             break;
//!         }
//!     }
//! }
//! model.close(generation);
//! # Ok(())
//! # }
//! ```
//!
//! In reading order: [`gguf`] maps and checks a file; [`tokenizer`] and the chat template come from its metadata;
//! [`engine`] is the contract that a forward pass fulfils, and `forward` with its `kernel` is the one that does; [`sampler`]
//! chooses tokens; [`generation`] drives one request; `scheduler` decides what the next step is made of and who holds which
//! keys and values; [`stock`] is the loaded model; [`score`] and [`embedding`] have it read texts instead of writing them;
//! [`tiny`] makes one of a few kilobytes for tests.

pub mod bench;
pub mod digest;
pub mod embedding;
pub mod engine;
mod forward;
pub mod generation;
pub mod gguf;
mod kernel;
pub mod sampler;
mod scheduler;
pub mod score;
mod shared;
pub mod stock;
mod stop;
mod template;
mod threads;
pub mod tiny;
pub mod tokenizer;

pub use digest::{Digest, InvalidDigest};
pub use embedding::Pooling;
pub use engine::{Chunk, Computed, Disposition, Engine, PAGE_TOKENS, PageId, StepError, Wanted};
pub use forward::{ROWS_MAX, TensorError};
pub use generation::{FinishReason, Generation, GenerationSpec, Input, Progress};
pub use kernel::{Isa, PackError};
pub use sampler::{InvalidSampling, LogitFacts, SamplingSpec};
pub use scheduler::{Counters, Limits, Priority, Refusal, Terms};
pub use score::{Perplexity, ScoredToken, Windows};
pub use stock::{LoadError, LoadOptions, Model, ModelFacts, OpenError, Step, TextError};
pub use template::{ChatMessage, TemplateError};
pub use tokenizer::{Detokenizer, Specials, TokenId, Tokenizer, TokenizerError};
