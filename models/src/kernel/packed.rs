//! A weight matrix in tiles.
//!
//! Owns packing a GGUF tensor and reading single columns back (an embedding table that is also the head). It must never
//! multiply. Tiles of 32 columns stand one after the other, the blocks of each along k. They are in memory of its own, or in
//! a mapped file that every process on the host shares.

use std::sync::Arc;

use memmap2::Mmap;

use super::block::{self, Column, Format};
use super::{BLOCK, COLUMNS};
use crate::gguf::TensorType;

/// A matrix that takes rows of `k` values to rows of `n`.
#[derive(Debug)]
pub(crate) struct Packed {
    format: Format,
    k: usize,
    n: usize,
    tiles: Tiles,
}

/// Where the tiles are.
#[derive(Debug)]
enum Tiles {
    Own(Vec<CacheLine>),
    /// Bytes of a mapped file from `start` on, which is a multiple of 64.
    Mapped {
        map: Arc<Mmap>,
        start: usize,
        bytes: usize,
    },
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
        let mut tiles = vec![CacheLine([0; 64]); packed_bytes(format, k, n) / 64];
        let all = as_bytes_mut(&mut tiles);
        for column in 0..n {
            let row = &bytes[column * row_bytes..][..row_bytes];
            for index in 0..blocks {
                let tile = &mut all[(column / COLUMNS * blocks + index) * tile_bytes..][..tile_bytes];
                if format.is_float() {
                    write_floats(format, tile, column % COLUMNS, row, index);
                } else {
                    block::write_column(format, tile, column % COLUMNS, &Column::read(kind, row, index));
                }
            }
        }
        Ok(Self { format, k, n, tiles: Tiles::Own(tiles) })
    }

    /// A matrix that was packed before and stands in a file from `start` on; `None` if it does not fit there.
    pub(crate) fn mapped(kind: TensorType, k: usize, n: usize, map: &Arc<Mmap>, start: usize) -> Option<Self> {
        let format = Format::of(kind)?;
        let bytes = packed_bytes(format, k, n);
        let fits = start.is_multiple_of(64) && start.checked_add(bytes)? <= map.len();
        fits.then(|| Self { format, k, n, tiles: Tiles::Mapped { map: Arc::clone(map), start, bytes } })
    }

    /// All tiles, as they stand in a file.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.tiles {
            Tiles::Own(lines) => as_bytes(lines),
            Tiles::Mapped { map, start, bytes } => &map[*start..*start + *bytes],
        }
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
        packed_bytes(self.format, self.k, self.n)
    }

    /// The blocks of one column of tiles, one after the other.
    pub(super) fn tile_column(&self, tile: usize) -> &[u8] {
        let bytes = self.blocks() * self.format.tile_bytes();
        &self.as_bytes()[tile * bytes..(tile + 1) * bytes]
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

/// Bytes of a matrix: whole tiles, each of whole cache lines.
fn packed_bytes(format: Format, k: usize, n: usize) -> usize {
    n.div_ceil(COLUMNS) * k.div_ceil(BLOCK) * format.tile_bytes()
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
