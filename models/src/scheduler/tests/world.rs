//! Sequences that live on pages of which it is known what must be in them.
//!
//! Owns the memory of an engine that computes nothing: what it puts in for a token is a digest of all tokens up to that
//! one, as keys and values are a function of them, and the next token follows from it. Every step is checked against
//! it: a page that was shared, kept or taken wrongly has the wrong digests in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::{Arrival, Limits, Plan, Refusal, Scheduler, SequenceId, Share, Terms, pages};
use crate::engine::{PAGE_TOKENS, PageId};
use crate::tokenizer::TokenId;

/// Returns what is wrong if something is not so.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// So many first tokens are those of every job of the family.
    pub(super) prefix: usize,
    pub(super) family: u32,
    /// And so many are its own.
    pub(super) tail: usize,
    /// Tokens that it generates.
    pub(super) answer: usize,
    pub(super) terms: Terms,
}

/// A sequence as it must be.
#[derive(Debug)]
struct Life {
    tokens: Vec<TokenId>,
    /// Of the tokens up to each.
    digests: Vec<u64>,
    /// It is done with so many tokens.
    length: usize,
    terms: Terms,
    computed: usize,
    /// Steps since it came, or since not all were asked for.
    steps: usize,
}

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) now: Duration,
    limits: Limits,
    lives: BTreeMap<SequenceId, Life>,
    memory: Vec<[u64; PAGE_TOKENS]>,
    /// The most tokens that any sequence may have.
    longest: usize,
    came: u32,
    preemptions: u64,
}

/// Limits with so many pages and nothing else that is small.
pub(super) fn limits(pages: usize) -> Limits {
    Limits { sequences: 8, rows_alone: 512, rows_beside_others: 256, pages, pages_cached: pages, setbacks: 1000 }
}

