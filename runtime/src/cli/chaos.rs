//! `halm chaos`: breaks a real deployment under load, and says whether halm kept its promises.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::connect::{Connect, client};
use crate::chaos::host::Host;
use crate::chaos::ladder::{self, Rung};
use crate::chaos::report;
use crate::chaos::run::{Plan, perform};
use crate::chaos::schedule::Schedule;
use crate::chaos::target::{Place, Target};
use crate::chaos::verdict::{Setting, Slo, Verdict};

/// Load before anything is broken, in seconds; of a short run at most a third of its faults' time.
const CALM_S: f64 = 20.0;
/// Nobody waits longer for a verdict, and everything that was seen is kept until then.
const MINUTES_MAX: f64 = 24.0 * 60.0;
/// More requests a second are no load for a small model on one host.
const RATE_MAX: f64 = 1_000.0;
/// Seeds that a person can type.
const SEEDS: u64 = 1_000_000;

/// Break a real deployment under load, and judge whether every promise was kept
///
/// Starts three brokers in a cluster and three replicas with two workers each on this host, asks for texts whose right
/// answers it has learnt before, and breaks things on a schedule: it kills, hangs and aborts workers, kills, freezes and
/// drains replicas, kills brokers and the leader of the token log, and delays, stalls, cuts and resets connections. With
/// --url it breaks nothing, and judges a deployment that somebody else breaks.
///
/// Writes report.html and report.json. The last line is the verdict; the exit code is 0 only if nothing was lost, doubled,
/// changed or failed, every promise that was judged was kept, and the objectives were met.
#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    /// How long things are broken
    #[arg(long, default_value = "3")]
    minutes: f64,
    /// Replays the schedule of faults and the load [default: drawn, and shown]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Requests per second, sent whether or not the last ones are answered [default: what the host bears easily, measured]
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Clients, each with a connection of its own
    #[arg(long, default_value = "6", value_name = "N")]
    clients: NonZeroUsize,
    /// Only these rungs, separated by commas
    #[arg(long, value_name = "RUNG,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Print every rung, what it does and what must happen, and end
    #[arg(long)]
    list: bool,
    /// Folder for the report [default: halm-chaos-SEED]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// A client that hears nothing for longer than this is not served
    #[arg(long, default_value = "2000", value_name = "MS")]
    slo_gap_ms: u64,
    /// The share of client-seconds that must be served, from 0 to 1
    #[arg(long, default_value = "0.9", value_name = "SHARE")]
    slo_availability: f64,
    /// Watch and judge the deployment behind this NATS server, and break nothing
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Configuration file, for the credentials that --url needs [environment: HALM_CONFIG]
    #[arg(long, value_name = "FILE", requires = "url")]
    config: Option<PathBuf>,
    /// Model to ask, and to run
    #[arg(long, default_value = "smollm2:135m")]
    model: String,
}

pub(super) async fn run(args: ChaosArgs) -> anyhow::Result<ExitCode> {
    let place = if args.url.is_some() { Place::Outside } else { Place::Host };
    if args.list {
        // A reader that has seen enough closes the pipe.
        let _ = std::io::stdout().write_all(ladder::list(place).as_bytes());
        return Ok(ExitCode::SUCCESS);
    }
    let plan = plan(&args, place)?;
    let dir = args.report.clone().unwrap_or_else(|| PathBuf::from(format!("halm-chaos-{}", plan.setting.seed)));
    // What cannot be written is better known before than after.
    std::fs::create_dir_all(&dir).with_context(|| format!("make the folder {}", dir.display()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut target = None;
    let performed = tokio::select! {
        done = Box::pin(start(&args, plan, &mut target)) => Some(done),
        _ = tokio::signal::ctrl_c() => None,
        _ = terminate.recv() => None,
    };
    if let Some(target) = target {
        target.clear().await;
    }
    let Some(verdict) = performed.transpose()? else {
        eprintln!("halm chaos: interrupted; nothing was judged");
        return Ok(ExitCode::from(130));
    };
    report::write(&verdict, &dir)?;
    print!("{}", report::text(&verdict));
    println!("report: {}", dir.join("report.html").display());
    println!("{}", verdict.line);
    Ok(if verdict.kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn start(args: &ChaosArgs, plan: Plan, target: &mut Option<Target>) -> anyhow::Result<Verdict> {
    let say = |line: &str| {
        let mut out = std::io::stdout().lock();
        // Whoever reads along may go; the run goes on, and its report is written.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    say(&format!("halm chaos --seed {}: {}", plan.setting.seed, plan.setting.target));
    let built = match &args.url {
        None => Target::Host(Box::new(Host::build(&args.model).await?)),
        Some(url) => {
            let mut clients = Vec::new();
            for _ in 0..args.clients.get() {
                clients.push(client(&Connect::to(Some(url.clone()), args.config.clone())).await?);
            }
            Target::Outside(clients)
        }
    };
    perform(target.insert(built), plan, &say).await
}

fn plan(args: &ChaosArgs, place: Place) -> anyhow::Result<Plan> {
    if !(args.minutes > 0.0 && args.minutes <= MINUTES_MAX) {
        bail!("--minutes must be above 0 and at most {MINUTES_MAX}, not {}", args.minutes);
    }
    if let Some(rate) = args.rate
        && !(rate > 0.0 && rate <= RATE_MAX)
    {
        bail!("--rate must be above 0 and at most {RATE_MAX}, not {rate}");
    }
    if !(0.0..=1.0).contains(&args.slo_availability) {
        bail!("--slo-availability must be from 0 to 1, not {}", args.slo_availability);
    }
    let faults_s = args.minutes * 60.0;
    let seed = args.seed.unwrap_or_else(drawn_seed);
    let (schedule, calm) = match place {
        Place::Host => {
            let rungs = rungs(&args.only, place)?;
            let schedule = Schedule::new(seed, Duration::from_secs_f64(faults_s), &rungs);
            (schedule, Duration::from_secs_f64(CALM_S.min(faults_s / 3.0)))
        }
        Place::Outside if !args.only.is_empty() => bail!("--only chooses faults, and with --url chaos makes none"),
        Place::Outside => (Schedule { strikes: Vec::new() }, Duration::ZERO),
    };
    if place == Place::Host && schedule.strikes.is_empty() {
        bail!("{} minutes are too short for any of the rungs", args.minutes);
    }
    let setting = Setting {
        version: env!("CARGO_PKG_VERSION"),
        target: place.describe().to_owned(),
        seed,
        faults_s,
        rate: args.rate.unwrap_or(0.0),
        clients: args.clients.get(),
        model: args.model.clone(),
        slo: Slo { gap_ms: args.slo_gap_ms, availability: args.slo_availability },
    };
    Ok(Plan { setting, calm, faults: Duration::from_secs_f64(faults_s), schedule })
}

fn rungs(only: &[String], place: Place) -> anyhow::Result<Vec<Rung>> {
    if only.is_empty() {
        return Ok(Rung::all().filter(|rung| place.cannot(*rung).is_none()).collect());
    }
    let find = |name: &String| match Rung::named(name) {
        Some(rung) => Ok(rung),
        None => bail!("there is no rung {name:?}; `halm chaos --list` prints them"),
    };
    let mut rungs = only.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?;
    rungs.sort_unstable();
    rungs.dedup();
    Ok(rungs)
}

fn drawn_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()) % SEEDS)
}
