//! `halm bench`: how fast a model is on this machine.

mod against;

use std::io::Write;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use halm_models::bench::{self, Measured};
use halm_models::{GenerationSpec, Input, Isa, LoadOptions, Model, Progress, SamplingSpec};
use serde_json::json;

use crate::assets::Assets;

/// What is asked for to measure the way from the start of a process to its first token.
const FIRST_PROMPT: &str = "The sea";

/// Measure how fast a model computes here
///
/// Prefill (a prompt of 512 tokens), decoding of one sequence and of eight together, the time from a process's start to
/// its first token, memory, and the roof: what decoding could reach if reading the weights once a token were all there is
/// to it, by the memory bandwidth measured in the same rounds. Medians.
///
/// With --against: how fast halm answers several clients at once, through NATS, and how fast an OpenAI-compatible server
/// beside it (llama-server, vLLM) answers the same. They take turns; give both the same model and as many threads.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Catalogue name, or a GGUF file
    #[arg(long, default_value = "smollm2:135m")]
    model: String,
    /// Threads to compute with
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Rounds
    #[arg(long, default_value = "7", value_name = "N")]
    rounds: NonZeroUsize,
    /// Instructions to compute with [default: the best that the processor has]
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
    /// An OpenAI-compatible server to compare with, e.g. http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    against: Option<String>,
    /// Clients at once, with --against
    #[arg(long, default_value = "8", value_name = "N", requires = "against")]
    clients: NonZeroU32,
    /// Worker processes of halm, with --against; --threads is for each
    #[arg(long, default_value = "1", value_name = "N", requires = "against")]
    workers: NonZeroU32,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Only load, print one token and end
    #[arg(long, hide = true)]
    first_token: bool,
    /// Where packed weights are kept
    #[arg(long, hide = true)]
    packed: Option<PathBuf>,
}

pub(super) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if let Some(url) = &args.against {
        return super::block_on(against::run(args, url));
    }
    let path = find(&args.model)?;
    let options = LoadOptions {
        threads: args.threads,
        isa: isa(args.isa.as_deref())?,
        packed: Some(match &args.packed {
            Some(given) => given.clone(),
            None => packed(&path)?,
        }),
        ..LoadOptions::default()
    };
    if args.first_token {
        return first_token(&path, &options);
    }
    // Loaded first: a process that starts finds packed weights, unless it is the first of all.
    let mut model = Model::load(&path, &options)?;
    let started = time_to_first_token(&path, args, &options)?;
    let rounds: Vec<Measured> =
        (0..args.rounds.get()).map(|_| bench::round(&mut model)).collect::<Result<_, _>>().context("measure")?;
    let median = |of: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (prefill, decode) = (median(|round| round.prefill_tokens_per_s), median(|round| round.decode_tokens_per_s));
    let (batch, roof) = (median(|round| round.batch_tokens_per_s), median(|round| round.roof_tokens_per_s));
    if args.json {
        let figures = json!({
            "model": path, "threads": args.threads, "isa": options.isa.name(), "rounds": rounds.len(),
            "prefill_512_tokens_per_s": prefill, "decode_tokens_per_s": decode, "batch_8_tokens_per_s": batch,
            "start_to_first_token_s": started, "rss_bytes": resident_bytes(), "roof_tokens_per_s": roof,
        });
        println!("{figures}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} with {} thread(s), {}, medians of {}", path.display(), args.threads, options.isa.name(), rounds.len());
    println!("prefill of 512 tokens      {prefill:>8.0} tokens/s");
    println!("decoding one sequence      {decode:>8.0} tokens/s, {:.0} % of the roof", 100.0 * decode / roof);
    println!("decoding eight together    {batch:>8.0} tokens/s");
    println!("roof by memory bandwidth   {roof:>8.0} tokens/s");
    println!("process start, first token {:>8.0} ms", 1000.0 * started);
    println!("resident memory            {:>8.0} MB", resident_bytes() as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}

fn find(model: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(model);
    Ok(if path.is_file() { path.to_owned() } else { Assets::open(None)?.model(model, None)?.path })
}

/// Where the workers of a replica keep them.
fn packed(weights: &Path) -> anyhow::Result<PathBuf> {
    let assets = Assets::open(None)?;
    let digest = halm_models::Digest::of_file(weights)?;
    Ok(assets.dir().join("packed").join(digest.to_string()))
}

fn isa(name: Option<&str>) -> anyhow::Result<Isa> {
    let Some(name) = name else { return Ok(Isa::best()) };
    let available = Isa::available();
    match available.iter().find(|isa| isa.name() == name) {
        Some(isa) => Ok(*isa),
        None => {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            bail!("this processor has no instructions called {name}, but {}", names.join(", "))
        }
    }
}

fn first_token(path: &Path, options: &LoadOptions) -> anyhow::Result<ExitCode> {
    let mut model = Model::load(path, options)?;
    let spec = GenerationSpec {
        input: Input::Prompt(FIRST_PROMPT.to_owned()),
        max_tokens: Some(1),
        sampling: SamplingSpec::GREEDY,
        stop: Vec::new(),
    };
    let mut generation = model.open(&spec, &[])?;
    let Progress::Generated { token, .. } = model.advance(&mut generation)? else { bail!("no token came") };
    writeln!(std::io::stdout(), "{token}")?;
    Ok(ExitCode::SUCCESS)
}

/// The median of some starts, in seconds.
fn time_to_first_token(path: &Path, args: &BenchArgs, options: &LoadOptions) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..args.rounds.get() {
        let began = Instant::now();
        let mut command = Command::new(std::env::current_exe().context("find the halm binary")?);
        command.args(["bench", "--first-token", "--threads", &args.threads.to_string(), "--model"]).arg(path);
        if let Some(packed) = &options.packed {
            command.arg("--packed").arg(packed);
        }
        if let Some(isa) = &args.isa {
            command.args(["--isa", isa]);
        }
        let output = command.stdin(Stdio::null()).output().context("start a process")?;
        if !output.status.success() {
            bail!("a process gave no token: {}", String::from_utf8_lossy(&output.stderr));
        }
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Zero where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
