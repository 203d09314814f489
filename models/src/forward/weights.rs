//! The weights of a network, packed.
//!
//! Owns taking them out of a file. It must never compute with them.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use memmap2::Mmap;

use super::{Architecture, packed_file};
use crate::gguf::{MappedGguf, TensorEntry, TensorType};
use crate::kernel::{PackError, Packed};

/// A tensor that cannot be packed, by name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tensor {tensor:?}: {source}")]
pub struct TensorError {
    /// Its name.
    pub tensor: String,
    /// What is wrong with it.
    pub source: PackError,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) embedding: Packed,
    /// `None`: the embedding table is the head.
    pub(super) head: Option<Packed>,
    pub(super) norm: Vec<f32>,
    pub(super) layers: Vec<Layer>,
}

/// One layer's.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Projection,
    pub(super) key: Projection,
    pub(super) value: Projection,
    pub(super) query_norm: Option<Vec<f32>>,
    pub(super) key_norm: Option<Vec<f32>>,
    pub(super) output: Packed,
    pub(super) post_attention_norm: Option<Vec<f32>>,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) gate: Packed,
    pub(super) up: Packed,
    pub(super) down: Packed,
    pub(super) post_feed_forward_norm: Option<Vec<f32>>,
}

/// A product that may have a bias.
#[derive(Debug)]
pub(super) struct Projection {
    pub(super) weight: Packed,
    pub(super) bias: Option<Vec<f32>>,
}

impl Weights {
    /// Loads them: out of a packed file at `packed` if there is a sound one, otherwise out of the weights' file, and then the
    /// packed file is written for the next process.
    pub(super) fn load(
        file: &MappedGguf,
        architecture: &Architecture,
        packed: Option<&Path>,
    ) -> Result<Self, TensorError> {
        let Some(path) = packed else { return Self::from(file, architecture, None) };
        if let Some(map) = packed_file::open(path, file) {
            return Self::from(file, architecture, Some(map));
        }
        let own = Self::from(file, architecture, None)?;
        if let Err(error) = packed_file::write(path, file, own.matrices().into_iter().map(Packed::as_bytes)) {
            eprintln!("packed weights are not kept: write {}: {error}", path.display());
            return Ok(own);
        }
        match packed_file::open(path, file) {
            Some(map) => Self::from(file, architecture, Some(map)),
            None => Ok(own),
        }
    }

    fn from(file: &MappedGguf, architecture: &Architecture, map: Option<Arc<Mmap>>) -> Result<Self, TensorError> {
        let source = Source { file, map, next: Cell::new(packed_file::HEAD_BYTES) };
        let head = file.gguf().tensors().get("output.weight").map(|_| source.matrix("output.weight")).transpose()?;
        Ok(Self {
            embedding: source.matrix("token_embd.weight")?,
            head,
            norm: source.vector("output_norm.weight")?,
            layers: (0..architecture.blocks)
                .map(|index| Layer::load(&source, architecture, index))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Weights {
    /// All matrices, in the order in which they are loaded.
    fn matrices(&self) -> Vec<&Packed> {
        let mut matrices: Vec<&Packed> = self.head.iter().collect();
        matrices.push(&self.embedding);
        matrices.extend(self.layers.iter().flat_map(Layer::matrices));
        matrices
    }

    /// Bytes of the matrices that every token goes through.
    pub(super) fn read_bytes(&self) -> usize {
        let of_layer = |layer: &Layer| layer.matrices().map(Packed::bytes).into_iter().sum::<usize>();
        self.head.as_ref().unwrap_or(&self.embedding).bytes() + self.layers.iter().map(of_layer).sum::<usize>()
    }
}

impl Layer {
    /// In the order in which they are loaded.
    fn matrices(&self) -> [&Packed; 7] {
        let Self { query, key, value, output, gate, up, down, .. } = self;
        [&query.weight, &key.weight, &value.weight, output, gate, up, down]
    }

    fn load(source: &Source<'_>, architecture: &Architecture, index: usize) -> Result<Self, TensorError> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let matrix = |part: &str| source.matrix(&name(part));
        let vector = |part: &str| source.vector(&name(part));
        let when = |wanted: bool, part: &str| wanted.then(|| vector(part)).transpose();
        let projection = |part: &str| {
            let bias = when(architecture.biases, &format!("{part}.bias"))?;
            Ok(Projection { weight: matrix(&format!("{part}.weight"))?, bias })
        };
        Ok(Self {
            attention_norm: vector("attn_norm.weight")?,
            query: projection("attn_q")?,
            key: projection("attn_k")?,
            value: projection("attn_v")?,
            query_norm: when(architecture.qk_norm, "attn_q_norm.weight")?,
            key_norm: when(architecture.qk_norm, "attn_k_norm.weight")?,
            output: matrix("attn_output.weight")?,
            post_attention_norm: when(architecture.post_norms, "post_attention_norm.weight")?,
            feed_forward_norm: vector("ffn_norm.weight")?,
            gate: matrix("ffn_gate.weight")?,
            up: matrix("ffn_up.weight")?,
            down: matrix("ffn_down.weight")?,
            post_feed_forward_norm: when(architecture.post_norms, "post_ffw_norm.weight")?,
        })
    }
}

/// Where tensors come from. [`Architecture::read`] has checked that they are there, with their shapes.
struct Source<'a> {
    file: &'a MappedGguf,
    /// The packed matrices, if there are any, and where the next one begins.
    map: Option<Arc<Mmap>>,
    next: Cell<usize>,
}

impl Source<'_> {
    fn entry(&self, name: &str) -> (&TensorEntry, &[u8]) {
        let tensors = self.file.gguf().tensors();
        let entry = tensors.get(name).expect("the architecture was checked against the file");
        let start = usize::try_from(tensors.data_start() + entry.offset()).expect("a mapped file fits the addresses");
        let size = usize::try_from(entry.size()).expect("a mapped file fits the addresses");
        (entry, &self.file.bytes()[start..start + size])
    }

    fn matrix(&self, name: &str) -> Result<Packed, TensorError> {
        let (entry, bytes) = self.entry(name);
        let size = |at: usize| usize::try_from(entry.dimensions()[at]).expect("checked against the shape");
        if let Some(map) = &self.map
            && let Some(packed) = Packed::mapped(entry.kind(), size(0), size(1), map, self.next.get())
        {
            self.next.set(self.next.get() + packed.bytes());
            return Ok(packed);
        }
        Packed::pack(entry.kind(), bytes, size(0), size(1))
            .map_err(|source| TensorError { tensor: name.to_owned(), source })
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, TensorError> {
        let (entry, bytes) = self.entry(name);
        Ok(match entry.kind() {
            TensorType::F32 => {
                bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
            }
            TensorType::F16 => bytes.chunks_exact(2).map(|two| f16::from_le_bytes([two[0], two[1]]).to_f32()).collect(),
            TensorType::BF16 => {
                bytes.chunks_exact(2).map(|two| bf16::from_le_bytes([two[0], two[1]]).to_f32()).collect()
            }
            kind @ (TensorType::Q4_0
            | TensorType::Q4_1
            | TensorType::Q5_0
            | TensorType::Q5_1
            | TensorType::Q8_0
            | TensorType::Q2K
            | TensorType::Q3K
            | TensorType::Q4K
            | TensorType::Q5K
            | TensorType::Q6K) => {
                return Err(TensorError { tensor: name.to_owned(), source: PackError::Type(kind) });
            }
        })
    }
}
