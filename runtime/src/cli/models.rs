//! `halm models`: what can be fetched, and what has been.

use std::process::ExitCode;

use clap::Args;

use crate::assets::{Assets, catalogue};

/// List the models that can be pulled
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {}

pub(super) fn run(_: &ModelsArgs) -> anyhow::Result<ExitCode> {
    let assets = Assets::open(None)?;
    println!("{:<16} {:<12} {:>8}  CACHED", "NAME", "ALIAS", "MB");
    for entry in catalogue::all() {
        let cached = assets.cached_model(entry.name).map_or_else(|| "no".to_owned(), |_| "yes".to_owned());
        println!("{:<16} {:<12} {:>8}  {cached}", entry.name, entry.alias, entry.bytes / 1_000_000);
    }
    Ok(ExitCode::SUCCESS)
}
