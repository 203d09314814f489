//! Rows times a packed matrix.
//!
//! Owns which kernel computes which rows of which tile, and the order: a tile's weights are read once for all rows while
//! they are in the cache. It must never let that order show: a row's values are the same alone and in company.

use std::ops::Range;

use super::block::Format;
use super::rows::ROWS_OF_A_GROUP;
use super::{COLUMNS, Isa, Packed, RowsView, plain};

/// Multiplies `rows` with the columns of `tiles` and hands out each row's 32 values of each tile.
///
/// The rows must be quantized unless the matrix is of floats; they have as many values as the matrix has rows.
pub(crate) fn multiply(
    isa: Isa,
    matrix: &Packed,
    rows: RowsView<'_>,
    wanted: Range<usize>,
    tiles: Range<usize>,
    mut each: impl FnMut(usize, usize, &[f32; COLUMNS]),
) {
    assert_eq!(matrix.blocks(), rows.blocks());
    let format = matrix.format();
    let at_once = rows_at_once(isa);
    for tile in tiles {
        let weights = matrix.tile_column(tile);
        let mut row = wanted.start;
        while row < wanted.end {
            let count = at_once.min(wanted.end - row).min(ROWS_OF_A_GROUP - row % ROWS_OF_A_GROUP);
            let mut sums = [[0.0; COLUMNS]; ROWS_OF_A_GROUP];
            some_rows(isa, format, weights, rows, row, &mut sums[..count]);
            for (offset, sums) in sums[..count].iter().enumerate() {
                each(row + offset, tile, sums);
            }
            row += count;
        }
    }
}

fn rows_at_once(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => super::avx2::ROWS_AT_ONCE,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => ROWS_OF_A_GROUP,
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => 1,
        Isa::Plain => 1,
    }
}

fn some_rows(isa: Isa, format: Format, weights: &[u8], rows: RowsView<'_>, row: usize, sums: &mut [[f32; COLUMNS]]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => super::avx512::rows(format, weights, rows, row, sums),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => super::avx2::rows(true, format, weights, rows, row, sums),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => super::avx2::rows(false, format, weights, rows, row, sums),
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Vnni | Isa::AvxVnni | Isa::Avx2 => plain_rows(format, weights, rows, row, sums),
        Isa::Plain => plain_rows(format, weights, rows, row, sums),
    }
}

fn plain_rows(format: Format, weights: &[u8], rows: RowsView<'_>, row: usize, sums: &mut [[f32; COLUMNS]]) {
    for (offset, sums) in sums.iter_mut().enumerate() {
        *sums = plain::tile(format, weights, rows, row + offset);
    }
}
