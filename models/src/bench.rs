//! How fast a model computes on this machine, and how fast it could.
//!
//! Owns the workloads: a prompt, one sequence decoding, eight together, and the machine's read bandwidth, which bounds
//! decoding, because each token reads every weight once. It must never print: [`Measured`] is numbers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::engine::{Chunk, Computed, Engine, SequenceId, StepError, Wanted};
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
        Workload::Prefill => prefill(model.engine_mut()),
        Workload::Decode => decode(model.engine_mut(), 1),
        Workload::Batch => decode(model.engine_mut(), BATCH),
    }
}

/// Measures one round.
///
/// # Errors
/// A [`StepError`] where the model's context is too short for the workloads.
pub fn round(model: &mut Model) -> Result<Measured, StepError> {
    let (weights_bytes, threads) = (model.facts().packed_bytes, model.facts().threads);
    let roof = read_bandwidth(&Pool::new(threads)) / weights_bytes as f64;
    let engine = model.engine_mut();
    Ok(Measured {
        prefill_tokens_per_s: prefill(engine)?,
        decode_tokens_per_s: decode(engine, 1)?,
        batch_tokens_per_s: decode(engine, BATCH)?,
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

fn prefill(engine: &mut dyn Engine) -> Result<f64, StepError> {
    let tokens = text(engine, PROMPT_TOKENS);
    let sequence = engine.open()?;
    let began = Instant::now();
    for (at, tokens) in tokens.chunks(engine.rows_max()).enumerate() {
        let is_last = (at + 1) * engine.rows_max() >= PROMPT_TOKENS;
        let wanted = if is_last { Wanted::Logits(1) } else { Wanted::Nothing };
        engine.step(&[Chunk { sequence, tokens, wanted }], &mut look)?;
    }
    let took = began.elapsed();
    engine.close(sequence);
    Ok(per_second(PROMPT_TOKENS, took))
}

fn decode(engine: &mut dyn Engine, count: usize) -> Result<f64, StepError> {
    let tokens = text(engine, CONTEXT_TOKENS + DECODED_TOKENS);
    let (context, decoded) = tokens.split_at(CONTEXT_TOKENS);
    let sequences: Vec<SequenceId> = (0..count).map(|_| engine.open()).collect::<Result<_, _>>()?;
    for sequence in &sequences {
        engine.step(&[Chunk { sequence: *sequence, tokens: context, wanted: Wanted::Nothing }], &mut |_| {})?;
    }
    let began = Instant::now();
    for tokens in decoded.chunks(1) {
        let chunk = |sequence: &SequenceId| Chunk { sequence: *sequence, tokens, wanted: Wanted::Logits(1) };
        let chunks: Vec<_> = sequences.iter().map(chunk).collect();
        engine.step(&chunks, &mut look)?;
    }
    let took = began.elapsed();
    sequences.into_iter().for_each(|sequence| engine.close(sequence));
    Ok(per_second(count * DECODED_TOKENS, took))
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