fn digest(before: u64, token: TokenId) -> u64 {
    let mixed = (before ^ u64::from(token.get()) ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 29
}

impl Life {
    fn push(&mut self, token: TokenId) {
        self.digests.push(digest(self.digests.last().copied().unwrap_or_default(), token));
        self.tokens.push(token);
    }

    fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

impl World {
    pub(super) fn new(limits: Limits) -> Self {
        Self::with_chain(limits, pages::chain)
    }

    pub(super) fn with_chain(limits: Limits, chain: fn(u64, &[TokenId]) -> u64) -> Self {
        let scheduler = Scheduler::with_chain(limits.clone(), chain);
        Self {
            memory: vec![[0; PAGE_TOKENS]; limits.pages],
            scheduler,
            now: Duration::ZERO,
            limits: Limits { rows_beside_others: limits.rows_beside_others.max(limits.sequences), ..limits },
            lives: BTreeMap::new(),
            longest: 0,
            came: 0,
            preemptions: 0,
        }
    }

    pub(super) fn add(&mut self, job: &Job) -> SequenceId {
        self.arrive(job).expect("every invariant holds").expect("there is room")
    }

    /// A job comes. `Ok(Err)` is a refusal that is right.
    pub(super) fn arrive(&mut self, job: &Job) -> Result<Result<SequenceId, Refusal>, String> {
        self.came += 1;
        // Families differ in their first page only: what follows is the same text behind another.
        let of_family = |at: usize| if at < PAGE_TOKENS { 1000 * (job.family + 1) } else { 0 };
        let prefix = (0..job.prefix).map(|at| of_family(at) + at as u32 % 7);
        let tail = (0..job.tail as u32).map(|at| 10_000 + 1000 * self.came + at);
        let tokens: Vec<TokenId> = prefix.chain(tail).map(TokenId::from).collect();
        let tokens_max = tokens.len() + job.answer;
        let mut life =
            Life { tokens: vec![], digests: vec![], length: tokens_max, terms: job.terms, computed: 0, steps: 0 };
        tokens.iter().for_each(|token| life.push(*token));
        let added = self.scheduler.add(Arrival { tokens, tokens_max, terms: job.terms });
        let (fits, open) = (tokens_max <= self.limits.pages * PAGE_TOKENS, self.lives.len());
        match added {
            Ok(id) => {
                ensure!(fits && open < self.limits.sequences, "{job:?} was taken beside {open} others");
                ensure!(self.lives.insert(id, life).is_none(), "{id:?} was given twice");
                self.longest = self.longest.max(tokens_max);
            }
            Err(Refusal::NeverFits { .. }) => ensure!(!fits, "{job:?} fits"),
            Err(Refusal::TooManySequences { .. }) => {
                ensure!(open == self.limits.sequences, "{job:?} was refused beside {open} others");
            }
        }
        self.check_pages()?;
        Ok(added)
    }

    pub(super) fn cancel(&mut self, id: SequenceId) {
        self.lives.remove(&id);
        self.scheduler.remove(id);
    }

    /// Cancels one of those that are there.
    pub(super) fn cancel_one_of_all(&mut self, which: usize) -> Result<(), String> {
        if let Some(id) = self.lives.keys().nth(which % self.lives.len().max(1)).copied() {
            self.cancel(id);
        }
        self.check_pages()
    }

    /// Somebody computes something else in these pages.
    pub(super) fn scribble(&mut self, lent: &[PageId]) {
        lent.iter().for_each(|page| self.memory[page.index()] = [u64::MAX; PAGE_TOKENS]);
    }

    /// Pages are lent and come back.
    pub(super) fn lend(&mut self, count: usize) -> Result<(), String> {
        let lent = self.scheduler.lend(count);
        ensure!(lent.is_some() == (count <= self.limits.pages), "{count} pages were lent or not");
        let lent = lent.unwrap_or_default();
        let distinct: BTreeSet<_> = lent.iter().collect();
        ensure!(distinct.len() == lent.len(), "{lent:?} were lent");
        let held = self.lives.keys().flat_map(|id| self.scheduler.pages(*id)).any(|page| distinct.contains(page));
        ensure!(!held, "lent pages are held");
        self.scribble(&lent);
        self.scheduler.give_back(lent);
        self.preemptions = self.scheduler.counters().preemptions;
        for (id, life) in &mut self.lives {
            life.computed = self.scheduler.computed_tokens(*id);
        }
        self.check_pages()
    }

    /// A step of all.
    pub(super) fn step(&mut self) -> Result<Plan, String> {
        let all: Vec<SequenceId> = self.lives.keys().copied().collect();
        self.lives.values_mut().for_each(|life| life.steps += 1);
        self.step_of(&all)
    }

    /// A step of every other sequence: the rest is not asked for.
    pub(super) fn step_of_some(&mut self, odd: bool) -> Result<Plan, String> {
        let some: Vec<_> = self.lives.keys().skip(usize::from(odd)).step_by(2).copied().collect();
        self.lives.values_mut().for_each(|life| life.steps = 0);
        self.step_of(&some)
    }

    /// Steps until all are done.
    pub(super) fn drain(&mut self) {
        while !self.lives.is_empty() {
            self.step().expect("every invariant holds");
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }

    /// A step of these.
    pub(super) fn step_of(&mut self, asked: &[SequenceId]) -> Result<Plan, String> {
        let before: BTreeMap<SequenceId, usize> = asked.iter().map(|id| (*id, self.lives[id].pending())).collect();
        let mut ranks: Vec<_> = asked.iter().filter_map(|id| self.scheduler.waiting(*id)).collect();
        ranks.sort_unstable();
        let plan = self.scheduler.plan(asked, self.now);
        self.check_ended(asked, &plan)?;
        ranks.retain(|(_, id)| self.lives.contains_key(id));
        let order: Vec<SequenceId> = ranks.into_iter().map(|(_, id)| id).collect();
        self.check_shares(&order, &plan)?;
        self.check_who_stands(&order, &before, &plan)?;
        self.check_pages()?;
        self.perform(&plan)?;
        self.scheduler.computed(&plan);
        self.go_on(&plan)?;
        self.check_pages()?;
        Ok(plan)
    }

    /// Those are ended whose time is over, and no others.
    fn check_ended(&mut self, asked: &[SequenceId], plan: &Plan) -> Result<(), String> {
        for id in asked {
            let late = self.lives[id].terms.deadline.is_some_and(|deadline| deadline <= self.now);
            ensure!(plan.ended.contains(id) == late, "{id:?} was ended or not");
        }
        plan.ended.iter().for_each(|id| drop(self.lives.remove(id)));
        Ok(())
    }

    /// The budget is kept, and each row follows the last one computed: none twice while a sequence keeps its pages.
    fn check_shares(&mut self, order: &[SequenceId], plan: &Plan) -> Result<(), String> {
        let rows = if order.len() == 1 { self.limits.rows_alone } else { self.limits.rows_beside_others };
        ensure!(plan.rows() <= rows, "{} rows of {rows}", plan.rows());
        let places: Vec<_> =
            plan.shares.iter().map(|share| order.iter().position(|id| *id == share.sequence)).collect();
        ensure!(places.iter().all(Option::is_some), "somebody computes who was not asked for");
        ensure!(places.is_sorted_by(|a, b| a < b), "the order is {places:?}");
        for Share { sequence, tokens, wants_logits } in &plan.shares {
            let life = &self.lives[sequence];
            ensure!(tokens.start == self.scheduler.computed_tokens(*sequence), "{sequence:?} begins at {tokens:?}");
            ensure!(!tokens.is_empty() && tokens.end <= life.tokens.len(), "{sequence:?} computes {tokens:?}");
            ensure!(*wants_logits == (tokens.end == life.tokens.len()), "{sequence:?} wants logits or not");
        }
        let losses = self.scheduler.counters().preemptions - self.preemptions;
        self.preemptions += losses;
        let mut behind = 0;
        for (id, life) in &mut self.lives {
            let computed = self.scheduler.computed_tokens(*id);
            behind += u64::from(computed < life.computed);
            life.computed = computed;
        }
        ensure!(behind <= losses, "{behind} sequences lost tokens by {losses} preemptions");
        Ok(())
    }

    /// Whoever has no turn lacks rows, which nobody does who decodes, or pages. The first always has one.
    fn check_who_stands(
        &self,
        order: &[SequenceId],
        pending: &BTreeMap<SequenceId, usize>,
        plan: &Plan,
    ) -> Result<(), String> {
        let counters = self.scheduler.counters();
        let no_pages = counters.pages_free + counters.pages_cached == 0;
        let computes = |id: &SequenceId| plan.shares.iter().any(|share| share.sequence == *id);
        ensure!(order.first().is_none_or(computes), "the first in rank stands still");
        let decodes = |id: &SequenceId| pending[id] == 1;
        let standing: Vec<_> = order.iter().filter(|id| !computes(id)).collect();
        for id in &standing {
            ensure!(!decodes(id) || no_pages, "{id:?} stands still and only lacks its next token");
            let place = order.iter().position(|other| other == *id);
            let overtaken = order.iter().skip(place.unwrap_or_default()).any(computes);
            ensure!(!decodes(id) || !overtaken, "{id:?} stands still and one behind it does not");
        }
        let set_aside = standing.iter().filter(|id| decodes(id)).count();
        let rows = if order.len() == 1 { self.limits.rows_alone } else { self.limits.rows_beside_others };
        let no_rows = plan.rows() + set_aside >= rows;
        ensure!(standing.is_empty() || no_rows || no_pages, "{standing:?} stand still for no reason");
        Ok(())
    }

    /// What the engine does, and what it may rely on.
    fn perform(&mut self, plan: &Plan) -> Result<(), String> {
        for share in &plan.shares {
            let (pages, life) = (self.scheduler.pages(share.sequence), &self.lives[&share.sequence]);
            ensure!(pages.len() * PAGE_TOKENS >= share.tokens.end, "{share:?} has no room");
            for position in 0..share.tokens.start {
                let found = self.memory[pages[position / PAGE_TOKENS].index()][position % PAGE_TOKENS];
                ensure!(found == life.digests[position], "{share:?} reads something else at {position}");
            }
        }
        for share in &plan.shares {
            let (pages, life) = (self.scheduler.pages(share.sequence), &self.lives[&share.sequence]);
            for position in share.tokens.clone() {
                self.memory[pages[position / PAGE_TOKENS].index()][position % PAGE_TOKENS] = life.digests[position];
            }
        }
        Ok(())
    }

    /// Who has all its tokens computed goes on, or is done.
    fn go_on(&mut self, plan: &Plan) -> Result<(), String> {
        let bound = (self.limits.setbacks as usize + 2 * self.limits.sequences) * (self.longest + 1);
        for share in &plan.shares {
            let Some(life) = self.lives.get_mut(&share.sequence) else { continue };
            life.computed = share.tokens.end;
            if share.wants_logits {
                let token = TokenId::from((life.digests[share.tokens.end - 1] % 1000) as u32);
                life.push(token);
                self.scheduler.append(share.sequence, token);
            }
            if life.tokens.len() == life.length {
                ensure!(life.steps <= bound, "{:?} took {} steps of {bound}", share.sequence, life.steps);
                self.lives.remove(&share.sequence);
                self.scheduler.remove(share.sequence);
            }
        }
        let slow = self.lives.values().find(|life| life.steps > bound);
        ensure!(slow.is_none(), "{slow:?} is not done after {bound} steps");
        Ok(())
    }

    /// No page is lost, none is shared that is not full and computed, and in all of them is what must be.
    fn check_pages(&self) -> Result<(), String> {
        let mut holders: BTreeMap<PageId, Vec<(SequenceId, usize)>> = BTreeMap::new();
        for (id, life) in &self.lives {
            let (pages, computed) = (self.scheduler.pages(*id), self.scheduler.computed_tokens(*id));
            ensure!(computed <= pages.len() * PAGE_TOKENS, "{id:?} computed more than it has room for");
            ensure!(pages.len() <= life.tokens.len().div_ceil(PAGE_TOKENS), "{id:?} holds more than it needs");
            for (at, page) in pages.iter().enumerate() {
                holders.entry(*page).or_default().push((*id, at));
            }
            for position in 0..computed {
                let found = self.memory[pages[position / PAGE_TOKENS].index()][position % PAGE_TOKENS];
                ensure!(found == life.digests[position], "something else is at {position} of {id:?}");
            }
        }
        for (page, holders) in &holders {
            let is_full =
                |(id, at): &(SequenceId, usize)| (at + 1) * PAGE_TOKENS <= self.scheduler.computed_tokens(*id);
            ensure!(holders.len() == 1 || holders.iter().all(is_full), "{page:?} is shared and written to");
        }
        let counters = self.scheduler.counters();
        ensure!(counters.pages_used == holders.len(), "{} pages are held, and {counters:?}", holders.len());
        let all = counters.pages_used + counters.pages_cached + counters.pages_free;
        ensure!(all == self.limits.pages, "{counters:?} of {}", self.limits.pages);
        ensure!(counters.pages_cached <= self.limits.pages_cached, "{counters:?}");
        ensure!(counters.sequences == self.lives.len(), "{counters:?} of {}", self.lives.len());
        Ok(())
    }
}
