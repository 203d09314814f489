//! The cache folder: its layout, its locks and the one way a file gets into it.
//!
//! ```text
//! models/<sha256>/<file>                  whole, verified weights
//! bin/nats-server-<version>-<sha8>/…      whole, verified broker binaries
//! seen/<path's hash>.json                 digests of files that users gave by path
//! locks/<sha256>                          held while one is fetched; empty, never removed
//! partial/<sha256>/                       what is under way; belongs to the lock's holder
//! ```
//!
//! Invariant: a file under `models/` or `bin/` came by one rename from `partial/`, after its digest
//! was checked and its bytes were flushed. Must never be written to by any other way, and a file
//! found damaged is taken out before anyone can load it. Called by `fetch` and `assets`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};

use super::catalogue::{BrokerBuild, ModelEntry};
use super::error::AssetError;
use super::stamp;

/// Free bytes left over after a fetch, below which a disk counts as full: room for sidecars, logs
/// and whatever else shares the disk.
pub(super) const SPARE_BYTES: u64 = 16 * 1024 * 1024;

/// The folder. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

/// Where a whole file lies, relative to the cache folder.
pub(super) struct CacheKey(PathBuf);

/// The right to fetch one file. Ends with the value, or with the process.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl CacheKey {
    pub(super) fn model(entry: &ModelEntry) -> Self {
        Self(Path::new("models").join(entry.sha256).join(entry.file))
    }

    pub(super) fn broker(build: &BrokerBuild, version: (u32, u32, u32)) -> Self {
        let (major, minor, patch) = version;
        let sha8 = build.sha256.get(..8).unwrap_or(build.sha256);
        let folder = format!("nats-server-{major}.{minor}.{patch}-{sha8}");
        Self(Path::new("bin").join(folder).join("nats-server"))
    }
}

impl Cache {
    /// Finds the folder; see [`super::Assets::open`]. Creates nothing.
    pub(super) fn locate(given: Option<PathBuf>) -> Result<Self, AssetError> {
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let dir = given
            .or_else(|| var("HALM_CACHE").map(PathBuf::from))
            .or_else(|| platform_cache(var("XDG_CACHE_HOME"), var("HOME")))
            .ok_or(AssetError::NoCacheFolder)?;
        // Children run elsewhere: every path handed out must be absolute.
        let dir = std::path::absolute(&dir).map_err(|e| store("resolve", &dir, e))?;
        Ok(Self { dir })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, key: &CacheKey) -> PathBuf {
        self.dir.join(&key.0)
    }

    /// Where the digest of a user's own file is noted: here, never beside it.
    pub(super) fn sidecar_of_foreign(&self, path: &Path) -> PathBuf {
        let mut name = stamp::sha256_hex(path.as_os_str().as_bytes());
        name.push_str(".json");
        self.dir.join("seen").join(name)
    }

    /// Whether `path` is there and whole.
    pub(super) fn has(&self, path: &Path, bytes: u64, sha256: &str) -> bool {
        let size_fits = fs::metadata(path).is_ok_and(|seen| seen.len() == bytes);
        size_fits && stamp::digest(path, &sidecar(path)).is_ok_and(|seen| seen.sha256 == sha256)
    }

    /// Takes out a file that [`Cache::has`] said no to. Only the lock's holder may.
    pub(super) fn take_out_damaged(&self, path: &Path) -> Result<(), AssetError> {
        if !path.exists() {
            return Ok(());
        }
        tracing::warn!(path = %path.display(), "cached file is damaged, fetching it again");
        let _ = fs::remove_file(sidecar(path));
        fs::remove_file(path).map_err(|e| store("remove damaged", path, e))
    }

    /// Waits for the right to fetch the file of that digest. `on_wait` is called before the first
    /// wait. There is no time limit: the kernel takes the lock from a holder that died, and a
    /// living one waits for no source without a limit of its own.
    pub(super) fn lock(&self, sha256: &str, on_wait: impl FnOnce()) -> Result<Lock, AssetError> {
        let path = self.dir.join("locks").join(sha256);
        create_folder(&self.dir.join("locks"))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| store("open lock", &path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => on_wait(),
            Err(e) => return Err(store("lock", &path, e.into())),
        }
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .map_err(|e| store("lock", &path, e.into()))?;
        Ok(Lock { _file: file })
    }

