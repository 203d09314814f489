//! How 32 weights of one column stand in a GGUF file, and how 32 columns of them stand in a tile.
//!
//! Owns both layouts. It must never compute with them.
//!
//! Source of the file's layouts: `ggml-common.h` and `ggml-quants.c` of <https://github.com/ggml-org/ggml>.

use half::{bf16, f16};

use super::{BLOCK, COLUMNS};
use crate::gguf::TensorType;

/// How a tile of 32 columns × 32 elements along k is stored.
///
/// In the integer formats a weight is `scale * q + min`, `q` unsigned. Centred formats have `min = -centre * scale` and do
/// not store it. Scales and mins are `f16`, 32 of each, after the integers. The integers stand so that one vector holds
/// four neighbours along k for each of 16 columns: byte `4 * column + i` of group `j` is element `4 * j + i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Format {
    /// 4 bits with a min: columns 0–15 in the low nibbles, 16–31 in the high ones.
    U4 = 0,
    /// 4 bits around 8.
    U4Centred = 1,
    /// 5 bits with a min: as above, and the fifth bits in a mask of 64 for each half of a group.
    U5 = 2,
    /// 5 bits around 16.
    U5Centred = 3,
    /// 8 bits around 128: two vectors a group.
    U8Centred = 4,
    /// 6 bits around 32 in bytes, with a scale for each 16 elements.
    U6Halves = 5,
    /// Half floats, `[element][column]`.
    F16 = 6,
    /// Brain floats, `[element][column]`.
    BF16 = 7,
    /// Floats, `[element][column]`.
    F32 = 8,
}

/// Integers of a tile in the nibble formats.
const NIBBLES: usize = BLOCK * COLUMNS / 2;
/// Fifth bits of a tile.
const FIFTH_BITS: usize = BLOCK * COLUMNS / 8;
/// One scale, or min, for each column.
pub(super) const SCALES: usize = 2 * COLUMNS;

impl Format {
    /// Every format, by its number.
    pub(super) const ALL: [Self; 9] = [
        Self::U4,
        Self::U4Centred,
        Self::U5,
        Self::U5Centred,
        Self::U8Centred,
        Self::U6Halves,
        Self::F16,
        Self::BF16,
        Self::F32,
    ];

    /// What a tensor of this type is packed as; `None` for types that are not packed.
    pub(crate) fn of(kind: TensorType) -> Option<Self> {
        Some(match kind {
            TensorType::Q4_0 => Self::U4Centred,
            TensorType::Q4_1 | TensorType::Q4K => Self::U4,
            TensorType::Q5_0 => Self::U5Centred,
            TensorType::Q5_1 | TensorType::Q5K => Self::U5,
            TensorType::Q8_0 => Self::U8Centred,
            TensorType::Q6K => Self::U6Halves,
            TensorType::F16 => Self::F16,
            TensorType::BF16 => Self::BF16,
            TensorType::F32 => Self::F32,
            TensorType::Q2K | TensorType::Q3K => return None,
        })
    }

    /// Bytes of a tile.
    pub(super) const fn tile_bytes(self) -> usize {
        self.scales_at() + self.scales() * SCALES
    }

    /// Where the scales begin.
    pub(super) const fn scales_at(self) -> usize {
        match self {
            Self::U4 | Self::U4Centred => NIBBLES,
            Self::U5 | Self::U5Centred => NIBBLES + FIFTH_BITS,
            Self::U8Centred | Self::U6Halves => BLOCK * COLUMNS,
            Self::F16 | Self::BF16 => 2 * BLOCK * COLUMNS,
            Self::F32 => 4 * BLOCK * COLUMNS,
        }
    }

    /// Numbers beside the integers, for each column.
    const fn scales(self) -> usize {
        match self {
            Self::U4 | Self::U5 | Self::U6Halves => 2,
            Self::U4Centred | Self::U5Centred | Self::U8Centred => 1,
            Self::F16 | Self::BF16 | Self::F32 => 0,
        }
    }

    /// What stands for zero, where it is fixed.
    pub(super) const fn centre(self) -> i32 {
        match self {
            Self::U4Centred => 8,
            Self::U5Centred => 16,
            Self::U8Centred => 128,
            Self::U6Halves => 32,
            Self::U4 | Self::U5 | Self::F16 | Self::BF16 | Self::F32 => 0,
        }
    }

