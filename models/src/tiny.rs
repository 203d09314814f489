//! A real model of a few kilobytes, for tests and examples without a download.
//!
//! Owns the recipe: an architecture with random weights, a vocabulary of all single bytes and a few merges, a
//! chat template. It speaks gibberish, but it goes through every part that a real model goes through, in
//! milliseconds. It is never served to anyone. Called by tests here and in the `halm-tests` crate.

use half::f16;

use crate::gguf::{Array, GgufWriter, TensorType, Value};
use crate::sampler::uniform;

/// Width of the network.
const EMBEDDING: u64 = 32;
const FEED_FORWARD: u64 = 48;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const BLOCKS: u64 = 2;
const CONTEXT_TOKENS: u32 = 256;
/// Tokens that a local layer sees: neither whole pages nor a part of one.
const WINDOW: u64 = 40;
/// Weights that share a scale.
const Q8_BLOCK: usize = 32;

/// The merges, each of two tokens that exist by then.
const MERGES: [(&str, &str); 8] =
    [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("o", "r"), ("t", "he"), ("Ġ", "the")];

/// The control tokens, which follow bytes and merges.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// The chat template: ChatML.
pub const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Tokens in the vocabulary.
pub const VOCABULARY: usize = 256 + MERGES.len() + CONTROL.len();

/// What a tiny model is a tiny one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The llama architecture.
    Llama,
    /// The same, with 8-bit weights where their rows are whole blocks.
    LlamaQ8,
    /// Qwen 2: biases, and pairs half a head apart.
    Qwen2,
    /// Qwen 3: queries and keys are normed.
    Qwen3,
    /// Gemma 3: wide heads, local layers, norms after, GELU.
    Gemma3,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Llama, Self::LlamaQ8, Self::Qwen2, Self::Qwen3, Self::Gemma3];

    fn name(self) -> &'static str {
        match self {
            Self::Llama | Self::LlamaQ8 => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }

    /// Width of a head.
    fn head(self) -> u64 {
        if self == Self::Gemma3 { 16 } else { EMBEDDING / HEADS }
    }

    /// Layers; enough that one of gemma's sees everything.
    fn blocks(self) -> u64 {
        if self == Self::Gemma3 { 6 } else { BLOCKS }
    }
}

/// The file of a tiny llama whose weights follow from `seed`.
pub fn tiny_llama(seed: u64) -> Vec<u8> {
    tiny_llama_writer(seed).encode()
}

/// The same before it is encoded, so that a test can add to it.
pub fn tiny_llama_writer(seed: u64) -> GgufWriter {
    tiny(Family::Llama, seed)
}

/// A tiny model of a family.
pub fn tiny(family: Family, seed: u64) -> GgufWriter {
    let vocabulary = VOCABULARY as u64;
    let (queries, kv) = (family.head() * HEADS, family.head() * KV_HEADS);
    let mut weights = Weights { seed, next: 0 };
    let mut writer = tokenizer(network(GgufWriter::new(), family));
    let mut add = |name: &str, dimensions: &[u64]| {
        let values = match dimensions {
            [width] if name.contains("norm") => vec![1.0; *width as usize],
            _ => weights.random(dimensions.iter().product()),
        };
        let whole = dimensions.len() == 2 && dimensions[0].is_multiple_of(Q8_BLOCK as u64);
        let before = std::mem::take(&mut writer);
        writer = if family == Family::LlamaQ8 && whole {
            before.raw_tensor(name, dimensions, TensorType::Q8_0 as u32, None, quantize(&values))
        } else {
            before.tensor(name, dimensions, &values)
        };
    };
    add("token_embd.weight", &[EMBEDDING, vocabulary]);
    add("output.weight", &[EMBEDDING, vocabulary]);
    add("output_norm.weight", &[EMBEDDING]);
    for block in 0..family.blocks() {
        let mut add = |name: &str, dimensions: &[u64]| add(&format!("blk.{block}.{name}"), dimensions);
        add("attn_norm.weight", &[EMBEDDING]);
        add("ffn_norm.weight", &[EMBEDDING]);
        add("attn_q.weight", &[EMBEDDING, queries]);
        add("attn_k.weight", &[EMBEDDING, kv]);
        add("attn_v.weight", &[EMBEDDING, kv]);
        add("attn_output.weight", &[queries, EMBEDDING]);
        add("ffn_gate.weight", &[EMBEDDING, FEED_FORWARD]);
        add("ffn_up.weight", &[EMBEDDING, FEED_FORWARD]);
        add("ffn_down.weight", &[FEED_FORWARD, EMBEDDING]);
        if family == Family::Qwen2 {
            add("attn_q.bias", &[queries]);
            add("attn_k.bias", &[kv]);
            add("attn_v.bias", &[kv]);
        }
        if matches!(family, Family::Qwen3 | Family::Gemma3) {
            add("attn_q_norm.weight", &[family.head()]);
            add("attn_k_norm.weight", &[family.head()]);
        }
        if family == Family::Gemma3 {
            add("post_attention_norm.weight", &[EMBEDDING]);
            add("post_ffw_norm.weight", &[EMBEDDING]);
        }
    }
    writer
}

