//! The products with AVX-512 and VNNI: 16 columns a vector, four elements along k an instruction.

mod activations;
mod attention;

use std::arch::x86_64::*;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::block::{Format, SCALES};
use super::rows::RowPointers;
use super::{BLOCK, COLUMNS, RowsView};

pub(super) use activations::quantize;
pub(super) use attention::attend;

/// How far ahead of the computation weights are asked for, in bytes. Measured on Zen 4 with SmolLM2-135M: with six rows
/// at a time it makes a batch of eight a tenth faster, 2 KiB more than 11 KiB.
const PREFETCH_BYTES: usize = 2 * 1024;

/// With fewer rows the processor's own prefetcher does better: asking makes decoding of one sequence a quarter slower.
const PREFETCH_ROWS_MIN: usize = 3;

/// Some rows times one column of tiles.
pub(super) fn rows(format: Format, tiles: &[u8], view: RowsView<'_>, row: usize, sums: &mut [[f32; COLUMNS]]) {
    macro_rules! by_count {
        ($format:expr) => {
            match sums.len() {
                1 => start::<{ $format as u8 }, 1>(tiles, view, row, sums),
                2 => start::<{ $format as u8 }, 2>(tiles, view, row, sums),
                3 => start::<{ $format as u8 }, 3>(tiles, view, row, sums),
                4 => start::<{ $format as u8 }, 4>(tiles, view, row, sums),
                5 => start::<{ $format as u8 }, 5>(tiles, view, row, sums),
                _ => start::<{ $format as u8 }, 6>(tiles, view, row, sums),
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
        if format.is_float() {
            floats::<FORMAT, ROWS>(tiles.as_ptr(), blocks, each, sums);
        } else {
            integers::<FORMAT, ROWS>(tiles.as_ptr(), blocks, each, sums);
        }
    }
}

#[expect(unsafe_code, reason = "see `start`")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn integers<const FORMAT: u8, const ROWS: usize>(
    tiles: *const u8,
    blocks: usize,
    rows: RowPointers<ROWS>,
    out: &mut [[f32; COLUMNS]; ROWS],
) {
    let format = const { Format::ALL[FORMAT as usize] };
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for block in 0..blocks {
        // SAFETY: `start` checked that all blocks are there; each offset below is within one block.
        unsafe {
            let tile = tiles.add(block * format.tile_bytes());
            let scales = tile.add(format.scales_at());
            let mut products = [[_mm512_setzero_si512(); 2]; ROWS];
            if format.centre() != 0 && !matches!(format, Format::U6Halves) {
                let sums = rows.sums(block, 0);
                for (row, products) in products.iter_mut().enumerate() {
                    *products = [_mm512_set1_epi32(-format.centre() * *sums.add(row)); 2];
                }
            }
            for group in 0..BLOCK / 4 {
                if ROWS >= PREFETCH_ROWS_MIN {
                    _mm_prefetch::<_MM_HINT_T0>(tile.add(PREFETCH_BYTES + group * 64).cast());
                    if matches!(format, Format::U8Centred | Format::U6Halves) {
                        _mm_prefetch::<_MM_HINT_T0>(tile.add(PREFETCH_BYTES + (group + 8) * 64).cast());
                    }
                }
                let (low, high) = load_group::<FORMAT>(tile, group);
                let words = rows.words(block, group);
                for (row, products) in products.iter_mut().enumerate() {
                    let values = _mm512_set1_epi32(*words.add(row));
                    products[0] = _mm512_dpbusd_epi32(products[0], low, values);
                    products[1] = _mm512_dpbusd_epi32(products[1], high, values);
                }
                if matches!(format, Format::U6Halves) && group % 4 == 3 {
                    let half = group / 4;
                    let factors = load_scales(scales.add(half * SCALES));
                    let (halves, row_scales) = (rows.sums(block, 1 + half), rows.scales(block));
                    for (row, (sums, products)) in sums.iter_mut().zip(&mut products).enumerate() {
                        let centre = _mm512_set1_epi32(format.centre() * *halves.add(row));
                        let scale = _mm512_set1_ps(*row_scales.add(row));
                        for side in 0..2 {
                            let product = _mm512_cvtepi32_ps(_mm512_sub_epi32(products[side], centre));
                            sums[side] = _mm512_fmadd_ps(product, _mm512_mul_ps(factors[side], scale), sums[side]);
                        }
                        *products = [_mm512_setzero_si512(); 2];
                    }
                }
            }
            if matches!(format, Format::U6Halves) {
                continue;
            }
            let factors = load_scales(scales);
            let mins = if format.has_min() { load_scales(scales.add(SCALES)) } else { factors };
            let (row_scales, row_totals) = (rows.scales(block), rows.totals(block));
            for (row, (sums, products)) in sums.iter_mut().zip(&products).enumerate() {
                let (factor, total) = (_mm512_set1_ps(*row_scales.add(row)), _mm512_set1_ps(*row_totals.add(row)));
                for side in 0..2 {
                    let product = _mm512_cvtepi32_ps(products[side]);
                    sums[side] = _mm512_fmadd_ps(product, _mm512_mul_ps(factors[side], factor), sums[side]);
                    if format.has_min() {
                        sums[side] = _mm512_fmadd_ps(mins[side], total, sums[side]);
                    }
                }
            }
        }
    }
    store(&sums, out);
}

/// The weights of one group: four elements of columns 0–15 and of 16–31.
#[expect(unsafe_code, reason = "see `start`")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
unsafe fn load_group<const FORMAT: u8>(tile: *const u8, group: usize) -> (__m512i, __m512i) {
    let format = const { Format::ALL[FORMAT as usize] };
    // SAFETY: a group lies within its tile.
    unsafe {
        if matches!(format, Format::U8Centred | Format::U6Halves) {
            let at = tile.add(group * 128).cast::<__m512i>();
            return (_mm512_loadu_si512(at), _mm512_loadu_si512(at.add(1)));
        }
        let nibble = _mm512_set1_epi8(0x0f);
        let bytes = _mm512_loadu_si512(tile.add(group * 64).cast());
        let low = _mm512_and_si512(bytes, nibble);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
        if !matches!(format, Format::U5 | Format::U5Centred) {
            return (low, high);
        }
        let bits = tile.add(BLOCK * COLUMNS / 2 + group * 16).cast::<u64>();
        let fifth = _mm512_set1_epi8(0x10);
        let (low_bits, high_bits) = (bits.read_unaligned(), bits.add(1).read_unaligned());
        (_mm512_mask_add_epi8(low, low_bits, low, fifth), _mm512_mask_add_epi8(high, high_bits, high, fifth))
    }
}

#[expect(unsafe_code, reason = "see `start`")]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_scales(at: *const u8) -> [__m512; 2] {
    // SAFETY: 32 half floats are there.
    unsafe {
        let at = at.cast::<__m256i>();
        [_mm512_cvtph_ps(_mm256_loadu_si256(at)), _mm512_cvtph_ps(_mm256_loadu_si256(at.add(1)))]
    }
}

