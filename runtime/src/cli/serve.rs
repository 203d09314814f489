//! `halm serve`: a replica.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::{Client, Message, Request};
use clap::Args;
use futures_util::{StreamExt, stream};
use halm_actors::ports::BrokerProcess;
use halm_actors::replica::{Replica, ReplicaSpec};
use halm_actors::supervisor::Ended;
use halm_protocol::subject::{self, Inbox};
use halm_protocol::{ReplicaName, StatusQuestion};
use tokio::signal::unix::{SignalKind, signal};

use super::path_or_empty;
use crate::assets::Assets;
use crate::config::{self, Config, ModelConfig};
use crate::nats::Link;
use crate::process::{BrokerProgram, check_free};
use crate::{replica, telemetry};

/// How long a replica of the same name has to say that it lives.
const NAMESAKE_WITHIN: Duration = Duration::from_millis(300);

/// Run a replica
///
/// Takes work from NATS and computes it in worker processes. Start it on as many hosts as you like, with the same
/// NATS_URL: they share the work, and what one held when it died goes on at another. Without NATS_URL and --nats it runs
/// a nats-server of its own, on 127.0.0.1:4222.
///
/// The first SIGTERM or Ctrl-C drains (no new work, running jobs finish or move to a peer), the second ends at once.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Configuration file [environment: HALM_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// NATS server to connect to, e.g. nats://127.0.0.1:4222 [environment: NATS_URL]
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Name of this replica, one per replica [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Model to run; can be given more than once
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// A GGUF file to run under the name of the (one) model [default, or if empty: the catalogue's]
    #[arg(long, value_name = "PATH", value_parser = path_or_empty())]
    weights: Option<PathBuf>,
    /// Worker processes per model
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// Folder for the store of a local broker
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = configure(args)?;
    let telemetry = telemetry::start(&config.telemetry, "halm")?;
    let assets = Assets::open(None)?;
    let models = replica::models(&config, &assets)?;
    let (url, broker, lock) = broker(&config, &assets)?;
    let identity = replica::identity(&config)?;
    let tokens = models.iter().map(|model| Ok(replica::runs(model)?.token)).collect::<anyhow::Result<Vec<_>>>()?;
    let link = replica::link(&config, &url, &format!("halm/{}", identity.replica), &tokens);
    let spec = replica::spec(&config, identity, &models, &link, broker)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let name = spec.identity.replica.clone();
        // Signals count from before the start, so that a start that hangs can be ended.
        let mut signals = Signals::listen()?;
        let replica = tokio::select! {
            started = start(spec, &link) => started?,
            name = signals.next() => {
                tracing::info!(signal = name, "ended before it had started");
                return Ok(ExitCode::SUCCESS);
            }
        };
        tracing::info!(replica = %name, url, version = env!("CARGO_PKG_VERSION"), "replica started");
        attend(replica, &name, &link, signals, Duration::from_secs(config.replica.drain_s)).await
    });
    drop((telemetry, lock));
    code
}

async fn start(spec: ReplicaSpec, link: &Link) -> anyhow::Result<Replica> {
    if spec.local_broker.is_none() {
        // Before anything else, so that the reason is all that is said when there is no connection to be had.
        let client = link.connect().await?;
        let name = spec.identity.replica.clone();
        let question = Request::new().timeout(Some(NAMESAKE_WITHIN));
        if client.send_request(subject::ping(&name), question).await.is_ok() {
            bail!("a replica named {name} is connected already; give each its own name with --name");
        }
    }
    Ok(Replica::start(spec).await?)
}

/// The file, the environment and the flags, in this order.
fn configure(args: ServeArgs) -> anyhow::Result<Config> {
    let file = args.config.or_else(|| std::env::var_os("HALM_CONFIG").map(PathBuf::from));
    let mut config = config::load(file.as_deref(), config::variables())?;
    if let Some(url) = args.nats {
        config.nats.url = url;
    }
    if let Some(name) = args.name {
        config.replica.name = name;
    }
    if let Some(dir) = args.data_dir {
        config.replica.data_dir = dir;
    }
    if !args.model.is_empty() {
        let model = |name: &String| {
            let configured = config.models.iter().find(|model| model.name == *name).cloned();
            configured.unwrap_or_else(|| ModelConfig { name: name.clone(), ..ModelConfig::default() })
        };
        config.models = args.model.iter().map(model).collect();
    }
    if let Some(weights) = args.weights {
        match config.models.as_mut_slice() {
            [one] => one.path = weights,
            _ => bail!("--weights needs exactly one model; configure several in a file"),
        }
    }
    if let Some(workers) = args.workers {
        if !(1..=64).contains(&workers) {
            bail!("--workers must be 1 to 64, not {workers}");
        }
        for model in &mut config.models {
            model.workers = workers;
        }
    }
    Ok(config)
}

