//! The forward pass: tokens of several sequences in, logits out.
//!
//! Owns the network's shape, its packed weights, the pages of keys and values, and the order of a step. It knows no
//! text, no sampling, and not whose a page is. Called through [`crate::engine::Engine`].
//!
//! A step takes chunks: some new tokens of a sequence each, a whole prompt or one token, in any mixture. The rows of
//! all chunks go through every product together; each row's bits are those that it would have alone, because the
//! kernels' are (see [`crate::kernel`]) and because attention walks a sequence's keys in pages counted from its first
//! token, whoever computes it.

mod architecture;
mod attention;
mod cache;
mod head;
mod packed_file;
mod pass;
mod weights;

#[cfg(test)]
mod tests;

use crate::engine::{Chunk, Computed, Engine, PAGE_TOKENS, PageId, StepError};
use crate::gguf::MappedGguf;
use crate::kernel::Isa;
use crate::stock::{LoadError, LoadOptions};
use crate::threads::Pool;
pub(crate) use architecture::{Architecture, FAMILIES};
use cache::Cache;
use pass::Pass;
pub use weights::TensorError;
use weights::Weights;

/// Rows of one step, at most: what the buffers between the products have room for. More rows than this are no faster.
pub const ROWS_MAX: usize = 512;

/// A network that computes.
#[derive(Debug)]
pub(crate) struct Network {
    architecture: Architecture,
    weights: Weights,
    cache: Cache,
    pass: Pass,
    pool: Pool,
    isa: Isa,
    context_tokens: usize,
}

impl Network {
    /// Loads the network of `file`, whose vocabulary must have `vocabulary` tokens.
    pub(crate) fn load(file: &MappedGguf, vocabulary: usize, options: &LoadOptions) -> Result<Self, LoadError> {
        check_isa(options.isa, Isa::available())?;
        let architecture = Architecture::read(file.gguf(), vocabulary)
            .map_err(|source| LoadError::Gguf { path: file.path().to_owned(), source })?;
        let weights = Weights::load(file, &architecture, options.packed.as_deref())
            .map_err(|source| LoadError::Pack { path: file.path().to_owned(), source })?;
        let context_tokens = architecture.context_tokens.min(options.context_tokens_max.unwrap_or(usize::MAX));
        Ok(Self {
            cache: Cache::new(&architecture),
            pass: Pass::new(&architecture, options.threads),
            pool: Pool::new(options.threads),
            weights,
            architecture,
            isa: options.isa,
            context_tokens,
        })
    }

    /// Bytes that each token reads.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.weights.read_bytes()
    }

    fn check(&self, chunk: &Chunk<'_>) -> Result<(), StepError> {
        let vocabulary = self.architecture.vocabulary;
        let tokens = chunk.start + chunk.tokens.len();
        if chunk.tokens.is_empty() {
            return Err(StepError::NoTokens);
        }
        if let Some(&token) = chunk.tokens.iter().find(|token| token.index() >= vocabulary) {
            return Err(StepError::UnknownToken { token, vocabulary });
        }
        if tokens > self.context_tokens {
            return Err(StepError::ContextExceeded { tokens, context_tokens: self.context_tokens });
        }
        if tokens > chunk.pages.len() * PAGE_TOKENS {
            return Err(StepError::NoPage { tokens, pages: chunk.pages.len() });
        }
        Ok(())
    }
}

/// The threads of a step rely on it that what one chunk writes to is no other's, and stands in its own pages once.
fn check_pages(chunks: &[Chunk<'_>]) -> Result<(), StepError> {
    let mut written: Vec<PageId> = chunks.iter().flat_map(|chunk| written(chunk).iter().copied()).collect();
    written.sort_unstable();
    let is_written = |page: &PageId| written.binary_search(page).is_ok();
    let twice = written.windows(2).find(|pages| pages[0] == pages[1]).map(|pages| pages[0]);
    let read = |chunk: &Chunk<'_>| chunk.pages[..chunk.start / PAGE_TOKENS].iter().copied().find(is_written);
    match twice.or_else(|| chunks.iter().find_map(read)) {
        Some(page) => Err(StepError::PageTwice { page }),
        None => Ok(()),
    }
}

/// The pages that a chunk's tokens go into.
fn written<'a>(chunk: &Chunk<'a>) -> &'a [PageId] {
    let end = (chunk.start + chunk.tokens.len()).div_ceil(PAGE_TOKENS);
    &chunk.pages[chunk.start / PAGE_TOKENS..end]
}

/// The kernels rely on it that the processor has what they are told to use.
fn check_isa(wanted: Isa, available: Vec<Isa>) -> Result<(), LoadError> {
    if available.contains(&wanted) { Ok(()) } else { Err(LoadError::Isa { wanted, available }) }
}

impl Engine for Network {
    fn vocabulary(&self) -> usize {
        self.architecture.vocabulary
    }

    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn rows_max(&self) -> usize {
        ROWS_MAX
    }

    fn page_bytes(&self) -> usize {
        self.cache.page_bytes()
    }

    fn step(&mut self, chunks: &[Chunk<'_>], take: &mut dyn FnMut(Computed<'_>)) -> Result<(), StepError> {
        let rows: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        if rows > ROWS_MAX {
            return Err(StepError::TooManyRows { rows, rows_max: ROWS_MAX });
        }
        for chunk in chunks {
            self.check(chunk)?;
        }
        check_pages(chunks)?;
        for chunk in chunks {
            self.cache.make_room(chunk.pages);
        }
        self.pass.run(&self.architecture, &self.weights, &mut self.cache, &self.pool, self.isa, chunks, take);
        Ok(())
    }
}
