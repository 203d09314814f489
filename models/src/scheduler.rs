//! Who computes what in the next step, and who holds which pages of keys and values.
//!
//! Owns the open sequences with their tokens, the pages, and the rules by which both are shared out. It never computes
//! and reads no clock: [`Scheduler::plan`] says which tokens of which sequences the next step is made of, whoever
//! performs it says so to [`Scheduler::computed`], and new tokens come by [`Scheduler::append`]. Between any two of
//! these, sequences are added and removed. Called by [`crate::Model`].
//!
//! **Rows.** Each sequence that only lacks its next token has a row in every step. What is left of the step's rows goes
//! to prompts, in the order of rank: so a prompt, however long, delays others' tokens by one step of limited size and
//! no more.
//!
//! **Pages** are given as they are needed, in the same order: a free one, else the cached one that was unused for
//! longest, else one of the last in rank that holds any, if that is behind whoever needs it. That sequence loses all
//! its pages and computes its tokens anew when it gets a turn, which changes no bit of what follows, and of which the
//! prefix cache saves what was not needed meanwhile. Who finds none stands still and keeps what it has.
//!
//! **Prefix cache.** Full computed pages are kept for every sequence that begins with the same tokens. A shared page is
//! only read: new tokens go into pages behind it. A sequence's last token is always computed, because its logits are
//! wanted.
//!
//! **Everybody is done some day.** The order of rank is total, and a sequence changes its place once at most, when it
//! is owed a turn; those that are owed stand before all others, in the order of arrival. The first in rank computes a
//! row at least in every step: it has a row, there is no page that it may not take away, and no sequence is taken that
//! would not fit alone. Say that K setbacks make a sequence owed, that N sequences may be open and none has more than T
//! tokens. Between two setbacks a sequence computes a token at least in every step, so that after (K + 1)(T + 1) steps
//! it is done or owed. From then on only those that came before it can stand before it, fewer than N. The first in rank
//! changes when it is done or when an older one is owed, fewer than 2N times in all, and is done in T steps if it does
//! not change. So **if all are asked for in every step, each is done after at most (K + 2N)(T + 1) steps**. That is a
//! bound against standing still, not an estimate.

mod limits;
mod order;
mod pages;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::engine::{PAGE_TOKENS, PageId};
use crate::tokenizer::TokenId;
pub use limits::{Counters, Limits, Refusal};
use order::Rank;
pub use order::{Priority, Terms};
use pages::{Chain, Pages};

/// A sequence that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceId(u64);

/// A sequence to take.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// What is known of it: a prompt, and what an earlier attempt generated.
    pub(crate) tokens: Vec<TokenId>,
    /// The most that it will have.
    pub(crate) tokens_max: usize,
    pub(crate) terms: Terms,
}

/// What the next step is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The first in rank first.
    pub(crate) shares: Vec<Share>,
    /// Sequences whose deadline is past. They are removed already.
    pub(crate) ended: Vec<SequenceId>,
}

/// A sequence's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) sequence: SequenceId,
    /// Which of its tokens.
    pub(crate) tokens: Range<usize>,
    /// Whether the last of them is its last, after which the next can be chosen.
    pub(crate) wants_logits: bool,
}

/// The open sequences and the pages.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    sequences: BTreeMap<SequenceId, Sequence>,
    opened: u64,
    pages: Pages,
    tokens_reused: u64,
    preemptions: u64,
}

#[derive(Debug)]
struct Sequence {
    tokens: Vec<TokenId>,
    /// Tokens whose keys and values are in `pages`.
    computed: usize,
    /// Invariant: they have room for `computed` tokens. Those that another holds too are full and computed.
    pages: Vec<PageId>,
    terms: Terms,
    /// Steps in which it was asked for and had no turn, and times that it lost its pages. Never fewer again.
    setbacks: u32,
}

impl Plan {
    /// Tokens of the step.
    pub(crate) fn rows(&self) -> usize {
        self.shares.iter().map(|share| share.tokens.len()).sum()
    }
}

impl Sequence {
    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

impl Scheduler {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with_chain(limits, pages::chain)
    }

    fn with_chain(mut limits: Limits, chain: Chain) -> Self {
        limits.rows_alone = limits.rows_alone.max(1);
        limits.rows_beside_others = limits.rows_beside_others.max(limits.sequences);
        let pages = Pages::new(limits.pages, limits.pages_cached, chain);
        Self { limits, sequences: BTreeMap::new(), opened: 0, pages, tokens_reused: 0, preemptions: 0 }
    }

    /// The most tokens that a sequence can have without ever lacking a page while it is alone.
    pub(crate) fn tokens_max(&self) -> usize {
        self.pages.limit().saturating_mul(PAGE_TOKENS)
    }

