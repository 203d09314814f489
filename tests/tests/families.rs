//! Each family computes its own network and no other's, in every number format.
//!
//! Owns the comparison of small random networks with the reference, where an error has nowhere to hide: everything that
//! tells the families apart is changed in the reference, one thing at a time, and each time the numbers must come apart.

use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result, Tensor};
use halm_models::tiny::{self, Family};
use halm_models::{LoadOptions, Model, TokenId};
use halm_tests::quality::Quality;
use halm_tests::reference::{Activation, Pairs, Reference, Shape};

/// With weights that are floats: what is left is the order of sums, and keys and values that are half floats.
/// Measured: 0.00024 to 0.00066.
const FLOAT_ERROR_MAX: f64 = 0.0013;

/// With quantized weights: activations are rounded to 8 bits too. Measured: 0.013 to 0.022.
const EIGHT_BIT_ERROR_MAX: f64 = 0.045;

const FAMILIES: [Family; 4] = [Family::Llama, Family::Qwen2, Family::Qwen3, Family::Gemma3];

/// Longer than the tiny Gemma's window, twice.
const TOKENS: usize = 120;

/// A network on disk, and both readings of it.
struct Network {
    model: Model,
    reference: Reference,
}

impl Network {
    fn new(family: Family, format: GgmlDType, tied: bool) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        write(file.path(), family, format, tied).expect("candle writes it");
        let model = Model::load(file.path(), &LoadOptions::default()).expect("it loads");
        Self { model, reference: Reference::load(file.path()) }
    }

    fn quality(&mut self) -> Quality {
        let token = |at: usize, window: usize| TokenId::from(((7 + 3 * window) * at * at % tiny::VOCABULARY) as u32);
        let window = |window: usize| (0..TOKENS).map(|at| token(at, window)).collect();
        Quality::measure(&mut self.model, &self.reference, &[window(0), window(1)])
    }
}

/// A tiny network with matrices of that format where their rows are whole blocks, norms that are not all one, and in
/// Gemma's case a base of global positions that is not that of local ones.
fn write(path: &Path, family: Family, format: GgmlDType, tied: bool) -> Result<()> {
    let mut bytes = Cursor::new(tiny::tiny(family, 1).encode());
    let content = Content::read(&mut bytes)?;
    let mut metadata: Vec<(&str, Value)> =
        content.metadata.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    for (key, value) in &mut metadata {
        if *key == "gemma3.rope.freq_base" {
            *value = Value::F32(1e6);
        }
    }
    let mut tensors = Vec::new();
    for name in content.tensor_infos.keys().filter(|name| !(tied && *name == "output.weight")) {
        let mut weight = content.tensor(&mut bytes, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        if name.contains("norm") {
            let uneven = (0..weight.elem_count()).map(|at| 0.5 + (at * 5 % 8) as f32 / 8.0);
            weight = Tensor::from_iter(uneven, &Device::Cpu)?;
        }
        let whole = weight.rank() == 2 && weight.dim(1)? % format.block_size() == 0;
        tensors.push((name.as_str(), QTensor::quantize(&weight, if whole { format } else { GgmlDType::F32 })?));
    }
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(path)?, &metadata, &tensors)
}

#[test]
fn every_family_computes_what_the_reference_computes_in_every_format() {
    for family in FAMILIES {
        for (format, bound) in [
            (GgmlDType::F32, FLOAT_ERROR_MAX),
            (GgmlDType::F16, FLOAT_ERROR_MAX),
            (GgmlDType::BF16, FLOAT_ERROR_MAX),
            (GgmlDType::Q4_0, EIGHT_BIT_ERROR_MAX),
            (GgmlDType::Q4_1, EIGHT_BIT_ERROR_MAX),
            (GgmlDType::Q5_0, EIGHT_BIT_ERROR_MAX),
            (GgmlDType::Q5_1, EIGHT_BIT_ERROR_MAX),
            (GgmlDType::Q8_0, EIGHT_BIT_ERROR_MAX),
        ] {
            for tied in [false, true] {
                let Quality { error, error_max, divergence, .. } = Network::new(family, format, tied).quality();
                println!(
                    "{family:?} {format:?} tied {tied}: error {error:.6}, at most {error_max:.6}, divergence {divergence:.7}"
                );
                assert!(error <= bound, "{family:?} in {format:?}, tied {tied}: {error}");
            }
        }
    }
}

/// Something that tells families apart, done wrong.
type Wrong = (&'static str, fn(&mut Shape));

const WRONG_FOR_ALL: [Wrong; 5] = [
    ("pairs of the other kind", |shape| {
        shape.rope_pairs = if shape.rope_pairs == Pairs::Halves { Pairs::Neighbours } else { Pairs::Halves };
    }),
    ("another base of positions", |shape| shape.rope_base /= 2.0),
    ("the embedding table as head", |shape| shape.tied = true),
    ("another epsilon in norms", |shape| shape.epsilon = 0.1),
    ("another scale of embeddings", |shape| shape.embedding_scale *= 2.0),
];

const WRONG_FOR_NORMED: [Wrong; 1] = [("queries and keys as they are", |shape| shape.qk_norm = false)];

const WRONG_FOR_QWEN2: [Wrong; 1] = [("no biases", |shape| shape.biases = false)];

const WRONG_FOR_GEMMA: [Wrong; 6] = [
    ("no norms after", |shape| shape.post_norms = false),
    ("SiLU", |shape| shape.activation = Activation::Silu),
    ("every layer global", |shape| shape.local = None),
    ("a window that is one too wide", |shape| shape.local.iter_mut().for_each(|local| local.window += 1)),
    ("every layer local", |shape| shape.local.iter_mut().for_each(|local| local.layers_a_global = 100)),
    ("one base for all layers", |shape| {
        shape.local.iter_mut().for_each(|local| local.rope_base = shape.rope_base);
    }),
];

#[test]
fn whatever_tells_the_families_apart_shows_when_it_is_done_wrong() {
    for family in FAMILIES {
        let mut wrong = WRONG_FOR_ALL.to_vec();
        match family {
            Family::Llama | Family::LlamaQ8 => {}
            Family::Qwen2 => wrong.extend(WRONG_FOR_QWEN2),
            Family::Qwen3 => wrong.extend(WRONG_FOR_NORMED),
            Family::Gemma3 => wrong.extend(WRONG_FOR_NORMED.into_iter().chain(WRONG_FOR_GEMMA)),
        }
        let mut network = Network::new(family, GgmlDType::F32, false);
        for (what, change) in wrong {
            let right = network.reference.shape.clone();
            change(&mut network.reference.shape);
            assert_ne!(network.reference.shape, right, "{family:?}: {what} changes nothing");
            let Quality { error, .. } = network.quality();
            println!("{family:?}, {what}: {error:.6}");
            assert!(error > 10.0 * FLOAT_ERROR_MAX, "{family:?}, {what}: {error}");
            network.reference.shape = right;
        }
    }
}
