//! Digests of files, and the note that spares hashing an unchanged file again.
//!
//! Owns [`Stamp`]: what a file looked like when its digest was last computed. A stamp that cannot
//! be read or written costs time, never an answer: the file is hashed. Must never trust a stamp
//! whose size, time, inode or device differs from the file's. Called by `cache` and `assets`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes read at once: large enough that the system calls do not show, small enough for a stack's
/// worth of cache.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// A file's identity at the moment it was hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    mtime_s: i64,
    mtime_ns: i64,
    inode: u64,
    device: u64,
    pub(super) sha256: String,
}

impl Stamp {
    fn new(seen: &fs::Metadata, sha256: String) -> Self {
        Self {
            bytes: seen.len(),
            mtime_s: seen.mtime(),
            mtime_ns: seen.mtime_nsec(),
            inode: seen.ino(),
            device: seen.dev(),
            sha256,
        }
    }

    fn fits(&self, seen: &fs::Metadata) -> bool {
        *self == Self::new(seen, self.sha256.clone())
    }
}

/// The digest of `path`, from the note at `sidecar` if the file did not change since.
pub(super) fn digest(path: &Path, sidecar: &Path) -> io::Result<Stamp> {
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    if let Some(stamp) = read(sidecar).filter(|stamp| stamp.fits(&before)) {
        return Ok(stamp);
    }
    let stamp = Stamp::new(&before, hash(&mut file)?);
    // A file that changed while it was read has no digest worth keeping.
    if stamp.fits(&file.metadata()?) {
        write_or_go_without(sidecar, &stamp);
    }
    Ok(stamp)
}

/// Notes a digest that the caller has just computed and nobody could change since.
pub(super) fn note(path: &Path, sidecar: &Path, sha256: &str) {
    if let Ok(seen) = fs::metadata(path) {
        write_or_go_without(sidecar, &Stamp::new(&seen, sha256.to_owned()));
    }
}

/// Reads all of `source` and returns its SHA-256 as 64 lowercase hexadecimal digits.
pub(super) fn hash(source: &mut impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The SHA-256 of `bytes`, 64 lowercase hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read(sidecar: &Path) -> Option<Stamp> {
    serde_json::from_slice(&fs::read(sidecar).ok()?).ok()
}

fn write_or_go_without(sidecar: &Path, stamp: &Stamp) {
    if let Err(error) = write(sidecar, stamp) {
        tracing::debug!(sidecar = %sidecar.display(), %error, "digest not noted");
    }
}

/// Writes beside and renames, so that no reader sees half a note.
fn write(sidecar: &Path, stamp: &Stamp) -> io::Result<()> {
    let folder = sidecar.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(stamp)?)?;
    file.persist(sidecar)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_noted_once_and_forgotten_when_the_file_changes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, sidecar) = (folder.path().join("a"), folder.path().join("a.verified"));
        fs::write(&path, b"one").expect("written");
        assert_eq!(digest(&path, &sidecar).expect("hashed").sha256, sha256_hex(b"one"));

        let mut forged = read(&sidecar).expect("noted");
        forged.sha256 = "forged".to_owned();
        write(&sidecar, &forged).expect("written");
        assert_eq!(digest(&path, &sidecar).expect("from the note").sha256, "forged");

        fs::write(&path, b"three").expect("written");
        assert_eq!(digest(&path, &sidecar).expect("hashed again").sha256, sha256_hex(b"three"));
    }

    #[test]
    fn a_broken_note_costs_a_hash_and_no_more() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, sidecar) = (folder.path().join("a"), folder.path().join("a.verified"));
        fs::write(&path, b"one").expect("written");
        fs::write(&sidecar, b"{\"bytes\":").expect("written");
        assert_eq!(digest(&path, &sidecar).expect("hashed").sha256, sha256_hex(b"one"));
    }
}
