//! The families of networks, and whether a file has one.
//!
//! Owns what tells the families apart, and the check of metadata against tensors: head counts that divide, every tensor
//! there with the implied dimensions, none besides, no feature that the pass would silently ignore. After it, loading
//! cannot divide by zero and no weight is left out.

use std::collections::BTreeSet;

use crate::gguf::{Gguf, GgufError, Metadata, Value};

/// The families, as `general.architecture` calls them.
pub(crate) const FAMILIES: [&str; 4] = ["llama", "qwen2", "qwen3", "gemma3"];

/// Positions of gemma3's local layers turn by angles of this base; no file says so.
const GEMMA_LOCAL_ROPE_BASE: f64 = 10_000.0;
/// Of so many gemma3 layers, the last sees everything.
const GEMMA_GLOBAL_EVERY: usize = 6;

/// A network's shape and kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Architecture {
    /// Layers.
    pub(crate) blocks: usize,
    /// Width of the residual stream.
    pub(crate) embedding: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Width of a head.
    pub(crate) head: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context_tokens: usize,
    /// Added to the mean square in norms.
    pub(crate) epsilon: f32,
    /// Base of the angles by which positions turn queries and keys.
    pub(crate) rope_base: f64,
    /// Which values of a head turn together.
    pub(crate) rope_pairs: RopePairs,
    /// Queries and keys are normed by head.
    pub(crate) qk_norm: bool,
    /// Queries, keys and values have biases.
    pub(crate) biases: bool,
    /// What attention and feed-forward give is normed before it is added.
    pub(crate) post_norms: bool,
    pub(crate) activation: Activation,
    /// Embeddings are multiplied with this.
    pub(crate) embedding_scale: f32,
    /// Layers that see only the nearest tokens.
    pub(crate) window: Option<Window>,
}

/// Which values of a head form a pair that turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RopePairs {
    /// Neighbours.
    Interleaved,
    /// Half a head apart.
    Split,
}

/// The function in the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    Gelu,
}

/// Local attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window {
    /// Tokens that a local layer sees, the current one included.
    pub(crate) tokens: usize,
    /// Every so manieth layer is global.
    pub(crate) global_every: usize,
    /// Base of the angles in local layers.
    pub(crate) rope_base: f64,
}

impl Window {
    pub(crate) fn is_local(&self, layer: usize) -> bool {
        !(layer + 1).is_multiple_of(self.global_every)
    }
}

impl Architecture {
    /// Reads the shape and checks every tensor against it.
    pub(crate) fn read(gguf: &Gguf, vocabulary: usize) -> Result<Self, GgufError> {
        let metadata = gguf.metadata();
        let family = Metadata::required("general.architecture", metadata.string("general.architecture")?)?;
        let keys = Keys { metadata, family };
        keys.refuse_what_is_not_computed()?;
        let (embedding, heads) = (keys.positive("embedding_length")?, keys.positive("attention.head_count")?);
        let head = match keys.optional("attention.key_length")? {
            Some(head) => head,
            None => embedding / heads,
        };
        let shape = Self {
            blocks: keys.positive("block_count")?,
            embedding,
            feed_forward: keys.positive("feed_forward_length")?,
            heads,
            kv_heads: keys.positive("attention.head_count_kv")?,
            head,
            vocabulary,
            context_tokens: keys.positive("context_length")?,
            epsilon: Metadata::required(
                &keys.name("attention.layer_norm_rms_epsilon"),
                keys.number("attention.layer_norm_rms_epsilon")?,
            )? as f32,
            rope_base: keys.number("rope.freq_base")?.unwrap_or(10_000.0),
            rope_pairs: if family == "llama" { RopePairs::Interleaved } else { RopePairs::Split },
            qk_norm: matches!(family, "qwen3" | "gemma3"),
            biases: family == "qwen2",
            post_norms: family == "gemma3",
            activation: if family == "gemma3" { Activation::Gelu } else { Activation::Silu },
            embedding_scale: if family == "gemma3" { (embedding as f32).sqrt() } else { 1.0 },
            window: match family {
                "gemma3" => Some(Window {
                    tokens: keys.positive("attention.sliding_window")?,
                    global_every: GEMMA_GLOBAL_EVERY,
                    rope_base: GEMMA_LOCAL_ROPE_BASE,
                }),
                _ => None,
            },
        };
        shape.check_heads(&keys)?;
        shape.check_tensors(gguf)?;
        Ok(shape)
    }

    fn check_heads(&self, keys: &Keys<'_>) -> Result<(), GgufError> {
        let fault = |key: &str, value: usize, allowed| {
            Err(GgufError::BadValue { key: keys.name(key), value: value.to_string(), allowed })
        };
        let given = keys.optional("attention.key_length")?.is_some();
        if !given && !self.embedding.is_multiple_of(self.heads) || !self.head.is_multiple_of(2) {
            return fault(
                "attention.head_count",
                self.heads,
                "a number that divides the embedding length into heads of even size",
            );
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return fault("attention.head_count_kv", self.kv_heads, "a number that divides the number of heads");
        }
        for key in ["rope.dimension_count", "attention.value_length"] {
            if let Some(found) = keys.optional(key)?.filter(|found| *found != self.head) {
                return fault(key, found, "the size of an attention head");
            }
        }
        Ok(())
    }

