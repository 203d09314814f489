//! Builds a replica from a configuration: the one place where ports and actors are put together.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use halm_actors::dispatcher::DispatcherPorts;
use halm_actors::pool::PoolSpec;
use halm_actors::ports::{BrokerProcess, JobQueue};
use halm_actors::replica::{Identity, ReplicaSpec};
use halm_models::Model;
use halm_protocol::{Digest, Incarnation, ModelToken, ReplicaName, RunsModel};

use crate::assets::{Assets, StoredModel};
use crate::config::{Config, ModelConfig, NatsConfig};
use crate::memory;
use crate::nats::{
    Credentials, JobConsumer, Link, LinkSpec, NatsBeats, NatsDeadLetters, NatsInboxes, NatsIntake, NatsOutcomes,
    NatsRequests, NatsTokenLog, StreamLimits,
};
use crate::process::WorkerProgram;
use crate::worker::WorkerSpec;

/// Reading a model of some gigabytes from a cold disk takes a while; a worker that takes longer than this hangs.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A model that is there to be served.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// How it is configured.
    pub config: ModelConfig,
    /// Where its weights are.
    pub stored: StoredModel,
    /// Where they are kept as the kernels read them, for all workers on this host.
    pub packed: PathBuf,
}

/// Finds, or fetches, the weights of every configured model.
///
/// # Errors
/// When a file is missing, wrong, or cannot be had.
pub fn models(config: &Config, assets: &Assets) -> anyhow::Result<Vec<ServedModel>> {
    let find = |model: &ModelConfig| {
        let given = (!model.path.as_os_str().is_empty()).then_some(model.path.as_path());
        let stored = assets.model(&model.name, given)?;
        // A file that no worker could load is refused here, before anything starts.
        Model::inspect(&stored.path)?;
        let packed = assets.dir().join("packed").join(&stored.digest);
        Ok(ServedModel { config: model.clone(), stored, packed })
    };
    let models: Vec<ServedModel> = config.models.iter().map(find).collect::<anyhow::Result<_>>()?;
    for (at, model) in models.iter().enumerate() {
        if models[..at].iter().any(|other| other.stored.alias == model.stored.alias) {
            bail!("the model {:?} is configured twice; name each once", model.stored.alias);
        }
    }
    Ok(models)
}

/// Who this replica is.
///
/// # Errors
/// When its name cannot be one.
pub fn identity(config: &Config) -> anyhow::Result<Identity> {
    let name = if config.replica.name.is_empty() { host_name() } else { config.replica.name.clone() };
    let replica = ReplicaName::try_from(name).context("replica.name")?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let incarnation = Incarnation::try_from(format!("{:x}-{:x}", since.as_micros(), std::process::id()))?;
    Ok(Identity { replica, incarnation, version: env!("CARGO_PKG_VERSION").to_owned() })
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect()
}

/// The link that a configuration asks for; not connected yet.
#[must_use]
pub fn link(config: &Config, url: &str, name: &str, models: &[ModelToken]) -> Link {
    Link::new(LinkSpec {
        url: url.to_owned(),
        credentials: credentials(&config.nats),
        name: name.to_owned(),
        limits: StreamLimits {
            copies: config.nats.copies,
            jobs_max: config.limits.queue_jobs,
            log_bytes_max: config.limits.log_bytes,
            outcomes_bytes_max: config.limits.outcome_bytes,
        },
        models: models.to_vec(),
    })
}

fn credentials(nats: &NatsConfig) -> Credentials {
    let path = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    Credentials {
        creds: path(&nats.creds),
        user: text(&nats.user),
        password: text(&nats.password),
        password_file: path(&nats.password_file),
        nkey: path(&nats.nkey),
        token: text(&nats.token),
        ca: path(&nats.ca),
        cert: path(&nats.cert),
        key: path(&nats.key),
    }
}

/// What a model is to the others.
///
/// # Errors
/// When its name cannot stand in a subject.
pub fn runs(model: &ServedModel) -> anyhow::Result<RunsModel> {
    Ok(RunsModel {
        token: ModelToken::of_name(&model.stored.name).context("models.name")?,
        alias: ModelToken::of_name(&model.stored.alias).context("models.name")?,
        name: model.stored.name.clone(),
        digest: Digest::try_from(model.stored.digest.clone())?,
    })
}

/// Puts a replica together.
///
/// # Errors
/// When a name cannot be one, or our own binary cannot be found.
pub fn spec(
    config: &Config,
    identity: Identity,
    models: &[ServedModel],
    link: &Link,
    local_broker: Option<Arc<dyn BrokerProcess>>,
) -> anyhow::Result<ReplicaSpec> {
    let workers = models.iter().map(|model| u64::from(model.config.workers)).sum();
    let share = memory::share_of_worker(workers);
    let pools = models.iter().map(|model| pool(model, link, share)).collect::<anyhow::Result<Vec<_>>>()?;
    let first = pools.first().context("no model to serve")?;
    let ports = DispatcherPorts {
        log: Arc::new(NatsTokenLog::new(link.clone())),
        outcomes: Arc::new(NatsOutcomes::new(link.clone())),
        dead: Arc::new(NatsDeadLetters::new(link.clone())),
        queue: Arc::clone(&first.queue),
        inboxes: Arc::new(NatsInboxes::new(link.clone(), identity.replica.clone())),
    };
    Ok(ReplicaSpec {
        local_broker,
        broker: Arc::new(link.clone()),
        requests: Arc::new(NatsRequests::new(link.clone())),
        intake: Arc::new(NatsIntake::new(link.clone())),
        bus: Arc::new(NatsBeats::new(link.clone(), identity.replica.clone())),
        ports,
        pools,
        deadline_default: Duration::from_secs(config.limits.deadline_s),
        identity,
    })
}

fn pool(model: &ServedModel, link: &Link, memory_share: Option<u64>) -> anyhow::Result<PoolSpec> {
    let runs = runs(model)?;
    let queue: Arc<dyn JobQueue> = Arc::new(JobConsumer::new(link.clone(), runs.token.clone()));
    let process = WorkerProgram {
        program: std::env::current_exe().context("find the halm binary")?,
        spec: WorkerSpec {
            weights: model.stored.path.clone(),
            digest: runs.digest.clone(),
            threads: threads(&model.config),
            context_tokens_max: (model.config.context_tokens > 0).then_some(model.config.context_tokens),
            packed: Some(model.packed.clone()),
            memory_bytes_max: match model.config.memory_mb {
                0 => memory_share,
                mb => Some(mb.saturating_mul(1_000_000)),
            },
            parent: std::process::id(),
        },
    };
    Ok(PoolSpec {
        model: runs,
        workers: model.config.workers,
        slots_per_worker: model.config.slots,
        ready_within: READY_WITHIN,
        process: Arc::new(process),
        queue,
    })
}

fn threads(model: &ModelConfig) -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = cores / model.workers.max(1) as usize;
    NonZeroUsize::new(if model.threads > 0 { model.threads } else { share }).unwrap_or(NonZeroUsize::MIN)
}