    /// There are no more pages than this.
    pub(crate) fn limit_pages(&mut self, pages: usize) {
        self.pages.set_limit(self.pages.limit().min(pages));
    }

    /// What was done, and what there is.
    pub(crate) fn counters(&self) -> Counters {
        let (used, cached) = (self.pages.held(), self.pages.cached());
        Counters {
            sequences: self.sequences.len(),
            pages_used: used,
            pages_cached: cached,
            pages_free: self.pages.limit() - used - cached,
            tokens_reused: self.tokens_reused,
            preemptions: self.preemptions,
        }
    }

    /// Takes a sequence. It gets pages when it gets a turn.
    pub(crate) fn add(&mut self, arrival: Arrival) -> Result<SequenceId, Refusal> {
        let Arrival { tokens, tokens_max, terms } = arrival;
        let wanted = tokens_max.max(tokens.len());
        if wanted > self.tokens_max() {
            return Err(Refusal::NeverFits { tokens: wanted, tokens_max: self.tokens_max() });
        }
        if self.sequences.len() >= self.limits.sequences {
            return Err(Refusal::TooManySequences { open: self.sequences.len() });
        }
        let id = SequenceId(self.opened);
        self.opened += 1;
        self.sequences.insert(id, Sequence { tokens, computed: 0, pages: Vec::new(), terms, setbacks: 0 });
        Ok(id)
    }

    /// Forgets a sequence: finished, failed or not wanted any more. Its full pages stay in the prefix cache.
    pub(crate) fn remove(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.remove(&id) {
            self.pages.give_back(sequence.pages);
        }
    }

    /// A sequence's tokens.
    pub(crate) fn tokens(&self, id: SequenceId) -> &[TokenId] {
        self.sequences.get(&id).map_or(&[], |sequence| &sequence.tokens)
    }

    /// How many of them are computed.
    pub(crate) fn computed_tokens(&self, id: SequenceId) -> usize {
        self.sequences.get(&id).map_or(0, |sequence| sequence.computed)
    }

    /// The pages with their keys and values, in order.
    pub(crate) fn pages(&self, id: SequenceId) -> &[PageId] {
        self.sequences.get(&id).map_or(&[], |sequence| &sequence.pages)
    }

    /// Shares out the next step among those of these sequences that have something to compute. The others keep what
    /// they hold as long as nobody here needs it.
    pub(crate) fn plan(&mut self, asked: &[SequenceId], now: Duration) -> Plan {
        let mut plan = Plan { shares: Vec::new(), ended: self.end_late(asked, now) };
        let mut order: Vec<(Rank, SequenceId)> = asked.iter().filter_map(|id| self.waiting(*id)).collect();
        order.sort_unstable();
        order.dedup();
        let decoding: Vec<bool> = order.iter().map(|(_, id)| self.sequences[id].pending() == 1).collect();
        let set_aside = decoding.iter().filter(|decodes| **decodes).count();
        let mut left = self.rows(order.len()).saturating_sub(set_aside);
        for (place, (_, id)) in order.iter().enumerate() {
            let own = usize::from(decoding[place]);
            let tokens = self.turn(&order, place, own + left);
            left -= tokens.len().saturating_sub(own);
            let Some(sequence) = self.sequences.get_mut(id) else { continue };
            if tokens.is_empty() {
                sequence.setbacks = sequence.setbacks.saturating_add(1);
            } else {
                let wants_logits = tokens.end == sequence.tokens.len();
                plan.shares.push(Share { sequence: *id, tokens, wants_logits });
            }
        }
        plan
    }

    /// The step was performed.
    pub(crate) fn computed(&mut self, plan: &Plan) {
        for share in &plan.shares {
            let Some(sequence) = self.sequences.get_mut(&share.sequence) else { continue };
            let full = sequence.computed / PAGE_TOKENS..share.tokens.end / PAGE_TOKENS;
            sequence.computed = share.tokens.end;
            for at in full {
                let before = at.checked_sub(1).map(|before| sequence.pages[before]);
                let tokens = &sequence.tokens[at * PAGE_TOKENS..(at + 1) * PAGE_TOKENS];
                sequence.pages[at] = self.pages.keep(sequence.pages[at], before, tokens);
            }
        }
    }

