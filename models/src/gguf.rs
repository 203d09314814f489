//! A GGUF file, mapped and checked.
//!
//! Owns the memory map and everything the file says about itself: its metadata and where each tensor
//! lies. It never believes a length: every count, string, array and tensor extent is checked against the
//! file before anything is allocated or read, so that a hostile or torn file ends in a typed error and
//! not in a panic or in gigabytes of memory. It never interprets a weight. Called by [`crate::stock`],
//! which turns a checked file into a model, and by tests, which also [`write`](GgufWriter) small files.
//!
//! Source of the layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3,
//! little-endian.

mod error;
mod header;
mod metadata;
mod tensor_table;
mod writer;

pub use error::GgufError;
pub use metadata::{Array, Metadata, Value, ValueKind};
pub use tensor_table::{TensorEntry, TensorTable, TensorType};
pub use writer::GgufWriter;

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use self::header::Reader;
use crate::stock::LoadError;

/// What a GGUF file says about itself, every length of it checked against the bytes it came from.
#[derive(Debug, Clone)]
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    tensors: TensorTable,
}

impl Gguf {
    /// Reads and checks the header, the metadata and the tensor table of `bytes`, a whole file.
    ///
    /// Memory used is bounded by a small multiple of `bytes.len()`, whatever the file declares.
    ///
    /// # Errors
    /// A [`GgufError`] that names what is wrong and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        let mut reader = Reader::new(bytes);
        let preamble = header::read_preamble(&mut reader)?;
        let metadata = Metadata::read(&mut reader, preamble.metadata_count)?;
        let alignment = metadata.alignment()?;
        let tensors = TensorTable::read(&mut reader, preamble.tensor_count, alignment)?;
        Ok(Self { version: preamble.version, metadata, tensors })
    }

    /// The version of the layout, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The file's keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Where each tensor lies.
    pub fn tensors(&self) -> &TensorTable {
        &self.tensors
    }
}

/// A file mapped into memory, read-only, with its checked header.
#[derive(Debug)]
pub struct MappedGguf {
    path: PathBuf,
    map: Mmap,
    gguf: Gguf,
}

impl MappedGguf {
    /// Maps `path` and checks what it declares.
    ///
    /// # Errors
    /// [`LoadError::Open`] when the file cannot be opened or mapped, [`LoadError::NotAFile`] for a
    /// folder or a device, [`LoadError::Gguf`] when its contents are not a sound GGUF file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(LoadError::NotAFile { path: path.to_owned() });
        }
        let map = map_read_only(&file).map_err(unreadable)?;
        let gguf = Gguf::parse(&map).map_err(|source| LoadError::Gguf { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), map, gguf })
    }

    /// Where the file was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The checked header.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }
}

#[expect(
    unsafe_code,
    reason = "a map is sound only while nobody changes the file; weights are written once under their \
              digest, and if someone truncates one all the same, the fault kills this process, which \
              is what the supervisor of a worker process is there for"
)]
fn map_read_only(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: see the reason above; the bytes are only ever read as `&[u8]`, for which any value is valid.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests;
