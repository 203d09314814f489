//! The products with AVX2: 8 columns a vector, two instructions for four elements along k, or one where the processor has
//! VNNI for 256 bits.
//!
//! `maddubs` saturates where a weight has more than 7 bits, so those are multiplied in two parts; integers are exact, so
//! that shows nowhere.

use std::arch::x86_64::*;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::block::{Format, SCALES};
use super::rows::RowPointers;
use super::{BLOCK, COLUMNS, RowsView};

/// Rows that the 16 registers have room for, four vectors of sums aside.
pub(super) const ROWS_AT_ONCE: usize = 2;

/// Some rows times one column of tiles.
pub(super) fn rows(
    vnni: bool,
    format: Format,
    tiles: &[u8],
    view: RowsView<'_>,
    row: usize,
    sums: &mut [[f32; COLUMNS]],
) {
    macro_rules! by_count {
        ($format:expr) => {
            match sums.len() {
                1 => start::<{ $format as u8 }, 1>(vnni, tiles, view, row, sums),
                _ => start::<{ $format as u8 }, 2>(vnni, tiles, view, row, sums),
            }
        };
    }
    match format {
        Format::U4 => by_count!(Format::U4),
        Format::U4Centred => by_count!(Format::U4Centred),
        Format::U5 => by_count!(Format::U5),
        Format::U5Centred => by_count!(Format::U5Centred),
        Format::U8Centred => by_count!(Format::U8Centred),
        Format::U6Halves => by_count!(Format::U6Halves),
        Format::F16 => by_count!(Format::F16),
        Format::BF16 => by_count!(Format::BF16),
        Format::F32 => by_count!(Format::F32),
    }
}

#[expect(unsafe_code, reason = "the vector instructions are there, and what they load is checked here")]
fn start<const FORMAT: u8, const ROWS: usize>(
    vnni: bool,
    tiles: &[u8],
    view: RowsView<'_>,
    row: usize,
    sums: &mut [[f32; COLUMNS]],
) {
    let format = const { Format::ALL[FORMAT as usize] };
    let blocks = view.blocks();
    assert!(tiles.len() >= blocks * format.tile_bytes() && sums.len() == ROWS);
    let each = view.rows::<ROWS>(row);
    let sums: &mut [[f32; COLUMNS]; ROWS] = sums.try_into().expect("checked above");
    // SAFETY: this is called only where `Isa::available` saw the features. `tiles` has all blocks, checked above, and so
    // have the rows, which `RowsView::rows` checks.
    unsafe {
        for half in 0..2 {
            if format.is_float() {
                floats::<FORMAT, ROWS>(tiles.as_ptr(), blocks, half, each, sums);
            } else if vnni {
                integers_vnni::<FORMAT, ROWS>(tiles.as_ptr(), blocks, half, each, sums);
            } else {
                integers::<FORMAT, ROWS>(tiles.as_ptr(), blocks, half, each, sums);
            }
        }
    }
}

