//! The products without vector instructions: what the others must equal, and what runs where they cannot.

use super::block::{self, Format};
use super::rows::Block;
use super::{BLOCK, COLUMNS, RowsView};

/// One row times one column of tiles.
pub(super) fn tile(format: Format, tiles: &[u8], rows: RowsView<'_>, row: usize) -> [f32; COLUMNS] {
    let mut sums = [0.0_f32; COLUMNS];
    for (index, tile) in tiles.chunks_exact(format.tile_bytes()).enumerate() {
        if format.is_float() {
            for (k, value) in rows.values(row, index).iter().enumerate() {
                for (column, sum) in sums.iter_mut().enumerate() {
                    *sum = block::float(format, tile, k, column).mul_add(*value, *sum);
                }
            }
            continue;
        }
        let Block { q, scale, total, sums: [whole, halves @ ..] } = rows.block(row, index);
        let mut products = [[0_i32; COLUMNS]; 2];
        for group in 0..BLOCK / 4 {
            for (half, bytes) in block::group(format, tile, group).iter().enumerate() {
                for (at, weight) in bytes.iter().enumerate() {
                    let value = i32::from(q[4 * group + at % 4]);
                    products[group / 4][16 * half + at / 4] += i32::from(*weight) * value;
                }
            }
        }
        for (column, sum) in sums.iter_mut().enumerate() {
            let first = block::scale(format, tile, 0, column) * scale;
            match format {
                Format::U6Halves => {
                    // The two halves of a block have scales, and sums, of their own.
                    let second = block::scale(format, tile, 1, column) * scale;
                    for (half, factor) in [first, second].into_iter().enumerate() {
                        let product = products[half][column] - format.centre() * halves[half];
                        *sum = (product as f32).mul_add(factor, *sum);
                    }
                }
                _ => {
                    let product = products[0][column] + products[1][column] - format.centre() * whole;
                    *sum = (product as f32).mul_add(first, *sum);
                    if format.has_min() {
                        *sum = block::scale(format, tile, 1, column).mul_add(total, *sum);
                    }
                }
            }
        }
    }
    sums
}
