//! The keys and values of a GGUF file.
//!
//! Owns typed access to them: a value is asked for by key and kind, and a missing or wrong one is an
//! error that names the key. Arrays are held in their own type, not as a vector of enums, so that memory
//! stays within a small multiple of the file. It never guesses a default. Called by the tokenizer, the
//! template and the engine while a model is loaded.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::GgufError;
use super::header::Reader;

/// The alignment of tensor data where the file names none, bytes.
const ALIGNMENT_BYTES_DEFAULT: u64 = 32;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is the type that its name says")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of one type.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is the element type that its name says")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The kind of a value; the numbers are those of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the type that its name says")]
pub enum ValueKind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueKind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }
}

impl Value {
    /// Which kind it is.
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::U8(_) => ValueKind::U8,
            Self::I8(_) => ValueKind::I8,
            Self::U16(_) => ValueKind::U16,
            Self::I16(_) => ValueKind::I16,
            Self::U32(_) => ValueKind::U32,
            Self::I32(_) => ValueKind::I32,
            Self::F32(_) => ValueKind::F32,
            Self::Bool(_) => ValueKind::Bool,
            Self::String(_) => ValueKind::String,
            Self::Array(_) => ValueKind::Array,
            Self::U64(_) => ValueKind::U64,
            Self::I64(_) => ValueKind::I64,
            Self::F64(_) => ValueKind::F64,
        }
    }

    /// The value as a non-negative integer, if it is an integer at all.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::String(_) | Self::Array(_) => None,
        }
    }
}

