//! Rows of activations, as floats and as 8-bit blocks.
//!
//! Owns the quantization of activations: for each 32 values the scale is the largest magnitude / 127, the integers are
//! rounded to the nearest even, and their sum is kept for weights that are not centred. A row's integers depend on that
//! row alone. (The scheme is ggml's `Q8_1`, with the scale kept as `f32`.)
//!
//! What a kernel reads for the same four elements of all rows that it computes at once stands together.

use std::ops::Range;

use super::{BLOCK, Isa, lanes};
use crate::shared::Shared;

/// Rows that stand together: as many as the widest kernel computes at once.
pub(super) const ROWS_OF_A_GROUP: usize = 6;

/// Four neighbours along k.
const WORDS: usize = BLOCK / 4;

/// Blocks that are quantized before they are put in their places.
const BLOCKS_AT_ONCE: usize = 8;

/// Some rows of `k` values, padded with zeros to whole blocks.
#[derive(Debug)]
pub(crate) struct Rows {
    blocks: usize,
    /// `[row][k]`.
    values: Vec<f32>,
    /// `[group of rows][block][word][row of the group]`: four integers each, the first in the low byte.
    words: Vec<i32>,
    /// `[group of rows][block][row of the group]`.
    scales: Vec<f32>,
    /// `[group of rows][block][row of the group]`: scale times the sum of the integers.
    totals: Vec<f32>,
    /// `[group of rows][block][whole, first half, second half][row of the group]`: of the integers.
    sums: Vec<i32>,
}

/// The same, for threads that write to different rows or blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedRows<'a> {
    blocks: usize,
    values: Shared<'a, f32>,
    words: Shared<'a, i32>,
    scales: Shared<'a, f32>,
    totals: Shared<'a, f32>,
    sums: Shared<'a, i32>,
}

/// The same, to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsView<'a> {
    blocks: usize,
    values: &'a [f32],
    words: &'a [i32],
    scales: &'a [f32],
    totals: &'a [f32],
    sums: &'a [i32],
}

/// One block of one row.
pub(super) struct Block {
    pub(super) q: [i8; BLOCK],
    pub(super) scale: f32,
    /// Scale times sum.
    pub(super) total: f32,
    /// Of all, the first half, the second half.
    pub(super) sums: [i32; 3],
}

/// Where a kernel reads some rows of one group: the first of them, block 0. The next row stands next, the next block
/// behind the group.
#[derive(Debug, Clone, Copy)]
#[cfg(target_arch = "x86_64")]
pub(super) struct RowPointers<const ROWS: usize> {
    pub(super) words: *const i32,
    pub(super) scales: *const f32,
    pub(super) totals: *const f32,
    pub(super) sums: *const i32,
    /// Each row's floats.
    pub(super) values: [*const f32; ROWS],
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "whoever reads promises that the block is there")]
impl<const ROWS: usize> RowPointers<ROWS> {
    /// A word of each row.
    ///
    /// # Safety
    /// The block is one of the rows'.
    #[inline(always)]
    pub(super) unsafe fn words(&self, block: usize, word: usize) -> *const i32 {
        // SAFETY: as the caller promises.
        unsafe { self.words.add((block * WORDS + word) * ROWS_OF_A_GROUP) }
    }

    /// # Safety
    /// The block is one of the rows'.
    #[inline(always)]
    pub(super) unsafe fn scales(&self, block: usize) -> *const f32 {
        // SAFETY: as the caller promises.
        unsafe { self.scales.add(block * ROWS_OF_A_GROUP) }
    }

    /// # Safety
    /// The block is one of the rows'.
    #[inline(always)]
    pub(super) unsafe fn totals(&self, block: usize) -> *const f32 {
        // SAFETY: as the caller promises.
        unsafe { self.totals.add(block * ROWS_OF_A_GROUP) }
    }

    /// Sums of whole blocks (0) or halves (1, 2).
    ///
    /// # Safety
    /// The block is one of the rows'.
    #[inline(always)]
    pub(super) unsafe fn sums(&self, block: usize, which: usize) -> *const i32 {
        // SAFETY: as the caller promises.
        unsafe { self.sums.add((block * 3 + which) * ROWS_OF_A_GROUP) }
    }
}

impl Rows {
    /// Room for `rows` rows.
    pub(crate) fn new(rows: usize, k: usize) -> Self {
        let blocks = k.div_ceil(BLOCK);
        let all = rows.next_multiple_of(ROWS_OF_A_GROUP) * blocks;
        Self {
            blocks,
            values: vec![0.0; rows * blocks * BLOCK],
            words: vec![0; all * WORDS],
            scales: vec![0.0; all],
            totals: vec![0.0; all],
            sums: vec![0; all * 3],
        }
    }

    pub(crate) fn shared(&mut self) -> SharedRows<'_> {
        SharedRows {
            blocks: self.blocks,
            values: Shared::new(&mut self.values),
            words: Shared::new(&mut self.words),
            scales: Shared::new(&mut self.scales),
            totals: Shared::new(&mut self.totals),
            sums: Shared::new(&mut self.sums),
        }
    }
}

/// Where the numbers of a block of a row stand, counted in groups of blocks' rows, and which row of its group it is.
fn place(blocks: usize, row: usize, block: usize) -> (usize, usize) {
    (row / ROWS_OF_A_GROUP * blocks + block, row % ROWS_OF_A_GROUP)
}

