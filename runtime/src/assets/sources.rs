//! Where assets come from, as this process sees it.
//!
//! Owns [`Sources`]: the hub's address, the pip command and the search path. Read from the
//! environment once; must never look at it later, so that a test or an embedder can say otherwise
//! without touching the process. Called by `assets`, `pip` and `broker`.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The hub when `HF_ENDPOINT` names no other.
const HUB_DEFAULT: &str = "https://huggingface.co";

/// Which sources may be asked, and how.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The hub's address without a trailing slash; `None`: it is never asked.
    pub hub: Option<String>,
    /// The words of the pip command; `None`: the first that works of `python3 -m pip`,
    /// `python -m pip`, `pip3` and `pip` on the search path.
    pub pip: Option<Vec<OsString>>,
    /// Where programs are looked up, as in `PATH`.
    pub search_path: Option<OsString>,
}

impl Sources {
    /// What the environment says: `HF_ENDPOINT`, `HF_HUB_OFFLINE` and `PATH`.
    #[must_use]
    pub fn from_env() -> Self {
        let endpoint = env::var("HF_ENDPOINT").ok().filter(|text| !text.trim().is_empty());
        let offline = env::var("HF_HUB_OFFLINE").is_ok_and(|text| !matches!(text.as_str(), "" | "0"));
        let hub = endpoint.unwrap_or_else(|| HUB_DEFAULT.to_owned());
        Self {
            hub: (!offline).then(|| hub.trim().trim_end_matches('/').to_owned()),
            pip: None,
            search_path: env::var_os("PATH"),
        }
    }

    /// Every program of that name on the search path, in order.
    pub(super) fn programs<'a>(&'a self, name: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        self.search_path
            .iter()
            .flat_map(env::split_paths)
            .filter(|folder| !folder.as_os_str().is_empty())
            .map(move |folder| folder.join(name))
            .filter(|path| is_executable(path))
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|seen| seen.is_file() && seen.permissions().mode() & 0o111 != 0)
}
