//! One step of the network over the rows of some chunks.
//!
//! Owns the buffers between the products, and who computes what: each thread takes its share of rows, columns or heads,
//! and a barrier stands between a write and every read of it by another thread. Shapes are given as `[rows][width]`.

use std::num::NonZeroUsize;
use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::ROWS_MAX;
use super::architecture::{Activation, Architecture, RopePairs};
use super::cache::{Cache, Layout};
use super::head::{self, WantedRows};
use super::weights::{Layer, Projection, Weights};
use crate::engine::{Chunk, Computed};
use crate::kernel::{self, COLUMNS, Isa, KEYS, Packed, Rows, SharedRows};
use crate::shared::Shared;
use crate::threads::{Pool, Thread};

/// Keys that are made half floats before they are put in their places.
const HALVES_AT_ONCE: usize = 64;

/// The buffers.
#[derive(Debug)]
pub(super) struct Pass {
    /// `[rows][embedding]`: the residual stream.
    stream: Vec<f32>,
    /// `[rows][embedding]`: what is to be normed before it is added; empty where nothing is.
    addend: Vec<f32>,
    /// `[rows][embedding]`.
    normed: Rows,
    /// `[rows][heads * head]`.
    queries: Vec<f32>,
    /// `[rows][kv_heads * head]`.
    keys: Vec<f32>,
    /// `[rows][kv_heads * head]`.
    values: Vec<f32>,
    /// `[rows][heads * head]`.
    attended: Rows,
    /// `[rows][feed_forward]`.
    fed: Rows,
    /// `[wanted rows][embedding]`: behind the last layer.
    last: Rows,
    /// `[wanted rows of a group][vocabulary]`.
    logits: Vec<f32>,
    /// `[global, local][rows][head / 2]`.
    turns: Vec<Turns>,
    scratch: Vec<Scratch>,
}

/// By how much positions turn queries and keys.
#[derive(Debug)]
struct Turns {
    /// `[head / 2]`: radians a position.
    frequencies: Vec<f64>,
    /// `[rows][head / 2]`.
    cosines: Vec<f32>,
    /// `[rows][head / 2]`.
    sines: Vec<f32>,
}

/// What a thread needs for itself.
#[derive(Debug)]
pub(super) struct Scratch {
    /// `[head][KEYS]`.
    pub(super) keys: Vec<f32>,
    /// `[KEYS][head]`.
    pub(super) values: Vec<f32>,
    /// `[rows][COLUMNS]`.
    pub(super) gate: Vec<f32>,
}

impl Pass {
    pub(super) fn new(architecture: &Architecture, threads: NonZeroUsize) -> Self {
        let &Architecture { embedding, feed_forward, heads, kv_heads, head, .. } = architecture;
        let frequencies = |base: f64| -> Vec<f64> {
            (0..head / 2).map(|pair| libm::pow(base, -((2 * pair) as f64) / head as f64)).collect()
        };
        let bases = [Some(architecture.rope_base), architecture.window.map(|window| window.rope_base)];
        let turns = bases.into_iter().flatten().map(|base| Turns {
            frequencies: frequencies(base),
            cosines: vec![0.0; ROWS_MAX * head / 2],
            sines: vec![0.0; ROWS_MAX * head / 2],
        });
        let scratch = (0..threads.get()).map(|_| Scratch {
            keys: vec![0.0; head * KEYS],
            values: vec![0.0; head * KEYS],
            gate: vec![0.0; ROWS_MAX * COLUMNS],
        });
        Self {
            stream: vec![0.0; ROWS_MAX * embedding],
            addend: if architecture.post_norms { vec![0.0; ROWS_MAX * embedding] } else { Vec::new() },
            normed: Rows::new(ROWS_MAX, embedding),
            queries: vec![0.0; ROWS_MAX * heads * head],
            keys: vec![0.0; ROWS_MAX * kv_heads * head],
            values: vec![0.0; ROWS_MAX * kv_heads * head],
            attended: Rows::new(ROWS_MAX, heads * head),
            fed: Rows::new(ROWS_MAX, feed_forward),
            last: Rows::new(ROWS_MAX, embedding),
            logits: Vec::new(),
            turns: turns.collect(),
            scratch: scratch.collect(),
        }
    }

    /// Logits that there is room for.
    #[cfg(test)]
    pub(super) fn logits_held(&self) -> usize {
        self.logits.len()
    }

