//! Attention over a page with AVX-512: what [`crate::kernel::attention`] does in lanes, in vectors of sixteen.

use std::arch::x86_64::*;

use super::super::attention::{KEYS, QUERIES_AT_ONCE, Query};
use super::super::lanes::LANES;

/// Some queries over a page; their dimension is a multiple of sixteen.
#[expect(unsafe_code, reason = "called only where `Isa::available` saw the features")]
pub(in crate::kernel) fn attend(queries: &mut [Query<'_>], keys: &[f32], values: &[f32]) {
    let dimension = keys.len() / KEYS;
    assert!(dimension.is_multiple_of(LANES) && values.len() == keys.len());
    assert!(queries.iter().all(|query| query.dimension() == dimension && query.seen.end <= KEYS));
    for queries in queries.chunks_mut(QUERIES_AT_ONCE) {
        let whole = queries.iter().all(Query::sees_all);
        // SAFETY: the features are there, and the lengths were checked above.
        unsafe {
            match queries {
                [a, b, c, d] if whole => together::<4, true>([a, b, c, d], keys, values),
                [a, b, c, d] => together::<4, false>([a, b, c, d], keys, values),
                [a, b, c] if whole => together::<3, true>([a, b, c], keys, values),
                [a, b, c] => together::<3, false>([a, b, c], keys, values),
                [a, b] if whole => together::<2, true>([a, b], keys, values),
                [a, b] => together::<2, false>([a, b], keys, values),
                [a] if whole => together::<1, true>([a], keys, values),
                [a] => together::<1, false>([a], keys, values),
                _ => {}
            }
        }
    }
}

/// Some queries, which see the `WHOLE` page or parts of it.
#[expect(unsafe_code, reason = "see `attend`")]
#[target_feature(enable = "avx512f,avx512dq,fma")]
unsafe fn together<const N: usize, const WHOLE: bool>(mut queries: [&mut Query<'_>; N], keys: &[f32], values: &[f32]) {
    let dimension = keys.len() / KEYS;
    let mut seen = [u32::MAX; N];
    if !WHOLE {
        for (seen, query) in seen.iter_mut().zip(&queries) {
            // Of no keys, none.
            *seen = (u32::MAX.checked_shr((KEYS - query.seen.len()) as u32).unwrap_or(0)) << (query.seen.start % KEYS);
        }
    }
    let mut weights = [[0.0_f32; KEYS]; N];
    let mut shrinks = [1.0_f32; N];
    // SAFETY: `attend` checked the lengths.
    unsafe {
        let scores = scores(&queries, keys.as_ptr(), dimension);
        for (n, query) in queries.iter_mut().enumerate().filter(|(n, _)| WHOLE || seen[*n] != 0) {
            let nothing = _mm512_set1_ps(f32::NEG_INFINITY);
            let masks = [seen[n] as u16, (seen[n] >> LANES) as u16];
            let scores = [0, 1].map(|half| _mm512_mask_mov_ps(nothing, masks[half], scores[n][half]));
            let of_page = _mm512_reduce_max_ps(_mm512_max_ps(scores[0], scores[1]));
            let largest = if of_page > query.largest { of_page } else { query.largest };
            shrinks[n] = _mm512_cvtss_f32(exp(_mm512_set1_ps(query.largest - largest)));
            let mut sums = _mm512_setzero_ps();
            for half in 0..2 {
                let weight = exp(_mm512_sub_ps(scores[half], _mm512_set1_ps(largest)));
                // Keys that are not there, or not seen, weigh nothing; what stands in their place does not show.
                let weight = _mm512_maskz_mov_ps(masks[half], weight);
                _mm512_storeu_ps(weights[n].as_mut_ptr().add(half * LANES), weight);
                sums = _mm512_add_ps(sums, weight);
            }
            query.sum = query.sum.mul_add(shrinks[n], sum_lanes(sums));
            query.largest = largest;
        }
        let mut at = 0;
        while at + 4 * LANES <= dimension {
            weigh::<4, N, WHOLE>(&weights, &seen, values.as_ptr(), (at, dimension), &shrinks, &mut queries);
            at += 4 * LANES;
        }
        while at < dimension {
            weigh::<1, N, WHOLE>(&weights, &seen, values.as_ptr(), (at, dimension), &shrinks, &mut queries);
            at += LANES;
        }
    }
}

/// Each query times each key.
#[expect(unsafe_code, reason = "see `attend`")]
#[target_feature(enable = "avx512f,fma")]
#[inline]
unsafe fn scores<const N: usize>(
    queries: &[&mut Query<'_>; N],
    keys: *const f32,
    dimension: usize,
) -> [[__m512; 2]; N] {
    // Two chains for each sum would have another order, so one query alone waits for its multiply-adds.
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    for at in 0..dimension {
        // SAFETY: `keys` is `[dimension][KEYS]`, and each query has a value for each dimension.
        unsafe {
            let keys = [_mm512_loadu_ps(keys.add(at * KEYS)), _mm512_loadu_ps(keys.add(at * KEYS + LANES))];
            for (sums, query) in sums.iter_mut().zip(queries) {
                let value = _mm512_set1_ps(*query.query.get_unchecked(at));
                sums[0] = _mm512_fmadd_ps(value, keys[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(value, keys[1], sums[1]);
            }
        }
    }
    sums
}

/// Shrinks `WIDTH` vectors of each query's values and adds the values of each key by its weight.
#[expect(unsafe_code, reason = "see `attend`")]
#[target_feature(enable = "avx512f,fma")]
#[inline]
unsafe fn weigh<const WIDTH: usize, const N: usize, const WHOLE: bool>(
    weights: &[[f32; KEYS]; N],
    seen: &[u32; N],
    values: *const f32,
    (at, dimension): (usize, usize),
    shrinks: &[f32; N],
    queries: &mut [&mut Query<'_>; N],
) {
    let mut sums = [[_mm512_setzero_ps(); WIDTH]; N];
    // SAFETY: `values` is `[KEYS][dimension]`, and `WIDTH` vectors from `at` on are within the dimension.
    unsafe {
        for ((sums, query), shrink) in sums.iter_mut().zip(queries.iter()).zip(shrinks) {
            for (vector, sum) in sums.iter_mut().enumerate() {
                let out = _mm512_loadu_ps(query.out.as_ptr().add(at + vector * LANES));
                *sum = _mm512_mul_ps(out, _mm512_set1_ps(*shrink));
            }
        }
        let by_any = seen.iter().fold(0, |any, seen| any | seen);
        for key in (0..KEYS).filter(|key| WHOLE || by_any >> key & 1 == 1) {
            let mut value = [_mm512_setzero_ps(); WIDTH];
            for (vector, value) in value.iter_mut().enumerate() {
                *value = _mm512_loadu_ps(values.add(key * dimension + at + vector * LANES));
            }
            for ((sums, weights), seen) in sums.iter_mut().zip(weights).zip(seen) {
                let weight = _mm512_set1_ps(*weights.get_unchecked(key));
                // Whether all lanes count, or none: then a sum stays as it is, to the sign of a zero.
                let counts = 0_u16.wrapping_sub((seen >> key & 1) as u16);
                for (sum, value) in sums.iter_mut().zip(&value) {
                    *sum = match WHOLE {
                        true => _mm512_fmadd_ps(weight, *value, *sum),
                        false => _mm512_mask3_fmadd_ps(weight, *value, *sum, counts),
                    };
                }
            }
        }
        for (sums, query) in sums.iter().zip(queries) {
            for (vector, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(query.out.as_mut_ptr().add(at + vector * LANES), *sum);
            }
        }
    }
}

/// The sum of sixteen lanes, by halves.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn sum_lanes(lanes: __m512) -> f32 {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// See [`crate::kernel::lanes::exp`]; the same operations.
#[target_feature(enable = "avx512f,fma")]
#[inline]
fn exp(x: __m512) -> __m512 {
    // Where a comparison with what is no number decides, the second operand is taken.
    let x = _mm512_max_ps(_mm512_set1_ps(-87.3), x);
    let x = _mm512_min_ps(_mm512_set1_ps(88.3), x);
    let shift = _mm512_set1_ps(12_582_912.0);
    let shifted = _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)), shift);
    let power = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(shift));
    let whole = _mm512_cvtepi32_ps(power);
    let rest = _mm512_fmadd_ps(whole, _mm512_set1_ps(-0.693_359_4), x);
    let rest = _mm512_fmadd_ps(whole, _mm512_set1_ps(2.121_944_4e-4), rest);
    let mut polynomial = _mm512_set1_ps(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        polynomial = _mm512_fmadd_ps(polynomial, rest, _mm512_set1_ps(coefficient));
    }
    let mantissa = _mm512_fmadd_ps(polynomial, _mm512_mul_ps(rest, rest), rest);
    let mantissa = _mm512_add_ps(mantissa, _mm512_set1_ps(1.0));
    let exponent = _mm512_slli_epi32::<23>(_mm512_add_epi32(power, _mm512_set1_epi32(127)));
    _mm512_mul_ps(mantissa, _mm512_castsi512_ps(exponent))
}
