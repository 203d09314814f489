//! Products of quantized weights with rows of activations, and the few functions between them.
//!
//! Owns every instruction that depends on the processor, and nearly all `unsafe` of this crate. It knows no model: it is
//! given matrices and rows by [`crate::forward`].
//!
//! **Same bits.** Each value that leaves here is computed by one thread in one order that depends on nothing but its own
//! row and column: blocks of 32 along k, first to last, integers within a block, one fused multiply-add for the block. How
//! many rows a call has, how they are grouped, which columns another thread has and which instruction set computes change
//! no bit. What the vector units do in lanes, the plain variant does one after the other with the same operations, and
//! tests compare the two bit for bit. (IEEE 754 fixes the result of each single operation; Rust never contracts or
//! reorders them.)

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod block;
mod lanes;
mod multiply;
mod packed;
mod plain;
mod rows;

#[cfg(test)]
mod tests;

pub(crate) use attention::{KEYS, Query, attend, prefetch, widen};
pub(crate) use lanes::{gelu_mul, norm, norm_in_place, rope_interleaved, rope_split, silu_mul};
pub(crate) use multiply::multiply;
pub use packed::PackError;
pub(crate) use packed::Packed;
pub(crate) use rows::{Rows, RowsView, SharedRows};

/// Columns of a tile: outputs that are computed together.
pub(crate) const COLUMNS: usize = 32;

/// Elements along k that share a scale.
pub(crate) const BLOCK: usize = 32;

/// An instruction set that the products are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// No vector instructions that are not everywhere.
    Plain,
    /// x86-64 with AVX2 and FMA (256 bit).
    Avx2,
    /// The same with VNNI for 256 bits.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL and VNNI (512 bit).
    Avx512Vnni,
}

impl Isa {
    /// What this processor has, the best last.
    pub fn available() -> Vec<Self> {
        let mut available = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            if has_avx2 {
                available.push(Self::Avx2);
            }
            if has_avx2 && is_x86_feature_detected!("avxvnni") {
                available.push(Self::AvxVnni);
            }
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            if has_avx2 && has_avx512 {
                available.push(Self::Avx512Vnni);
            }
        }
        available
    }

    /// The best that this processor has.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Plain)
    }

    /// Its name in reports and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }
}