    /// Computes the chunks, whose pages have room, and lends what is wanted of them to `take`.
    #[expect(clippy::too_many_arguments, reason = "the network's parts, each borrowed in its own way")]
    pub(super) fn run(
        &mut self,
        architecture: &Architecture,
        weights: &Weights,
        cache: &mut Cache,
        pool: &Pool,
        isa: Isa,
        chunks: &[Chunk<'_>],
        take: &mut dyn FnMut(Computed<'_>),
    ) {
        let mut rows = Vec::new();
        let mut parts = Vec::new();
        for chunk in chunks {
            let (start, first) = (chunk.start, rows.len());
            for (offset, token) in chunk.tokens.iter().enumerate() {
                rows.push(Row { part: parts.len(), position: start + offset, token: token.index() });
            }
            let pages = chunk.pages.iter().map(|page| page.index()).collect();
            parts.push(Part { rows: first..rows.len(), start, pages });
        }
        let wanted = WantedRows::of(chunks);
        head::make_room(&mut self.logits, &wanted, architecture.vocabulary);
        let layout = cache.layout();
        let pages = cache.shared();
        let step = Step {
            architecture,
            weights,
            isa,
            rows: &rows,
            parts: &parts,
            wanted: &wanted,
            layout,
            pages: &pages,
            stream: Shared::new(&mut self.stream),
            addend: Shared::new(&mut self.addend),
            normed: self.normed.shared(),
            queries: Shared::new(&mut self.queries),
            keys: Shared::new(&mut self.keys),
            values: Shared::new(&mut self.values),
            attended: self.attended.shared(),
            fed: self.fed.shared(),
            last: self.last.shared(),
            turns: self
                .turns
                .iter_mut()
                .map(|turns| (&turns.frequencies[..], Shared::new(&mut turns.cosines), Shared::new(&mut turns.sines)))
                .collect(),
            scratch: Shared::new(&mut self.scratch),
            logits: Shared::new(&mut self.logits),
        };
        pool.run_step(rows.len(), &|thread| step.run(thread));
        step.hand_out(pool, take);
    }
}

/// A token to compute.
pub(super) struct Row {
    pub(super) part: usize,
    position: usize,
    token: usize,
}

/// A chunk's rows.
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    /// Position of the first row.
    pub(super) start: usize,
    pub(super) pages: Vec<usize>,
}

/// Everything that the threads of one step share.
pub(super) struct Step<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) weights: &'a Weights,
    pub(super) isa: Isa,
    pub(super) rows: &'a [Row],
    pub(super) parts: &'a [Part],
    pub(super) wanted: &'a WantedRows,
    pub(super) layout: Layout,
    pub(super) pages: &'a [Shared<'a, f16>],
    pub(super) stream: Shared<'a, f32>,
    pub(super) addend: Shared<'a, f32>,
    pub(super) normed: SharedRows<'a>,
    pub(super) queries: Shared<'a, f32>,
    pub(super) keys: Shared<'a, f32>,
    pub(super) values: Shared<'a, f32>,
    pub(super) attended: SharedRows<'a>,
    pub(super) fed: SharedRows<'a>,
    pub(super) last: SharedRows<'a>,
    pub(super) turns: Vec<(&'a [f64], Shared<'a, f32>, Shared<'a, f32>)>,
    pub(super) scratch: Shared<'a, Scratch>,
    pub(super) logits: Shared<'a, f32>,
}

