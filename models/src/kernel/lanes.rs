//! The functions between the products: quantization, norm, rotation, activation.
//!
//! Owns their arithmetic, written once: each body is plain code over fixed lanes, compiled once for each instruction set.
//! It must never leave an order open: sums are taken in sixteen or thirty-two lanes and then by halves, maxima are exact in
//! any order, and every multiply-add is written as one.

use super::{BLOCK, Isa};

/// Lanes in which sums over a row are taken.
pub(super) const LANES: usize = 16;

/// Compiles a body for each instruction set.
macro_rules! for_each_isa {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:path;) => {
        $(#[$meta])*
        #[expect(unsafe_code, reason = "the instruction set was looked for before an `Isa` was made")]
        $visibility fn $name(isa: Isa, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
            fn wide($($argument: $type),*) {
                $body($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn narrow($($argument: $type),*) {
                $body($($argument),*);
            }
            match isa {
                // SAFETY: `Isa::available` saw the features.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512Vnni => unsafe { wide($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 | Isa::AvxVnni => unsafe { narrow($($argument),*) },
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx512Vnni | Isa::AvxVnni | Isa::Avx2 => $body($($argument),*),
                Isa::Plain => $body($($argument),*),
            }
        }
    };
}
pub(super) use for_each_isa;

/// Quantizes blocks of 32 values. See [`super::rows`].
pub(super) fn quantize(isa: Isa, values: &[f32], quantized: &mut [Quantized]) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => super::avx512::quantize(values, quantized),
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Vnni => quantize_in_lanes(isa, values, quantized),
        Isa::AvxVnni | Isa::Avx2 | Isa::Plain => quantize_in_lanes(isa, values, quantized),
    }
}

for_each_isa! {
    /// The same, lane by lane.
    fn quantize_in_lanes(values: &[f32], quantized: &mut [Quantized]) = quantize_body;
}

for_each_isa! {
    /// `out = x / sqrt(mean(x²) + epsilon) * weight`: RMS norm (Zhang and Sennrich, 2019).
    pub(crate) fn norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = norm_body;
}

for_each_isa! {
    /// The same where it stands.
    pub(crate) fn norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) = norm_in_place_body;
}

for_each_isa! {
    /// `out = silu(gate) * up`.
    pub(crate) fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_body;
}

for_each_isa! {
    /// `out = gelu(gate) * up`, gelu by tanh (Hendrycks and Gimpel, 2016).
    pub(crate) fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = gelu_mul_body;
}

for_each_isa! {
    /// Rotates a head whose pairs are neighbours: `(x[2i], x[2i+1])` by the `i`th angle. The `llama` kind.
    pub(crate) fn rope_interleaved(head: &mut [f32], cosines: &[f32], sines: &[f32]) = rope_interleaved_body;
}

for_each_isa! {
    /// Rotates a head whose pairs lie half a head apart: `(x[i], x[i + n/2])`. The `neox` kind.
    pub(crate) fn rope_split(head: &mut [f32], cosines: &[f32], sines: &[f32]) = rope_split_body;
}

/// A block of 32 values as integers.
pub(super) struct Quantized {
    pub(super) q: [i8; BLOCK],
    pub(super) scale: f32,
    /// Of the integers of each half.
    pub(super) sums: [i32; 2],
}

impl Quantized {
    pub(super) const ZERO: Self = Self { q: [0; BLOCK], scale: 0.0, sums: [0; 2] };
}

/// Loops and not `map`, which is not compiled with the instructions of its caller.
#[inline(always)]
fn quantize_body(values: &[f32], quantized: &mut [Quantized]) {
    for (values, quantized) in values.as_chunks::<BLOCK>().0.iter().zip(quantized) {
        let mut magnitudes = [0.0_f32; BLOCK];
        for (magnitude, value) in magnitudes.iter_mut().zip(values) {
            // What is no number does not count.
            *magnitude = if value.abs() > 0.0 { value.abs() } else { 0.0 };
        }
        let largest = largest_lane(magnitudes);
        quantized.scale = largest / 127.0;
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        // Of numbers, the sums cannot wrap; what is none gives any integers, and is found as logits that are none.
        let mut rounded = [0_i32; BLOCK];
        for ((rounded, q), value) in rounded.iter_mut().zip(&mut quantized.q).zip(values) {
            *rounded = round_to_i32(value * inverse);
            *q = *rounded as i8;
        }
        for (sum, half) in quantized.sums.iter_mut().zip(rounded.as_chunks::<{ BLOCK / 2 }>().0) {
            *sum = 0;
            half.iter().for_each(|value| *sum = sum.wrapping_add(*value));
        }
    }
}

