//! The llama forward pass, computed by candle-transformers.
//!
//! Owns the weights and the keys and values of every open sequence: one cheap clone of candle's model per sequence,
//! which shares the weights and has its own cache. It checks beforehand whatever candle would panic on or silently
//! ignore: shapes, head counts, scaled RoPE, tensors it does not know. Called through [`Engine`].

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;

use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::quantized_llama::{MAX_SEQ_LEN, ModelWeights};

use super::llama_shape::{Shape, positive};
use super::{Engine, SequenceId, StepError};
use crate::gguf::{Gguf, GgufError, MappedGguf, Metadata, Value};
use crate::stock::LoadError;
use crate::tokenizer::TokenId;

/// Sequences open at once, at most. Each holds its keys and values (SmolLM2-135M: 46 KiB a token), and the dispatcher
/// gives a worker far fewer; this bounds what a leak could take.
const SEQUENCES_OPEN_MAX: usize = 64;

/// candle's quantized llama behind the contract.
pub(crate) struct CandleLlama {
    weights: ModelWeights,
    vocabulary: usize,
    context_tokens: usize,
    sequences: BTreeMap<SequenceId, Sequence>,
    next: u64,
}

struct Sequence {
    weights: ModelWeights,
    tokens: usize,
}

impl CandleLlama {
    /// Loads the weights of `file`, whose vocabulary must have `vocabulary` tokens.
    pub(crate) fn load(
        file: &MappedGguf,
        vocabulary: usize,
        context_tokens_max: Option<usize>,
    ) -> Result<Self, LoadError> {
        let in_file = |source| LoadError::Gguf { path: file.path().to_owned(), source };
        let shape = Shape::read(file.gguf(), vocabulary as u64).map_err(in_file)?;
        let content = content(file.gguf()).map_err(in_file)?;
        let mut reader = Cursor::new(file.bytes());
        let weights = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)
            .map_err(|source| LoadError::Weights { path: file.path().to_owned(), source })?;
        let trained = usize::try_from(shape.context_tokens).unwrap_or(usize::MAX);
        let wanted = context_tokens_max.unwrap_or(usize::MAX);
        Ok(Self {
            weights,
            vocabulary,
            context_tokens: trained.min(wanted).min(MAX_SEQ_LEN),
            sequences: BTreeMap::new(),
            next: 0,
        })
    }
}

impl Engine for CandleLlama {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn open(&mut self) -> Result<SequenceId, StepError> {
        if self.sequences.len() >= SEQUENCES_OPEN_MAX {
            return Err(StepError::TooManySequences { open: self.sequences.len() });
        }
        let id = SequenceId(self.next);
        self.next += 1;
        self.sequences.insert(id, Sequence { weights: self.weights.clone(), tokens: 0 });
        Ok(id)
    }

    fn extend(&mut self, sequence: SequenceId, tokens: &[TokenId]) -> Result<Vec<f32>, StepError> {
        let (vocabulary, context_tokens) = (self.vocabulary, self.context_tokens);
        let sequence = self.sequences.get_mut(&sequence).ok_or(StepError::UnknownSequence)?;
        if tokens.is_empty() {
            return Err(StepError::NoTokens);
        }
        if let Some(&token) = tokens.iter().find(|token| token.index() >= vocabulary) {
            return Err(StepError::UnknownToken { token, vocabulary });
        }
        let length = sequence.tokens + tokens.len();
        if length > context_tokens {
            return Err(StepError::ContextExceeded { tokens: length, context_tokens });
        }
        let ids: Vec<u32> = tokens.iter().map(|token| token.get()).collect();
        let input = Tensor::from_vec(ids, (1, tokens.len()), &Device::Cpu)?;
        let output = sequence.weights.forward(&input, sequence.tokens)?;
        sequence.tokens = length;
        let logits = output.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        if logits.len() != vocabulary {
            return Err(StepError::LogitCount { found: logits.len(), vocabulary });
        }
        Ok(logits)
    }

    fn close(&mut self, sequence: SequenceId) {
        self.sequences.remove(&sequence);
    }
}

impl std::fmt::Debug for CandleLlama {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CandleLlama")
            .field("vocabulary", &self.vocabulary)
            .field("context_tokens", &self.context_tokens)
            .field("sequences", &self.sequences.len())
            .finish_non_exhaustive()
    }
}

/// What candle wants to know of the file, taken from the checked header: nothing is parsed twice, and nothing that
/// was not checked reaches candle.
fn content(gguf: &Gguf) -> Result<gguf_file::Content, GgufError> {
    const COUNTS: [&str; 5] = [
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.block_count",
        "llama.embedding_length",
        "llama.rope.dimension_count",
    ];
    const EPSILON: &str = "llama.attention.layer_norm_rms_epsilon";
    const FREQUENCY: &str = "llama.rope.freq_base";
    let mut metadata = HashMap::new();
    for key in COUNTS {
        let count = positive(gguf.metadata(), key)?;
        let count = u32::try_from(count).expect("positive() keeps to 32 bits");
        metadata.insert(key.to_owned(), gguf_file::Value::U32(count));
    }
    let epsilon = Metadata::required(EPSILON, number(gguf.metadata(), EPSILON)?)?;
    metadata.insert(EPSILON.to_owned(), gguf_file::Value::F32(epsilon));
    if let Some(base) = number(gguf.metadata(), FREQUENCY)? {
        metadata.insert(FREQUENCY.to_owned(), gguf_file::Value::F32(base));
    }
    let architecture = gguf_file::Value::String("llama".to_owned());
    metadata.insert("general.architecture".to_owned(), architecture);
    let tensor_infos = gguf.tensors().iter().map(|(name, entry)| {
        let outer_first: Vec<usize> = entry.dimensions().iter().rev().map(|size| *size as usize).collect();
        let tensor = gguf_file::TensorInfo {
            ggml_dtype: entry.kind().dtype(),
            shape: outer_first.into(),
            offset: entry.offset(),
        };
        (name.to_owned(), tensor)
    });
    Ok(gguf_file::Content {
        magic: gguf_file::VersionedMagic::GgufV3,
        metadata,
        tensor_infos: tensor_infos.collect(),
        tensor_data_offset: gguf.tensors().data_start(),
    })
}

/// A finite number above zero, in either width.
fn number(metadata: &Metadata, key: &str) -> Result<Option<f32>, GgufError> {
    let value = match metadata.get(key) {
        Some(Value::F64(wide)) => Some(*wide as f32),
        Some(_) | None => metadata.float(key)?,
    };
    match value {
        Some(value) if !(value.is_finite() && value > 0.0) => Err(GgufError::BadValue {
            key: key.to_owned(),
            value: value.to_string(),
            allowed: "a finite number above 0",
        }),
        Some(_) | None => Ok(value),
    }
}