/// Weights in blocks of 32 with a scale each: ggml's `Q8_0`.
fn quantize(values: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    for block in values.chunks_exact(Q8_BLOCK) {
        let largest = block.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let scale = f16::from_f32(largest / 127.0);
        out.extend(scale.to_le_bytes());
        out.extend(block.iter().map(|value| (value / scale.to_f32()).round().clamp(-127.0, 127.0) as i8 as u8));
    }
    out
}

fn network(writer: GgufWriter, family: Family) -> GgufWriter {
    let name = family.name();
    let count = |number: u64| Value::U32(number as u32);
    let key = |key: &str| format!("{name}.{key}");
    let writer = writer
        .key("general.architecture", Value::String(name.to_owned()))
        .key(&key("block_count"), count(family.blocks()))
        .key(&key("context_length"), Value::U32(CONTEXT_TOKENS))
        .key(&key("embedding_length"), count(EMBEDDING))
        .key(&key("feed_forward_length"), count(FEED_FORWARD))
        .key(&key("attention.head_count"), count(HEADS))
        .key(&key("attention.head_count_kv"), count(KV_HEADS))
        .key(&key("rope.dimension_count"), count(family.head()))
        .key(&key("rope.freq_base"), Value::F32(10_000.0))
        .key(&key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
    match family {
        Family::Llama | Family::LlamaQ8 | Family::Qwen2 => writer,
        Family::Qwen3 => writer.key(&key("attention.key_length"), count(family.head())),
        Family::Gemma3 => writer
            .key(&key("attention.key_length"), count(family.head()))
            .key(&key("attention.sliding_window"), count(WINDOW)),
    }
}

fn tokenizer(writer: GgufWriter) -> GgufWriter {
    let mut tokens: Vec<String> = crate::tokenizer::byte_letters().map(String::from).collect();
    tokens.extend(MERGES.iter().map(|(left, right)| format!("{left}{right}")));
    let normal = tokens.len();
    tokens.extend(CONTROL.map(str::to_owned));
    let types = (0..tokens.len()).map(|id| if id < normal { 1 } else { 3 }).collect();
    let merges = MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect();
    let text = |text: &str| Value::String(text.to_owned());
    writer
        .key("tokenizer.ggml.model", text("gpt2"))
        .key("tokenizer.ggml.pre", text("smollm"))
        .key("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)))
        .key("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))
        .key("tokenizer.ggml.merges", Value::Array(Array::String(merges)))
        .key("tokenizer.ggml.bos_token_id", Value::U32(normal as u32 + 1))
        .key("tokenizer.ggml.eos_token_id", Value::U32(normal as u32 + 2))
        .key("tokenizer.chat_template", text(TEMPLATE))
}

/// Random weights, the same for the same seed.
struct Weights {
    seed: u64,
    next: u64,
}

impl Weights {
    /// Weights spread evenly around zero, wide enough that the logits differ clearly.
    fn random(&mut self, count: u64) -> Vec<f32> {
        let first = self.next;
        self.next += count;
        let weight = |index| (uniform(self.seed, 0, index) - 0.5) as f32;
        (first..self.next).map(weight).collect()
    }
}
