//! Attention over the whole context, every query with every key, and what a query may not see masked.

use candle_core::{D, Device, Result, Tensor};

use super::Reference;
use super::rope::Turns;

/// What layers of one kind know of positions.
pub(super) struct Positions {
    turns: Turns,
    /// `[queries][keys]`: minus infinity where a query may not see a key.
    mask: Tensor,
}

impl Positions {
    /// Those of layers whose queries see keys that are no later, and with a window, only so many of them.
    pub(super) fn new(tokens: usize, head: usize, base: f64, window: Option<usize>) -> Result<Self> {
        let seen = |query: usize, key: usize| key <= query && window.is_none_or(|window| query - key < window);
        let cell = |at: usize| if seen(at / tokens, at % tokens) { 0.0 } else { f32::NEG_INFINITY };
        let mask = Tensor::from_iter((0..tokens * tokens).map(cell), &Device::Cpu)?.reshape((tokens, tokens))?;
        Ok(Self { turns: Turns::new(tokens, head, base)?, mask })
    }
}

impl Reference {
    /// `[tokens][embedding]` to the same.
    pub(super) fn attention(&self, layer: usize, rows: &Tensor, positions: &Positions) -> Result<Tensor> {
        let shape = &self.shape;
        let tokens = rows.dim(0)?;
        let name = |part: &str| format!("blk.{layer}.{part}");

        let project = |part: &str, heads: usize| -> Result<Tensor> {
            let mut projected = self.product(rows, &name(&format!("{part}.weight")))?;
            if shape.biases {
                projected = projected.broadcast_add(&self.weights[&name(&format!("{part}.bias"))])?;
            }
            projected.reshape((tokens, heads, shape.head))?.transpose(0, 1)?.contiguous()
        };
        let place = |heads: Tensor, norm: &str| -> Result<Tensor> {
            let normed = if shape.qk_norm { self.norm(&heads, &name(norm))? } else { heads };
            positions.turns.turn(&normed, shape.rope_pairs)
        };
        let queries = place(project("attn_q", shape.heads)?, "attn_q_norm.weight")?;
        let keys = self.shared_out(&place(project("attn_k", shape.kv_heads)?, "attn_k_norm.weight")?)?;
        let values = self.shared_out(&project("attn_v", shape.kv_heads)?)?;

        let scores = (queries.matmul(&keys.t()?)? / (shape.head as f64).sqrt())?;
        let scores = scores.broadcast_add(&positions.mask)?;
        let attended = softmax(&scores)?.matmul(&values)?;
        let side_by_side = attended.transpose(0, 1)?.reshape((tokens, shape.heads * shape.head))?;
        self.product(&side_by_side, &name("attn_output.weight"))
    }

    /// `[kv_heads][tokens][head]` to `[heads][tokens][head]`: neighbouring heads of queries share one.
    fn shared_out(&self, heads: &Tensor) -> Result<Tensor> {
        let (kv_heads, tokens, head) = heads.dims3()?;
        let sharing = self.shape.heads / kv_heads;
        heads.unsqueeze(1)?.broadcast_as((kv_heads, sharing, tokens, head))?.reshape((self.shape.heads, tokens, head))
    }
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}
