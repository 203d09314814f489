//! Rows of activations, as floats and as 8-bit blocks.
//!
//! Owns the quantization of activations: for each 32 values the scale is the largest magnitude / 127, the integers are
//! rounded to the nearest even, and their sum is kept for weights that are not centred. A row's integers depend on that
//! row alone. (The scheme is ggml's `Q8_1`, with the scale kept as `f32`.)

use std::ops::Range;

use super::{BLOCK, Isa, lanes};
use crate::shared::Shared;

/// Some rows of `k` values, padded with zeros to whole blocks.
#[derive(Debug)]
pub(crate) struct Rows {
    blocks: usize,
    /// `[row][k]`.
    values: Vec<f32>,
    /// `[row][k]`.
    q: Vec<i8>,
    /// `[row][block]`.
    scales: Vec<f32>,
    /// `[row][block]`: of the integers.
    sums: Vec<i32>,
}

/// The same, for threads that write to different rows or blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedRows<'a> {
    blocks: usize,
    values: Shared<'a, f32>,
    q: Shared<'a, i8>,
    scales: Shared<'a, f32>,
    sums: Shared<'a, i32>,
}

/// The same, to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsView<'a> {
    blocks: usize,
    values: &'a [f32],
    q: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
}

impl Rows {
    /// Room for `rows` rows.
    pub(crate) fn new(rows: usize, k: usize) -> Self {
        let blocks = k.div_ceil(BLOCK);
        Self {
            blocks,
            values: vec![0.0; rows * blocks * BLOCK],
            q: vec![0; rows * blocks * BLOCK],
            scales: vec![0.0; rows * blocks],
            sums: vec![0; rows * blocks],
        }
    }

    pub(crate) fn shared(&mut self) -> SharedRows<'_> {
        SharedRows {
            blocks: self.blocks,
            values: Shared::new(&mut self.values),
            q: Shared::new(&mut self.q),
            scales: Shared::new(&mut self.scales),
            sums: Shared::new(&mut self.sums),
        }
    }
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
        let (first, end) = (row * self.blocks + blocks.start, row * self.blocks + blocks.end);
        // SAFETY: as the caller promises.
        unsafe {
            let values = self.values.read(first * BLOCK..end * BLOCK);
            let q = self.q.part(first * BLOCK..end * BLOCK);
            lanes::quantize(isa, values, q, self.scales.part(first..end), self.sums.part(first..end));
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
        let all = rows * self.blocks;
        // SAFETY: as the caller promises.
        unsafe {
            RowsView {
                blocks: self.blocks,
                values: self.values.read(0..all * BLOCK),
                q: self.q.read(0..all * BLOCK),
                scales: self.scales.read(0..all),
                sums: self.sums.read(0..all),
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

    /// Integers, scale and sum of a block.
    pub(super) fn block(&self, row: usize, block: usize) -> (&'a [i8], f32, i32) {
        let at = row * self.blocks + block;
        (&self.q[at * BLOCK..][..BLOCK], self.scales[at], self.sums[at])
    }

    /// Where the integers, scales and sums of a row begin, and its floats; all blocks of it are there.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn row(&self, row: usize) -> (*const i8, *const f32, *const i32, *const f32) {
        let (first, end) = (row * self.blocks, (row + 1) * self.blocks);
        (
            self.q[first * BLOCK..end * BLOCK].as_ptr(),
            self.scales[first..end].as_ptr(),
            self.sums[first..end].as_ptr(),
            self.values[first * BLOCK..end * BLOCK].as_ptr(),
        )
    }
}
