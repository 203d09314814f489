//! Pages of keys and values: who holds which, and which are kept for whoever has the same tokens.
//!
//! Owns the pages' numbers, how many hold each, and the prefix cache: full pages that were computed, found again by a
//! hash chained over the tokens from the first one on. It must never trust that hash: a page is found only if its own
//! tokens are the wanted ones and the page before it is the one that was found before it. Called by
//! [`super::Scheduler`], which decides who gets pages and who loses them.

use std::collections::BTreeMap;

use crate::engine::{PAGE_TOKENS, PageId};
use crate::tokenizer::TokenId;

/// The hash of a text, from that of all pages but its last, and that one's tokens.
pub(super) type Chain = fn(u64, &[TokenId]) -> u64;

/// All pages.
#[derive(Debug)]
pub(super) struct Pages {
    limit: usize,
    /// Pages that nobody holds are kept up to so many.
    cached_max: usize,
    /// Those that were ever used. Numbers are given out in their order, so that memory is taken as it is needed.
    /// Invariant: `pages.len() <= limit`.
    pages: Vec<Page>,
    /// Those of them that nobody holds and that keep nothing.
    free: Vec<PageId>,
    /// Kept pages, by the hash of all tokens up to their last.
    known: BTreeMap<u64, PageId>,
    /// Kept pages that nobody holds, the one that was given back first at the front. Invariant: whoever holds a page
    /// holds those before it, and gives back the last one first; so the page at the front is before no other kept page.
    unused: BTreeMap<u64, PageId>,
    given_back: u64,
    chain: Chain,
}

#[derive(Debug, Default)]
struct Page {
    holders: usize,
    kept: Option<Kept>,
    /// Where it stands in `unused`.
    unused_since: u64,
}

/// What a page keeps.
#[derive(Debug)]
struct Kept {
    chain: u64,
    /// The page with the tokens before these. It is kept as long as this one is.
    before: Option<PageId>,
    /// A page's worth.
    tokens: Box<[TokenId]>,
}

impl Pages {
    pub(super) fn new(limit: usize, cached_max: usize, chain: Chain) -> Self {
        Self {
            limit,
            cached_max,
            pages: Vec::new(),
            free: Vec::new(),
            known: BTreeMap::new(),
            unused: BTreeMap::new(),
            given_back: 0,
            chain,
        }
    }

    /// How many there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// There may be so many from now on, or as many as were used already.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(self.pages.len());
    }

    /// Kept ones that nobody holds.
    pub(super) fn cached(&self) -> usize {
        self.unused.len()
    }

    /// Those that somebody holds.
    pub(super) fn held(&self) -> usize {
        self.pages.len() - self.free.len() - self.unused.len()
    }

    /// A page to write to, whose only holder the caller is; the page that was unused for longest if all others are
    /// held.
    pub(super) fn take(&mut self) -> Option<PageId> {
        if self.free.is_empty() && self.pages.len() == self.limit {
            self.forget_oldest();
        }
        let page = self.free.pop().or_else(|| self.fresh())?;
        self.page_mut(page).holders = 1;
        Some(page)
    }

    /// The kept page with these tokens behind those of `before`, held by one more from now on.
    pub(super) fn find(&mut self, before: Option<PageId>, tokens: &[TokenId]) -> Option<PageId> {
        let page = self.known(self.chain_after(before, tokens)?, before, tokens)?;
        self.hold(page);
        Some(page)
    }

    /// Keeps `page`, which was computed, for whoever has the same tokens. Returns the page to hold from now on: it, or
    /// one that is known to be the same.
    pub(super) fn keep(&mut self, page: PageId, before: Option<PageId>, tokens: &[TokenId]) -> PageId {
        debug_assert_eq!(tokens.len(), PAGE_TOKENS, "only full pages are kept");
        let Some(chain) = self.chain_after(before, tokens) else { return page };
        if let Some(same) = self.known(chain, before, tokens) {
            self.hold(same);
            self.give_back([page]);
            return same;
        }
        // Where another text has this hash, it stays, and this one is not found again.
        self.known.entry(chain).or_insert_with(|| {
            self.pages[page.index()].kept = Some(Kept { chain, before, tokens: tokens.into() });
            page
        });
        page
    }

    /// Takes one holder away from each of a sequence's pages, given in the sequence's order.
    pub(super) fn give_back(&mut self, pages: impl IntoIterator<Item = PageId, IntoIter: DoubleEndedIterator>) {
        for page in pages.into_iter().rev() {
            let entry = &mut self.pages[page.index()];
            entry.holders -= 1;
            if entry.holders > 0 {
                continue;
            }
            if entry.kept.is_some() {
                entry.unused_since = self.given_back;
                self.unused.insert(self.given_back, page);
                self.given_back += 1;
            } else {
                self.free.push(page);
            }
        }
        while self.unused.len() > self.cached_max {
            self.forget_oldest();
        }
    }

    fn hold(&mut self, page: PageId) {
        let entry = &mut self.pages[page.index()];
        if entry.holders == 0 {
            self.unused.remove(&entry.unused_since);
        }
        entry.holders += 1;
    }

    fn fresh(&mut self) -> Option<PageId> {
        if self.pages.len() == self.limit {
            return None;
        }
        let page = PageId(u32::try_from(self.pages.len()).ok()?);
        self.pages.push(Page::default());
        Some(page)
    }

    fn forget_oldest(&mut self) {
        let Some((_, page)) = self.unused.pop_first() else { return };
        if let Some(kept) = self.page_mut(page).kept.take() {
            self.known.remove(&kept.chain);
        }
        self.free.push(page);
    }

    /// The hash of `tokens` behind those of `before`; nothing if that page is not kept.
    fn chain_after(&self, before: Option<PageId>, tokens: &[TokenId]) -> Option<u64> {
        let start = match before {
            None => 0,
            Some(before) => self.pages[before.index()].kept.as_ref()?.chain,
        };
        Some((self.chain)(start, tokens))
    }

    /// The page with this hash, if it really has these tokens behind those of `before`.
    fn known(&self, chain: u64, before: Option<PageId>, tokens: &[TokenId]) -> Option<PageId> {
        let page = *self.known.get(&chain)?;
        let kept = self.pages[page.index()].kept.as_ref()?;
        (kept.before == before && *kept.tokens == *tokens).then_some(page)
    }

    fn page_mut(&mut self, page: PageId) -> &mut Page {
        &mut self.pages[page.index()]
    }
}

/// Multiplies and folds, token by token. Whoever makes two texts with one hash loses hits by it, and nothing else.
pub(super) fn chain(start: u64, tokens: &[TokenId]) -> u64 {
    // The multiplier of Knuth's linear congruential generator.
    const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
    tokens.iter().fold(start ^ MULTIPLIER, |chain, token| {
        let mixed = (chain ^ u64::from(token.get())).wrapping_mul(MULTIPLIER);
        mixed ^ mixed >> 32
    })
}
