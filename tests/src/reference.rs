//! Networks computed in floats, the plain way: what the engine's numbers are held against.
//!
//! Owns a second reading of the architectures, by their published descriptions, and shares no code with the engine:
//! candle reads the file, makes its weights floats and multiplies. The whole context is computed at once, without a cache
//! and without blocks. It must never be made clever. Everything that tells the families apart is public in [`Shape`], so
//! that a test can change one thing and see that it matters.
//!
//! Sources: LLaMA (Touvron et al., 2023), Qwen2 (Yang et al., 2024), Qwen3 (Yang et al., 2025) and Gemma 3 (Gemma team,
//! 2025); for their parts RMS norm (Zhang and Sennrich, 2019), gated feed-forward (Shazeer, 2020), rotary positions
//! (Su et al., 2021), grouped queries (Ainslie et al., 2023), local attention (Beltagy et al., 2020).

mod attention;
mod rope;
mod shape;
mod weights;

use std::path::Path;

use candle_core::{D, Device, Result, Tensor};

use attention::Positions;
pub use rope::Pairs;
pub use shape::{Activation, Local, Shape};
use weights::Weights;

/// A network of floats.
#[derive(Debug, Clone)]
pub struct Reference {
    /// What it computes.
    pub shape: Shape,
    weights: Weights,
}

impl Reference {
    /// Reads a GGUF file and makes its weights floats.
    ///
    /// # Panics
    /// When candle cannot read the file.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let (metadata, weights) = weights::read(path).expect("candle reads the file");
        let shape = Shape::read(&metadata, &weights).expect("the file describes its network");
        Self { shape, weights }
    }

    /// What the head makes logits of: `[tokens][embedding]`, after the last norm.
    ///
    /// # Panics
    /// When candle refuses: the shape does not fit the weights.
    #[must_use]
    pub fn hidden(&self, tokens: &[u32]) -> Tensor {
        self.try_hidden(tokens).expect("the shape fits the weights")
    }

    /// Rows of [`Self::hidden`] to logits: `[rows][vocabulary]`.
    ///
    /// # Panics
    /// When candle refuses: the rows are no such rows.
    #[must_use]
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        let head = if self.shape.tied { "token_embd.weight" } else { "output.weight" };
        self.product(hidden, head).expect("the head fits the rows")
    }

    fn try_hidden(&self, tokens: &[u32]) -> Result<Tensor> {
        let shape = &self.shape;
        let positions = |base, window| Positions::new(tokens.len(), shape.head, base, window);
        let global = positions(shape.rope_base, None)?;
        let local = shape.local.map(|local| positions(local.rope_base, Some(local.window))).transpose()?;
        let tokens = Tensor::new(tokens, &Device::Cpu)?;
        let mut stream = (self.weights["token_embd.weight"].index_select(&tokens, 0)? * shape.embedding_scale)?;
        for index in 0..shape.layers {
            let positions = local.as_ref().filter(|_| shape.is_local(index)).unwrap_or(&global);
            stream = self.layer(index, &stream, positions)?;
        }
        self.norm(&stream, "output_norm.weight")
    }

    fn layer(&self, index: usize, stream: &Tensor, positions: &Positions) -> Result<Tensor> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let normed = self.norm(stream, &name("attn_norm"))?;
        let mut attended = self.attention(index, &normed, positions)?;
        if self.shape.post_norms {
            attended = self.norm(&attended, &name("post_attention_norm"))?;
        }
        let stream = (stream + attended)?;

        let normed = self.norm(&stream, &name("ffn_norm"))?;
        let gate = self.product(&normed, &name("ffn_gate"))?;
        let gate = match self.shape.activation {
            Activation::Silu => gate.silu()?,
            // The approximation by tanh, as Gemma has it.
            Activation::Gelu => gate.gelu()?,
        };
        let up = self.product(&normed, &name("ffn_up"))?;
        let mut fed = self.product(&(gate * up)?, &name("ffn_down"))?;
        if self.shape.post_norms {
            fed = self.norm(&fed, &name("post_ffw_norm"))?;
        }
        stream + fed
    }

    /// Rows times a matrix.
    fn product(&self, rows: &Tensor, name: &str) -> Result<Tensor> {
        rows.matmul(&self.weights[name].t()?)
    }

    /// The root of the mean square of each row is made one, and each column has a weight.
    fn norm(&self, rows: &Tensor, name: &str) -> Result<Tensor> {
        let mean_square = rows.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean_square + self.shape.epsilon)?.sqrt()?;
        rows.broadcast_div(&root)?.broadcast_mul(&self.weights[name])
    }
}
