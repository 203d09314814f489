//! What computes: the contract between the serving loop and a forward pass.
//!
//! Owns the [`Engine`] trait and the errors of a step. An engine turns tokens into logits, sequence by sequence;
//! it knows no text, no sampling and no stop strings, and not who comes next. Called by [`crate::Model`].

use std::fmt;

use crate::tokenizer::TokenId;

/// Tokens whose keys and values one page holds.
pub const PAGE_TOKENS: usize = 32;

/// The number of a page of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub(crate) u32);

impl PageId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Some new tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// How many tokens the sequence has before these. Their keys and values are in its pages.
    pub start: usize,
    /// The tokens.
    pub tokens: &'a [TokenId],
    /// The sequence's pages, the first with its first [`PAGE_TOKENS`] tokens, with room for these. Full ones that were
    /// computed may be other sequences' too, which begin with the same tokens; those that these tokens go into may not.
    pub pages: &'a [PageId],
    /// What is wanted of them.
    pub wanted: Wanted,
}

/// What is wanted of the rows of a chunk, of which there is one for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// That their keys and values are there for what follows.
    Nothing,
    /// The logits after each of so many tokens, the last ones; of all where the chunk has fewer. One is what decoding
    /// needs.
    Logits(usize),
    /// The state after each token behind the last layer: normed, as the head reads it.
    States,
}

/// What a step computed for a token, lent to whoever looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Computed<'a> {
    /// The index of its chunk in the step.
    pub chunk: usize,
    /// The index of the token in the chunk.
    pub token: usize,
    /// Logits, one for each token of the vocabulary, or a state, as the chunk wanted.
    pub values: &'a [f32],
}

/// A forward pass over sequences, which are what their pages say: the engine knows pages by number, and not whose they
/// are.
///
/// The logits and states of a sequence depend on its tokens and on nothing else, to the last bit: not on how they were
/// divided among steps, not on other sequences in a step, not on who computed the pages, not on what was computed
/// before.
pub trait Engine: fmt::Debug + Send {
    /// Logits per token.
    fn vocabulary(&self) -> usize;

    /// The most tokens a sequence may have.
    fn context_tokens(&self) -> usize;

    /// The most tokens that one step takes, of all its chunks together.
    fn rows_max(&self) -> usize;

    /// Bytes of one page. A page takes memory when its number is first used.
    fn page_bytes(&self) -> usize;

    /// Computes some chunks, each of another sequence, in one step, and lends what is wanted to `take`, token by token,
    /// those of a chunk in their order. So the logits of a whole text, hundreds of megabytes, are never there at once.
    ///
    /// # Errors
    /// [`StepError::ContextExceeded`], [`StepError::UnknownToken`], [`StepError::NoTokens`],
    /// [`StepError::TooManyRows`], [`StepError::NoPage`], [`StepError::PageTwice`]. Nothing is computed then.
    fn step(&mut self, chunks: &[Chunk<'_>], take: &mut dyn FnMut(Computed<'_>)) -> Result<(), StepError>;
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
    /// The model computed states that are no numbers.
    #[error(
        "the states of {tokens} tokens hold a NaN, an infinity or nothing; replace this worker, and check the weights' digest if it happens again"
    )]
    NotAState {
        /// Tokens of the text.
        tokens: usize,
    },
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
    /// More tokens than a step takes.
    #[error("a step of {rows} tokens is too long; {rows_max} at most are possible")]
    TooManyRows {
        /// Tokens of all chunks.
        rows: usize,
        /// The most there may be.
        rows_max: usize,
    },
    /// Fewer pages than the tokens need.
    #[error("{tokens} tokens need more pages of keys and values than the {pages} that are there")]
    NoPage {
        /// Tokens of the sequence, the new ones included.
        tokens: usize,
        /// Its pages.
        pages: usize,
    },
    /// A page that a chunk writes to stands in the step once more.
    #[error("page {} is written to and used elsewhere in the same step", .page.0)]
    PageTwice {
        /// Which.
        page: PageId,
    },
    /// Nobody wants the answer any more.
    #[error("the deadline passed before the answer was complete")]
    DeadlinePassed,
    /// The generation ended already.
    #[error("the generation is finished or failed before; close it")]
    NotRunning,
}

impl StepError {
    /// What to do about it.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotFiniteLogits { .. } | Self::NotAState { .. } | Self::LogitCount { .. } => Disposition::Fatal,
            Self::NotRunning | Self::TooManyRows { .. } | Self::PageTwice { .. } => Disposition::Fatal,
            Self::NoPage { .. } => Disposition::Retry,
            Self::ContextExceeded { .. } | Self::NoTokens | Self::UnknownToken { .. } | Self::DeadlinePassed => {
                Disposition::Poison
            }
        }
    }
}
