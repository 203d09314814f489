//! Activations with AVX-512: what [`crate::kernel::lanes`] does to single values, in vectors of sixteen.

use std::arch::x86_64::*;

use super::super::BLOCK;
use super::super::lanes::{LANES, Quantized};

/// See [`crate::kernel::lanes::quantize`]; the same operations.
#[expect(unsafe_code, reason = "called only where `Isa::available` saw the features")]
pub(in crate::kernel) fn quantize(values: &[f32], quantized: &mut [Quantized]) {
    for (values, quantized) in values.as_chunks::<BLOCK>().0.iter().zip(quantized) {
        // SAFETY: the features are there.
        unsafe { block(values, quantized) };
    }
}

#[expect(unsafe_code, reason = "a block of 32 values takes two vectors")]
#[target_feature(enable = "avx512f")]
fn block(values: &[f32; BLOCK], quantized: &mut Quantized) {
    // SAFETY: two vectors of values are there, and two of bytes.
    let values = unsafe { [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(LANES))] };
    let zero = _mm512_setzero_ps();
    // What is no number does not count: the second operand is taken.
    let first = _mm512_max_ps(_mm512_abs_ps(values[0]), zero);
    let second = _mm512_max_ps(_mm512_abs_ps(values[1]), zero);
    let largest = _mm512_reduce_max_ps(_mm512_max_ps(first, second));
    quantized.scale = largest / 127.0;
    let inverse = _mm512_set1_ps(if largest > 0.0 { 127.0 / largest } else { 0.0 });
    let shift = _mm512_set1_ps(12_582_912.0);
    for (half, values) in values.into_iter().enumerate() {
        let shifted = _mm512_add_ps(_mm512_mul_ps(values, inverse), shift);
        let rounded = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(shift));
        quantized.sums[half] = _mm512_reduce_add_epi32(rounded);
        // SAFETY: see above.
        unsafe {
            let at = quantized.q.as_mut_ptr().add(half * LANES);
            _mm_storeu_si128(at.cast(), _mm512_cvtepi32_epi8(rounded));
        }
    }
}
