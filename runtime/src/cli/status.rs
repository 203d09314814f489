//! `halm status`: the tree of every replica, once or as it changes.

mod draw;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use halm_client::{Client, Replicas};
use halm_protocol::{ReplicaName, StatusQuestion};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::connect::{Connect, client};

/// How long replicas are waited for.
const WITHIN: Duration = Duration::from_millis(800);
/// The same while watching: a death is to be seen within half a second.
const WATCHED_WITHIN: Duration = Duration::from_millis(250);
/// Between two looks while watching.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// A replica that was seen while watching and is silent for longer has left.
const LEFT_AFTER: Duration = Duration::from_secs(30);

/// Show every replica: its actors, worker processes and jobs
///
/// Asks all replicas over NATS and says which did not answer. With the path of an actor, as `halm status` shows it
/// (root/pools/smollm2@1/workers/2), shows that actor and what is below it, with the last crash reports. Exits with 1 if
/// nobody answered.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only the actor at this path
    path: Option<String>,
    /// For programs; with --watch a line for each change
    #[arg(long)]
    json: bool,
    /// Show it again whenever it changes, until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let client = client(&args.connect).await?;
    let question = StatusQuestion { path: args.path };
    if args.watch {
        // One listener for all of it: an interrupt between two looks counts too.
        let mut interrupt = signal(SignalKind::interrupt())?;
        return tokio::select! {
            watched = watch(&client, &question, args.json) => watched,
            _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
        };
    }
    let replicas = client.replicas_asked(&question, &BTreeSet::new(), WITHIN).await?;
    if let Some(path) = &question.path
        && !replicas.answered.is_empty()
        && replicas.answered.iter().all(|replica| replica.tree.is_empty())
    {
        bail!("no replica has an actor at {path}; `halm status` shows their paths");
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&replicas.answered)?);
    } else {
        print!("{}", draw::replicas(&replicas, &question));
    }
    Ok(if replicas.answered.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Looks again and again. A terminal is redrawn each time; elsewhere a picture is written for each change.
async fn watch(client: &Client, question: &StatusQuestion, json: bool) -> anyhow::Result<ExitCode> {
    let terminal = std::io::stdout().is_terminal() && !json;
    let mut seen: BTreeMap<ReplicaName, Instant> = BTreeMap::new();
    let mut shown = None;
    let mut due = tokio::time::interval(LOOK_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let expected: BTreeSet<ReplicaName> = seen.keys().cloned().collect();
        let replicas = client.replicas_asked(question, &expected, WATCHED_WITHIN).await?;
        let now = Instant::now();
        for replica in &replicas.answered {
            seen.insert(replica.replica.clone(), now);
        }
        seen.retain(|_, last| now.duration_since(*last) < LEFT_AFTER);
        let essence = essence(&replicas);
        if terminal {
            redraw(&draw::replicas(&replicas, question))?;
        } else if shown.as_ref() != Some(&essence) {
            let picture = match json {
                true => serde_json::to_string(&replicas.answered)? + "\n",
                false => draw::replicas(&replicas, question) + "\n",
            };
            let mut out = std::io::stdout().lock();
            out.write_all(picture.as_bytes())?;
            out.flush()?;
        }
        shown = Some(essence);
    }
}

/// What makes a picture another one: everything but the numbers that always move.
fn essence(replicas: &Replicas) -> Replicas {
    let mut essence = replicas.clone();
    for replica in &mut essence.answered {
        replica.uptime_ms = 0;
        for actor in &mut replica.tree {
            actor.uptime_ms = 0;
            actor.mailbox = None;
        }
        replica.jobs.iter_mut().for_each(|job| job.tokens = 0);
        replica.workers.iter_mut().flat_map(|worker| &mut worker.jobs).for_each(|activity| activity.offset = 0);
    }
    essence
}

/// Draws over what is there, line by line, so that nothing flickers.
fn redraw(picture: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "\x1b[H")?;
    for line in picture.lines() {
        writeln!(out, "{line}\x1b[K")?;
    }
    write!(out, "\x1b[J")?;
    out.flush()
}
