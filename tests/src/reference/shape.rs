//! What a network computes, read from its file.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use candle_core::{Result, bail};

use super::rope::Pairs;
use super::weights::Weights;

/// Of so many layers of Gemma 3, five are local and the last is global.
const GEMMA_LAYERS_A_GLOBAL: usize = 6;
/// The base of rotary positions in Gemma 3's local layers; files have only that of the global ones.
const GEMMA_LOCAL_ROPE_BASE: f64 = 10_000.0;

/// A network's sizes, and what tells the families apart.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are the papers'")]
pub struct Shape {
    pub layers: usize,
    pub heads: usize,
    /// Heads of keys and values, each of which some heads of queries share.
    pub kv_heads: usize,
    /// Width of a head.
    pub head: usize,
    pub epsilon: f64,
    pub embedding_scale: f64,
    pub rope_pairs: Pairs,
    pub rope_base: f64,
    pub local: Option<Local>,
    /// Queries, keys and values have biases.
    pub biases: bool,
    /// Queries and keys are normed, head by head, before they turn.
    pub qk_norm: bool,
    /// What attention and feed-forward give is normed.
    pub post_norms: bool,
    pub activation: Activation,
    /// The embedding table is the head.
    pub tied: bool,
}

/// The layers that see only the nearest tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Local {
    /// Tokens that they see, the current one among them.
    pub window: usize,
    /// Of so many layers the last is global.
    pub layers_a_global: usize,
    /// The base of their rotary positions.
    pub rope_base: f64,
}

/// The function of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the papers'")]
pub enum Activation {
    Silu,
    Gelu,
}

impl Shape {
    pub(super) fn read(metadata: &HashMap<String, Value>, weights: &Weights) -> Result<Self> {
        let Some(family) = metadata.get("general.architecture") else { bail!("the file has no architecture") };
        let family = family.to_string()?.as_str();
        let value = |key: &str| metadata.get(&format!("{family}.{key}"));
        let count = |key: &str| match value(key) {
            Some(value) => Ok(value.to_u32()? as usize),
            None => bail!("the file has no {family}.{key}"),
        };
        let number = |key: &str| value(key).map(|value| value.to_f32().map(f64::from)).transpose();
        let (embedding, heads) = (count("embedding_length")?, count("attention.head_count")?);
        let gemma = family == "gemma3";
        let local = Local {
            window: if gemma { count("attention.sliding_window")? } else { 0 },
            layers_a_global: GEMMA_LAYERS_A_GLOBAL,
            rope_base: GEMMA_LOCAL_ROPE_BASE,
        };
        Ok(Self {
            layers: count("block_count")?,
            heads,
            kv_heads: count("attention.head_count_kv")?,
            head: count("attention.key_length").unwrap_or(embedding / heads),
            epsilon: number("attention.layer_norm_rms_epsilon")?.unwrap_or_default(),
            embedding_scale: if gemma { (embedding as f64).sqrt() } else { 1.0 },
            // Files of the llama family have queries and keys in the order that lets neighbours turn together.
            rope_pairs: if family == "llama" { Pairs::Neighbours } else { Pairs::Halves },
            rope_base: number("rope.freq_base")?.unwrap_or(10_000.0),
            local: gemma.then_some(local),
            biases: family == "qwen2",
            qk_norm: gemma || family == "qwen3",
            post_norms: gemma,
            activation: if gemma { Activation::Gelu } else { Activation::Silu },
            tied: !weights.contains_key("output.weight"),
        })
    }

    pub(super) fn is_local(&self, layer: usize) -> bool {
        self.local.is_some_and(|local| layer % local.layers_a_global != local.layers_a_global - 1)
    }
}
