//! What comes behind the last layer: the norm, the head, and lending out what is wanted.
//!
//! Owns which rows of a step are wanted, and that logits are there for some rows at a time only: those of a whole
//! text would be hundreds of megabytes. Called by [`super::pass`]: it shares its buffers and its rule of who writes what.

use std::ops::Range;

use super::pass::Step;
use crate::engine::{Chunk, Computed, Wanted};
use crate::kernel::{self, COLUMNS};
use crate::threads::{Pool, Thread};

/// Rows whose logits are there at the same time. Enough that reading the head once for each group costs less than
/// computing it; with the largest vocabularies they take 33 MB.
const ROWS_OF_A_GROUP: usize = 32;

/// The rows of a step of which something is wanted.
#[derive(Debug)]
pub(super) struct WantedRows {
    /// Those whose logits are wanted, then those whose states are, each in the order of the step.
    rows: Vec<usize>,
    /// How many are of the first kind.
    logits: usize,
}

impl WantedRows {
    pub(super) fn of(chunks: &[Chunk<'_>]) -> Self {
        let (mut logits, mut states) = (Vec::new(), Vec::new());
        let mut start = 0;
        for chunk in chunks {
            let end = start + chunk.tokens.len();
            match chunk.wanted {
                Wanted::Nothing => {}
                Wanted::Logits(last) => logits.extend(start.max(end.saturating_sub(last))..end),
                Wanted::States => states.extend(start..end),
            }
            start = end;
        }
        let count = logits.len();
        logits.append(&mut states);
        Self { rows: logits, logits: count }
    }

    /// The rows whose logits are computed in the step itself, which are all of them when sequences only decode.
    pub(super) fn first_group(&self) -> Range<usize> {
        0..self.logits.min(ROWS_OF_A_GROUP)
    }
}

/// Makes room for the logits of a group.
pub(super) fn make_room(logits: &mut Vec<f32>, wanted: &WantedRows, vocabulary: usize) {
    let needed = wanted.first_group().len() * vocabulary;
    if logits.len() < needed {
        logits.resize(needed, 0.0);
    }
}

/// SAFETY of everything here: see [`Step`]. Between two runs of the pool there is one thread, which reads.
#[expect(unsafe_code, reason = "see above")]
impl Step<'_> {
    /// The wanted rows, to `last`.
    pub(super) fn norm_last(&self, thread: Thread<'_>) {
        // Their last addends were normed by whoever has the rows.
        thread.barrier();
        let width = self.architecture.embedding;
        for at in thread.share(self.wanted.rows.len()) {
            let row = self.wanted.rows[at];
            unsafe {
                let stream = self.stream.read(row * width..(row + 1) * width);
                let out = self.last.values(at, 0..width);
                kernel::norm(self.isa, stream, &self.weights.norm, self.architecture.epsilon, out);
                self.last.quantize(self.isa, at, 0..self.last.blocks());
            }
        }
    }

    /// A group of the wanted rows to logits, for this thread's columns.
    pub(super) fn head(&self, thread: Thread<'_>, group: Range<usize>) {
        let head = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        let width = self.architecture.vocabulary;
        let input = unsafe { self.last.view(group.end) };
        kernel::multiply(self.isa, head, input, group.clone(), thread.share(head.tiles()), |row, tile, values| {
            let columns = tile * COLUMNS..width.min((tile + 1) * COLUMNS);
            let start = (row - group.start) * width;
            let out = unsafe { self.logits.part(start + columns.start..start + columns.end) };
            out.copy_from_slice(&values[..columns.len()]);
        });
    }

    /// Lends what is wanted, after the step: the logits of the first group, then those of the others, which are
    /// computed group by group, then states.
    pub(super) fn hand_out(&self, pool: &Pool, take: &mut dyn FnMut(Computed<'_>)) {
        let vocabulary = self.architecture.vocabulary;
        for start in (0..self.wanted.logits).step_by(ROWS_OF_A_GROUP) {
            let group = start..self.wanted.logits.min(start + ROWS_OF_A_GROUP);
            if start > 0 {
                pool.run(&|thread| self.head(thread, group.clone()));
            }
            for at in group {
                let first = (at - start) * vocabulary;
                take(self.computed(at, unsafe { self.logits.read(first..first + vocabulary) }));
            }
        }
        for at in self.wanted.logits..self.wanted.rows.len() {
            take(self.computed(at, unsafe { self.last.values(at, 0..self.architecture.embedding) }));
        }
    }

    fn computed<'a>(&self, at: usize, values: &'a [f32]) -> Computed<'a> {
        let row = self.wanted.rows[at];
        let chunk = self.rows[row].part;
        Computed { chunk, token: row - self.parts[chunk].rows.start, values }
    }
}
