//! `halm run-with-parent`: internal; a foreign program that dies with the process that wanted it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::bail;
use clap::Args;

/// Becomes another program that is killed when its parent dies.
#[derive(Debug, Args)]
pub(super) struct RunWithParentArgs {
    /// Process id of the parent
    #[arg(long)]
    parent: u32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn run(args: &RunWithParentArgs) -> anyhow::Result<ExitCode> {
    // The setting outlives `exec`.
    crate::process::die_with_parent(args.parent)?;
    let Some((program, arguments)) = args.command.split_first() else { bail!("no program was named") };
    let error = Command::new(program).args(arguments).exec();
    Err(anyhow::Error::new(error).context(format!("start {}", program.display())))
}