/// The product with 16 of the 32 columns, for one way to multiply integers.
macro_rules! integers {
    ($name:ident, $features:literal, $dot:ident) => {
        #[expect(unsafe_code, reason = "see `start`")]
        #[target_feature(enable = $features)]
        unsafe fn $name<const FORMAT: u8, const ROWS: usize>(
            tiles: *const u8,
            blocks: usize,
            half: usize,
            rows: RowPointers<ROWS>,
            out: &mut [[f32; COLUMNS]; ROWS],
        ) {
            let format = const { Format::ALL[FORMAT as usize] };
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            for block in 0..blocks {
                // SAFETY: `start` checked that all blocks are there; each offset below is within one block.
                unsafe {
                    let tile = tiles.add(block * format.tile_bytes());
                    let scales = tile.add(format.scales_at() + half * SCALES / 2);
                    let mut products = [[_mm256_setzero_si256(); 2]; ROWS];
                    if format.centre() != 0 && !matches!(format, Format::U6Halves) {
                        let sums = rows.sums(block, 0);
                        for (row, products) in products.iter_mut().enumerate() {
                            *products = [_mm256_set1_epi32(-format.centre() * *sums.add(row)); 2];
                        }
                    }
                    for group in 0..BLOCK / 4 {
                        let weights = load_group::<FORMAT>(tile, group, half);
                        let words = rows.words(block, group);
                        for (row, products) in products.iter_mut().enumerate() {
                            let values = _mm256_set1_epi32(*words.add(row));
                            for side in 0..2 {
                                products[side] = $dot::<FORMAT>(products[side], weights[side], values);
                            }
                        }
                        if matches!(format, Format::U6Halves) && group % 4 == 3 {
                            let part = group / 4;
                            let factors = load_halves(scales.add(part * SCALES));
                            let (halves, row_scales) = (rows.sums(block, 1 + part), rows.scales(block));
                            for (row, (sums, products)) in sums.iter_mut().zip(&mut products).enumerate() {
                                let centre = _mm256_set1_epi32(format.centre() * *halves.add(row));
                                let scale = _mm256_set1_ps(*row_scales.add(row));
                                for side in 0..2 {
                                    let product = _mm256_cvtepi32_ps(_mm256_sub_epi32(products[side], centre));
                                    sums[side] =
                                        _mm256_fmadd_ps(product, _mm256_mul_ps(factors[side], scale), sums[side]);
                                }
                                *products = [_mm256_setzero_si256(); 2];
                            }
                        }
                    }
                    if matches!(format, Format::U6Halves) {
                        continue;
                    }
                    let factors = load_halves(scales);
                    let mins = if format.has_min() { load_halves(scales.add(SCALES)) } else { factors };
                    let (row_scales, row_totals) = (rows.scales(block), rows.totals(block));
                    for (row, (sums, products)) in sums.iter_mut().zip(&products).enumerate() {
                        let (factor, total) =
                            (_mm256_set1_ps(*row_scales.add(row)), _mm256_set1_ps(*row_totals.add(row)));
                        for side in 0..2 {
                            let product = _mm256_cvtepi32_ps(products[side]);
                            sums[side] = _mm256_fmadd_ps(product, _mm256_mul_ps(factors[side], factor), sums[side]);
                            if format.has_min() {
                                sums[side] = _mm256_fmadd_ps(mins[side], total, sums[side]);
                            }
                        }
                    }
                }
            }
            store(&sums, half, out);
        }
    };
}

integers!(integers, "avx2,fma,f16c", dot);
integers!(integers_vnni, "avx2,fma,f16c,avxvnni", dot_vnni);

/// As [`dot`], in one instruction, which does not saturate.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
fn dot_vnni<const FORMAT: u8>(products: __m256i, weights: __m256i, values: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(products, weights, values)
}

/// Adds to each 32-bit lane the products of its four unsigned weights with the four signed values.
#[target_feature(enable = "avx2")]
#[inline]
fn dot<const FORMAT: u8>(products: __m256i, weights: __m256i, values: __m256i) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    if !matches!(const { Format::ALL[FORMAT as usize] }, Format::U8Centred) {
        let pairs = _mm256_maddubs_epi16(weights, values);
        return _mm256_add_epi32(products, _mm256_madd_epi16(pairs, ones));
    }
    let nibble = _mm256_set1_epi8(0x0f);
    let low = _mm256_maddubs_epi16(_mm256_and_si256(weights, nibble), values);
    let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(weights), nibble), values);
    let high = _mm256_slli_epi32::<4>(_mm256_madd_epi16(high, ones));
    _mm256_add_epi32(products, _mm256_add_epi32(_mm256_madd_epi16(low, ones), high))
}

