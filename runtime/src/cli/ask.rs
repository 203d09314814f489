//! `halm ask`: a question from the command line.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use halm_client::Event;
use halm_protocol::{ChatMessage, Request};

use super::connect::{Connect, client};

/// Ask a model, and print its answer as it comes
///
/// Reads the prompt from the arguments, or from standard input. By default the prompt is a message in a conversation;
/// --raw has the model go on with the text as it stands. Exits with 0 after an answer, 1 after an error.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// The prompt
    prompt: Vec<String>,
    /// Model to ask
    #[arg(long, default_value = "smollm2")]
    model: String,
    /// Most tokens to generate
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 takes the likeliest token always; up to 2
    #[arg(long)]
    temperature: Option<f32>,
    /// Gives the same answer again
    #[arg(long)]
    seed: Option<u64>,
    /// Go on with the text as it stands, without the model's chat template
    #[arg(long)]
    raw: bool,
    /// Print the whole reply as JSON, at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: AskArgs) -> anyhow::Result<ExitCode> {
    let prompt = prompt(&args.prompt)?;
    let mut request = if args.raw {
        Request::prompt(prompt)
    } else {
        Request::messages(vec![ChatMessage { role: "user".to_owned(), content: prompt }])
    };
    request.stream = true;
    request.max_tokens = args.max_tokens;
    request.seed = args.seed;
    if let Some(temperature) = args.temperature {
        if !temperature.is_finite() {
            bail!("--temperature must be a number from 0 to 2, not {temperature}");
        }
        request.sampling.temperature = temperature;
    }
    let client = client(&args.connect).await?;
    let mut stream = client.generate(&args.model, &request).await?;
    let mut out = std::io::stdout().lock();
    while let Some(event) = stream.next().await {
        match event? {
            Event::Chunk(chunk) if !args.json => {
                out.write_all(chunk.text.as_bytes())?;
                out.flush()?;
            }
            Event::Chunk(_) => {}
            Event::Reply(reply) if args.json => writeln!(out, "{}", serde_json::to_string_pretty(&reply)?)?,
            Event::Reply(_) => writeln!(out)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn prompt(words: &[String]) -> anyhow::Result<String> {
    let mut text = words.join(" ");
    if text.is_empty() {
        if std::io::stdin().is_terminal() {
            bail!("no prompt was given; pass one, or pipe it in");
        }
        std::io::stdin().read_to_string(&mut text).context("read the prompt from standard input")?;
    }
    if text.trim().is_empty() {
        bail!("the prompt is empty");
    }
    Ok(text)
}