/// All keys of a file with their values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    pub(super) fn read(reader: &mut Reader<'_>, count: usize) -> Result<Self, GgufError> {
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let key = reader.string(&format!("metadata key {index}"))?.to_owned();
            let kind = read_kind(reader, &key)?;
            let value = read_value(reader, &key, kind)?;
            match entries.entry(key) {
                Entry::Vacant(vacant) => {
                    vacant.insert(value);
                }
                Entry::Occupied(occupied) => {
                    return Err(GgufError::DuplicateKey { key: occupied.key().clone() });
                }
            }
        }
        Ok(Self(entries))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The string at `key`, `None` if there is no such key.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when it is no string.
    pub fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The boolean at `key`, `None` if there is no such key.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when it is no boolean.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a boolean", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// The non-negative integer at `key`, `None` if there is no such key.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when it is no integer or a negative one.
    pub fn integer(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// The 32-bit floating-point number at `key`, `None` if there is no such key.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when it is another type.
    pub fn float(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a 32-bit floating-point number", |value| match value {
            Value::F32(number) => Some(*number),
            _ => None,
        })
    }

    /// The array of strings at `key`, `None` if there is no such key.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when it is another type.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// The array of 32-bit integers at `key`, `None` if there is no such key.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when it is another type.
    pub fn integers(&self, key: &str) -> Result<Option<&[i32]>, GgufError> {
        self.typed(key, "an array of 32-bit integers", |value| match value {
            Value::Array(Array::I32(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// The array of 32-bit floating-point numbers at `key`, `None` if there is no such key.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when it is another type.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.typed(key, "an array of 32-bit floating-point numbers", |value| match value {
            Value::Array(Array::F32(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// Turns the absence of `key` into an error.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`].
    pub fn required<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
        value.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })
    }

    /// The alignment of tensor data, bytes.
    pub(super) fn alignment(&self) -> Result<u64, GgufError> {
        const KEY: &str = "general.alignment";
        let alignment = self.integer(KEY)?.unwrap_or(ALIGNMENT_BYTES_DEFAULT);
        // The specification asks for a multiple of 8; every writer uses a power of two.
        if alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) {
            return Ok(alignment);
        }
        Err(GgufError::BadValue {
            key: KEY.to_owned(),
            value: alignment.to_string(),
            allowed: "a power of two from 8 to 1048576",
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        get: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.0.get(key) else {
            return Ok(None);
        };
        match get(value) {
            Some(got) => Ok(Some(got)),
            None => Err(GgufError::WrongType { key: key.to_owned(), wanted, found: value.kind() }),
        }
    }
}

fn read_kind(reader: &mut Reader<'_>, key: &str) -> Result<ValueKind, GgufError> {
    let number = reader.u32(key)?;
    ValueKind::from_number(number).ok_or_else(|| GgufError::UnknownValueType { key: key.to_owned(), kind: number })
}

/// Reads one little-endian number of the named type.
macro_rules! number {
    ($reader:expr, $key:expr, $type:ty) => {{
        let bytes = $reader.take($key, size_of::<$type>() as u64)?;
        <$type>::from_le_bytes(bytes.try_into().expect("take returned the size asked for"))
    }};
}

fn read_value(reader: &mut Reader<'_>, key: &str, kind: ValueKind) -> Result<Value, GgufError> {
    Ok(match kind {
        ValueKind::U8 => Value::U8(reader.u8(key)?),
        ValueKind::I8 => Value::I8(number!(reader, key, i8)),
        ValueKind::U16 => Value::U16(number!(reader, key, u16)),
        ValueKind::I16 => Value::I16(number!(reader, key, i16)),
        ValueKind::U32 => Value::U32(reader.u32(key)?),
        ValueKind::I32 => Value::I32(number!(reader, key, i32)),
        ValueKind::F32 => Value::F32(number!(reader, key, f32)),
        ValueKind::U64 => Value::U64(reader.u64(key)?),
        ValueKind::I64 => Value::I64(number!(reader, key, i64)),
        ValueKind::F64 => Value::F64(number!(reader, key, f64)),
        ValueKind::Bool => Value::Bool(read_bool(reader, key)?),
        ValueKind::String => Value::String(reader.string(key)?.to_owned()),
        ValueKind::Array => Value::Array(read_array(reader, key)?),
    })
}

fn read_bool(reader: &mut Reader<'_>, key: &str) -> Result<bool, GgufError> {
    match reader.u8(key)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(GgufError::InvalidBool { key: key.to_owned(), value }),
    }
}

/// Reads an array of numbers of the named type, its bytes taken at once.
macro_rules! numbers {
    ($reader:expr, $key:expr, $count:expr, $type:ty) => {{
        const SIZE: usize = size_of::<$type>();
        let count = $reader.plausible($key, $count, SIZE as u64)?;
        let bytes = $reader.take($key, (count * SIZE) as u64)?;
        let (words, _) = bytes.as_chunks::<SIZE>();
        words.iter().map(|word| <$type>::from_le_bytes(*word)).collect()
    }};
}

fn read_array(reader: &mut Reader<'_>, key: &str) -> Result<Array, GgufError> {
    let kind = read_kind(reader, key)?;
    let count = reader.u64(key)?;
    Ok(match kind {
        ValueKind::U8 => Array::U8(numbers!(reader, key, count, u8)),
        ValueKind::I8 => Array::I8(numbers!(reader, key, count, i8)),
        ValueKind::U16 => Array::U16(numbers!(reader, key, count, u16)),
        ValueKind::I16 => Array::I16(numbers!(reader, key, count, i16)),
        ValueKind::U32 => Array::U32(numbers!(reader, key, count, u32)),
        ValueKind::I32 => Array::I32(numbers!(reader, key, count, i32)),
        ValueKind::F32 => Array::F32(numbers!(reader, key, count, f32)),
        ValueKind::U64 => Array::U64(numbers!(reader, key, count, u64)),
        ValueKind::I64 => Array::I64(numbers!(reader, key, count, i64)),
        ValueKind::F64 => Array::F64(numbers!(reader, key, count, f64)),
        ValueKind::Bool => {
            let count = reader.plausible(key, count, 1)?;
            Array::Bool((0..count).map(|_| read_bool(reader, key)).collect::<Result<_, _>>()?)
        }
        ValueKind::String => {
            // A string takes 8 bytes in the file at least and 24 in memory, so this is within three
            // times what is left of the file.
            let count = reader.plausible(key, count, 8)?;
            let texts = (0..count).map(|_| reader.string(key).map(str::to_owned));
            Array::String(texts.collect::<Result<_, _>>()?)
        }
        ValueKind::Array => {
            return Err(GgufError::NestedArray { key: key.to_owned() });
        }
    })
}
