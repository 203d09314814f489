//! `halm demo`: the whole point, shown in half a minute.
//!
//! Starts a broker and two replicas with two workers each, asks for the same text three times at once, kills the worker
//! that computes the second and the replica that computes the third, and compares what three clients saw.

mod client;
mod screen;
mod victims;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use halm_protocol::{JobId, Request};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::config::ModelConfig;
use crate::stage::{Stage, StageSpec};
use client::{Stream, Transcript};
use screen::Screen;

/// Tokens of the text.
const TOKENS: u32 = 200;
/// Tokens that a victim has shown before it is hit.
const KILL_WORKER_AT: usize = 60;
const KILL_REPLICA_AT: usize = 100;
/// How often the jobs may land so that one kill would hit two of them, before the demo gives up.
const PLACEMENTS_MAX: usize = 5;
/// Replicas, and workers in each.
const REPLICAS: [&str; 2] = ["demo-1", "demo-2"];
const WORKERS: u32 = 2;
/// What nothing in the demo takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Watch three streams survive: one undisturbed, one whose worker is killed, one whose whole replica is killed
///
/// Fetches what it needs, starts a broker and two replicas with two workers each, asks for the same 200-token text three
/// times at once, and kills with `kill -9`. The last line is the verdict; the exit code is 0 only if the three texts are
/// identical. Needs no terminal and no free fixed port, and cleans up after itself.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Model to run
    #[arg(long, default_value = "smollm2:135m")]
    model: String,
}

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stage = None;
    let code = tokio::select! {
        done = perform(&args, &mut stage) => done,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    };
    if let Some(stage) = stage {
        stage.clear().await;
    }
    code
}

async fn perform(args: &DemoArgs, stage: &mut Option<Stage>) -> anyhow::Result<ExitCode> {
    let model = args.model.clone();
    let runs = ModelConfig { name: model.clone(), workers: WORKERS, ..ModelConfig::default() };
    let spec = StageSpec { brokers: 1, replicas: &REPLICAS, model: runs };
    let stage = stage.insert(Stage::build(&spec).await?);
    stage.wait_ready().await?;
    let mut screen = Screen::open();
    screen.say("two replicas with two workers each are ready; asking for the same text three times at once");
    let (mut streams, cast) = ask(stage, &model).await?;
    let (mut worker_killed, mut replica_killed) = (false, false);
    let until = Instant::now() + PATIENCE;
    while !streams.iter().all(Stream::is_over) {
        if Instant::now() > until {
            bail!("the streams did not end within {} s", PATIENCE.as_secs());
        }
        if !worker_killed && streams[1].tokens() >= KILL_WORKER_AT {
            worker_killed = true;
            let pid = victims::kill_worker_of(stage.client(), &cast.worker_victim).await?;
            streams[1].hit();
            screen.say(&format!("kill -9 {pid}: the worker process that computes the second text"));
        }
        if !replica_killed && streams[2].tokens() >= KILL_REPLICA_AT {
            replica_killed = true;
            let (name, pid) = victims::kill_replica_of(stage.client(), &cast.replica_victim).await?;
            streams[2].hit();
            screen.say(&format!("kill -9 {pid}: the whole replica {name}, which computes the third text"));
        }
        client::wait_any(&mut streams, Duration::from_millis(100)).await;
        screen.show(&streams);
    }
    screen.finish(&streams);
    if !(worker_killed && replica_killed) {
        bail!("the texts were complete before anything could be killed");
    }
    let transcripts = streams.into_iter().map(Stream::finish).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(verdict(&transcripts))
}

/// Which job is hit by what.
struct Cast {
    worker_victim: JobId,
    replica_victim: JobId,
}

/// Asks three times, and gives out the parts so that each kill hits one stream alone.
async fn ask(stage: &Stage, model: &str) -> anyhow::Result<(Vec<Stream>, Cast)> {
    for _ in 0..PLACEMENTS_MAX {
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(Stream::open(stage.client(), model, &request()).await?);
        }
        let jobs: Vec<JobId> = streams.iter().map(|stream| stream.job().clone()).collect();
        if let Some([undisturbed, worker_victim, replica_victim]) = victims::cast(stage.client(), &jobs).await? {
            let order = [undisturbed, worker_victim, replica_victim];
            streams.sort_by_key(|stream| order.iter().position(|at| jobs[*at] == *stream.job()));
            let cast =
                Cast { worker_victim: jobs[worker_victim].clone(), replica_victim: jobs[replica_victim].clone() };
            return Ok((streams, cast));
        }
        // All on one replica, or two on one worker: let these end and ask again.
        for stream in &mut streams {
            stream.drain().await;
        }
    }
    bail!("three jobs did not spread over two replicas in {PLACEMENTS_MAX} tries")
}

fn request() -> Request {
    let mut request = Request::prompt("The lighthouse keeper opened his logbook and wrote:");
    request.stream = true;
    request.max_tokens = Some(TOKENS);
    request.sampling.temperature = 0.8;
    request.seed = Some(7);
    request.deadline_ms = Some(60_000);
    request
}

fn verdict(transcripts: &[Transcript]) -> ExitCode {
    let names = ["undisturbed", "worker killed", "replica killed"];
    let reference = &transcripts[0];
    let mut good = reference.tokens.len() == TOKENS as usize;
    println!();
    for (name, transcript) in names.iter().zip(transcripts) {
        let against = transcript.compare(reference);
        good &= against.is_same() && transcript.text == reference.text;
        let gap = transcript.gap.map_or_else(|| "-".to_owned(), |gap| format!("{} ms", gap.as_millis()));
        println!(
            "{name:<15} {:>3} tokens, gap {gap:>8}, {} attempts, resumed at {:?}; {} lost, {} doubled, {} changed",
            transcript.tokens.len(),
            transcript.attempts,
            transcript.resumed_at,
            against.lost,
            against.doubled,
            against.changed,
        );
    }
    let attempts: Vec<_> = transcripts.iter().map(|transcript| transcript.attempts.to_string()).collect();
    let gap = |transcript: &Transcript| transcript.gap.unwrap_or_default().as_millis();
    let sum = |part: fn(&client::Difference) -> usize| -> usize {
        transcripts.iter().map(|transcript| part(&transcript.compare(reference))).sum()
    };
    println!(
        "verdict: {} - 3 texts of {} tokens, gaps {} ms (worker killed) and {} ms (replica killed), {} lost, {} doubled, {} changed, attempts {}",
        if good { "identical" } else { "DIFFERENT" },
        reference.tokens.len(),
        gap(&transcripts[1]),
        gap(&transcripts[2]),
        sum(|difference| difference.lost),
        sum(|difference| difference.doubled),
        sum(|difference| difference.changed),
        attempts.join("/"),
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A sentence for a step that failed.
fn step<T>(result: Option<T>, what: &str) -> anyhow::Result<T> {
    result.with_context(|| what.to_owned())
}
