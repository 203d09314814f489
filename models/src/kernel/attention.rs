//! Attention: queries over one page of keys and values.
//!
//! Owns the softmax over pages and its order: a query meets its pages first to last, a page's keys first to last, and sums
//! its weights in sixteen lanes and then by halves. Queries that see a whole page are computed four at a time, so that a
//! key is loaded once for all of them; each does what it would do alone.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::lanes::{LANES, exp, for_each_isa, sum_lanes};
use super::{Isa, lanes};

/// Keys of a block of attention, which are also those of a page.
pub(crate) const KEYS: usize = 32;

/// Queries that the registers have room for: four vectors of 64 weighted values.
pub(super) const QUERIES_AT_ONCE: usize = 4;

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

/// A query on its way over the pages of its sequence.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    /// `[dimension]`, scaled.
    pub(super) query: &'a [f32],
    /// `[dimension]`: the values so far, by their weights.
    pub(super) out: &'a mut [f32],
    /// Keys of the page at hand that it sees.
    pub(crate) seen: Range<usize>,
    /// Largest score so far.
    pub(super) largest: f32,
    /// Sum of weights so far.
    pub(super) sum: f32,
}

impl<'a> Query<'a> {
    /// Before its first page.
    pub(crate) fn new(query: &'a [f32], out: &'a mut [f32]) -> Self {
        assert_eq!(query.len(), out.len(), "a head has one dimension");
        out.fill(0.0);
        Self { query, out, seen: 0..0, largest: f32::NEG_INFINITY, sum: 0.0 }
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn dimension(&self) -> usize {
        self.query.len()
    }

    /// Whether it sees the whole page.
    pub(super) fn sees_all(&self) -> bool {
        self.seen == (0..KEYS)
    }

    /// After its last page: the weighted mean.
    pub(crate) fn finish(self) {
        let inverse = 1.0 / self.sum;
        self.out.iter_mut().for_each(|value| *value *= inverse);
    }
}

/// One page for some queries: scores, their part in the softmax, and the values they weigh.
///
/// `keys` is `[dimension][KEYS]` and `values` `[KEYS][dimension]`. Pages must come in order. (Online softmax: Milakov and
/// Gimelshein, 2018.)
pub(crate) fn attend(isa: Isa, queries: &mut [Query<'_>], keys: &[f32], values: &[f32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni if keys.len().is_multiple_of(KEYS * LANES) => super::avx512::attend(queries, keys, values),
        Isa::Avx512Vnni | Isa::AvxVnni | Isa::Avx2 | Isa::Plain => attend_in_lanes(isa, queries, keys, values),
    }
}

for_each_isa! {
    /// The same, for any dimension.
    fn attend_in_lanes(queries: &mut [Query<'_>], keys: &[f32], values: &[f32]) = attend_body;
}

#[inline(always)]
fn attend_body(queries: &mut [Query<'_>], keys: &[f32], values: &[f32]) {
    let (keys, _) = keys.as_chunks::<KEYS>();
    for queries in queries.chunks_mut(QUERIES_AT_ONCE) {
        if queries.iter().all(Query::sees_all) {
            match queries {
                [a, b, c, d] => attend_together([a, b, c, d], keys, values),
                [a, b, c] => attend_together([a, b, c], keys, values),
                [a, b] => attend_together([a, b], keys, values),
                [a] => attend_together([a], keys, values),
                _ => {}
            }
            continue;
        }
        for query in queries.iter_mut().filter(|query| !query.seen.is_empty()) {
            attend_together([query], keys, values);
        }
    }
}

/// Queries that see the same keys.
#[inline(always)]
fn attend_together<const N: usize>(mut queries: [&mut Query<'_>; N], keys: &[[f32; KEYS]], values: &[f32]) {
    let seen = queries[0].seen.clone();
    let dimension = keys.len();
    let scores = scores(&queries, keys);
    let (mut weights, mut shrinks) = ([[0.0_f32; KEYS]; N], [0.0_f32; N]);
    for (at, query) in queries.iter_mut().enumerate() {
        let mut seen_scores = scores[at];
        if seen != (0..KEYS) {
            for (key, score) in seen_scores.iter_mut().enumerate() {
                *score = if seen.contains(&key) { *score } else { f32::NEG_INFINITY };
            }
        }
        let of_page = lanes::largest_lane(seen_scores);
        let largest = if of_page > query.largest { of_page } else { query.largest };
        shrinks[at] = exp(query.largest - largest);
        // Loops and not `map`, which is not compiled with the instructions of its caller.
        for (weight, score) in weights[at].iter_mut().zip(&seen_scores) {
            *weight = exp(*score - largest);
        }
        if seen != (0..KEYS) {
            // Keys that are not there, or not seen, weigh nothing; what stands in their place does not show.
            for (key, weight) in weights[at].iter_mut().enumerate() {
                *weight = if seen.contains(&key) { *weight } else { 0.0 };
            }
        }
        let mut lanes = [0.0_f32; LANES];
        for half in weights[at].chunks_exact(LANES) {
            lanes.iter_mut().zip(half).for_each(|(lane, weight)| *lane += weight);
        }
        query.sum = query.sum.mul_add(shrinks[at], sum_lanes(lanes));
        query.largest = largest;
    }
    let values = &values[..KEYS * dimension];
    // In pieces that stay in registers from key to key.
    let mut at = 0;
    while at + 4 * LANES <= dimension {
        weigh::<4, N>(&weights, seen.clone(), values, at, &shrinks, &mut queries);
        at += 4 * LANES;
    }
    while at + LANES <= dimension {
        weigh::<1, N>(&weights, seen.clone(), values, at, &shrinks, &mut queries);
        at += LANES;
    }
    for at in at..dimension {
        for (n, query) in queries.iter_mut().enumerate() {
            let mut sum = query.out[at] * shrinks[n];
            for key in seen.clone() {
                sum = weights[n][key].mul_add(values[key * dimension + at], sum);
            }
            query.out[at] = sum;
        }
    }
}

/// A vector.
type Lanes = [f32; LANES];

/// `sums += value * others`, each lane rounded once.
#[inline(always)]
fn multiply_add(sums: &mut Lanes, value: f32, others: &Lanes) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum = value.mul_add(*other, *sum);
    }
}

/// Each query times each key.
#[inline(always)]
#[expect(unsafe_code, reason = "a check for each dimension of each query takes as long as the product")]
fn scores<const N: usize>(queries: &[&mut Query<'_>; N], keys: &[[f32; KEYS]]) -> [[f32; KEYS]; N] {
    assert!(queries.iter().all(|query| query.query.len() == keys.len()));
    let mut sums = [[[0.0_f32; LANES]; KEYS / LANES]; N];
    for (dimension, keys) in keys.iter().enumerate() {
        let keys = keys.as_chunks::<LANES>().0;
        for (sums, query) in sums.iter_mut().zip(queries) {
            // SAFETY: a query is as long as there are keys' dimensions, checked above.
            let value = unsafe { *query.query.get_unchecked(dimension) };
            for (sums, keys) in sums.iter_mut().zip(keys) {
                multiply_add(sums, value, keys);
            }
        }
    }
    let mut scores = [[0.0; KEYS]; N];
    for (scores, sums) in scores.iter_mut().zip(&sums) {
        scores.copy_from_slice(sums.as_flattened());
    }
    scores
}

/// Shrinks `WIDTH` vectors of each query's values and adds the values of each key by its weight.
#[inline(always)]
fn weigh<const WIDTH: usize, const N: usize>(
    weights: &[[f32; KEYS]; N],
    seen: Range<usize>,
    values: &[f32],
    at: usize,
    shrinks: &[f32; N],
    queries: &mut [&mut Query<'_>; N],
) {
    let dimension = values.len() / KEYS;
    let mut sums = [[[0.0_f32; LANES]; WIDTH]; N];
    for ((sums, query), shrink) in sums.iter_mut().zip(queries.iter()).zip(shrinks) {
        for (sums, out) in sums.iter_mut().zip(query.out[at..].as_chunks::<LANES>().0) {
            sums.iter_mut().zip(out).for_each(|(sum, out)| *sum = out * shrink);
        }
    }
    for key in seen {
        let values = values[key * dimension + at..][..WIDTH * LANES].as_chunks::<LANES>().0;
        for (sums, weights) in sums.iter_mut().zip(weights) {
            for (sums, values) in sums.iter_mut().zip(values) {
                multiply_add(sums, weights[key], values);
            }
        }
    }
    for (sums, query) in sums.iter().zip(queries) {
        query.out[at..at + WIDTH * LANES].copy_from_slice(sums.as_flattened());
    }
}

/// Asks for memory that will be read soon.
pub(crate) fn prefetch(halves: &[f16]) {
    #[cfg(target_arch = "x86_64")]
    for line in halves.chunks(CACHE_LINE_BYTES / size_of::<f16>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "asking for memory does nothing else")]
        // SAFETY: any address may be asked for, and every x86-64 processor has the instruction.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = halves;
}

/// Half floats to floats, which is exact.
pub(crate) fn widen(isa: Isa, from: &[f16], to: &mut [f32]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => super::avx512::widen(from, to),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => super::avx2::widen(from, to),
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Vnni | Isa::AvxVnni | Isa::Avx2 => from.convert_to_f32_slice(to),
        Isa::Plain => from.convert_to_f32_slice(to),
    }
}
