//! `halm status`: the tree of every replica.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use halm_client::Replicas;
use halm_protocol::{ActorStatus, ReplicaStatus};

use super::connect::{Connect, client};

/// How long replicas are waited for.
const WITHIN: Duration = Duration::from_millis(800);

/// Show every replica: its actors, worker processes and jobs
///
/// Asks all replicas over NATS and says which did not answer. Exits with 1 if none did.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let replicas = client(&args.connect).await?.replicas(WITHIN).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&replicas.answered)?);
    } else {
        print!("{}", draw(&replicas));
    }
    Ok(if replicas.answered.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn draw(replicas: &Replicas) -> String {
    let mut out = String::new();
    if replicas.answered.is_empty() {
        out.push_str("no replica answered\n");
    }
    for replica in &replicas.answered {
        draw_replica(replica, &mut out);
    }
    for name in &replicas.silent {
        out.push_str(&format!("{name}  did not answer\n"));
    }
    out
}

fn draw_replica(replica: &ReplicaStatus, out: &mut String) {
    let draining = if replica.draining { ", draining" } else { "" };
    let up = span(replica.uptime_ms);
    out.push_str(&format!("{}  halm {}, pid {}, up {up}{draining}\n", replica.replica, replica.version, replica.pid));
    for actor in &replica.tree {
        draw_actor(actor, replica, out);
    }
    for job in &replica.jobs {
        let worker = job.worker.map(|worker| format!(" on worker {worker}")).unwrap_or_default();
        let line =
            format!("  job {}  {}{worker}, {} tokens, attempt {}\n", job.job, job.phase, job.tokens, job.attempts);
        out.push_str(&line);
    }
}

fn draw_actor(actor: &ActorStatus, replica: &ReplicaStatus, out: &mut String) {
    let depth = actor.path.matches('/').count();
    let name = actor.path.rsplit('/').next().unwrap_or_default();
    let mut line = format!("  {}{name}", "  ".repeat(depth));
    line.push_str(&format!("{:width$}{}", "", actor.state, width = 34_usize.saturating_sub(line.len()).max(1)));
    if actor.state == "running" {
        line.push_str(&format!(", up {}", span(actor.uptime_ms)));
    }
    if actor.restarts > 0 {
        line.push_str(&format!(", {} restarts", actor.restarts));
    }
    if actor.path.contains("/workers/")
        && let Some(worker) = replica.workers.iter().find(|worker| worker.worker.to_string() == name)
    {
        let pid = worker.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let ready = if worker.ready { "" } else { ", loading" };
        line.push_str(&format!("{pid}{ready}, {} jobs", worker.jobs.len()));
    }
    if let Some(exit) = &actor.last_exit {
        line.push_str(&format!("; last: {exit}"));
    }
    out.push_str(&line);
    out.push('\n');
}

fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s}.{}s", ms % 1000 / 100),
        s @ 60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}
