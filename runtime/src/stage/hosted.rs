//! A process on the stage: started so that it dies with us, its words in a file, signalled and waited for.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// A running process. Dropping it kills it.
pub(super) struct Hosted {
    child: Child,
    log: PathBuf,
}

impl Hosted {
    /// Starts a program. Nothing of our own settings reaches it but the cache folder.
    pub(super) fn start(halm: &Path, program: &Path, arguments: &[&str], log: PathBuf) -> anyhow::Result<Self> {
        let file = std::fs::File::options().create(true).append(true).open(&log).context("make a log file")?;
        let mut command = Command::new(halm);
        command
            .args(["run-with-parent", "--parent", &std::process::id().to_string(), "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true);
        for (variable, _) in std::env::vars() {
            let ours = variable.starts_with("HALM_") && variable != "HALM_CACHE";
            if ours || variable.starts_with("NATS_") {
                command.env_remove(variable);
            }
        }
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// Its process id, while it is not known to have ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("look after a process")
    }

    /// Sends a signal, if there is still somebody to take it.
    pub(super) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        match self.pid() {
            Some(pid) => kill(pid, signal),
            None => Ok(()),
        }
    }

    /// Waits until it ends by itself, for so long.
    pub(super) async fn exit(&mut self, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let waited = tokio::time::timeout(within, self.child.wait()).await;
        waited.ok().transpose().context("wait for a process")
    }

    /// Kills it, and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        // A frozen one dies of it too.
        let _ = self.child.kill().await;
    }

    /// The last line that it wrote.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().next_back().unwrap_or_default().to_owned()
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// If it is gone.
pub(crate) fn kill(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    kill_process(pid, signal).with_context(|| format!("signal the process {pid:?}"))
}
