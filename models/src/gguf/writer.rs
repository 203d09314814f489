//! Writing small GGUF files.
//!
//! Owns the encoding in the other direction, for tests and fixtures: a tokenizer without weights, a model
//! of a few thousand numbers, or a file with one lie in it. It holds everything in memory and is not meant
//! for models people use. Called by tests here and in the `halm-tests` crate.

use super::header::MAGIC;
use super::{Array, TensorType, Value};

/// The alignment it writes, bytes: the default of the format.
const ALIGNMENT_BYTES: usize = 32;

/// Collects keys and tensors, then encodes a version 3 file.
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    kind: u32,
    offset: Option<u64>,
    data: Vec<u8>,
}

impl GgufWriter {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a key.
    #[must_use]
    pub fn key(mut self, key: &str, value: Value) -> Self {
        self.metadata.push((key.to_owned(), value));
        self
    }

    /// Appends a tensor of 32-bit floats; `dimensions` run fastest first.
    #[must_use]
    pub fn tensor(self, name: &str, dimensions: &[u64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.raw_tensor(name, dimensions, TensorType::F32 as u32, None, data)
    }

    /// Appends a tensor as told: any type number, any offset, whether true or not.
    #[must_use]
    pub fn raw_tensor(mut self, name: &str, dimensions: &[u64], kind: u32, offset: Option<u64>, data: Vec<u8>) -> Self {
        self.tensors.push(Tensor { name: name.to_owned(), dimensions: dimensions.to_vec(), kind, offset, data });
        self
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            out.extend((value.kind() as u32).to_le_bytes());
            put_value(&mut out, value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            put_string(&mut out, &tensor.name);
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            for size in &tensor.dimensions {
                out.extend(size.to_le_bytes());
            }
            out.extend(tensor.kind.to_le_bytes());
            let offset = tensor.offset.unwrap_or(data.len() as u64);
            out.extend(offset.to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        out.extend(data);
        out
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => out.push(*number),
        Value::I8(number) => out.extend(number.to_le_bytes()),
        Value::U16(number) => out.extend(number.to_le_bytes()),
        Value::I16(number) => out.extend(number.to_le_bytes()),
        Value::U32(number) => out.extend(number.to_le_bytes()),
        Value::I32(number) => out.extend(number.to_le_bytes()),
        Value::F32(number) => out.extend(number.to_le_bytes()),
        Value::U64(number) => out.extend(number.to_le_bytes()),
        Value::I64(number) => out.extend(number.to_le_bytes()),
        Value::F64(number) => out.extend(number.to_le_bytes()),
        Value::Bool(flag) => out.push(u8::from(*flag)),
        Value::String(text) => put_string(out, text),
        Value::Array(array) => put_array(out, array),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    fn put<T>(out: &mut Vec<u8>, kind: u32, items: &[T], mut one: impl FnMut(&mut Vec<u8>, &T)) {
        out.extend(kind.to_le_bytes());
        out.extend((items.len() as u64).to_le_bytes());
        for item in items {
            one(out, item);
        }
    }
    match array {
        Array::U8(items) => put(out, 0, items, |out, item| out.push(*item)),
        Array::I8(items) => put(out, 1, items, |out, item| out.extend(item.to_le_bytes())),
        Array::U16(items) => put(out, 2, items, |out, item| out.extend(item.to_le_bytes())),
        Array::I16(items) => put(out, 3, items, |out, item| out.extend(item.to_le_bytes())),
        Array::U32(items) => put(out, 4, items, |out, item| out.extend(item.to_le_bytes())),
        Array::I32(items) => put(out, 5, items, |out, item| out.extend(item.to_le_bytes())),
        Array::F32(items) => put(out, 6, items, |out, item| out.extend(item.to_le_bytes())),
        Array::Bool(items) => put(out, 7, items, |out, item| out.push(u8::from(*item))),
        Array::String(items) => put(out, 8, items, |out, item| put_string(out, item)),
        Array::U64(items) => put(out, 10, items, |out, item| out.extend(item.to_le_bytes())),
        Array::I64(items) => put(out, 11, items, |out, item| out.extend(item.to_le_bytes())),
        Array::F64(items) => put(out, 12, items, |out, item| out.extend(item.to_le_bytes())),
    }
}