    /// Whether a tile stores a min for each column.
    pub(super) const fn has_min(self) -> bool {
        matches!(self, Self::U4 | Self::U5)
    }

    /// Whether weights are floats, and so are the activations that they are multiplied with.
    pub(crate) const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32)
    }
}

/// 32 weights of one column: `scales[half] * q + min`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Column {
    pub(super) q: [u8; BLOCK],
    /// Of the first and the last 16 elements.
    pub(super) scales: [f16; 2],
    pub(super) min: f16,
}

impl Column {
    /// Reads block `index` of a row of a GGUF tensor of an integer type.
    pub(super) fn read(kind: TensorType, row: &[u8], index: usize) -> Self {
        let even = |q, scale: f16, min: f16| Self { q, scales: [scale; 2], min };
        let half = |bytes: &[u8], at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        match kind {
            TensorType::Q4_0 => {
                let block = &row[index * 18..][..18];
                even(nibbles(&block[2..]), half(block, 0), f16::ZERO)
            }
            TensorType::Q4_1 => {
                let block = &row[index * 20..][..20];
                even(nibbles(&block[4..]), half(block, 0), half(block, 2))
            }
            TensorType::Q5_0 => {
                let block = &row[index * 22..][..22];
                even(with_fifth(nibbles(&block[6..]), &block[2..6]), half(block, 0), f16::ZERO)
            }
            TensorType::Q5_1 => {
                let block = &row[index * 24..][..24];
                even(with_fifth(nibbles(&block[8..]), &block[4..8]), half(block, 0), half(block, 2))
            }
            TensorType::Q8_0 => {
                let block = &row[index * 34..][..34];
                let mut q = [0; BLOCK];
                q.iter_mut().zip(&block[2..]).for_each(|(q, byte)| *q = byte ^ 0x80);
                even(q, half(block, 0), f16::ZERO)
            }
            TensorType::Q4K => {
                let block = &row[index / 8 * 144..][..144];
                let (scale, min) = k_scales(block, index % 8);
                even(k_nibbles(&block[16..], index % 8), scale, min)
            }
            TensorType::Q5K => {
                let block = &row[index / 8 * 176..][..176];
                let (scale, min) = k_scales(block, index % 8);
                let mut q = k_nibbles(&block[48..], index % 8);
                for (q, high) in q.iter_mut().zip(&block[16..48]) {
                    *q |= (high >> (index % 8) & 1) << 4;
                }
                even(q, scale, min)
            }
            TensorType::Q6K => six_bits(&row[index / 8 * 210..][..210], index % 8),
            TensorType::Q2K | TensorType::Q3K | TensorType::F16 | TensorType::BF16 | TensorType::F32 => {
                unreachable!("{kind:?} is no integer type that is packed")
            }
        }
    }
}

/// Low nibbles first, then the high ones.
fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    let mut q = [0; BLOCK];
    for (at, byte) in bytes[..16].iter().enumerate() {
        q[at] = byte & 0x0f;
        q[at + 16] = byte >> 4;
    }
    q
}

fn with_fifth(mut q: [u8; BLOCK], bits: &[u8]) -> [u8; BLOCK] {
    for (at, q) in q.iter_mut().enumerate() {
        *q |= (bits[at / 8] >> (at % 8) & 1) << 4;
    }
    q
}

/// Of each 64 elements of a K block, the first 32 are low nibbles and the others high ones.
fn k_nibbles(bytes: &[u8], sub: usize) -> [u8; BLOCK] {
    let mut q = [0; BLOCK];
    for (q, byte) in q.iter_mut().zip(&bytes[sub / 2 * 32..]) {
        *q = if sub.is_multiple_of(2) { byte & 0x0f } else { byte >> 4 };
    }
    q
}

/// Scale and min of a sub-block. Their 6 bits times the block's `f16` are rounded to `f16` once: within 2⁻¹¹.
fn k_scales(block: &[u8], sub: usize) -> (f16, f16) {
    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
    let d_min = f16::from_le_bytes([block[2], block[3]]).to_f32();
    let s = &block[4..16];
    let (scale, min) = if sub < 4 {
        (s[sub] & 63, s[sub + 4] & 63)
    } else {
        (s[sub + 4] & 0x0f | s[sub - 4] >> 6 << 4, s[sub + 4] >> 4 | s[sub] >> 6 << 4)
    };
    (f16::from_f32(d * f32::from(scale)), f16::from_f32(-d_min * f32::from(min)))
}

