//! What can be wrong with a GGUF file.
//!
//! Owns the error texts of the parser. Each variant is one cause and names the thing it is about; the
//! file's path is added by [`crate::LoadError`]. Used by the parser's other modules only.

use super::{TensorType, ValueKind};

/// Why bytes are not a GGUF file that halm would load.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with {found:02x?} instead of \"GGUF\"")]
    NotGguf {
        /// The first bytes, four at most.
        found: Vec<u8>,
    },
    /// A version other than 2 and 3.
    #[error(
        "GGUF version {version} is not supported, only 2 and 3, little-endian; convert the file again with a current tool"
    )]
    UnsupportedVersion {
        /// What the file says.
        version: u32,
    },
    /// The file ends inside something.
    #[error(
        "truncated: {what} needs {needed} bytes at offset {offset}, and only {left} are left; fetch the file again"
    )]
    Truncated {
        /// What was being read.
        what: String,
        /// Where, in bytes from the start of the file.
        offset: u64,
        /// How many bytes it needs.
        needed: u64,
        /// How many there are.
        left: u64,
    },
    /// A count or length that the rest of the file could not hold.
    #[error(
        "{what} declares {declared} entries, and the {left} bytes left could hold at most {room}; the file is damaged"
    )]
    Implausible {
        /// What declares it.
        what: String,
        /// The declared number.
        declared: u64,
        /// How many could fit.
        room: u64,
        /// Bytes left in the file.
        left: u64,
    },
    /// A name or text that is not UTF-8.
    #[error("{what} at offset {offset} is not UTF-8")]
    InvalidUtf8 {
        /// What should have been text.
        what: String,
        /// Where, in bytes.
        offset: u64,
    },
    /// A value type that the specification does not know.
    #[error("metadata key {key:?} has the unknown value type {kind}")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type's number.
        kind: u32,
    },
    /// An array of arrays, which no known model uses.
    #[error("metadata key {key:?} is an array of arrays, which is not supported")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("metadata key {key:?} is a boolean with the value {value}")]
    InvalidBool {
        /// The key.
        key: String,
        /// The byte found.
        value: u8,
    },
    /// A key that occurs twice.
    #[error("metadata key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A key that must be there is not.
    #[error("metadata key {key:?} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key holds another kind of value than it must.
    #[error("metadata key {key:?} is of type {found:?}, and {wanted} is needed")]
    WrongType {
        /// The key.
        key: String,
        /// What is needed, in words.
        wanted: &'static str,
        /// What is there.
        found: ValueKind,
    },
    /// A key's value makes no sense.
    #[error("metadata key {key:?} is {value}, and {allowed} is needed")]
    BadValue {
        /// The key.
        key: String,
        /// What is there.
        value: String,
        /// What is needed, in words.
        allowed: &'static str,
    },
    /// A tensor name that occurs twice.
    #[error("tensor {tensor:?} occurs twice")]
    DuplicateTensor {
        /// Its name.
        tensor: String,
    },
    /// No dimension, or more than four, or one of size zero.
    #[error("tensor {tensor:?} has the dimensions {dimensions:?}; one to four are needed, none of them zero")]
    Dimensions {
        /// Its name.
        tensor: String,
        /// The sizes, or as many of them as were read.
        dimensions: Vec<u64>,
    },
    /// More dimensions than a tensor can have.
    #[error("tensor {tensor:?} declares {count} dimensions; at most four are possible")]
    TooManyDimensions {
        /// Its name.
        tensor: String,
        /// What it declares.
        count: u32,
    },
    /// A number format that halm cannot compute with.
    #[error(
        "tensor {tensor:?} has the unsupported type {kind}; use a file quantized as Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, a K type, F16, BF16 or F32"
    )]
    UnsupportedTensorType {
        /// Its name.
        tensor: String,
        /// The type's number in ggml.
        kind: u32,
    },
    /// More elements than can be counted.
    #[error("tensor {tensor:?} has the dimensions {dimensions:?}, more elements than can be addressed")]
    ShapeOverflow {
        /// Its name.
        tensor: String,
        /// Its sizes.
        dimensions: Vec<u64>,
    },
    /// Rows that do not divide into the type's blocks.
    #[error("tensor {tensor:?} has rows of {row} elements, not a multiple of the {block} of a {kind:?} block")]
    RaggedRow {
        /// Its name.
        tensor: String,
        /// Elements of a row.
        row: u64,
        /// Elements of a block.
        block: u64,
        /// Its type.
        kind: TensorType,
    },
    /// An offset that breaks the file's alignment.
    #[error("tensor {tensor:?} lies at offset {offset}, not a multiple of the alignment {alignment}")]
    Misaligned {
        /// Its name.
        tensor: String,
        /// Its offset in the data section, bytes.
        offset: u64,
        /// The file's alignment, bytes.
        alignment: u64,
    },
    /// A tensor that would reach beyond the end of the file.
    #[error(
        "tensor {tensor:?} needs {size} bytes at offset {offset} of the data section, which has {section}; the file is truncated or damaged, fetch it again"
    )]
    TensorOutOfBounds {
        /// Its name.
        tensor: String,
        /// Its offset in the data section, bytes.
        offset: u64,
        /// Its size, bytes.
        size: u64,
        /// The size of the data section, bytes.
        section: u64,
    },
    /// Two tensors that claim the same bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    TensorsOverlap {
        /// The one that starts first.
        first: String,
        /// The one that starts inside it.
        second: String,
    },
    /// A tensor that the architecture needs is not there.
    #[error("tensor {tensor:?} is missing")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor that the forward pass would silently ignore.
    #[error(
        "tensor {tensor:?} is not part of the architecture as halm computes it; it would be ignored and the answers be wrong"
    )]
    UnexpectedTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor whose shape contradicts the metadata.
    #[error("tensor {tensor:?} has the dimensions {found:?}, and the metadata implies {wanted:?}")]
    TensorShape {
        /// Its name.
        tensor: String,
        /// The file's sizes, fastest first.
        found: Vec<u64>,
        /// The implied sizes, fastest first.
        wanted: Vec<u64>,
    },
}