#[expect(unsafe_code, reason = "see `start`")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
unsafe fn floats<const FORMAT: u8, const ROWS: usize>(
    tiles: *const u8,
    blocks: usize,
    rows: RowPointers<ROWS>,
    out: &mut [[f32; COLUMNS]; ROWS],
) {
    let format = const { Format::ALL[FORMAT as usize] };
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for block in 0..blocks {
        // SAFETY: as in `integers`.
        unsafe {
            let tile = tiles.add(block * format.tile_bytes());
            for k in 0..BLOCK {
                let weights: [__m512; 2] = match format {
                    Format::F16 => load_scales(tile.add(k * 2 * COLUMNS)),
                    Format::BF16 => {
                        let at = tile.add(k * 2 * COLUMNS).cast::<__m256i>();
                        [0, 1].map(|side| {
                            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.add(side)));
                            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
                        })
                    }
                    _ => {
                        let at = tile.add(k * 4 * COLUMNS).cast::<f32>();
                        [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(16))]
                    }
                };
                for (sums, values) in sums.iter_mut().zip(&rows.values) {
                    let value = _mm512_set1_ps(*values.add(block * BLOCK + k));
                    sums[0] = _mm512_fmadd_ps(weights[0], value, sums[0]);
                    sums[1] = _mm512_fmadd_ps(weights[1], value, sums[1]);
                }
            }
        }
    }
    store(&sums, out);
}

/// Half floats to floats.
#[expect(unsafe_code, reason = "called only where `Isa::available` saw the features")]
pub(super) fn widen(from: &[f16], to: &mut [f32]) {
    #[target_feature(enable = "avx512f")]
    fn all(from: &[f16], to: &mut [f32]) {
        for (from, to) in from.as_chunks::<16>().0.iter().zip(to.as_chunks_mut::<16>().0) {
            // SAFETY: sixteen of each are there.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))) };
        }
    }
    let whole = from.len() / 16 * 16;
    // SAFETY: the features are there.
    unsafe { all(from, to) };
    from[whole..].convert_to_f32_slice(&mut to[whole..from.len()]);
}

#[expect(unsafe_code, reason = "an array of 32 floats takes two vectors")]
#[target_feature(enable = "avx512f")]
#[inline]
fn store<const ROWS: usize>(sums: &[[__m512; 2]; ROWS], out: &mut [[f32; COLUMNS]; ROWS]) {
    for (sums, out) in sums.iter().zip(out) {
        // SAFETY: `out` has 32 floats.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(16), sums[1]);
        }
    }
}
