//! `halm bench --against`: the same load to halm and to a server beside it.
//!
//! Owns the load: some clients ask at once, each for a text of its own, and wait for the whole answer. The two take turns
//! within a run, so that what else the machine does hits both. Every prompt is new, so that no cache of prompts helps
//! either. It must never judge: it prints tokens a second and their ratio.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use halm_client::Client;
use halm_protocol::Request;
use serde_json::{Value, json};

use super::BenchArgs;
use crate::config::ModelConfig;
use crate::stage::{Stage, StageSpec};

/// Words of a prompt: about 128 tokens.
const PROMPT_WORDS: u64 = 112;
/// Tokens of an answer, at most.
const ANSWER_TOKENS: u32 = 64;
/// A server that takes longer than this for one answer is not compared.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Words that continue anyhow.
const WORDS: [&str; 16] = [
    "sea", "wind", "the", "harbour", "light", "and", "a", "ship", "rain", "under", "old", "of", "stone", "morning",
    "slow", "road",
];

/// One side's figures: answered tokens, and seconds.
#[derive(Debug, Default)]
struct Side {
    tokens_per_s: Vec<f64>,
    prompt_tokens: u64,
    tokens: u64,
}

impl Side {
    fn note(&mut self, answers: &[Answer], took: Duration) {
        let tokens: u64 = answers.iter().map(|answer| answer.tokens).sum();
        self.tokens_per_s.push(tokens as f64 / took.as_secs_f64());
        self.prompt_tokens += answers.iter().map(|answer| answer.prompt_tokens).sum::<u64>();
        self.tokens += tokens;
    }

    fn median(&mut self) -> f64 {
        self.tokens_per_s.sort_by(f64::total_cmp);
        self.tokens_per_s[self.tokens_per_s.len() / 2]
    }
}

struct Answer {
    prompt_tokens: u64,
    tokens: u64,
}

/// Starts a broker and a replica, and asks it and the server at `url` by turns.
pub(super) async fn run(args: &BenchArgs, url: &str) -> anyhow::Result<ExitCode> {
    let path = super::find(&args.model)?;
    let model = ModelConfig {
        name: "bench".to_owned(),
        path: path.clone(),
        workers: args.workers.get(),
        // Room for all of them beside the slots that are kept free.
        slots: args.clients.get().div_ceil((args.workers.get() - 1).max(1)),
        threads: args.threads.get(),
        ..ModelConfig::default()
    };
    let spec = StageSpec { brokers: 1, replicas: &["bench"], model };
    let mut stage = Stage::build(&spec).await?;
    let compared = compare(&mut stage, args, url).await;
    stage.clear().await;
    let (mut ours, mut theirs) = compared?;
    let (our_rate, their_rate) = (ours.median(), theirs.median());
    if args.json {
        let figures = json!({
            "model": path, "against": url, "clients": args.clients, "workers": args.workers, "threads": args.threads,
            "rounds": args.rounds, "halm_tokens_per_s": our_rate, "server_tokens_per_s": their_rate,
            "ratio": our_rate / their_rate, "halm_tokens": ours.tokens, "server_tokens": theirs.tokens,
            "halm_prompt_tokens": ours.prompt_tokens, "server_prompt_tokens": theirs.prompt_tokens,
        });
        println!("{figures}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} clients at once, {} tokens of prompt and {} of answer on average, medians of {}",
        args.clients,
        ours.prompt_tokens / (args.rounds.get() as u64 * u64::from(args.clients.get())),
        ours.tokens / (args.rounds.get() as u64 * u64::from(args.clients.get())),
        args.rounds,
    );
    println!("halm, through NATS, {} worker(s) of {} thread(s) {our_rate:>8.0} tokens/s", args.workers, args.threads);
    println!("{url} {their_rate:>8.0} tokens/s");
    println!("ratio {:.2}", our_rate / their_rate);
    Ok(ExitCode::SUCCESS)
}

async fn compare(stage: &mut Stage, args: &BenchArgs, url: &str) -> anyhow::Result<(Side, Side)> {
    stage.wait_ready().await?;
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    // The first round warms both, and does not count.
    for round in 0..=args.rounds.get() as u64 {
        let prompts = |side: u64| (0..args.clients.get()).map(move |client| prompt(round * 2 + side, client.into()));
        let began = Instant::now();
        let answers = try_join_all(prompts(0).map(|prompt| ask_halm(stage.client(), prompt))).await?;
        let our_time = began.elapsed();
        let began = Instant::now();
        let answered = try_join_all(prompts(1).map(|prompt| ask_server(url, prompt))).await?;
        let their_time = began.elapsed();
        if round > 0 {
            ours.note(&answers, our_time);
            theirs.note(&answered, their_time);
        }
    }
    Ok((ours, theirs))
}

/// A text that neither side has seen before.
fn prompt(round: u64, client: u64) -> String {
    let mut text = format!("Round {round}, client {client}:");
    let mut state = round.wrapping_mul(1_000_003).wrapping_add(client);
    for _ in 0..PROMPT_WORDS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(' ');
        text.push_str(WORDS[(state >> 60) as usize]);
    }
    text
}

async fn ask_halm(client: &Client, prompt: String) -> anyhow::Result<Answer> {
    let mut request = Request::prompt(&prompt);
    request.max_tokens = Some(ANSWER_TOKENS);
    request.sampling.temperature = 0.0;
    let reply = client.ask("bench", &request).await?;
    Ok(Answer { prompt_tokens: reply.usage.prompt_tokens.into(), tokens: reply.usage.completion_tokens.into() })
}

/// One completion of an OpenAI-compatible server.
#[expect(clippy::disallowed_methods, reason = "the client of the other side blocks, and has a time-out")]
async fn ask_server(url: &str, prompt: String) -> anyhow::Result<Answer> {
    let base = url.trim_end_matches('/').trim_end_matches("/v1");
    let endpoint = format!("{base}/v1/completions");
    let body = json!({"model": "bench", "prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0}).to_string();
    let asked = endpoint.clone();
    let answered = tokio::task::spawn_blocking(move || -> Result<String, ureq::Error> {
        let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN));
        let request = config.build().new_agent().post(&asked).header("Content-Type", "application/json");
        request.send(&body)?.body_mut().read_to_string()
    });
    let text = answered.await?.with_context(|| format!("ask {endpoint}"))?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("read the answer of {endpoint}"))?;
    let count = |key: &str| answer["usage"][key].as_u64();
    let (Some(prompt_tokens), Some(tokens)) = (count("prompt_tokens"), count("completion_tokens")) else {
        bail!("{endpoint} does not say how many tokens it used: its answer needs a `usage`");
    };
    Ok(Answer { prompt_tokens, tokens })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_prompts_begin_alike() {
        let all: Vec<String> = (0..20).flat_map(|round| (0..16).map(move |client| prompt(round, client))).collect();
        let beginnings: BTreeSet<&str> = all.iter().map(|text| &text[..text.find(':').expect("a mark")]).collect();
        assert_eq!(beginnings.len(), all.len());
    }
}