    /// A sequence goes on with `token`.
    pub(crate) fn append(&mut self, id: SequenceId, token: TokenId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.tokens.push(token);
        }
    }

    /// Takes so many pages out of the cache and, if need be, away from sequences, for a computation that is no sequence
    /// of this scheduler; nothing if there are not so many. To be given back.
    pub(crate) fn lend(&mut self, count: usize) -> Option<Vec<PageId>> {
        let mut lent = Vec::new();
        while lent.len() < count {
            match self.pages.take() {
                Some(page) => lent.push(page),
                None if self.preempt(&[], 0) => {}
                None => {
                    self.pages.give_back(lent);
                    return None;
                }
            }
        }
        Some(lent)
    }

    /// Gives back what was lent.
    pub(crate) fn give_back(&mut self, lent: Vec<PageId>) {
        self.pages.give_back(lent);
    }

    /// Removes those of these sequences whose time is over.
    fn end_late(&mut self, asked: &[SequenceId], now: Duration) -> Vec<SequenceId> {
        let is_late = |sequence: &Sequence| sequence.terms.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<_> = asked.iter().copied().filter(|id| self.sequences.get(id).is_some_and(is_late)).collect();
        late.iter().for_each(|id| self.remove(*id));
        late
    }

    /// The place of a sequence, if it has something to compute.
    fn waiting(&self, id: SequenceId) -> Option<(Rank, SequenceId)> {
        let sequence = self.sequences.get(&id)?;
        (sequence.pending() > 0).then(|| (self.rank(id, sequence), id))
    }

    fn rank(&self, id: SequenceId, sequence: &Sequence) -> Rank {
        Rank::of(id, sequence.terms, sequence.setbacks >= self.limits.setbacks)
    }

    fn rows(&self, sequences: usize) -> usize {
        if sequences == 1 { self.limits.rows_alone } else { self.limits.rows_beside_others }
    }

    /// Which of its tokens the sequence at `place` computes, of `rows_max` at most: those that it finds pages for.
    fn turn(&mut self, order: &[(Rank, SequenceId)], place: usize, rows_max: usize) -> Range<usize> {
        let (_, id) = order[place];
        if rows_max == 0 {
            return 0..0;
        }
        self.reuse(id);
        let Some(sequence) = self.sequences.get(&id) else { return 0..0 };
        let (start, mut room) = (sequence.computed, sequence.pages.len() * PAGE_TOKENS);
        let end = start + sequence.pending().min(rows_max);
        while room < end {
            let Some(page) = self.take_page(order, place + 1) else { break };
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.pages.push(page);
            }
            room += PAGE_TOKENS;
        }
        start..end.min(room)
    }

    /// Finds pages that have a sequence's next tokens already. One that it had begun itself is given back.
    fn reuse(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        loop {
            let at = sequence.computed / PAGE_TOKENS;
            let tokens = at * PAGE_TOKENS..(at + 1) * PAGE_TOKENS;
            if tokens.end >= sequence.tokens.len() {
                return;
            }
            let before = at.checked_sub(1).map(|before| sequence.pages[before]);
            let Some(found) = self.pages.find(before, &sequence.tokens[tokens.clone()]) else { return };
            match sequence.pages.get_mut(at) {
                Some(own) => self.pages.give_back([std::mem::replace(own, found)]),
                None => sequence.pages.push(found),
            }
            self.tokens_reused += (tokens.end - sequence.computed) as u64;
            sequence.computed = tokens.end;
        }
    }

    /// A page, if need be from a sequence that stands at `behind` or later, or nowhere in the order.
    fn take_page(&mut self, order: &[(Rank, SequenceId)], behind: usize) -> Option<PageId> {
        loop {
            let page = self.pages.take();
            if page.is_some() || !self.preempt(order, behind) {
                return page;
            }
        }
    }

    /// Takes all pages away from the last sequence that has any, if it stands at `behind` or later. Those that were not
    /// asked for come last of all.
    fn preempt(&mut self, order: &[(Rank, SequenceId)], behind: usize) -> bool {
        let holds = |id: &SequenceId| self.sequences.get(id).is_some_and(|sequence| !sequence.pages.is_empty());
        let is_idle = |id: &SequenceId| !order.iter().any(|(_, asked)| asked == id);
        let idle = self.sequences.iter().filter(|(id, _)| holds(id) && is_idle(id));
        let idle = idle.max_by_key(|(id, sequence)| self.rank(**id, sequence)).map(|(id, _)| *id);
        let last = idle.or_else(|| order[behind..].iter().rev().map(|(_, id)| *id).find(holds));
        let Some(sequence) = last.and_then(|id| self.sequences.get_mut(&id)) else { return false };
        sequence.computed = 0;
        sequence.setbacks = sequence.setbacks.saturating_add(1);
        self.pages.give_back(std::mem::take(&mut sequence.pages));
        self.preemptions += 1;
        true
    }
}

#[cfg(test)]
mod tests;
