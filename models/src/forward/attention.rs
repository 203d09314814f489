//! Attention: each row's queries over the keys and values of its sequence.
//!
//! Owns how the work is cut into units, and that a row's keys come in pages counted from the sequence's first token,
//! whoever computes it. Called by [`super::pass`], whose buffers and whose rule of who writes what it shares.

use std::ops::Range;

use super::architecture::Architecture;
use super::pass::{Part, Step};
use crate::kernel::{self, BLOCK, KEYS};
use crate::threads::Thread;

/// Rows of a chunk that share the work of making a page's keys and values floats.
pub(super) const ROWS_OF_A_UNIT: usize = 16;

/// SAFETY of everything here: see [`Step`]. A unit's rows and heads are its own.
#[expect(unsafe_code, reason = "see above")]
impl Step<'_> {
    /// Queries, keys and values to `attended`. A unit is some rows of a chunk with the heads that share keys; units go round
    /// the threads, because later ones see more.
    pub(super) fn attend(&self, thread: Thread<'_>, index: usize) {
        let kv_heads = self.architecture.kv_heads;
        let mut unit = 0;
        for part in self.parts {
            for first in part.rows.clone().step_by(ROWS_OF_A_UNIT) {
                for kv_head in 0..kv_heads {
                    if unit % thread.count == thread.index {
                        let rows = first..part.rows.end.min(first + ROWS_OF_A_UNIT);
                        self.attend_unit(thread, index, part, rows, kv_head);
                    }
                    unit += 1;
                }
            }
        }
    }

    fn attend_unit(&self, thread: Thread<'_>, index: usize, part: &Part, rows: Range<usize>, kv_head: usize) {
        let &Architecture { heads, kv_heads, head, .. } = self.architecture;
        let group = heads / kv_heads;
        let [scratch] = (unsafe { self.scratch.part(thread.index..thread.index + 1) }) else { return };
        let mut queries = Vec::with_capacity(rows.len() * group);
        for row in rows.clone() {
            for at in kv_head * group..(kv_head + 1) * group {
                let start = (row * heads + at) * head;
                queries.push(unsafe {
                    let out = self.attended.values(row, at * head..(at + 1) * head);
                    kernel::Query::new(self.queries.read(start..start + head), out)
                });
            }
        }
        let position = |row: usize| part.start + (row - part.rows.start);
        let window = self.architecture.window.filter(|_| self.is_local(index)).map(|window| window.tokens);
        // The first token that a row sees.
        let seen_from = |row: usize| window.map_or(0, |window| (position(row) + 1).saturating_sub(window));
        let pages = seen_from(rows.start) / KEYS..position(rows.end - 1) / KEYS + 1;
        let block =
            |at: usize, start: usize| unsafe { self.pages[part.pages[at]].read(start..start + self.layout.block()) };
        let (keys, values) = (self.layout.keys(index, kv_head), self.layout.values(index, kv_head));
        for at in pages.clone() {
            if pages.contains(&(at + 1)) {
                kernel::prefetch(block(at + 1, keys));
                kernel::prefetch(block(at + 1, values));
            }
            kernel::widen(self.isa, block(at, keys), &mut scratch.keys);
            kernel::widen(self.isa, block(at, values), &mut scratch.values);
            for (row, queries) in rows.clone().zip(queries.chunks_mut(group)) {
                let end = (position(row) + 1).saturating_sub(at * KEYS).min(KEYS);
                let first = seen_from(row).saturating_sub(at * KEYS).min(end);
                queries.iter_mut().for_each(|query| query.seen = first..end);
            }
            kernel::attend(self.isa, &mut queries, &scratch.keys, &scratch.values);
        }
        queries.into_iter().for_each(kernel::Query::finish);
        if self.groups_are_blocks() {
            let blocks = kv_head * group * head / BLOCK..(kv_head + 1) * group * head / BLOCK;
            for row in rows {
                unsafe { self.attended.quantize(self.isa, row, blocks.clone()) };
            }
        }
    }

    /// Whether the heads that share keys make whole blocks, so that whoever computes them can quantize them.
    fn groups_are_blocks(&self) -> bool {
        let &Architecture { heads, kv_heads, head, .. } = self.architecture;
        (heads / kv_heads * head).is_multiple_of(BLOCK)
    }

    pub(super) fn quantize_attended(&self, thread: Thread<'_>) {
        if self.groups_are_blocks() {
            return;
        }
        for row in thread.share(self.rows.len()) {
            unsafe { self.attended.quantize(self.isa, row, 0..self.attended.blocks()) };
        }
        thread.barrier();
    }
}
