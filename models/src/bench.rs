//! How fast a model computes on this machine, and how fast it could.
//!
//! Owns the workloads: a prompt, one sequence decoding, eight together, and the machine's read bandwidth, which bounds
//! decoding, because each token reads every weight once. It must never print: [`Measured`] is numbers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::engine::{Chunk, Computed, Engine, PageId, StepError, Wanted};
use crate::stock::Model;
use crate::threads::Pool;
use crate::tokenizer::TokenId;

/// Tokens of the prompt.
pub const PROMPT_TOKENS: usize = 512;
/// Tokens decoded in a round.
pub const DECODED_TOKENS: usize = 64;
/// Sequences that decode together.
pub const BATCH: usize = 8;
/// What each of them has before it.
const CONTEXT_TOKENS: usize = 128;
/// More than any cache holds.
const BANDWIDTH_BYTES: usize = 256 * 1024 * 1024;

/// One round's figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Tokens of a prompt a second.
    pub prefill_tokens_per_s: f64,
    /// Tokens of one sequence a second.
    pub decode_tokens_per_s: f64,
    /// Tokens of eight sequences together a second.
    pub batch_tokens_per_s: f64,
    /// What decoding one sequence would reach if reading the weights were all there is to it.
    pub roof_tokens_per_s: f64,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// A prompt of [`PROMPT_TOKENS`].
    Prefill,
    /// [`DECODED_TOKENS`] of one sequence.
    Decode,
    /// [`DECODED_TOKENS`] of each of [`BATCH`] sequences.
    Batch,
}

/// Measures one workload once.
///
/// # Errors
/// A [`StepError`] where the model's context is too short for it.
pub fn tokens_per_s(model: &mut Model, workload: Workload) -> Result<f64, StepError> {
    match workload {
        Workload::Prefill => model.aside(1, PROMPT_TOKENS, prefill),
        Workload::Decode => model.aside(1, CONTEXT_TOKENS + DECODED_TOKENS, decode),
        Workload::Batch => model.aside(BATCH, CONTEXT_TOKENS + DECODED_TOKENS, decode),
    }
}

/// Measures one round.
///
/// # Errors
/// A [`StepError`] where the model's context is too short for the workloads.
pub fn round(model: &mut Model) -> Result<Measured, StepError> {
    let (weights_bytes, threads) = (model.facts().packed_bytes, model.facts().threads);
    let roof = read_bandwidth(&Pool::new(threads)) / weights_bytes as f64;
    Ok(Measured {
        prefill_tokens_per_s: tokens_per_s(model, Workload::Prefill)?,
        decode_tokens_per_s: tokens_per_s(model, Workload::Decode)?,
        batch_tokens_per_s: tokens_per_s(model, Workload::Batch)?,
        roof_tokens_per_s: roof,
    })
}

/// Some tokens that mean nothing; what is computed does not depend on what they are.
fn text(engine: &dyn Engine, count: usize) -> Vec<TokenId> {
    let vocabulary = u32::try_from(engine.vocabulary()).unwrap_or(u32::MAX);
    (0..count as u32).map(|at| TokenId::from(at.wrapping_mul(7919).wrapping_add(13) % vocabulary)).collect()
}

/// Takes what a step lends.
fn look(computed: Computed<'_>) {
    black_box(computed.values);
}

fn prefill(engine: &mut dyn Engine, pages: &[Vec<PageId>]) -> Result<f64, StepError> {
    let (tokens, rows) = (text(engine, PROMPT_TOKENS), engine.rows_max());
    let began = Instant::now();
    for (start, tokens) in (0..).step_by(rows).zip(tokens.chunks(rows)) {
        let wanted = if start + rows >= PROMPT_TOKENS { Wanted::Logits(1) } else { Wanted::Nothing };
        engine.step(&[Chunk { start, tokens, pages: &pages[0], wanted }], &mut look)?;
    }
    Ok(per_second(PROMPT_TOKENS, began.elapsed()))
}

fn decode(engine: &mut dyn Engine, sequences: &[Vec<PageId>]) -> Result<f64, StepError> {
    let tokens = text(engine, CONTEXT_TOKENS + DECODED_TOKENS);
    let (context, decoded) = tokens.split_at(CONTEXT_TOKENS);
    for pages in sequences {
        engine.step(&[Chunk { start: 0, tokens: context, pages, wanted: Wanted::Nothing }], &mut |_| {})?;
    }
    let began = Instant::now();
    for (start, tokens) in (CONTEXT_TOKENS..).zip(decoded.chunks(1)) {
        let chunk = |pages| Chunk { start, tokens, pages, wanted: Wanted::Logits(1) };
        let chunks: Vec<_> = sequences.iter().map(|pages| chunk(pages.as_slice())).collect();
        engine.step(&chunks, &mut look)?;
    }
    Ok(per_second(sequences.len() * DECODED_TOKENS, began.elapsed()))
}

fn per_second(tokens: usize, took: Duration) -> f64 {
    tokens as f64 / took.as_secs_f64()
}

/// Bytes a second that these threads read together.
fn read_bandwidth(pool: &Pool) -> f64 {
    let words = vec![1_u64; BANDWIDTH_BYTES / 8];
    let read = || {
        pool.run(&|thread| {
            let share = thread.share(words.len() / 64);
            let mut lanes = [0_u64; 64];
            for line in words[share.start * 64..share.end * 64].chunks_exact(64) {
                lanes.iter_mut().zip(line).for_each(|(lane, word)| *lane = lane.wrapping_add(*word));
            }
            black_box(lanes);
        });
    };
    read();
    let began = Instant::now();
    read();
    read();
    2.0 * BANDWIDTH_BYTES as f64 / began.elapsed().as_secs_f64()
}
