//! Files that lie, and one that does not.

use proptest::prelude::*;

use super::{Array, Gguf, GgufError, GgufWriter, TensorType, Value};

/// A sound file with a key of every kind and tensors of two types.
fn sound() -> GgufWriter {
    GgufWriter::new()
        .key("general.architecture", Value::String("llama".to_owned()))
        .key("count", Value::U32(7))
        .key("wide", Value::U64(1 << 40))
        .key("negative", Value::I16(-3))
        .key("flag", Value::Bool(true))
        .key("ratio", Value::F32(0.5))
        .key("texts", Value::Array(Array::String(vec!["a".into(), "ü".into()])))
        .key("numbers", Value::Array(Array::I32(vec![1, -1])))
        .key("flags", Value::Array(Array::Bool(vec![true, false])))
        .tensor("small", &[3], &[1.0, 2.0, 3.0])
        .raw_tensor("blocks", &[32, 2], TensorType::Q4_1 as u32, None, vec![0; 40])
        .tensor("last", &[2, 2], &[0.0; 4])
}

fn parse(writer: &GgufWriter) -> Result<Gguf, GgufError> {
    Gguf::parse(&writer.encode())
}

fn refusal(writer: &GgufWriter) -> GgufError {
    parse(writer).expect_err("the file lies")
}

#[test]
fn a_sound_file_is_read_back_as_written() {
    let gguf = parse(&sound()).expect("it is sound");
    let metadata = gguf.metadata();
    assert_eq!(gguf.version(), 3);
    assert_eq!(metadata.string("general.architecture"), Ok(Some("llama")));
    assert_eq!(metadata.integer("count"), Ok(Some(7)));
    assert_eq!(metadata.integer("wide"), Ok(Some(1 << 40)));
    assert_eq!(metadata.boolean("flag"), Ok(Some(true)));
    assert_eq!(metadata.float("ratio"), Ok(Some(0.5)));
    assert_eq!(metadata.strings("texts"), Ok(Some(["a".to_owned(), "ü".to_owned()].as_slice())));
    assert_eq!(metadata.integers("numbers"), Ok(Some([1, -1].as_slice())));
    assert_eq!(metadata.string("absent"), Ok(None));
    let blocks = gguf.tensors().get("blocks").expect("it is there");
    assert_eq!((blocks.dimensions(), blocks.kind()), ([32, 2].as_slice(), TensorType::Q4_1));
    assert_eq!((blocks.offset(), blocks.size()), (32, 40));
    assert_eq!(gguf.tensors().total_bytes(), 12 + 40 + 16);
}

#[test]
fn the_tensor_library_reads_the_same_from_the_file() {
    let bytes = sound().encode();
    let ours = Gguf::parse(&bytes).expect("it is sound");
    let mut cursor = std::io::Cursor::new(&bytes);
    let theirs = candle_core::quantized::gguf_file::Content::read(&mut cursor).expect("candle reads it too");
    assert_eq!(theirs.tensor_data_offset, ours.tensors().data_start());
    for (name, entry) in ours.tensors().iter() {
        let their = &theirs.tensor_infos[name];
        let outer_first: Vec<_> = entry.dimensions().iter().rev().map(|size| *size as usize).collect();
        assert_eq!(their.shape.dims(), outer_first);
        assert_eq!((their.offset, their.ggml_dtype), (entry.offset(), entry.kind().dtype()));
    }
}

#[test]
fn a_value_of_another_type_is_an_error_that_names_the_key() {
    let gguf = parse(&sound()).expect("it is sound");
    let error = gguf.metadata().string("count").expect_err("it is a number");
    assert!(error.to_string().contains("\"count\""), "{error}");
    assert!(gguf.metadata().integer("negative").is_err());
}

#[test]
fn what_is_not_gguf_says_so() {
    for bytes in [b"".as_slice(), b"GG", b"PK\x03\x04 a zip file", b"FUGG\x03\0\0\0"] {
        let error = Gguf::parse(bytes).expect_err("not GGUF");
        assert!(matches!(error, GgufError::NotGguf { .. }), "{error}");
    }
}

#[test]
fn another_version_is_named() {
    for version in [0_u32, 1, 4, 3_u32.swap_bytes()] {
        let mut bytes = sound().encode();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        assert_eq!(Gguf::parse(&bytes).expect_err("unknown"), GgufError::UnsupportedVersion { version });
    }
}

