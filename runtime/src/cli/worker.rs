//! `halm worker`: internal; started by a replica.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use halm_protocol::Digest;

use crate::config::{self, TelemetryConfig};
use crate::telemetry;
use crate::worker::{self, WorkerSpec};

/// Computes one model, over a pipe. Started by `halm serve`.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// A GGUF file
    #[arg(long)]
    weights: PathBuf,
    /// Its SHA-256
    #[arg(long)]
    digest: String,
    /// Threads to compute with
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Most tokens of prompt and answer
    #[arg(long)]
    context_tokens: Option<usize>,
    /// Where packed weights are kept
    #[arg(long)]
    packed: Option<PathBuf>,
    /// Most bytes of memory of its own
    #[arg(long)]
    memory_bytes: Option<u64>,
    /// Process id of the replica
    #[arg(long)]
    parent: u32,
}

pub(super) fn run(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    let environment = config::variables()
        .into_iter()
        .filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("HALM_TELEMETRY_"));
    let telemetry_config =
        TelemetryConfig { format: config::LogFormat::Text, ..config::load(None, environment)?.telemetry };
    let telemetry = telemetry::start(&telemetry_config, "halm-worker")?;
    let spec = WorkerSpec {
        weights: args.weights,
        digest: Digest::try_from(args.digest)?,
        threads: args.threads,
        context_tokens_max: args.context_tokens,
        packed: args.packed,
        memory_bytes_max: args.memory_bytes,
        parent: args.parent,
    };
    worker::run(&spec)?;
    drop(telemetry);
    Ok(ExitCode::SUCCESS)
}