type LocalBroker = (String, Option<Arc<dyn BrokerProcess>>, Option<File>);

/// Where to connect, and what to run if that is our own.
fn broker(config: &Config, assets: &Assets) -> anyhow::Result<LocalBroker> {
    if !config.nats.url.is_empty() {
        return Ok((config.nats.url.clone(), None, None));
    }
    let dir =
        if config.replica.data_dir.as_os_str().is_empty() { data_dir()? } else { config.replica.data_dir.clone() };
    let dir = std::path::absolute(&dir).with_context(|| format!("find {}", dir.display()))?;
    let lock = lock(&dir)?;
    let listen = config.broker.listen;
    check_free(listen).with_context(|| {
        format!(
            "the address {listen} is in use; if that is a NATS server to use, pass --nats nats://{listen}, \
             otherwise set broker.listen to a free port"
        )
    })?;
    let given = (!config.broker.program.as_os_str().is_empty()).then_some(config.broker.program.as_path());
    let broker = BrokerProgram {
        halm: std::env::current_exe().context("find the halm binary")?,
        program: assets.broker(given)?.path,
        listen,
        dir: dir.join("broker"),
    };
    broker.prepare().with_context(|| format!("write to {}", broker.dir.display()))?;
    Ok((format!("nats://{listen}"), Some(Arc::new(broker)), Some(lock)))
}

/// One replica per data folder.
fn lock(dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(dir).with_context(|| format!("make the data folder {}", dir.display()))?;
    let path = dir.join("halm.lock");
    let file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("the data folder {} is in use by another replica; give each its own with --data-dir", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

fn data_dir() -> anyhow::Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
    Ok(base.context("no HOME to keep data in; pass --data-dir")?.join("halm"))
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Lives with the replica until it ends, or is told to.
async fn attend(
    mut replica: Replica,
    name: &ReplicaName,
    link: &Link,
    mut signals: Signals,
    grace: Duration,
) -> anyhow::Result<ExitCode> {
    let client = link.client().map_err(anyhow::Error::msg)?;
    let to_all = client.subscribe(subject::STATUS).await?;
    let mut questions = stream::select(to_all, client.subscribe(subject::status_of(name)).await?);
    loop {
        tokio::select! {
            ended = replica.ended() => return gave_up(&ended),
            name = signals.next() => {
                tracing::info!(signal = name, "draining");
                break;
            }
            Some(question) = questions.next() => {
                answer(&client, &replica, question).await?;
            }
        }
    }
    {
        let mut drain = std::pin::pin!(replica.drain(grace));
        loop {
            tokio::select! {
                () = &mut drain => break,
                name = signals.next() => {
                    tracing::warn!(signal = name, "ended at once");
                    std::process::exit(1);
                }
                Some(question) = questions.next() => answer(&client, &replica, question).await?,
            }
        }
    }
    // What was handed over or acknowledged must be out before the connection goes.
    let _ = tokio::time::timeout(Duration::from_secs(2), client.flush()).await;
    tokio::select! {
        () = replica.shutdown() => {}
        _ = signals.next() => std::process::exit(1),
    }
    tracing::info!("replica ended");
    Ok(ExitCode::SUCCESS)
}

/// Tells how this replica is, to an inbox and nowhere else.
async fn answer(client: &Client, replica: &Replica, question: Message) -> anyhow::Result<()> {
    if let Some(inbox) = question.reply.as_ref().and_then(|reply| Inbox::try_from(reply.as_str()).ok()) {
        // An empty question asks for everything, and so does one of another version.
        let asked: StatusQuestion = serde_json::from_slice(&question.payload).unwrap_or_default();
        let status = serde_json::to_vec(&replica.status(&asked).await)?;
        // Whoever asked may be gone.
        let _ = client.publish(inbox.as_str().to_owned(), status.into()).await;
    }
    Ok(())
}

fn gave_up(ended: &Ended) -> anyhow::Result<ExitCode> {
    match ended {
        Ended::Escalated(chain) => bail!("the replica gave up: {chain}"),
        Ended::AutoShutdown { child, reason } => bail!("the replica gave up: {child} ended: {reason}"),
        Ended::Killed => bail!("the replica gave up: its root was killed"),
        Ended::Shutdown => Ok(ExitCode::SUCCESS),
    }
}
