//! Keys and values, in pages.
//!
//! Owns the pages' memory. It must never compute, and it does not know whose a page is: [`crate::scheduler`] does. A
//! page holds 32 tokens of every layer; a sequence's pages are counted from its first token, so that where a token lies
//! in its page depends on its position alone.

use half::f16;

use super::Architecture;
use crate::engine::{PAGE_TOKENS, PageId};
use crate::kernel::KEYS;
use crate::shared::Shared;

// Attention takes a page's keys in one block.
const _: () = assert!(PAGE_TOKENS == KEYS);

/// All pages.
#[derive(Debug)]
pub(super) struct Cache {
    layout: Layout,
    /// Those up to the largest number that was used.
    pages: Vec<Vec<f16>>,
}

/// Where things are in a page: for each layer the keys of each head as `[dimension][token]`, then the values of each as
/// `[token][dimension]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    layers: usize,
    kv_heads: usize,
    head: usize,
}

impl Layout {
    /// Where the keys of a head of a layer begin.
    pub(super) fn keys(&self, layer: usize, kv_head: usize) -> usize {
        (2 * layer * self.kv_heads + kv_head) * self.block()
    }

    /// Where its values begin.
    pub(super) fn values(&self, layer: usize, kv_head: usize) -> usize {
        ((2 * layer + 1) * self.kv_heads + kv_head) * self.block()
    }

    /// Keys, or values, of one head in one page.
    pub(super) fn block(&self) -> usize {
        self.head * KEYS
    }

    fn page(&self) -> usize {
        2 * self.layers * self.kv_heads * self.block()
    }
}

impl Cache {
    pub(super) fn new(architecture: &Architecture) -> Self {
        let layout = Layout { layers: architecture.blocks, kv_heads: architecture.kv_heads, head: architecture.head };
        Self { layout, pages: Vec::new() }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn page_bytes(&self) -> usize {
        self.layout.page() * size_of::<f16>()
    }

    /// Takes memory for these pages. What is in a new one is finite, as what is in an old one: unused tokens are
    /// weighted with zero, which makes no number of an infinite one.
    pub(super) fn make_room(&mut self, pages: &[PageId]) {
        let count = pages.iter().map(|page| page.index() + 1).max().unwrap_or_default();
        while self.pages.len() < count {
            self.pages.push(vec![f16::ZERO; self.layout.page()]);
        }
    }

    /// All pages, for threads that write to different tokens or heads of them.
    pub(super) fn shared(&mut self) -> Vec<Shared<'_, f16>> {
        self.pages.iter_mut().map(|page| Shared::new(page)).collect()
    }
}