/// SAFETY of everything here: between two barriers each element of a buffer is written by at most one thread, and read by
/// no other. Rows are shared out by [`Thread::share`], columns by tile, heads and units one by one; what a part reads was
/// written before the last barrier, or by the same thread.
#[expect(unsafe_code, reason = "see above")]
impl Step<'_> {
    fn run(&self, thread: Thread<'_>) {
        self.embed(thread);
        self.turn(thread);
        thread.barrier();
        for (index, layer) in self.weights.layers.iter().enumerate() {
            self.norm(thread, &layer.attention_norm);
            thread.barrier();
            self.project(thread, &layer.query, self.queries);
            self.project(thread, &layer.key, self.keys);
            self.project(thread, &layer.value, self.values);
            thread.barrier();
            self.place(thread, index, layer);
            thread.barrier();
            self.attend(thread, index);
            thread.barrier();
            self.quantize_attended(thread);
            self.add(thread, &layer.output, self.attended);
            thread.barrier();
            self.norm_addend(thread, layer.post_attention_norm.as_deref());
            self.norm(thread, &layer.feed_forward_norm);
            thread.barrier();
            self.feed_forward(thread, layer);
            thread.barrier();
            self.add(thread, &layer.down, self.fed);
            thread.barrier();
            self.norm_addend(thread, layer.post_feed_forward_norm.as_deref());
        }
        self.norm_last(thread);
        thread.barrier();
        self.head(thread, self.wanted.first_group());
    }

    /// Tokens to `stream`.
    fn embed(&self, thread: Thread<'_>) {
        let width = self.architecture.embedding;
        for row in thread.share(self.rows.len()) {
            let out = unsafe { self.stream.part(row * width..(row + 1) * width) };
            self.weights.embedding.column(self.rows[row].token, out);
            if self.architecture.embedding_scale != 1.0 {
                out.iter_mut().for_each(|value| *value *= self.architecture.embedding_scale);
            }
        }
    }

    /// Positions to angles. `libm` and not the system's functions: every host computes the same bits.
    fn turn(&self, thread: Thread<'_>) {
        let half = self.architecture.head / 2;
        for (frequencies, cosines, sines) in &self.turns {
            for row in thread.share(self.rows.len()) {
                let part = row * half..(row + 1) * half;
                let (cosines, sines) = unsafe { (cosines.part(part.clone()), sines.part(part)) };
                for ((frequency, cosine), sine) in frequencies.iter().zip(cosines).zip(sines) {
                    let (s, c) = libm::sincos(self.rows[row].position as f64 * frequency);
                    (*cosine, *sine) = (c as f32, s as f32);
                }
            }
        }
    }

    /// `stream` to `normed`, for this thread's rows.
    fn norm(&self, thread: Thread<'_>, weight: &[f32]) {
        let width = self.architecture.embedding;
        for row in thread.share(self.rows.len()) {
            unsafe {
                let stream = self.stream.read(row * width..(row + 1) * width);
                let out = self.normed.values(row, 0..width);
                kernel::norm(self.isa, stream, weight, self.architecture.epsilon, out);
                self.normed.quantize(self.isa, row, 0..self.normed.blocks());
            }
        }
    }

    /// `normed` times a matrix, to `out` of `[rows][columns]`, for this thread's columns.
    fn project(&self, thread: Thread<'_>, projection: &Projection, out: Shared<'_, f32>) {
        let width = projection.weight.n();
        self.multiply(thread, &projection.weight, self.normed, |row, columns, values| {
            let out = unsafe { out.part(row * width + columns.start..row * width + columns.end) };
            out.copy_from_slice(values);
            if let Some(bias) = &projection.bias {
                out.iter_mut().zip(&bias[columns]).for_each(|(value, bias)| *value += bias);
            }
        });
    }

    /// Norms and turns queries and keys, scales queries, and puts keys and values into the pages.
    fn place(&self, thread: Thread<'_>, index: usize, layer: &Layer) {
        let &Architecture { heads, kv_heads, head, .. } = self.architecture;
        let scale = 1.0 / (head as f32).sqrt();
        for row in thread.share(self.rows.len()) {
            for at in 0..heads {
                let start = (row * heads + at) * head;
                let query = unsafe { self.queries.part(start..start + head) };
                self.turn_head(query, row, index, layer.query_norm.as_deref());
                query.iter_mut().for_each(|value| *value *= scale);
            }
            let Row { part, position, .. } = &self.rows[row];
            let page = self.pages[self.parts[*part].pages[position / KEYS]];
            let token = position % KEYS;
            for at in 0..kv_heads {
                let start = (row * kv_heads + at) * head;
                let key = unsafe { self.keys.part(start..start + head) };
                self.turn_head(key, row, index, layer.key_norm.as_deref());
                let keys = self.layout.keys(index, at);
                let mut halves = [f16::ZERO; HALVES_AT_ONCE];
                for (piece, values) in key.chunks(HALVES_AT_ONCE).enumerate() {
                    let halves = &mut halves[..values.len()];
                    halves.convert_from_f32_slice(values);
                    for (offset, value) in halves.iter().enumerate() {
                        let dimension = piece * HALVES_AT_ONCE + offset;
                        unsafe { page.write(keys + dimension * KEYS + token, *value) };
                    }
                }
                let place = self.layout.values(index, at) + token * head;
                unsafe {
                    let value = self.values.read(start..start + head);
                    page.part(place..place + head).convert_from_f32_slice(value);
                }
            }
        }
    }

    fn turn_head(&self, values: &mut [f32], row: usize, index: usize, norm: Option<&[f32]>) {
        let half = self.architecture.head / 2;
        if let Some(weight) = norm {
            kernel::norm_in_place(self.isa, values, weight, self.architecture.epsilon);
        }
        let (_, cosines, sines) = &self.turns[usize::from(self.is_local(index))];
        let part = row * half..(row + 1) * half;
        // SAFETY: written before the first barrier of the step.
        let (cosines, sines) = unsafe { (cosines.read(part.clone()), sines.read(part)) };
        match self.architecture.rope_pairs {
            RopePairs::Interleaved => kernel::rope_interleaved(self.isa, values, cosines, sines),
            RopePairs::Split => kernel::rope_split(self.isa, values, cosines, sines),
        }
    }

    pub(super) fn is_local(&self, index: usize) -> bool {
        self.architecture.window.is_some_and(|window| window.is_local(index))
    }

    /// Adds a product to the stream, or puts it aside to be normed first.
    fn add(&self, thread: Thread<'_>, matrix: &Packed, input: SharedRows<'_>) {
        let width = self.architecture.embedding;
        let aside = self.architecture.post_norms;
        self.multiply(thread, matrix, input, |row, columns, values| {
            let place = row * width + columns.start..row * width + columns.end;
            unsafe {
                if aside {
                    self.addend.part(place).copy_from_slice(values);
                } else {
                    self.stream.part(place).iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            }
        });
    }

    /// Norms what was put aside and adds it, for this thread's rows.
    fn norm_addend(&self, thread: Thread<'_>, weight: Option<&[f32]>) {
        let Some(weight) = weight else { return };
        let width = self.architecture.embedding;
        for row in thread.share(self.rows.len()) {
            let place = row * width..(row + 1) * width;
            unsafe {
                let addend = self.addend.part(place.clone());
                kernel::norm_in_place(self.isa, addend, weight, self.architecture.epsilon);
                self.stream.part(place).iter_mut().zip(addend).for_each(|(sum, value)| *sum += *value);
            }
        }
    }

    /// `normed` to `fed`, a block of columns at a time.
    fn feed_forward(&self, thread: Thread<'_>, layer: &Layer) {
        let [scratch] = (unsafe { self.scratch.part(thread.index..thread.index + 1) }) else { return };
        let width = self.architecture.feed_forward;
        let rows = self.rows.len();
        let input = unsafe { self.normed.view(rows) };
        for tile in thread.share(layer.gate.tiles()) {
            kernel::multiply(self.isa, &layer.gate, input, 0..rows, tile..tile + 1, |row, _, values| {
                scratch.gate[row * COLUMNS..][..COLUMNS].copy_from_slice(values);
            });
            let columns = tile * COLUMNS..width.min((tile + 1) * COLUMNS);
            kernel::multiply(self.isa, &layer.up, input, 0..rows, tile..tile + 1, |row, _, values| {
                let (gate, up) = (&scratch.gate[row * COLUMNS..][..columns.len()], &values[..columns.len()]);
                unsafe {
                    let out = self.fed.values(row, columns.clone());
                    match self.architecture.activation {
                        Activation::Silu => kernel::silu_mul(self.isa, gate, up, out),
                        Activation::Gelu => kernel::gelu_mul(self.isa, gate, up, out),
                    }
                    self.fed.quantize(self.isa, row, tile..tile + 1);
                }
            });
        }
    }

    fn multiply(
        &self,
        thread: Thread<'_>,
        matrix: &Packed,
        input: SharedRows<'_>,
        mut each: impl FnMut(usize, Range<usize>, &[f32]),
    ) {
        let rows = self.rows.len();
        let input = unsafe { input.view(rows) };
        kernel::multiply(self.isa, matrix, input, 0..rows, thread.share(matrix.tiles()), |row, tile, values| {
            let columns = tile * COLUMNS..matrix.n().min((tile + 1) * COLUMNS);
            let count = columns.len();
            each(row, columns, &values[..count]);
        });
    }
}
