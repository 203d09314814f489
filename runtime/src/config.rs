//! The configuration: one TOML file, environment variables over it, command-line flags over those.
//!
//! `Default` is the only source of defaults. An unknown key is an error that names the nearest known one.

mod load;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use load::{ConfigError, load, variables};

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this replica is.
    pub replica: ReplicaConfig,
    /// The broker to connect to.
    pub nats: NatsConfig,
    /// The broker to run, when none is given to connect to.
    pub broker: BrokerConfig,
    /// What to run. One pool of workers for each.
    pub models: Vec<ModelConfig>,
    /// What is asked of and promised to clients.
    pub limits: LimitsConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            replica: ReplicaConfig::default(),
            nats: NatsConfig::default(),
            broker: BrokerConfig::default(),
            models: vec![ModelConfig::default()],
            limits: LimitsConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// `[replica]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicaConfig {
    /// Its name, letters, digits, `-` and `_`; empty: the host's name. Two replicas on one host need two names.
    pub name: String,
    /// Folder for what must outlive the process; empty: `halm` in the platform's data folder. One replica per folder.
    pub data_dir: PathBuf,
    /// How long a drain waits for running jobs before it hands them over, in seconds. Shorter than your orchestrator's
    /// grace.
    pub drain_s: u64,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self { name: String::new(), data_dir: PathBuf::new(), drain_s: 25 }
    }
}

/// `[nats]`; each key can be set by the variable that the `nats` command line uses, e.g. `NATS_URL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// `nats://host:port`, several separated by commas; empty: run a local broker.
    pub url: String,
    /// Credentials file (JWT and seed).
    pub creds: PathBuf,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// File that holds the password, as containers are given secrets.
    pub password_file: PathBuf,
    /// File with an NKey seed.
    pub nkey: PathBuf,
    /// Token.
    pub token: String,
    /// Certificate authority, beside the system's.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Copies of each stream: 1 on a single server, 3 in a cluster of three.
    pub copies: usize,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            creds: PathBuf::new(),
            user: String::new(),
            password: String::new(),
            password_file: PathBuf::new(),
            nkey: PathBuf::new(),
            token: String::new(),
            ca: PathBuf::new(),
            cert: PathBuf::new(),
            key: PathBuf::new(),
            copies: 1,
        }
    }
}

/// `[broker]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Where the local broker listens. Loopback, for it has no authentication.
    pub listen: SocketAddr,
    /// Path of a `nats-server`; empty: one on `PATH` that is new enough, or one that halm fetches.
    pub program: PathBuf,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 4222)), program: PathBuf::new() }
    }
}

/// `[[models]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Catalogue name (`halm models`), or any name if `path` is given.
    pub name: String,
    /// A GGUF file; empty: the catalogue's.
    pub path: PathBuf,
    /// Worker processes. One worker's slots are kept free for what another's death leaves, so 2 is the least that takes
    /// over at once.
    pub workers: u32,
    /// Jobs that one worker computes together.
    pub slots: u32,
    /// Threads of each worker; 0: the machine's cores divided by the workers, at least 1.
    pub threads: usize,
    /// Most tokens of prompt and answer; 0: as many as the model can. Less saves memory.
    pub context_tokens: usize,
    /// Most memory of each worker in MB, mapped weights aside; 0: nine tenths of the machine's (or the container's),
    /// divided by all workers. A worker that wants more ends, alone, and is restarted.
    pub memory_mb: u64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            name: "smollm2:135m".to_owned(),
            path: PathBuf::new(),
            workers: 2,
            slots: 4,
            threads: 0,
            context_tokens: 0,
            memory_mb: 0,
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Deadline of a request that names none, in seconds.
    pub deadline_s: u64,
    /// Jobs that may wait per model; more are refused as `overloaded`. Used when the streams are made.
    pub queue_jobs: i64,
    /// Bytes of the token log of all unfinished jobs. Used when the streams are made.
    pub log_bytes: i64,
    /// Bytes of stored outcomes. Used when the streams are made.
    pub outcome_bytes: i64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { deadline_s: 120, queue_jobs: 1024, log_bytes: 1 << 30, outcome_bytes: 1 << 30 }
    }
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or filters such as `halm=debug,warn`.
    pub log: String,
    /// `auto` (text on a terminal, JSON elsewhere), `text` or `json`.
    pub format: LogFormat,
    /// OTLP endpoint for traces, over HTTP; empty: none. `OTEL_EXPORTER_OTLP_ENDPOINT` sets it too.
    pub otlp_endpoint: String,
}

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info,async_nats=off,ractor=off".to_owned(), format: LogFormat::Auto, otlp_endpoint: String::new() }
    }
}