/// The largest of some numbers, which is exact in any order.
#[inline(always)]
pub(super) fn largest_lane(mut lanes: [f32; BLOCK]) -> f32 {
    let mut width = BLOCK / 2;
    while width > 0 {
        for at in 0..width {
            lanes[at] = if lanes[at + width] > lanes[at] { lanes[at + width] } else { lanes[at] };
        }
        width /= 2;
    }
    lanes[0]
}

/// The nearest integer, even on ties, of a value of magnitude below 2²²: adding 1.5 × 2²³ leaves it in the low bits.
#[inline(always)]
fn round_to_i32(value: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT).to_bits().cast_signed().wrapping_sub(SHIFT.to_bits().cast_signed())
}

/// The sum of sixteen lanes, by halves.
#[inline(always)]
pub(super) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for at in 0..width {
            lanes[at] += lanes[at + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = value.mul_add(*value, *lane);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = value.mul_add(*value, *lane);
    }
    sum_lanes(lanes)
}

#[inline(always)]
fn norm_scale(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + epsilon).sqrt()
}

#[inline(always)]
fn norm_in_place_body(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let scale = norm_scale(x, epsilon);
    for (value, weight) in x.iter_mut().zip(weight) {
        *value = *value * scale * weight;
    }
}

#[inline(always)]
fn norm_body(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = norm_scale(x, epsilon);
    for ((out, value), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = value * scale * weight;
    }
}

#[inline(always)]
fn silu_mul_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

#[inline(always)]
fn gelu_mul_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        let inner = SQRT_2_OVER_PI * gate * (0.044_715 * gate * gate + 1.0);
        // tanh(y) = 1 - 2 / (exp(2y) + 1)
        let tanh = 1.0 - 2.0 / (exp(2.0 * inner) + 1.0);
        *out = 0.5 * gate * (1.0 + tanh) * up;
    }
}

#[inline(always)]
fn rope_interleaved_body(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    for ((pair, cosine), sine) in head.chunks_exact_mut(2).zip(cosines).zip(sines) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * cosine - b * sine;
        pair[1] = a * sine + b * cosine;
    }
}

#[inline(always)]
fn rope_split_body(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = head.split_at_mut(head.len() / 2);
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cosine - *b * sine, *a * sine + *b * cosine);
    }
}

/// `e^x` within two units in the last place: 2 to the nearest whole power of two's exponent times a polynomial of the rest
/// (coefficients as in Cephes, Moshier 1989). Below -87.3 it is the smallest normal number, above 88.3 about 2.3e38.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let power = round_to_i32(x * LOG2_E);
    let whole = power as f32;
    let rest = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2_HIGH, x));
    let mut polynomial = 1.987_569_1e-4_f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        polynomial = polynomial.mul_add(rest, coefficient);
    }
    let mantissa = polynomial.mul_add(rest * rest, rest) + 1.0;
    mantissa * f32::from_bits((power.wrapping_add(127) << 23).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_and_monotonous_at_its_ends() {
        let mut worst = 0.0_f64;
        for step in -87_000..88_000 {
            let x = step as f32 / 1000.0;
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
        }
        assert!(worst < 3e-7, "{worst}");
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38 && exp(1000.0) > 1e38);
    }

    #[test]
    fn rounding_is_to_the_nearest_even() {
        let rounded: Vec<i32> = [0.5, 1.5, 2.5, -0.5, -1.5, 126.6, -127.0].into_iter().map(round_to_i32).collect();
        assert_eq!(rounded, [0, 2, 2, 0, -2, 127, -127]);
    }
}