impl<'a> SharedRows<'a> {
    /// The floats of a row from `range.start` on.
    ///
    /// # Safety
    /// Nobody else reads or writes them until the next barrier.
    #[expect(unsafe_code, reason = "the caller promises that the part is disjoint")]
    pub(crate) unsafe fn values(&self, row: usize, range: Range<usize>) -> &'a mut [f32] {
        let first = row * self.blocks * BLOCK;
        // SAFETY: as the caller promises.
        unsafe { self.values.part(first + range.start..first + range.end) }
    }

    /// Quantizes blocks of a row.
    ///
    /// # Safety
    /// Nobody else reads or writes them until the next barrier.
    #[expect(unsafe_code, reason = "the caller promises that the part is disjoint")]
    pub(crate) unsafe fn quantize(&self, isa: Isa, row: usize, blocks: Range<usize>) {
        let first = row * self.blocks * BLOCK;
        let mut quantized = [const { lanes::Quantized::ZERO }; BLOCKS_AT_ONCE];
        for start in blocks.clone().step_by(BLOCKS_AT_ONCE) {
            let count = BLOCKS_AT_ONCE.min(blocks.end - start);
            let quantized = &mut quantized[..count];
            // SAFETY: as the caller promises.
            let values = unsafe { self.values.read(first + start * BLOCK..first + (start + count) * BLOCK) };
            lanes::quantize(isa, values, quantized);
            for (offset, block) in quantized.iter().enumerate() {
                // SAFETY: as the caller promises.
                unsafe { self.put(row, start + offset, block) };
            }
        }
    }

    #[expect(unsafe_code, reason = "the caller promises that the part is disjoint")]
    unsafe fn put(&self, row: usize, block: usize, quantized: &lanes::Quantized) {
        let (group, lane) = place(self.blocks, row, block);
        let numbers = group * ROWS_OF_A_GROUP + lane;
        let [first, second] = quantized.sums;
        let sum = first.wrapping_add(second);
        // SAFETY: as the caller promises; the numbers of other rows stand between, and are not touched.
        unsafe {
            let words = group * WORDS * ROWS_OF_A_GROUP + lane;
            for (word, bytes) in quantized.q.as_chunks::<4>().0.iter().enumerate() {
                self.words.write(words + word * ROWS_OF_A_GROUP, i32::from_le_bytes(bytes.map(i8::cast_unsigned)));
            }
            self.scales.write(numbers, quantized.scale);
            self.totals.write(numbers, quantized.scale * sum as f32);
            for (which, sum) in [sum, first, second].into_iter().enumerate() {
                self.sums.write((group * 3 + which) * ROWS_OF_A_GROUP + lane, sum);
            }
        }
    }

    /// Blocks of a row.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// All of it, to be read.
    ///
    /// # Safety
    /// Nobody writes to the first `rows` rows until the next barrier.
    #[expect(unsafe_code, reason = "the caller promises that nobody writes")]
    pub(crate) unsafe fn view(&self, rows: usize) -> RowsView<'a> {
        let floats = rows * self.blocks * BLOCK;
        let all = rows.next_multiple_of(ROWS_OF_A_GROUP) * self.blocks;
        // SAFETY: as the caller promises.
        unsafe {
            RowsView {
                blocks: self.blocks,
                values: self.values.read(0..floats),
                words: self.words.read(0..all * WORDS),
                scales: self.scales.read(0..all),
                totals: self.totals.read(0..all),
                sums: self.sums.read(0..all * 3),
            }
        }
    }
}

impl<'a> RowsView<'a> {
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The floats of a block.
    pub(super) fn values(&self, row: usize, block: usize) -> &'a [f32] {
        &self.values[(row * self.blocks + block) * BLOCK..][..BLOCK]
    }

    /// The integers of a block and what is known of them.
    pub(super) fn block(&self, row: usize, block: usize) -> Block {
        let (group, lane) = place(self.blocks, row, block);
        let mut q = [0; BLOCK];
        for (word, q) in q.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let bytes = self.words[(group * WORDS + word) * ROWS_OF_A_GROUP + lane].to_le_bytes();
            *q = bytes.map(u8::cast_signed);
        }
        let numbers = group * ROWS_OF_A_GROUP + lane;
        let sums = [0, 1, 2].map(|which| self.sums[(group * 3 + which) * ROWS_OF_A_GROUP + lane]);
        Block { q, scale: self.scales[numbers], total: self.totals[numbers], sums }
    }

    /// Where `ROWS` rows of one group begin; all blocks of them are there.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn rows<const ROWS: usize>(&self, row: usize) -> RowPointers<ROWS> {
        let (group, lane) = place(self.blocks, row, 0);
        assert!(lane + ROWS <= ROWS_OF_A_GROUP, "the rows stand in one group");
        let (first, all) = (group * ROWS_OF_A_GROUP, self.blocks * ROWS_OF_A_GROUP);
        RowPointers {
            words: self.words[first * WORDS..(first + all) * WORDS][lane..].as_ptr(),
            scales: self.scales[first..first + all][lane..].as_ptr(),
            totals: self.totals[first..first + all][lane..].as_ptr(),
            sums: self.sums[first * 3..(first + all) * 3][lane..].as_ptr(),
            values: std::array::from_fn(|offset| {
                let first = (row + offset) * self.blocks * BLOCK;
                self.values[first..first + self.blocks * BLOCK].as_ptr()
            }),
        }
    }
}
