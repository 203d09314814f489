//! What computes: the contract between the serving loop and a forward pass.
//!
//! Owns the [`Engine`] trait and the errors of a step. An engine turns tokens into logits, sequence by sequence;
//! it knows no text, no sampling and no stop strings. The serving loop will keep this contract when the pass that
//! candle computes (`candle_llama`) is replaced by halm's own. Called by [`crate::Generation`] through
//! [`crate::Model`].

pub(crate) mod candle_llama;
pub(crate) mod llama_shape;

use std::fmt;
use std::num::NonZeroUsize;

use crate::tokenizer::TokenId;

/// Rounds that an idle compute thread spins before it sleeps: a few microseconds, about as long as the serial stretch
/// between two products.
const SPIN_ROUNDS_MAX: u32 = 2_000;

/// A sequence that an engine holds keys and values for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(crate) u64);

/// A forward pass over sequences.
///
/// The logits of a sequence depend on the calls to [`extend`](Self::extend) made for it, on nothing else: not on
/// other sequences, not on what was computed before. They may depend, in their last bits, on how the tokens were
/// divided among calls, so whoever repeats a sequence repeats the same calls.
pub trait Engine: fmt::Debug + Send {
    /// Logits per step.
    fn vocabulary(&self) -> usize;

    /// The most tokens a sequence may have.
    fn context_tokens(&self) -> usize;

    /// Starts an empty sequence. Computes nothing.
    ///
    /// # Errors
    /// [`StepError::TooManySequences`].
    fn open(&mut self) -> Result<SequenceId, StepError>;

    /// Appends `tokens` to a sequence in one pass and returns the logits after the last of them, one for each
    /// token of the vocabulary.
    ///
    /// # Errors
    /// [`StepError::ContextExceeded`], [`StepError::Compute`], [`StepError::UnknownToken`],
    /// [`StepError::UnknownSequence`]. After an error the sequence can only be closed.
    fn extend(&mut self, sequence: SequenceId, tokens: &[TokenId]) -> Result<Vec<f32>, StepError>;

    /// Forgets a sequence and frees its memory. Closing twice does nothing.
    fn close(&mut self, sequence: SequenceId);
}

/// What whoever handles an error should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Try again, here later or on another worker.
    Retry,
    /// This request can never succeed: answer it with the error.
    Poison,
    /// This worker must die and be replaced; the request may be tried elsewhere.
    Fatal,
}

/// Why a step gave no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The model computed something that is no number.
    #[error(
        "the logits at position {position} hold {nan} NaN and {inf} infinities; replace this worker, and check the weights' digest if it happens again"
    )]
    NotFiniteLogits {
        /// Generated tokens before this one.
        position: usize,
        /// How many are NaN.
        nan: usize,
        /// How many are infinite.
        inf: usize,
    },
    /// The tensor library failed.
    #[error("compute a step: {0}; replace this worker")]
    Compute(#[from] candle_core::Error),
    /// The engine returned another number of logits than the vocabulary has.
    #[error("a step gave {found} logits for a vocabulary of {vocabulary}; replace this worker")]
    LogitCount {
        /// What came back.
        found: usize,
        /// What should have.
        vocabulary: usize,
    },
    /// The sequence is longer than the model can see.
    #[error("{tokens} tokens exceed the context of {context_tokens}; shorten the prompt or max_tokens")]
    ContextExceeded {
        /// Tokens of the sequence, the refused ones included.
        tokens: usize,
        /// The most there may be.
        context_tokens: usize,
    },
    /// No tokens to compute with.
    #[error("a step needs one token at least")]
    NoTokens,
    /// A token number beyond the vocabulary.
    #[error("token {token} is beyond the vocabulary of {vocabulary}")]
    UnknownToken {
        /// The number.
        token: TokenId,
        /// How many there are.
        vocabulary: usize,
    },
    /// A sequence that was closed or never opened.
    #[error("the sequence is not open")]
    UnknownSequence,
    /// More sequences at once than memory is planned for.
    #[error("{open} sequences are open already; close one first or try another worker")]
    TooManySequences {
        /// How many are open.
        open: usize,
    },
    /// The generation ended already.
    #[error("the generation is finished or failed before; close it")]
    NotRunning,
}

impl StepError {
    /// What to do about it.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotFiniteLogits { .. } | Self::Compute(_) | Self::LogitCount { .. } => Disposition::Fatal,
            Self::UnknownSequence | Self::NotRunning => Disposition::Fatal,
            Self::TooManySequences { .. } => Disposition::Retry,
            Self::ContextExceeded { .. } | Self::NoTokens | Self::UnknownToken { .. } => Disposition::Poison,
        }
    }
}

/// Environment variables that make the tensor library compute with `threads` threads.
///
/// candle reads them once, at its first operation, and offers no function for it; so whoever starts a worker process
/// sets them on the child. Two variables, because its quantized products run on its own pool and its attention on
/// rayon's. The third sends its idle threads to sleep after a short spin (candle's own default is 25,000 rounds):
/// workers share the cores, and a spinning thread takes one from a computing neighbour. With one thread there is no
/// pool and nothing spins.
///
/// ```
/// use std::num::NonZeroUsize;
/// let mut worker = std::process::Command::new("halm");
/// worker.arg("worker").envs(halm_models::thread_environment(NonZeroUsize::MIN));
/// ```
pub fn thread_environment(threads: NonZeroUsize) -> [(&'static str, String); 3] {
    [
        ("CANDLE_NUM_THREADS", threads.to_string()),
        ("RAYON_NUM_THREADS", threads.to_string()),
        ("CANDLE_BARRIER_POOL_SPIN_LIMIT", SPIN_ROUNDS_MAX.to_string()),
    ]
}

/// The threads that quantized products run on, where nearly all of the time goes: read as candle reads them.
pub(crate) fn threads_in_effect() -> NonZeroUsize {
    std::env::var("CANDLE_NUM_THREADS")
        .ok()
        .and_then(|threads| threads.parse().ok())
        .or_else(|| NonZeroUsize::new(candle_core::utils::get_num_threads()))
        .unwrap_or(NonZeroUsize::MIN)
}
