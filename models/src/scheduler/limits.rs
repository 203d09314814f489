//! How much at once, what is refused for it, and what can be counted.
//!
//! Owns the numbers that bound a scheduler. Given by whoever loads a model; what they lead to is decided in
//! [`super::Scheduler`].

use crate::engine::{Disposition, Engine, PAGE_TOKENS};

/// Sequences open at once, unless told otherwise; the dispatcher gives a worker far fewer, and this bounds what a leak
/// could take.
const SEQUENCES_MAX: usize = 64;
/// Tokens of one step beside others, unless told otherwise: the others' next tokens come after such a step at the
/// latest.
const ROWS_BESIDE_OTHERS: usize = 256;
/// Setbacks after which a sequence goes first, unless told otherwise. A step with a piece of a prompt takes a few
/// tenths of a second on one core, so that this is half a minute at most.
const SETBACKS_MAX: u32 = 64;

/// Bytes of pages that are kept while nobody uses them, unless told otherwise: thousands of tokens of a small model,
/// and little beside what a worker has at hand.
const CACHED_BYTES_MAX: usize = 256 << 20;

/// How much at once. What the engine cannot do is cut to what it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that are open; more are refused.
    pub sequences: usize,
    /// Tokens of one step for one sequence that is alone. `usize::MAX`: as many as the engine takes.
    pub rows_alone: usize,
    /// Tokens of one step for several. At least `sequences`, so that each can have its next token in every step.
    pub rows_beside_others: usize,
    /// Pages of keys and values. `usize::MAX`: as many as `sequences` of full length need. They take memory when they
    /// are first used.
    pub pages: usize,
    /// Pages that are kept while nobody uses them. `usize::MAX`: 256 MiB of them.
    pub pages_cached: usize,
    /// Setbacks, which are steps without a turn and losses of all pages, after which a sequence goes before all that
    /// came later, whatever their priority.
    pub setbacks: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sequences: SEQUENCES_MAX,
            rows_alone: usize::MAX,
            rows_beside_others: ROWS_BESIDE_OTHERS,
            pages: usize::MAX,
            pages_cached: usize::MAX,
            setbacks: SETBACKS_MAX,
        }
    }
}

impl Limits {
    /// The same with what this engine can do in the place of what has no limit.
    pub(crate) fn of_engine(&self, engine: &dyn Engine) -> Self {
        let sequences = self.sequences.clamp(1, engine.rows_max());
        let rows = |rows: usize| rows.clamp(1, engine.rows_max());
        let of_whole_context = engine.context_tokens().div_ceil(PAGE_TOKENS);
        let cached = if self.pages_cached == usize::MAX {
            CACHED_BYTES_MAX / engine.page_bytes().max(1)
        } else {
            self.pages_cached
        };
        Self {
            sequences,
            rows_alone: rows(self.rows_alone),
            rows_beside_others: rows(self.rows_beside_others),
            pages: self.pages.min(sequences.saturating_mul(of_whole_context)),
            pages_cached: cached,
            setbacks: self.setbacks,
        }
    }
}

/// Why a sequence is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// More sequences at once than are planned for.
    #[error("{open} sequences are open already; close one first or try another worker")]
    TooManySequences {
        /// How many are open.
        open: usize,
    },
    /// It would not fit into memory if it were alone.
    #[error(
        "prompt and answer of {tokens} tokens exceed the {tokens_max} that there is memory for; shorten the prompt or max_tokens, or give workers more memory"
    )]
    NeverFits {
        /// Prompt and answer.
        tokens: usize,
        /// What all pages hold.
        tokens_max: usize,
    },
}

impl Refusal {
    /// What to do about it. Workers of a model have the same memory as a rule: what does not fit one fits no other.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::TooManySequences { .. } => Disposition::Retry,
            Self::NeverFits { .. } => Disposition::Poison,
        }
    }
}

/// What a scheduler did and has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sequences that are open.
    pub sequences: usize,
    /// Pages of keys and values that some sequence uses.
    pub pages_used: usize,
    /// Pages that no sequence uses, kept for one that begins with the same tokens.
    pub pages_cached: usize,
    /// Pages that may be used besides, those that took no memory yet included.
    pub pages_free: usize,
    /// Tokens that were not computed because a page had their keys and values already.
    pub tokens_reused: u64,
    /// Times that a sequence lost its pages to another.
    pub preemptions: u64,
}
