//! Keys and values of the open sequences, in pages.
//!
//! Owns the pages and who has which. It must never compute. A page holds 32 tokens of every layer; a sequence's pages are
//! counted from its first token, so that where a token lies in its page depends on its position alone.

use std::collections::BTreeMap;

use half::f16;

use super::Architecture;
use crate::engine::SequenceId;
use crate::kernel::KEYS;
use crate::shared::Shared;

/// All pages.
#[derive(Debug)]
pub(super) struct Cache {
    layout: Layout,
    pages: Vec<Vec<f16>>,
    free: Vec<usize>,
    sequences: BTreeMap<SequenceId, Sequence>,
    opened: u64,
}

/// Where things are in a page: for each layer the keys of each head as `[dimension][token]`, then the values of each as
/// `[token][dimension]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    layers: usize,
    kv_heads: usize,
    head: usize,
}

#[derive(Debug, Default)]
struct Sequence {
    /// Invariant: `pages.len() * KEYS >= tokens`, and no page is another's.
    pages: Vec<usize>,
    tokens: usize,
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
        Self { layout, pages: Vec::new(), free: Vec::new(), sequences: BTreeMap::new(), opened: 0 }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn open_count(&self) -> usize {
        self.sequences.len()
    }

    pub(super) fn open(&mut self) -> SequenceId {
        let id = SequenceId(self.opened);
        self.opened += 1;
        self.sequences.insert(id, Sequence::default());
        id
    }

    pub(super) fn close(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.remove(&id) {
            self.free.extend(sequence.pages);
        }
    }

    /// Tokens whose keys and values a sequence holds.
    pub(super) fn tokens(&self, id: SequenceId) -> Option<usize> {
        self.sequences.get(&id).map(|sequence| sequence.tokens)
    }

    /// Makes room for more tokens.
    pub(super) fn make_room(&mut self, id: SequenceId, tokens: usize) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        while sequence.pages.len() * KEYS < sequence.tokens + tokens {
            let page = self.free.pop().unwrap_or_else(|| {
                self.pages.push(vec![f16::ZERO; self.layout.page()]);
                self.pages.len() - 1
            });
            sequence.pages.push(page);
        }
    }

    /// Counts tokens that were computed.
    pub(super) fn advance(&mut self, id: SequenceId, tokens: usize) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.tokens += tokens;
        }
    }

    /// A sequence's pages, in order.
    pub(super) fn pages_of(&self, id: SequenceId) -> &[usize] {
        self.sequences.get(&id).map_or(&[], |sequence| &sequence.pages)
    }

    /// All pages, for threads that write to different tokens or heads of them.
    pub(super) fn shared(&mut self) -> Vec<Shared<'_, f16>> {
        self.pages.iter_mut().map(|page| Shared::new(page)).collect()
    }
}
