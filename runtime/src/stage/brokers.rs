//! Brokers on the stage: one `nats-server`, or several in one cluster, each with its store in a folder of ours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::time::Instant;

use super::hosted::Hosted;
use crate::process::{free_port, server_hello};

/// How long a server may take to listen, with a small store.
const LISTENING_WITHIN: Duration = Duration::from_secs(30);
/// How long servers may take to agree on a leader.
const AGREED_WITHIN: Duration = Duration::from_secs(60);
/// How long a server may take to end when it is asked to.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// All servers.
pub(crate) struct Brokers {
    servers: Vec<Server>,
}

struct Server {
    name: String,
    listen: SocketAddr,
    halm: PathBuf,
    program: PathBuf,
    config: PathBuf,
    process: Option<Hosted>,
}

impl Brokers {
    /// Starts so many, and waits until they have agreed on a leader.
    pub(super) async fn start(halm: &Path, program: &Path, dir: &Path, count: usize) -> anyhow::Result<Self> {
        let port = || free_port().context("find a free port");
        let routes = (0..count).map(|_| port()).collect::<anyhow::Result<Vec<_>>>()?;
        let mut servers = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            let name = format!("broker-{}", number + 1);
            let listen = SocketAddr::from(([127, 0, 0, 1], port()?));
            let folder = dir.join(&name);
            std::fs::create_dir_all(&folder).context("make a broker's folder")?;
            let config = folder.join("nats-server.conf");
            let mut text = format!(
                "server_name: {name}\nlisten: \"{listen}\"\nmax_payload: 8MB\n\
                 jetstream {{ store_dir: {:?}, sync_interval: always }}\n",
                folder.join("jetstream")
            );
            if count > 1 {
                text.push_str(&cluster(*route, &routes));
            }
            std::fs::write(&config, text).context("write a broker's configuration")?;
            let (halm, program) = (halm.to_owned(), program.to_owned());
            servers.push(Server { name, listen, halm, program, config, process: None });
        }
        let mut brokers = Self { servers };
        for server in &mut brokers.servers {
            server.spawn()?;
        }
        for server in &mut brokers.servers {
            server.listening().await?;
        }
        brokers.agreed().await?;
        Ok(brokers)
    }

    /// Where all of them listen, separated by commas.
    pub(crate) fn url(&self) -> String {
        self.servers.iter().map(|server| format!("nats://{}", server.listen)).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.listen).collect()
    }

    /// The place of the server of this name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.name == name)
    }

    pub(crate) fn name(&self, at: usize) -> &str {
        &self.servers[at].name
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// Kills one as a power cut would, and waits until it is gone.
    pub(crate) async fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.servers[at].process.take() {
            process.kill().await;
        }
    }

    /// Ends one in order.
    pub(crate) async fn stop(&mut self, at: usize) -> anyhow::Result<()> {
        let server = &mut self.servers[at];
        let Some(mut process) = server.process.take() else { return Ok(()) };
        process.signal(Signal::TERM)?;
        if process.exit(ENDED_WITHIN).await?.is_none() {
            bail!("{} did not end within {} s of a SIGTERM", server.name, ENDED_WITHIN.as_secs());
        }
        Ok(())
    }

    /// Starts one again on its port and store, and waits until it listens.
    pub(crate) async fn start_again(&mut self, at: usize) -> anyhow::Result<()> {
        self.servers[at].spawn()?;
        self.servers[at].listening().await
    }

    /// Kills all of them.
    pub(super) async fn clear(&mut self) {
        for at in 0..self.len() {
            self.kill(at).await;
        }
    }

    async fn agreed(&self) -> anyhow::Result<()> {
        let nats = async_nats::connect(self.servers[0].listen.to_string()).await.context("connect to a broker")?;
        let until = Instant::now() + AGREED_WITHIN;
        while nats.request("$JS.API.STREAM.NAMES", "".into()).await.is_err() {
            if Instant::now() > until {
                bail!("the brokers did not agree on a leader within {} s", AGREED_WITHIN.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Server {
    fn spawn(&mut self) -> anyhow::Result<()> {
        let config = self.config.display().to_string();
        let log = self.config.with_extension("log");
        self.process = Some(Hosted::start(&self.halm, &self.program, &["--config", &config], log)?);
        Ok(())
    }

    async fn listening(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + LISTENING_WITHIN;
        // Ours says its name: another's may have taken the port.
        while !server_hello(self.listen).await.is_some_and(|hello| hello.contains(&self.name)) {
            if let Some(process) = &mut self.process
                && let Some(status) = process.ended()?
            {
                bail!("{} ended with {status}: {}", self.name, process.last_words());
            }
            if Instant::now() > until {
                bail!("{} does not listen at {}", self.name, self.listen);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// Clients are not told of the other servers: each knows the addresses that it was given, and no way around them.
fn cluster(route: u16, routes: &[u16]) -> String {
    let routes: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    format!(
        "cluster {{ name: stage, listen: \"127.0.0.1:{route}\", no_advertise: true, routes: [{}] }}\n",
        routes.join(", ")
    )
}
