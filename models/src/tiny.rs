//! A real model of a few kilobytes, for tests and examples without a download.
//!
//! Owns the recipe: the llama architecture with random weights, a vocabulary of all single bytes and a few merges, a
//! chat template. It speaks gibberish, but it goes through every part that a real model goes through, in
//! milliseconds. It is never served to anyone. Called by tests here and in the `halm-tests` crate.

use crate::gguf::{Array, GgufWriter, Value};
use crate::sampler::uniform;

/// Width of the network.
const EMBEDDING: u64 = 32;
const FEED_FORWARD: u64 = 48;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const BLOCKS: u64 = 2;
const CONTEXT_TOKENS: u32 = 256;

/// The merges, each of two tokens that exist by then.
const MERGES: [(&str, &str); 8] =
    [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("o", "r"), ("t", "he"), ("Ġ", "the")];

/// The control tokens, which follow bytes and merges.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// The chat template: ChatML.
pub const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Tokens in the vocabulary.
pub const VOCABULARY: usize = 256 + MERGES.len() + CONTROL.len();

/// The file of a tiny llama whose weights follow from `seed`.
pub fn tiny_llama(seed: u64) -> Vec<u8> {
    tiny_llama_writer(seed).encode()
}

/// The same before it is encoded, so that a test can add to it.
pub fn tiny_llama_writer(seed: u64) -> GgufWriter {
    let vocabulary = VOCABULARY as u64;
    let kv = EMBEDDING / HEADS * KV_HEADS;
    let mut weights = Weights { seed, next: 0 };
    let mut writer = tokenizer(network(GgufWriter::new()))
        .tensor("token_embd.weight", &[EMBEDDING, vocabulary], &weights.random(EMBEDDING * vocabulary))
        .tensor("output.weight", &[EMBEDDING, vocabulary], &weights.random(EMBEDDING * vocabulary))
        .tensor("output_norm.weight", &[EMBEDDING], &[1.0; EMBEDDING as usize]);
    for block in 0..BLOCKS {
        for norm in ["attn_norm", "ffn_norm"] {
            let name = format!("blk.{block}.{norm}.weight");
            writer = writer.tensor(&name, &[EMBEDDING], &[1.0; EMBEDDING as usize]);
        }
        for (name, rows, columns) in [
            ("attn_q", EMBEDDING, EMBEDDING),
            ("attn_k", EMBEDDING, kv),
            ("attn_v", EMBEDDING, kv),
            ("attn_output", EMBEDDING, EMBEDDING),
            ("ffn_gate", EMBEDDING, FEED_FORWARD),
            ("ffn_up", EMBEDDING, FEED_FORWARD),
            ("ffn_down", FEED_FORWARD, EMBEDDING),
        ] {
            let name = format!("blk.{block}.{name}.weight");
            writer = writer.tensor(&name, &[rows, columns], &weights.random(rows * columns));
        }
    }
    writer
}

fn network(writer: GgufWriter) -> GgufWriter {
    let count = |number: u64| Value::U32(number as u32);
    writer
        .key("general.architecture", Value::String("llama".to_owned()))
        .key("llama.block_count", count(BLOCKS))
        .key("llama.context_length", Value::U32(CONTEXT_TOKENS))
        .key("llama.embedding_length", count(EMBEDDING))
        .key("llama.feed_forward_length", count(FEED_FORWARD))
        .key("llama.attention.head_count", count(HEADS))
        .key("llama.attention.head_count_kv", count(KV_HEADS))
        .key("llama.rope.dimension_count", count(EMBEDDING / HEADS))
        .key("llama.rope.freq_base", Value::F32(10_000.0))
        .key("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
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
