//! A weight matrix in tiles.
//!
//! Owns packing a GGUF tensor and reading single columns back (an embedding table that is also the head). It must never
//! multiply. Tiles of 32 columns stand one after the other, the blocks of each along k.

use super::block::{self, Column, Format};
use super::{BLOCK, COLUMNS};
use crate::gguf::TensorType;

/// A matrix that takes rows of `k` values to rows of `n`.
#[derive(Debug)]
pub(crate) struct Packed {
    format: Format,
    k: usize,
    n: usize,
    tiles: Vec<CacheLine>,
}

/// What the vector units load at a time, so that no load crosses a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

/// A tensor that cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A number format without a kernel.
    #[error("numbers of type {0:?} are not supported; use another quantization of this model")]
    Type(TensorType),
    /// Quantized rows must be whole blocks.
    #[error("rows of {k} quantized weights are no multiple of {BLOCK}")]
    Ragged {
        /// The row's length.
        k: usize,
    },
}

impl Packed {
    /// Packs a tensor of `n` rows of `k` weights, as they stand in the file. (Rows of the file are columns here: each makes
    /// one output.)
    pub(crate) fn pack(kind: TensorType, bytes: &[u8], k: usize, n: usize) -> Result<Self, PackError> {
        let format = Format::of(kind).ok_or(PackError::Type(kind))?;
        if !format.is_float() && !k.is_multiple_of(BLOCK) {
            return Err(PackError::Ragged { k });
        }
        let row_bytes = bytes.len() / n.max(1);
        let (blocks, tile_bytes) = (k.div_ceil(BLOCK), format.tile_bytes());
        let mut packed = Self { format, k, n, tiles: Vec::new() };
        let lines = n.div_ceil(COLUMNS) * blocks * tile_bytes / 64;
        packed.tiles.resize(lines, CacheLine([0; 64]));
        for column in 0..n {
            let row = &bytes[column * row_bytes..][..row_bytes];
            for index in 0..blocks {
                let tile = packed.tile_mut(column / COLUMNS, index);
                if format.is_float() {
                    write_floats(format, tile, column % COLUMNS, row, index);
                } else {
                    block::write_column(format, tile, column % COLUMNS, &Column::read(kind, row, index));
                }
            }
        }
        Ok(packed)
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Columns of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.n.div_ceil(COLUMNS)
    }

    /// Blocks along k.
    pub(super) fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.tiles.len() * 64
    }

    /// The blocks of one column of tiles, one after the other.
    pub(super) fn tile_column(&self, tile: usize) -> &[u8] {
        let bytes = self.blocks() * self.format.tile_bytes();
        let lines = &self.tiles[tile * bytes / 64..(tile + 1) * bytes / 64];
        as_bytes(lines)
    }

    fn tile_mut(&mut self, tile: usize, index: usize) -> &mut [u8] {
        let bytes = self.format.tile_bytes();
        let at = (tile * self.blocks() + index) * bytes / 64;
        as_bytes_mut(&mut self.tiles[at..at + bytes / 64])
    }

    /// The weights of one column: what a token's embedding is, when this is an embedding table.
    pub(crate) fn column(&self, column: usize, out: &mut [f32]) {
        let (tile_bytes, lane) = (self.format.tile_bytes(), column % COLUMNS);
        let tiles = self.tile_column(column / COLUMNS).chunks_exact(tile_bytes);
        for (tile, out) in tiles.zip(out.chunks_mut(BLOCK)) {
            if self.format.is_float() {
                for (k, out) in out.iter_mut().enumerate() {
                    *out = block::float(self.format, tile, k, lane);
                }
                continue;
            }
            let centre = self.format.centre();
            let scales = match self.format {
                Format::U6Halves => [0, 1].map(|which| block::scale(self.format, tile, which, lane)),
                _ => [block::scale(self.format, tile, 0, lane); 2],
            };
            let min = if self.format.has_min() { block::scale(self.format, tile, 1, lane) } else { 0.0 };
            for group in 0..BLOCK / 4 {
                let bytes = block::group(self.format, tile, group)[lane / 16];
                for i in 0..4 {
                    let q = (i32::from(bytes[4 * (lane % 16) + i]) - centre) as f32;
                    out[4 * group + i] = q.mul_add(scales[group / 4], min);
                }
            }
        }
    }
}

fn write_floats(format: Format, tile: &mut [u8], column: usize, row: &[u8], index: usize) {
    let width = if format == Format::F32 { 4 } else { 2 };
    let from = row[index * BLOCK * width..].chunks_exact(width).take(BLOCK);
    for (k, value) in from.enumerate() {
        tile[(k * COLUMNS + column) * width..][..width].copy_from_slice(value);
    }
}

#[expect(unsafe_code, reason = "cache lines are read as the bytes that they are")]
fn as_bytes(lines: &[CacheLine]) -> &[u8] {
    // SAFETY: a `CacheLine` is 64 bytes without padding, and any byte is a valid `u8`.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 64) }
}

#[expect(unsafe_code, reason = "cache lines are written as the bytes that they are")]
fn as_bytes_mut(lines: &mut [CacheLine]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are a valid `CacheLine`; the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) }
}