/// Four elements of 16 columns: eight columns a vector.
#[expect(unsafe_code, reason = "see `start`")]
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_group<const FORMAT: u8>(tile: *const u8, group: usize, half: usize) -> [__m256i; 2] {
    let format = const { Format::ALL[FORMAT as usize] };
    // SAFETY: a group lies within its tile.
    unsafe {
        if matches!(format, Format::U8Centred | Format::U6Halves) {
            let at = tile.add((group * 2 + half) * 64).cast::<__m256i>();
            return [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))];
        }
        let nibble = _mm256_set1_epi8(0x0f);
        let at = tile.add(group * 64).cast::<__m256i>();
        let pick = |bytes: __m256i| {
            let wanted = if half == 0 { bytes } else { _mm256_srli_epi16::<4>(bytes) };
            _mm256_and_si256(wanted, nibble)
        };
        let nibbles = [pick(_mm256_loadu_si256(at)), pick(_mm256_loadu_si256(at.add(1)))];
        if !matches!(format, Format::U5 | Format::U5Centred) {
            return nibbles;
        }
        let bits = tile.add(BLOCK * COLUMNS / 2 + group * 16 + half * 8).cast::<u32>();
        let fifths = [bits.read_unaligned(), bits.add(1).read_unaligned()];
        [_mm256_or_si256(nibbles[0], spread(fifths[0])), _mm256_or_si256(nibbles[1], spread(fifths[1]))]
    }
}

/// 32 bits as 32 bytes of 0 or 16.
#[target_feature(enable = "avx2")]
#[inline]
fn spread(bits: u32) -> __m256i {
    let bytes = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let each = _mm256_shuffle_epi8(_mm256_set1_epi32(bits.cast_signed()), bytes);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(each, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(0x10))
}

#[expect(unsafe_code, reason = "see `start`")]
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn load_halves(at: *const u8) -> [__m256; 2] {
    // SAFETY: 16 half floats are there.
    unsafe {
        let at = at.cast::<__m128i>();
        [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))]
    }
}

#[expect(unsafe_code, reason = "see `start`")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn floats<const FORMAT: u8, const ROWS: usize>(
    tiles: *const u8,
    blocks: usize,
    half: usize,
    rows: RowPointers<ROWS>,
    out: &mut [[f32; COLUMNS]; ROWS],
) {
    let format = const { Format::ALL[FORMAT as usize] };
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    for block in 0..blocks {
        // SAFETY: as in `integers`.
        unsafe {
            let tile = tiles.add(block * format.tile_bytes());
            for k in 0..BLOCK {
                let first = k * COLUMNS + half * 16;
                let weights: [__m256; 2] = match format {
                    Format::F16 => load_halves(tile.add(2 * first)),
                    Format::BF16 => {
                        let at = tile.add(2 * first).cast::<__m128i>();
                        [0, 1].map(|side| {
                            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(side)));
                            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
                        })
                    }
                    _ => {
                        let at = tile.add(4 * first).cast::<f32>();
                        [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))]
                    }
                };
                for (sums, values) in sums.iter_mut().zip(&rows.values) {
                    let value = _mm256_set1_ps(*values.add(block * BLOCK + k));
                    sums[0] = _mm256_fmadd_ps(weights[0], value, sums[0]);
                    sums[1] = _mm256_fmadd_ps(weights[1], value, sums[1]);
                }
            }
        }
    }
    store(&sums, half, out);
}

/// Half floats to floats.
#[expect(unsafe_code, reason = "called only where `Isa::available` saw the features")]
pub(super) fn widen(from: &[f16], to: &mut [f32]) {
    #[target_feature(enable = "avx,f16c")]
    fn all(from: &[f16], to: &mut [f32]) {
        for (from, to) in from.as_chunks::<8>().0.iter().zip(to.as_chunks_mut::<8>().0) {
            // SAFETY: eight of each are there.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
        }
    }
    let whole = from.len() / 8 * 8;
    // SAFETY: the features are there.
    unsafe { all(from, to) };
    from[whole..].convert_to_f32_slice(&mut to[whole..from.len()]);
}

#[expect(unsafe_code, reason = "half of an array of 32 floats takes two vectors")]
#[target_feature(enable = "avx2")]
#[inline]
fn store<const ROWS: usize>(sums: &[[__m256; 2]; ROWS], half: usize, out: &mut [[f32; COLUMNS]; ROWS]) {
    for (sums, out) in sums.iter().zip(out) {
        // SAFETY: `out` has 32 floats, 16 in each half.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr().add(half * 16), sums[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(half * 16 + 8), sums[1]);
        }
    }
}
