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
    /// Servers, in one cluster if there are several.
    pub servers: usize,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self { program: None, jetstream: true, user: None, max_payload: "1MB", servers: 1 }
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
        Self::start_with(&options, "").await
    }

    /// Starts as many as the options say, as one cluster, and waits until it has a leader.
    ///
    /// # Panics
    /// When there is no binary, or one does not listen.
    pub async fn cluster(options: BrokerOptions) -> Vec<Self> {
        let ports: Vec<u16> = (0..options.servers).map(|_| free_port().expect("a free port")).collect();
        let routes = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect::<Vec<_>>().join(", ");
        let mut brokers = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let cluster = format!(
                "server_name: \"s{number}\"\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}\n"
            );
            brokers.push(Self::start_with(&options, &cluster).await);
        }
        let nats = async_nats::connect(brokers[0].url()).await.expect("the broker listens");
        until("the cluster has a leader", async || {
            nats.request("$JS.API.STREAM.NAMES", "".into()).await.map_err(|error| error.to_string())
        })
        .await;
        brokers
    }

    async fn start_with(options: &BrokerOptions, more: &str) -> Self {
        let program = match &options.program {
            Some(program) => program.clone(),
            None => tokio::task::spawn_blocking(fetched).await.expect("no panic"),
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port().expect("a free port");
        std::fs::write(folder.path().join("nats.conf"), configuration(port, folder.path(), options) + more)
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

pub(crate) fn fetched() -> PathBuf {
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
