//! How the commands that talk to replicas reach the broker.

use std::path::PathBuf;

use clap::Args;
use halm_client::Client;

use crate::config::{self, Config};
use crate::nats::Link;
use crate::replica;

/// Where the broker is.
#[derive(Debug, Args)]
pub(super) struct Connect {
    /// NATS server [environment: NATS_URL, NATS_CREDS, …; default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Configuration file [environment: HALM_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Connect {
    /// To this address, or where the configuration says.
    pub(super) fn to(nats: Option<String>, config: Option<PathBuf>) -> Self {
        Self { nats, config }
    }
}

/// The configuration, and where the broker is.
pub(super) fn resolve(connect: &Connect) -> anyhow::Result<(Config, String)> {
    let file = connect.config.clone().or_else(|| std::env::var_os("HALM_CONFIG").map(PathBuf::from));
    let config = config::load(file.as_deref(), config::variables())?;
    let local = || format!("nats://{}", config.broker.listen);
    let configured = (!config.nats.url.is_empty()).then(|| config.nats.url.clone());
    let url = connect.nats.clone().or(configured).unwrap_or_else(local);
    Ok((config, url))
}

/// A connected client.
pub(super) async fn client(connect: &Connect) -> anyhow::Result<Client> {
    Ok(Client::new(link(connect).await?.connect_as_client().await?))
}

/// A connection with a client's rights.
pub(super) async fn link(connect: &Connect) -> anyhow::Result<Link> {
    let (config, url) = resolve(connect)?;
    let link = replica::link(&config, &url, "halm client", &[]);
    link.connect_as_client().await?;
    Ok(link)
}
