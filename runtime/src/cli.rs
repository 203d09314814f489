//! The command line: a file per command.

mod ask;
mod bench;
mod chaos;
mod check;
mod connect;
mod demo;
mod jobs;
mod models;
mod pull;
mod run_with_parent;
mod serve;
mod status;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{CommandFactory, Parser, Subcommand};

/// High availability for small language models.
///
/// halm runs a small language model in several worker processes, takes work over NATS, and keeps every stream going
/// whatever dies: a worker, a replica, the broker.
#[derive(Debug, Parser)]
#[command(name = "halm", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Serve(serve::ServeArgs),
    Ask(ask::AskArgs),
    Status(status::StatusArgs),
    Jobs(jobs::JobsArgs),
    Pull(pull::PullArgs),
    Models(models::ModelsArgs),
    Check(check::CheckArgs),
    Chaos(chaos::ChaosArgs),
    Bench(bench::BenchArgs),
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
    #[command(hide = true)]
    RunWithParent(run_with_parent::RunWithParentArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let name = match &cli.command {
        Command::Worker(_) => "halm worker",
        _ => "halm",
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{name}: {}", words(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each said once: some errors quote their cause already.
fn words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !words.contains(&cause) {
            words.push_str(": ");
            words.push_str(&cause);
        }
    }
    words
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Serve(args) => serve::run(args),
        Command::Ask(args) => block_on(ask::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Jobs(args) => block_on(jobs::run(args)),
        Command::Pull(args) => pull::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Check(args) => block_on(check::run(args)),
        Command::Chaos(args) => block_on(chaos::run(args)),
        Command::Bench(args) => bench::run(&args),
        Command::Worker(args) => worker::run(args),
        Command::RunWithParent(args) => run_with_parent::run(&args),
    }
}

/// A path that may be empty, for orchestrators that always pass the flag: empty is as if it were not given.
fn path_or_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The help page of each command that is not internal, by name.
#[must_use]
pub fn help_pages() -> Vec<(String, String)> {
    let mut cli = Cli::command().term_width(100);
    let top = ("halm".to_owned(), cli.render_long_help().to_string());
    let commands = cli.get_subcommands_mut().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    let page = |command: &mut clap::Command| (command.get_name().to_owned(), command.render_long_help().to_string());
    std::iter::once(top).chain(commands.map(page)).collect()
}

fn block_on(future: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
