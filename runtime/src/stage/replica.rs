//! A replica on the stage: a real `halm serve`.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use super::hosted::Hosted;

/// A replica that can be ended, frozen and started again. Its workers die with it.
pub(crate) struct Replica {
    name: &'static str,
    halm: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Hosted,
}

impl Replica {
    pub(super) fn start(halm: &Path, name: &'static str, url: &str, dir: &Path) -> anyhow::Result<Self> {
        let config = dir.join("halm.toml").display().to_string();
        let arguments = ["serve", "--nats", url, "--name", name, "--config", &config].map(str::to_owned).to_vec();
        let log = dir.join(format!("{name}.log"));
        let process = spawn(halm, &arguments, &log)?;
        Ok(Self { name, halm: halm.to_owned(), arguments, log, process })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Starts it again, as an orchestrator would.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = spawn(&self.halm, &self.arguments, &self.log)?;
        Ok(())
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.process.ended()
    }

    pub(crate) async fn exit(&mut self, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
        self.process.exit(within).await
    }

    pub(crate) fn last_words(&self) -> String {
        self.process.last_words()
    }
}

fn spawn(halm: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Hosted> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Hosted::start(halm, halm, &arguments, log.to_owned())
}