    /// The folder for what is under way. What an interrupted run left in it is kept: a part to
    /// resume, or wheels that were complete.
    pub(super) fn partial(&self, sha256: &str, _held: &Lock) -> Result<PathBuf, AssetError> {
        let path = self.dir.join("partial").join(sha256);
        create_folder(&path)?;
        Ok(path)
    }

    /// Refuses to begin what would fill the disk.
    pub(super) fn need_space(&self, need_bytes: u64) -> Result<(), AssetError> {
        let free_bytes = self.free_bytes()?;
        if free_bytes < need_bytes.saturating_add(SPARE_BYTES) {
            return Err(AssetError::DiskFull { dir: self.dir.clone(), need_bytes, free_bytes });
        }
        Ok(())
    }

    pub(super) fn free_bytes(&self) -> Result<u64, AssetError> {
        let fs = statvfs(&self.dir).map_err(|e| store("ask the free space of", &self.dir, e.into()))?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    /// Moves a whole file, whose digest was just found to be `sha256`, to its place: flushed, then
    /// renamed, then the rename flushed.
    pub(super) fn publish(&self, from: &Path, to: &Path, mode: u32, sha256: &str) -> Result<(), AssetError> {
        let folder = to.parent().unwrap_or(&self.dir);
        create_folder(folder)?;
        let flush = |path: &Path| File::open(path).and_then(|f| f.sync_all());
        fs::set_permissions(from, Permissions::from_mode(mode)).map_err(|e| store("set the mode of", from, e))?;
        flush(from).map_err(|e| self.or_full("flush", from, e))?;
        fs::rename(from, to).map_err(|e| self.or_full("move into place", from, e))?;
        flush(folder).map_err(|e| self.or_full("flush", folder, e))?;
        stamp::note(to, &sidecar(to), sha256);
        Ok(())
    }

    /// The error for a failed write: a full disk is named as such.
    pub(super) fn or_full(&self, action: &'static str, path: &Path, source: io::Error) -> AssetError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let free_bytes = self.free_bytes().unwrap_or(0);
            return AssetError::DiskFull { dir: self.dir.clone(), need_bytes: SPARE_BYTES, free_bytes };
        }
        store(action, path, source)
    }
}

/// The note beside a cached file.
fn sidecar(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".verified");
    PathBuf::from(name)
}

fn platform_cache(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // The XDG specification says to ignore a relative path.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let below_home = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    xdg.or_else(|| home.map(|home| PathBuf::from(home).join(below_home))).map(|base| base.join("halm"))
}

fn create_folder(path: &Path) -> Result<(), AssetError> {
    fs::create_dir_all(path).map_err(|e| store("create", path, e))
}

fn store(action: &'static str, path: &Path, source: io::Error) -> AssetError {
    AssetError::Store { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_xdg_folder_is_ignored() {
        let found = platform_cache(Some("relative".into()), Some("/home/ada".into()));
        assert!(found.is_some_and(|path| path.starts_with("/home/ada") && path.ends_with("halm")));
    }

    #[test]
    fn without_a_home_there_is_no_cache_folder() {
        assert_eq!(platform_cache(None, None), None);
    }

    #[test]
    fn a_published_file_is_whole_and_the_partial_is_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::locate(Some(folder.path().to_owned())).expect("located");
        let sha256 = stamp::sha256_hex(b"weights");
        let lock = cache.lock(&sha256, || panic!("nobody else holds it")).expect("locked");
        let from = cache.partial(&sha256, &lock).expect("made").join("assembled");
        let to = folder.path().join("models/x/w");
        fs::write(&from, b"weights").expect("written");

        assert!(!cache.has(&to, 7, &sha256));
        cache.publish(&from, &to, 0o644, &sha256).expect("published");
        assert!(cache.has(&to, 7, &sha256));
        assert!(!from.exists());
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_before_a_byte_is_fetched() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::locate(Some(folder.path().to_owned())).expect("located");
        assert!(matches!(cache.need_space(u64::MAX), Err(AssetError::DiskFull { .. })));
    }
}
