//! A file's weights as floats.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Result, Tensor};

/// All of them, by the names that the file gives them. Matrices are `[out][in]`.
pub(super) type Weights = HashMap<String, Tensor>;

/// What the file says about its network, and the weights.
pub(super) fn read(path: &Path) -> Result<(HashMap<String, Value>, Weights)> {
    let mut file = BufReader::new(File::open(path)?);
    let content = Content::read(&mut file)?;
    let mut weights = Weights::new();
    for name in content.tensor_infos.keys() {
        let quantized = content.tensor(&mut file, name, &Device::Cpu)?;
        weights.insert(name.clone(), quantized.dequantize(&Device::Cpu)?);
    }
    Ok((content.metadata, weights))
}
