//! The shape of a llama network, and whether a file has it.
//!
//! Owns the check of metadata against tensors: head counts that divide, every tensor of the architecture there with the
//! implied dimensions, none besides, no feature that the forward pass would silently ignore. After it, loading cannot
//! divide by zero and no weight is left out. Called by [`super::candle_llama`].

use std::collections::BTreeSet;

use crate::gguf::{Gguf, GgufError, Metadata};

/// What the metadata says about the network's shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    blocks: u64,
    embedding: u64,
    feed_forward: u64,
    heads: u64,
    kv_heads: u64,
    head: u64,
    vocabulary: u64,
    pub(super) context_tokens: u64,
}

impl Shape {
    /// Reads the shape and checks every tensor against it.
    pub(crate) fn read(gguf: &Gguf, vocabulary: u64) -> Result<Self, GgufError> {
        let metadata = gguf.metadata();
        refuse_what_candle_ignores(metadata)?;
        let heads = positive(metadata, "llama.attention.head_count")?;
        let embedding = positive(metadata, "llama.embedding_length")?;
        let shape = Self {
            blocks: positive(metadata, "llama.block_count")?,
            embedding,
            feed_forward: positive(metadata, "llama.feed_forward_length")?,
            heads,
            kv_heads: positive(metadata, "llama.attention.head_count_kv")?,
            head: embedding / heads,
            vocabulary,
            context_tokens: positive(metadata, "llama.context_length")?,
        };
        shape.check_heads(metadata)?;
        shape.check_tensors(gguf)?;
        Ok(shape)
    }

    fn check_heads(&self, metadata: &Metadata) -> Result<(), GgufError> {
        let fault = |key: &str, value: u64, allowed| {
            Err(GgufError::BadValue { key: key.to_owned(), value: value.to_string(), allowed })
        };
        if !self.embedding.is_multiple_of(self.heads) || !self.head.is_multiple_of(2) {
            return fault(
                "llama.attention.head_count",
                self.heads,
                "a number that divides the embedding length into heads of even size",
            );
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return fault("llama.attention.head_count_kv", self.kv_heads, "a number that divides the number of heads");
        }
        let rope = positive(metadata, "llama.rope.dimension_count")?;
        if rope != self.head {
            return fault("llama.rope.dimension_count", rope, "the size of an attention head");
        }
        Ok(())
    }

    /// The tensors of the whole network, with their dimensions.
    fn tensors(&self) -> impl Iterator<Item = (String, Vec<u64>)> {
        let &Self { embedding, feed_forward, kv_heads, head, vocabulary, .. } = self;
        let block = move |index: u64| {
            [
                ("attn_norm", vec![embedding]),
                ("attn_q", vec![embedding, embedding]),
                ("attn_k", vec![embedding, kv_heads * head]),
                ("attn_v", vec![embedding, kv_heads * head]),
                ("attn_output", vec![embedding, embedding]),
                ("ffn_norm", vec![embedding]),
                ("ffn_gate", vec![embedding, feed_forward]),
                ("ffn_up", vec![embedding, feed_forward]),
                ("ffn_down", vec![feed_forward, embedding]),
            ]
            .map(|(name, dimensions)| (format!("blk.{index}.{name}.weight"), dimensions))
        };
        let ends = [
            ("token_embd.weight".to_owned(), vec![embedding, vocabulary]),
            ("output_norm.weight".to_owned(), vec![embedding]),
        ];
        ends.into_iter().chain((0..self.blocks).flat_map(block))
    }

    fn check_tensors(&self, gguf: &Gguf) -> Result<(), GgufError> {
        // The head may be absent: then the embedding table serves as one.
        const HEAD: &str = "output.weight";
        let mut expected = 0;
        for (name, wanted) in self.tensors() {
            check_tensor(gguf, &name, &wanted)?;
            expected += 1;
        }
        if gguf.tensors().get(HEAD).is_some() {
            check_tensor(gguf, HEAD, &[self.embedding, self.vocabulary])?;
            expected += 1;
        }
        if gguf.tensors().len() == expected {
            return Ok(());
        }
        let known: BTreeSet<_> = self.tensors().map(|(name, _)| name).collect();
        let stranger = gguf.tensors().iter().find(|(name, _)| *name != HEAD && !known.contains(*name));
        Err(GgufError::UnexpectedTensor { tensor: stranger.map_or_else(String::new, |(name, _)| name.to_owned()) })
    }
}

fn check_tensor(gguf: &Gguf, name: &str, wanted: &[u64]) -> Result<(), GgufError> {
    let entry = gguf.tensors().get(name).ok_or_else(|| GgufError::MissingTensor { tensor: name.to_owned() })?;
    if entry.dimensions() == wanted {
        return Ok(());
    }
    Err(GgufError::TensorShape { tensor: name.to_owned(), found: entry.dimensions().to_vec(), wanted: wanted.to_vec() })
}

/// A number above zero that fits 32 bits, as every count of a network does.
pub(super) fn positive(metadata: &Metadata, key: &str) -> Result<u64, GgufError> {
    let value = Metadata::required(key, metadata.integer(key)?)?;
    if (1..=u64::from(u32::MAX)).contains(&value) {
        return Ok(value);
    }
    Err(GgufError::BadValue { key: key.to_owned(), value: value.to_string(), allowed: "a number from 1 to 4294967295" })
}

/// Features of the llama family that candle reads past, so that it would compute something else.
fn refuse_what_candle_ignores(metadata: &Metadata) -> Result<(), GgufError> {
    const SCALING: &str = "llama.rope.scaling.type";
    const EXPERTS: &str = "llama.expert_count";
    if let Some(kind) = metadata.string(SCALING)?.filter(|kind| *kind != "none") {
        return Err(GgufError::BadValue {
            key: SCALING.to_owned(),
            value: format!("{kind:?}"),
            allowed: "\"none\" (scaled RoPE is not computed yet)",
        });
    }
    if let Some(experts) = metadata.integer(EXPERTS)?.filter(|experts| *experts > 1) {
        return Err(GgufError::BadValue {
            key: EXPERTS.to_owned(),
            value: experts.to_string(),
            allowed: "0 or 1 (mixtures of experts are not computed yet)",
        });
    }
    Ok(())
}
