//! `halm check`: is everything there that `halm serve` needs, and does a replica that runs serve?

mod live;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use halm_models::{LoadOptions, Model};

use crate::assets::{Assets, BROKER_VERSION_MIN, catalogue};
use crate::config::{self, Config, ModelConfig};
use crate::process::check_free;
use crate::replica;

/// Check the configuration and the environment, and say how to mend what is wrong
///
/// Reads the configuration, looks for the weights and loads each model once, and connects to the broker (or looks for a
/// nats-server to run). Fetches and changes nothing. Exits with 0 if `halm serve` would start.
///
/// With --live it asks the replica that this configuration names, over NATS, and nothing else: exits with 0 if that
/// replica takes work and each of its models has a worker that is ready, within a second, and prints one line. Made for
/// health checks of containers.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Configuration file [environment: HALM_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// NATS server to connect to [environment: NATS_URL]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Ask the replica that runs under this configuration whether it serves
    #[arg(long)]
    live: bool,
    /// With --live, the replica's name [default: as in the configuration, or the host's name]
    #[arg(long, requires = "live")]
    name: Option<String>,
}

pub(super) async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let file = args.config.or_else(|| std::env::var_os("HALM_CONFIG").map(PathBuf::from));
    let mut config = config::load(file.as_deref(), config::variables())?;
    if let Some(url) = args.nats {
        config.nats.url = url;
    }
    if args.live {
        if let Some(name) = args.name {
            config.replica.name = name;
        }
        let good = report("live", &live::check(&config).await);
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    report("configuration", &Ok(file.map_or("defaults".to_owned(), |file| file.display().to_string())));
    let assets = Assets::open(None)?;
    let mut good = true;
    for model in &config.models {
        good &= report(&format!("model {}", model.name), &check_model(model, &assets));
    }
    let broker =
        if config.nats.url.is_empty() { check_local_broker(&config, &assets) } else { check_nats(&config).await };
    good &= report("broker", &broker);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(what: &str, found: &anyhow::Result<String>) -> bool {
    match found {
        Ok(found) => println!("ok    {what}: {found}"),
        Err(error) => println!("WRONG {what}: {}", super::words(error)),
    }
    found.is_ok()
}

fn check_model(model: &ModelConfig, assets: &Assets) -> anyhow::Result<String> {
    let stored = if model.path.as_os_str().is_empty() {
        match assets.cached_model(&model.name) {
            Some(stored) => stored,
            None if catalogue::find(&model.name).is_some() => {
                return Ok("not in the cache yet; `halm serve` will fetch it".to_owned());
            }
            None => anyhow::bail!("unknown; `halm models` lists those there are, or set models.path"),
        }
    } else {
        assets.model(&model.name, Some(&model.path))?
    };
    let loaded = Model::load(&stored.path, &LoadOptions::default())?;
    let facts = loaded.facts();
    Ok(format!("{}, {}, context of {} tokens", stored.path.display(), facts.architecture, facts.context_tokens))
}

fn check_local_broker(config: &Config, assets: &Assets) -> anyhow::Result<String> {
    let given = (!config.broker.program.as_os_str().is_empty()).then_some(config.broker.program.as_path());
    let found = assets.installed_broker(given)?;
    check_free(config.broker.listen).map_err(|error| {
        anyhow::anyhow!("{} cannot be listened at ({error}); set broker.listen, or pass --nats", config.broker.listen)
    })?;
    let Some(found) = found else {
        let (major, minor, patch) = BROKER_VERSION_MIN;
        return Ok(format!("no nats-server {major}.{minor}.{patch} or newer here yet; `halm serve` will fetch one"));
    };
    let (major, minor, patch) = found.version;
    Ok(format!("local, {} {major}.{minor}.{patch}, at {}", found.path.display(), config.broker.listen))
}

async fn check_nats(config: &Config) -> anyhow::Result<String> {
    let link = replica::link(config, &config.nats.url, "halm check", &[]);
    let client = link.connect().await?;
    let server = client.server_info();
    Ok(format!("{}, nats-server {} with JetStream", config.nats.url, server.version))
}
