//! `halm jobs`: jobs that people look into, or do not want any more.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use halm_client::Event;
use halm_protocol::{CancelState, DeadLetter, JobId};

use super::connect::{Connect, client, link};
use crate::nats::NatsDeadLetters;

/// Characters of a prompt that a list shows.
const PROMPT_SHOWN: usize = 40;

/// Cancel jobs; look into those that were quarantined, run them again, or drop them
///
/// A job that kills the worker that computes it is given a few more tries in a worker of its own, and is then refused as
/// `poison` and kept with its crash reports for 30 days.
#[derive(Debug, Args)]
pub(super) struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    Dead(DeadArgs),
    Cancel(CancelArgs),
}

/// Cancel a job, running or waiting: its client is told `cancelled`
#[derive(Debug, Args)]
struct CancelArgs {
    /// The job's id, as chunks, replies and `halm status` tell it
    job: String,
    #[command(flatten)]
    connect: Connect,
}

/// Quarantined jobs: list, show, retry or drop them
#[derive(Debug, Args)]
struct DeadArgs {
    #[command(subcommand)]
    command: Option<DeadCommand>,
    /// The list for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// Show all that is known of one: its request, and how each worker died of it
    Show {
        /// The job's id, as the list shows it
        job: String,
    },
    /// Ask again, print the answer, and drop the letter if there is one
    Retry {
        /// The job's id, as the list shows it
        job: String,
    },
    /// Forget it
    Drop {
        /// The job's id, as the list shows it
        job: String,
    },
}

pub(super) async fn run(args: JobsArgs) -> anyhow::Result<ExitCode> {
    let DeadArgs { command, json, connect } = match args.command {
        JobsCommand::Dead(dead) => dead,
        JobsCommand::Cancel(CancelArgs { job, connect }) => return cancel(&job, &connect).await,
    };
    let link = link(&connect).await?;
    let letters = NatsDeadLetters::new(link);
    match command {
        None => list(&letters.all().await.context("read the dead letters")?, json)?,
        Some(DeadCommand::Show { job }) => {
            println!("{}", serde_json::to_string_pretty(&find(&letters, &job).await?)?);
        }
        Some(DeadCommand::Retry { job }) => {
            let letter = find(&letters, &job).await?;
            retry(&letter, &connect).await?;
            letters.remove(&letter.job).await.context("drop the letter")?;
        }
        Some(DeadCommand::Drop { job }) => {
            let letter = find(&letters, &job).await?;
            letters.remove(&letter.job).await.context("drop the letter")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn cancel(job: &str, connect: &Connect) -> anyhow::Result<ExitCode> {
    match client(connect).await?.cancel(&JobId::try_from(job)?).await? {
        CancelState::Cancelled => println!("{job} is cancelled"),
        CancelState::Ended => println!("{job} had ended already"),
        CancelState::Unavailable => bail!("the broker cannot take it now; try again"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(letters: &NatsDeadLetters, job: &str) -> anyhow::Result<DeadLetter> {
    let id = JobId::try_from(job)?;
    match letters.of(&id).await.context("read the dead letters")? {
        Some(letter) => Ok(letter),
        None => bail!("no quarantined job is called {job}; `halm jobs dead` lists them"),
    }
}

fn list(letters: &[DeadLetter], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(letters)?);
        return Ok(());
    }
    if letters.is_empty() {
        println!("no job is quarantined");
        return Ok(());
    }
    println!("{:<32} {:>8} {:<14} {:>6} {:>6}  {:<28} PROMPT", "JOB", "AGO", "MODEL", "DEATHS", "TOKENS", "LAST DEATH");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for letter in letters {
        let ago = now.saturating_sub(Duration::from_millis(letter.at_ms)).as_secs();
        let died = letter.crash_reports.last().map_or("on another replica", |report| report.reason.as_str());
        println!(
            "{:<32} {:>7}s {:<14} {:>6} {:>6}  {died:<28} {}",
            letter.job.as_str(),
            ago,
            letter.model.as_str(),
            letter.deaths,
            letter.tokens,
            beginning(letter)
        );
    }
    Ok(())
}

/// The first words of what was asked.
fn beginning(letter: &DeadLetter) -> String {
    let asked = match &letter.request.input {
        halm_protocol::Input::Prompt(prompt) => prompt.as_str(),
        halm_protocol::Input::Messages(messages) => messages.last().map_or("", |last| last.content.as_str()),
    };
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    asked.chars().take(PROMPT_SHOWN).map(shown).collect()
}

async fn retry(letter: &DeadLetter, connect: &Connect) -> anyhow::Result<()> {
    let mut request = letter.request.clone();
    request.stream = true;
    let mut stream = client(connect).await?.generate(letter.model.as_str(), &request).await?;
    let mut out = std::io::stdout().lock();
    while let Some(event) = stream.next().await {
        if let Event::Chunk(chunk) = event.context("the job failed again; it is still kept")? {
            out.write_all(chunk.text.as_bytes())?;
            out.flush()?;
        }
    }
    writeln!(out)?;
    Ok(())
}
