//! A `nats-server` of the test's own: real, on a free port, with its store in a temporary folder.

use std::path::{Path, PathBuf};

use halm::assets::Assets;
use halm::process::free_port;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::program::dying_with_us;
use crate::{Process, until};

/// What is different about a broker.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The binary; `None` for the one that halm itself would run.
    pub program: Option<PathBuf>,
    /// Whether it keeps anything.
    pub jetstream: bool,
    /// User and password that it wants.
    pub user: Option<(&'static str, &'static str)>,
    /// Largest payload, as its configuration says it.
    pub max_payload: &'static str,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self { program: None, jetstream: true, user: None, max_payload: "1MB" }
    }
}

/// A broker. Dropping it kills it and removes its store.
#[derive(Debug)]
pub struct Broker {
    program: PathBuf,
    port: u16,
    folder: TempDir,
    process: Option<Process>,
}

impl Broker {
    /// Starts one as halm needs it.
    pub async fn start() -> Self {
        Self::with(BrokerOptions::default()).await
    }

    /// Starts one that is different.
    ///
    /// # Panics
    /// When there is no binary, or it does not listen.
    pub async fn with(options: BrokerOptions) -> Self {
        let program = match &options.program {
            Some(program) => program.clone(),
            None => tokio::task::spawn_blocking(fetched).await.expect("no panic"),
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port().expect("a free port");
        std::fs::write(folder.path().join("nats.conf"), configuration(port, folder.path(), &options))
            .expect("a file in a temporary folder");
        let mut broker = Self { program, port, folder, process: None };
        broker.restart().await;
        broker
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub async fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9().await;
        }
    }

    /// Ends it in order.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.exit().await;
        }
    }

    /// Starts it, again, on the same port and store, and waits until it listens.
    ///
    /// # Panics
    /// When it ends instead.
    pub async fn restart(&mut self) {
        let mut command = dying_with_us(&self.program);
        command.arg("--config").arg(self.folder.path().join("nats.conf"));
        let mut process = Process::spawn("nats-server", command);
        let port = self.port;
        until("the broker listens", async || {
            assert!(process.ended().is_none(), "nats-server ended: {}", process.stderr());
            TcpStream::connect(("127.0.0.1", port)).await.map(drop)
        })
        .await;
        self.process = Some(process);
    }
}

fn fetched() -> PathBuf {
    let found = Assets::open(None).and_then(|assets| assets.broker(None));
    found.unwrap_or_else(|error| panic!("no nats-server: {error}")).path
}

fn configuration(port: u16, folder: &Path, options: &BrokerOptions) -> String {
    let mut text = format!("listen: \"127.0.0.1:{port}\"\nmax_payload: {}\n", options.max_payload);
    if options.jetstream {
        let store = folder.join("store");
        text.push_str(&format!("jetstream {{ store_dir: {store:?}, sync_interval: always }}\n"));
    }
    if let Some((user, password)) = options.user {
        text.push_str(&format!("authorization {{ user: {user:?}, password: {password:?} }}\n"));
    }
    text
}