fn six_bits(block: &[u8], sub: usize) -> Column {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = f16::from_le_bytes([block[208], block[209]]).to_f32();
    // Each 128 elements: 64 bytes of low nibbles, 32 of high pairs.
    let (chunk, part) = (sub / 4, sub % 4);
    let mut q = [0; BLOCK];
    for (at, q) in q.iter_mut().enumerate() {
        let byte = low[chunk * 64 + part % 2 * 32 + at];
        let nibble = if part < 2 { byte & 0x0f } else { byte >> 4 };
        *q = nibble | (high[chunk * 32 + at] >> (2 * part) & 3) << 4;
    }
    let scale = |half: usize| f16::from_f32(d * f32::from(scales[2 * sub + half].cast_signed()));
    Column { q, scales: [scale(0), scale(1)], min: f16::ZERO }
}

/// Writes column `column` of a tile.
pub(super) fn write_column(format: Format, tile: &mut [u8], column: usize, block: &Column) {
    let (half, lane) = (column / 16, column % 16);
    for (k, q) in block.q.iter().enumerate() {
        let (group, byte) = (k / 4, 4 * lane + k % 4);
        match format {
            Format::U4 | Format::U4Centred | Format::U5 | Format::U5Centred => {
                tile[group * 64 + byte] |= (q & 0x0f) << (4 * half);
                if matches!(format, Format::U5 | Format::U5Centred) && q & 0x10 != 0 {
                    tile[NIBBLES + group * 16 + half * 8 + byte / 8] |= 1 << (byte % 8);
                }
            }
            Format::U8Centred | Format::U6Halves => tile[(group * 2 + half) * 64 + byte] = *q,
            Format::F16 | Format::BF16 | Format::F32 => unreachable!("floats are written as they are"),
        }
    }
    let scales = &mut tile[format.scales_at()..];
    scales[2 * column..][..2].copy_from_slice(&block.scales[0].to_le_bytes());
    let second = match format {
        Format::U4 | Format::U5 => block.min,
        Format::U6Halves => block.scales[1],
        Format::U4Centred | Format::U5Centred | Format::U8Centred | Format::F16 | Format::BF16 | Format::F32 => return,
    };
    scales[SCALES + 2 * column..][..2].copy_from_slice(&second.to_le_bytes());
}

/// The integers of one group of a tile as the vector units see them: `[half][4 * lane + i]`.
pub(super) fn group(format: Format, tile: &[u8], group: usize) -> [[u8; 64]; 2] {
    let mut halves = [[0; 64]; 2];
    for (half, bytes) in halves.iter_mut().enumerate() {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = match format {
                Format::U4 | Format::U4Centred => tile[group * 64 + at] >> (4 * half) & 0x0f,
                Format::U5 | Format::U5Centred => {
                    let fifth = tile[NIBBLES + group * 16 + half * 8 + at / 8] >> (at % 8) & 1;
                    tile[group * 64 + at] >> (4 * half) & 0x0f | fifth << 4
                }
                Format::U8Centred | Format::U6Halves => tile[(group * 2 + half) * 64 + at],
                Format::F16 | Format::BF16 | Format::F32 => unreachable!("floats have no groups"),
            };
        }
    }
    halves
}

/// Scale (`which` 0) or min or second scale (1) of a column.
pub(super) fn scale(format: Format, tile: &[u8], which: usize, column: usize) -> f32 {
    let at = format.scales_at() + which * SCALES + 2 * column;
    f16::from_le_bytes([tile[at], tile[at + 1]]).to_f32()
}

/// One weight of a tile of floats.
pub(super) fn float(format: Format, tile: &[u8], k: usize, column: usize) -> f32 {
    let at = k * COLUMNS + column;
    match format {
        Format::F16 => f16::from_le_bytes([tile[2 * at], tile[2 * at + 1]]).to_f32(),
        Format::BF16 => bf16::from_le_bytes([tile[2 * at], tile[2 * at + 1]]).to_f32(),
        Format::F32 => f32::from_le_bytes([tile[4 * at], tile[4 * at + 1], tile[4 * at + 2], tile[4 * at + 3]]),
        Format::U4 | Format::U4Centred | Format::U5 | Format::U5Centred | Format::U8Centred | Format::U6Halves => {
            unreachable!("integers are no floats")
        }
    }
}
