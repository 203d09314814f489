//! Where each tensor of a GGUF file lies.
//!
//! Owns names, shapes, types and extents. Every extent is checked: sizes without overflow, whole blocks,
//! aligned, inside the file, and no two over the same bytes (so that the sum of all tensors never exceeds
//! the file). It never reads a weight. Called by the engine that loads the weights.

use std::collections::BTreeMap;

use candle_core::quantized::GgmlDType;

use super::GgufError;
use super::header::Reader;

/// A tensor has at most this many dimensions (`GGML_MAX_DIMS`).
const DIMENSIONS_MAX: u32 = 4;

/// The number formats that the kernels know; the numbers are ggml's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are ggml's own")]
pub enum TensorType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2K = 10,
    Q3K = 11,
    Q4K = 12,
    Q5K = 13,
    Q6K = 14,
    BF16 = 30,
}

impl TensorType {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// The same type in the tensor library.
    pub(crate) fn dtype(self) -> GgmlDType {
        match self {
            Self::F32 => GgmlDType::F32,
            Self::F16 => GgmlDType::F16,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
            Self::BF16 => GgmlDType::BF16,
        }
    }

    /// Elements of a block.
    pub fn block_elements(self) -> u64 {
        self.dtype().block_size() as u64
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        self.dtype().type_size() as u64
    }
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    dimensions: Vec<u64>,
    kind: TensorType,
    offset: u64,
    size: u64,
}

impl TensorEntry {
    /// Sizes, the fastest-running first, as the file has them: a weight of `[in, out]`.
    pub fn dimensions(&self) -> &[u64] {
        &self.dimensions
    }

    /// Its number format.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Bytes from the start of the data section.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes it takes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// All tensors of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorTable {
    entries: BTreeMap<String, TensorEntry>,
    /// Where the data section starts, bytes from the start of the file.
    data_start: u64,
}

impl TensorTable {
    pub(super) fn read(reader: &mut Reader<'_>, count: usize, alignment: u64) -> Result<Self, GgufError> {
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let name = reader.string(&format!("name of tensor {index}"))?.to_owned();
            let entry = read_entry(reader, &name, alignment)?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(GgufError::DuplicateTensor { tensor: name });
            }
        }
        let data_start = reader.offset().next_multiple_of(alignment);
        let table = Self { entries, data_start };
        table.check_extents(reader.len().saturating_sub(data_start))?;
        Ok(table)
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.entries.get(name)
    }

    /// All tensors by name, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorEntry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the file has no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the data section starts, bytes from the start of the file.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Bytes of all tensors together.
    pub fn total_bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.size).sum()
    }

    fn check_extents(&self, section: u64) -> Result<(), GgufError> {
        let mut by_offset: Vec<_> = self.entries.iter().collect();
        by_offset.sort_unstable_by_key(|(_, entry)| entry.offset);
        for (name, entry) in &by_offset {
            let end = entry.offset.checked_add(entry.size);
            if end.is_none_or(|end| end > section) {
                return Err(GgufError::TensorOutOfBounds {
                    tensor: (*name).clone(),
                    offset: entry.offset,
                    size: entry.size,
                    section,
                });
            }
        }
        for pair in by_offset.windows(2) {
            let ((first, before), (second, after)) = (pair[0], pair[1]);
            if before.offset + before.size > after.offset {
                return Err(GgufError::TensorsOverlap { first: first.clone(), second: second.clone() });
            }
        }
        Ok(())
    }
}

fn read_entry(reader: &mut Reader<'_>, name: &str, alignment: u64) -> Result<TensorEntry, GgufError> {
    let count = reader.u32(name)?;
    if count > DIMENSIONS_MAX {
        return Err(GgufError::TooManyDimensions { tensor: name.to_owned(), count });
    }
    let dimensions = (0..count).map(|_| reader.u64(name)).collect::<Result<Vec<_>, _>>()?;
    if dimensions.is_empty() || dimensions.contains(&0) {
        return Err(GgufError::Dimensions { tensor: name.to_owned(), dimensions });
    }
    let number = reader.u32(name)?;
    let kind = TensorType::from_number(number)
        .ok_or_else(|| GgufError::UnsupportedTensorType { tensor: name.to_owned(), kind: number })?;
    let offset = reader.u64(name)?;
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::Misaligned { tensor: name.to_owned(), offset, alignment });
    }
    let size = size_bytes(name, &dimensions, kind)?;
    Ok(TensorEntry { dimensions, kind, offset, size })
}

fn size_bytes(name: &str, dimensions: &[u64], kind: TensorType) -> Result<u64, GgufError> {
    let (row, block) = (dimensions[0], kind.block_elements());
    if !row.is_multiple_of(block) {
        return Err(GgufError::RaggedRow { tensor: name.to_owned(), row, block, kind });
    }
    dimensions
        .iter()
        .try_fold(1_u64, |product, size| product.checked_mul(*size))
        .and_then(|elements| (elements / block).checked_mul(kind.block_bytes()))
        .ok_or_else(|| GgufError::ShapeOverflow { tensor: name.to_owned(), dimensions: dimensions.to_vec() })
}