    /// The tensors outside of the layers, with their dimensions.
    fn outer_tensors(&self) -> [(String, Vec<usize>); 2] {
        [
            ("token_embd.weight".to_owned(), vec![self.embedding, self.vocabulary]),
            ("output_norm.weight".to_owned(), vec![self.embedding]),
        ]
    }

    /// The tensors of one layer, with their dimensions.
    fn layer_tensors(&self, index: usize) -> Vec<(String, Vec<usize>)> {
        let &Self { embedding, feed_forward, heads, kv_heads, head, .. } = self;
        let mut tensors = Vec::new();
        let mut add = |name: &str, dimensions: Vec<usize>| tensors.push((format!("blk.{index}.{name}"), dimensions));
        add("attn_norm.weight", vec![embedding]);
        add("attn_q.weight", vec![embedding, heads * head]);
        add("attn_k.weight", vec![embedding, kv_heads * head]);
        add("attn_v.weight", vec![embedding, kv_heads * head]);
        add("attn_output.weight", vec![heads * head, embedding]);
        add("ffn_norm.weight", vec![embedding]);
        add("ffn_gate.weight", vec![embedding, feed_forward]);
        add("ffn_up.weight", vec![embedding, feed_forward]);
        add("ffn_down.weight", vec![feed_forward, embedding]);
        if self.biases {
            add("attn_q.bias", vec![heads * head]);
            add("attn_k.bias", vec![kv_heads * head]);
            add("attn_v.bias", vec![kv_heads * head]);
        }
        if self.qk_norm {
            add("attn_q_norm.weight", vec![head]);
            add("attn_k_norm.weight", vec![head]);
        }
        if self.post_norms {
            add("post_attention_norm.weight", vec![embedding]);
            add("post_ffw_norm.weight", vec![embedding]);
        }
        tensors
    }

    fn check_tensors(&self, gguf: &Gguf) -> Result<(), GgufError> {
        // The head may be absent: then the embedding table serves as one.
        const HEAD: &str = "output.weight";
        let mut known = BTreeSet::from([HEAD.to_owned()]);
        if gguf.tensors().get(HEAD).is_some() {
            check_tensor(gguf, HEAD, &[self.embedding, self.vocabulary])?;
        }
        // Layer by layer: what a damaged file declares may be billions, and the first that is missing ends it.
        let layers = (0..self.blocks).flat_map(|index| self.layer_tensors(index));
        for (name, wanted) in self.outer_tensors().into_iter().chain(layers) {
            check_tensor(gguf, &name, &wanted)?;
            known.insert(name);
        }
        match gguf.tensors().iter().find(|(name, _)| !known.contains(*name)) {
            Some((stranger, _)) => Err(GgufError::UnexpectedTensor { tensor: stranger.to_owned() }),
            None => Ok(()),
        }
    }
}

fn check_tensor(gguf: &Gguf, name: &str, wanted: &[usize]) -> Result<(), GgufError> {
    let entry = gguf.tensors().get(name).ok_or_else(|| GgufError::MissingTensor { tensor: name.to_owned() })?;
    let wanted: Vec<u64> = wanted.iter().map(|size| *size as u64).collect();
    if entry.dimensions() == wanted {
        return Ok(());
    }
    Err(GgufError::TensorShape { tensor: name.to_owned(), found: entry.dimensions().to_vec(), wanted })
}

/// The metadata of one family.
struct Keys<'a> {
    metadata: &'a Metadata,
    family: &'a str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.family)
    }

    /// A number above zero that fits 32 bits, as every count of a network does.
    fn optional(&self, key: &str) -> Result<Option<usize>, GgufError> {
        let name = self.name(key);
        match self.metadata.integer(&name)? {
            Some(value) if (1..=u64::from(u32::MAX)).contains(&value) => Ok(usize::try_from(value).ok()),
            Some(value) => Err(GgufError::BadValue {
                key: name,
                value: value.to_string(),
                allowed: "a number from 1 to 4294967295",
            }),
            None => Ok(None),
        }
    }

    fn positive(&self, key: &str) -> Result<usize, GgufError> {
        Metadata::required(&self.name(key), self.optional(key)?)
    }

    /// A finite number above zero, in either width.
    fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        let name = self.name(key);
        let value = match self.metadata.get(&name) {
            Some(Value::F64(wide)) => Some(*wide),
            Some(_) | None => self.metadata.float(&name)?.map(f64::from),
        };
        match value {
            Some(value) if !(value.is_finite() && value > 0.0) => {
                Err(GgufError::BadValue { key: name, value: value.to_string(), allowed: "a finite number above 0" })
            }
            Some(_) | None => Ok(value),
        }
    }

    /// Features that would make it another computation.
    fn refuse_what_is_not_computed(&self) -> Result<(), GgufError> {
        let scaling = self.name("rope.scaling.type");
        if let Some(kind) = self.metadata.string(&scaling)?.filter(|kind| *kind != "none") {
            return Err(GgufError::BadValue {
                key: scaling,
                value: format!("{kind:?}"),
                allowed: "\"none\" (scaled RoPE is not computed yet)",
            });
        }
        let experts = self.name("expert_count");
        if let Some(count) = self.metadata.integer(&experts)?.filter(|count| *count > 1) {
            return Err(GgufError::BadValue {
                key: experts,
                value: count.to_string(),
                allowed: "0 or 1 (mixtures of experts are not computed yet)",
            });
        }
        Ok(())
    }
}
