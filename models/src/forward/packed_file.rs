//! Packed weights in a file beside the cache, so that packing is done once on a host and its processes share the memory.
//!
//! Owns the file's layout, and that nobody ever reads half of one: it is written beside its place, flushed, and renamed into
//! it; it is checked as a whole when it is opened. It must never be needed: what cannot be read or written is packed in
//! memory, which costs time and memory and nothing else.
//!
//! Which weights it was made of its name has to say, by their digest; the head tells only files of another model apart.
//!
//! Layout: 64 bytes of head (magic, version, checksum and length of the rest, length of the weights' file and checksum of
//! its header), then the matrices in the order in which [`super::weights`] asks for them.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::gguf::MappedGguf;

const MAGIC: &[u8; 8] = b"halmpack";
/// Grows with every change of a tile's layout.
const VERSION: u32 = 1;
/// Bytes of the head.
pub(super) const HEAD_BYTES: usize = 64;

/// Maps a file if it is sound and was made of these weights.
pub(super) fn open(path: &Path, weights: &MappedGguf) -> Option<Arc<Mmap>> {
    let file = File::open(path).ok()?;
    let map = map_read_only(&file).ok()?;
    let (head, rest) = map.split_at_checked(HEAD_BYTES)?;
    (head == make_head(rest, weights)).then(|| Arc::new(map))
}

/// Writes the matrices to a file, unless another process is doing so: then there will be one soon. What a process leaves
/// that dies here is written over by the next.
pub(super) fn write<'a>(
    path: &Path,
    weights: &MappedGguf,
    mut matrices: impl Iterator<Item = &'a [u8]> + Clone,
) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let part = path.with_added_extension("part");
    let mut file = File::options().create(true).truncate(false).write(true).open(&part)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Whoever had the lock has renamed this very file into its place; it is mapped by others and not ours to write.
    if std::fs::metadata(&part).map(|now| now.ino()).ok() != Some(file.metadata()?.ino()) {
        return Ok(());
    }
    let mut checksum = crc32fast::Hasher::new();
    let mut bytes = 0;
    for matrix in matrices.clone() {
        checksum.update(matrix);
        bytes += matrix.len();
    }
    let written = (|| {
        file.set_len(0)?;
        file.write_all(&head(checksum.finalize(), bytes, weights))?;
        matrices.try_for_each(|matrix| file.write_all(matrix))?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    })();
    if written.is_err() {
        // A disk that is full needs it least.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn make_head(rest: &[u8], weights: &MappedGguf) -> [u8; HEAD_BYTES] {
    head(crc32fast::hash(rest), rest.len(), weights)
}

fn head(checksum: u32, bytes: usize, weights: &MappedGguf) -> [u8; HEAD_BYTES] {
    let header = usize::try_from(weights.gguf().tensors().data_start()).unwrap_or(usize::MAX);
    let header = &weights.bytes()[..header.min(weights.bytes().len())];
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&checksum.to_le_bytes());
    head[16..24].copy_from_slice(&(bytes as u64).to_le_bytes());
    head[24..32].copy_from_slice(&(weights.bytes().len() as u64).to_le_bytes());
    head[32..36].copy_from_slice(&crc32fast::hash(header).to_le_bytes());
    head
}

#[expect(
    unsafe_code,
    reason = "a map is sound only while nobody changes the file; it is written once and renamed into its place, and if \
              someone truncates it all the same, the fault kills this process, which a supervisor is there for"
)]
fn map_read_only(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: see the reason above; the bytes are only ever read as `&[u8]`, for which any value is valid.
    unsafe { Mmap::map(file) }
}
