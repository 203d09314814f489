//! Reading numbers and strings from untrusted bytes, and the file's first 24 bytes.
//!
//! Owns the cursor. Every read is checked against what is left, and every declared count against the
//! least its entries would take, before anything is allocated. It never seeks backwards. Called by the
//! metadata and tensor-table readers.

use super::GgufError;

/// The first four bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// Smallest encoding of a metadata entry: key length, value type, one byte.
const METADATA_ENTRY_BYTES_MIN: u64 = 8 + 4 + 1;

/// Smallest encoding of a tensor entry: name length, dimension count, one dimension, type, offset.
const TENSOR_ENTRY_BYTES_MIN: u64 = 8 + 4 + 8 + 4 + 8;

/// The fixed part of the header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preamble {
    pub(super) version: u32,
    pub(super) tensor_count: usize,
    pub(super) metadata_count: usize,
}

/// Reads magic, version and the two counts.
pub(super) fn read_preamble(reader: &mut Reader<'_>) -> Result<Preamble, GgufError> {
    let start = reader.peek(MAGIC.len());
    if start != MAGIC {
        return Err(GgufError::NotGguf { found: start.to_vec() });
    }
    reader.take("magic", 4)?;
    let version = reader.u32("version")?;
    if !matches!(version, 2 | 3) {
        return Err(GgufError::UnsupportedVersion { version });
    }
    let tensors = reader.u64("tensor count")?;
    let metadata = reader.u64("metadata count")?;
    Ok(Preamble {
        version,
        metadata_count: reader.plausible("metadata", metadata, METADATA_ENTRY_BYTES_MIN)?,
        tensor_count: reader.plausible("the tensor table", tensors, TENSOR_ENTRY_BYTES_MIN)?,
    })
}

/// A cursor over a whole file.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Invariant: `offset <= bytes.len()`.
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset as u64
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn left(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// Up to `count` bytes without moving.
    fn peek(&self, count: usize) -> &'a [u8] {
        let left = self.left();
        &left[..count.min(left.len())]
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, what: &str, count: u64) -> Result<&'a [u8], GgufError> {
        let left = self.left();
        let taken = usize::try_from(count).ok().and_then(|count| left.get(..count));
        let Some(taken) = taken else {
            return Err(GgufError::Truncated {
                what: what.to_owned(),
                offset: self.offset(),
                needed: count,
                left: left.len() as u64,
            });
        };
        self.offset += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let taken = self.take(what, N as u64)?;
        Ok(taken.try_into().expect("take returned exactly N bytes"))
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8, GgufError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A string with its length in front.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let length = self.u64(what)?;
        let offset = self.offset();
        let bytes = self.take(what, length)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::InvalidUtf8 { what: what.to_owned(), offset })
    }

    /// Accepts a declared count only if its entries, at their smallest, could lie in the rest of the file.
    pub(super) fn plausible(&self, what: &str, declared: u64, entry_bytes_min: u64) -> Result<usize, GgufError> {
        let left = self.left().len() as u64;
        let room = left / entry_bytes_min;
        match usize::try_from(declared) {
            Ok(count) if declared <= room => Ok(count),
            Ok(_) | Err(_) => Err(GgufError::Implausible { what: what.to_owned(), declared, room, left }),
        }
    }
}