#[test]
fn every_truncation_is_a_typed_error() {
    let bytes = sound().encode();
    // The last tensor fills 16 bytes of its 32, the padding behind it may be cut.
    for length in 0..bytes.len() - 16 {
        assert!(Gguf::parse(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn a_huge_count_is_refused_before_anything_is_allocated() {
    for (place, what) in [(8, "tensor table"), (16, "metadata")] {
        for count in [u64::MAX, 1 << 40, 1 << 20] {
            let mut bytes = sound().encode();
            bytes[place..place + 8].copy_from_slice(&count.to_le_bytes());
            let error = Gguf::parse(&bytes).expect_err("it cannot hold so many");
            assert!(matches!(error, GgufError::Implausible { declared, .. } if declared == count), "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

#[test]
fn a_huge_string_or_array_is_refused_before_anything_is_allocated() {
    let bytes = sound().encode();
    let mut key = bytes.clone();
    key[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(Gguf::parse(&key), Err(GgufError::Truncated { needed: u64::MAX, .. })));

    let name = b"texts";
    let found = bytes.windows(name.len()).position(|window| window == name).expect("it is in there");
    // Behind the name: kind of the value, kind of its elements, count.
    let count = found + name.len() + 4 + 4;
    let mut array = bytes;
    array[count..count + 8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let error = Gguf::parse(&array).expect_err("it cannot hold so many");
    assert!(matches!(&error, GgufError::Implausible { what, .. } if what == "texts"), "{error}");
}

#[test]
fn a_lying_offset_names_its_tensor() {
    for offset in [1 << 20, u64::MAX - 31] {
        let error = refusal(&sound().raw_tensor("liar", &[4], 0, Some(offset), vec![0; 16]));
        assert!(matches!(&error, GgufError::TensorOutOfBounds { tensor, .. } if tensor == "liar"), "{error}");
    }
    let error = refusal(&sound().raw_tensor("liar", &[4], 0, Some(33), vec![0; 16]));
    assert!(matches!(&error, GgufError::Misaligned { tensor, .. } if tensor == "liar"), "{error}");
    let error = refusal(&sound().raw_tensor("liar", &[4], 0, Some(32), vec![0; 16]));
    assert!(matches!(&error, GgufError::TensorsOverlap { .. }), "{error}");
}

#[test]
fn a_shape_that_makes_no_sense_names_its_tensor() {
    let tensor = |dimensions: &[u64], kind| refusal(&sound().raw_tensor("odd", dimensions, kind, None, vec![0; 64]));
    assert!(matches!(tensor(&[1 << 40, 1 << 40], 0), GgufError::ShapeOverflow { .. }));
    assert!(matches!(tensor(&[1 << 62, 2], 0), GgufError::ShapeOverflow { .. }));
    assert!(matches!(tensor(&[1 << 50], 0), GgufError::TensorOutOfBounds { .. }));
    assert!(matches!(tensor(&[0, 4], 0), GgufError::Dimensions { .. }));
    assert!(matches!(tensor(&[], 0), GgufError::Dimensions { .. }));
    assert!(matches!(tensor(&[1; 5], 0), GgufError::TooManyDimensions { count: 5, .. }));
    assert!(matches!(tensor(&[33], TensorType::Q4_1 as u32), GgufError::RaggedRow { row: 33, .. }));
    for kind in [4, 16, 31, u32::MAX] {
        let error = tensor(&[4], kind);
        assert!(matches!(error, GgufError::UnsupportedTensorType { kind: found, .. } if found == kind), "{error}");
    }
}

#[test]
fn names_that_occur_twice_are_refused() {
    let error = refusal(&sound().key("count", Value::U32(8)));
    assert_eq!(error, GgufError::DuplicateKey { key: "count".into() });
    let error = refusal(&sound().tensor("small", &[1], &[0.0]));
    assert_eq!(error, GgufError::DuplicateTensor { tensor: "small".into() });
}

/// A file whose only metadata entry is `entry`, raw.
fn with_entry(key: &[u8], kind: u32, value: &[u8]) -> GgufError {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend((key.len() as u64).to_le_bytes());
    bytes.extend(key);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len() + 64, 0);
    Gguf::parse(&bytes).expect_err("the entry is bad")
}

#[test]
fn bad_metadata_entries_are_named() {
    assert!(matches!(with_entry(b"\xff\xfe", 0, &[1]), GgufError::InvalidUtf8 { offset: 32, .. }));
    assert!(matches!(with_entry(b"k", 13, &[1]), GgufError::UnknownValueType { kind: 13, .. }));
    assert!(matches!(with_entry(b"k", 7, &[2]), GgufError::InvalidBool { value: 2, .. }));
    let nested = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes()].concat();
    assert!(matches!(with_entry(b"k", 9, &nested), GgufError::NestedArray { .. }));
    for alignment in [0_u32, 3, 24, 1 << 30] {
        let error = with_entry(b"general.alignment", 4, &alignment.to_le_bytes());
        assert!(matches!(error, GgufError::BadValue { .. }), "{error}");
    }
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = sound().encode();
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(gguf) = Gguf::parse(&bytes) {
            // Whatever is accepted lies inside the file.
            for (_, entry) in gguf.tensors().iter() {
                prop_assert!(gguf.tensors().data_start() + entry.offset() + entry.size() <= bytes.len() as u64);
            }
        }
    }

    #[test]
    fn cut_and_flipped_files_never_panic(length in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), value: u8) {
        let mut bytes = sound().encode();
        let place = place.index(bytes.len());
        bytes[place] = value;
        bytes.truncate(length.index(bytes.len()));
        let _ = Gguf::parse(&bytes);
    }

    #[test]
    fn random_bytes_behind_the_magic_never_panic(tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [b"GGUF\x03\0\0\0".as_slice(), &tail].concat();
        let _ = Gguf::parse(&bytes);
    }
}
