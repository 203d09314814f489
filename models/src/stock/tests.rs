//! Files that do not become models, and requests that cannot be opened.

use std::path::Path;

use super::{LoadError, LoadOptions, Model, OpenError};
use crate::engine::Disposition;
use crate::generation::{GenerationSpec, Input};
use crate::gguf::{GgufError, GgufWriter, Value};
use crate::sampler::SamplingSpec;
use crate::template::ChatMessage;
use crate::tiny;
use crate::tokenizer::{TokenId, TokenizerError};

fn load_bytes(bytes: &[u8]) -> Result<Model, LoadError> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a few kilobytes fit");
    let loaded = Model::load(file.path(), &LoadOptions::default());
    if let Err(error) = &loaded {
        let name = file.path().file_name().and_then(|name| name.to_str()).expect("a plain name");
        assert!(error.to_string().contains(name), "{error} names the file");
    }
    loaded
}

fn refusal(bytes: &[u8]) -> LoadError {
    let error = load_bytes(bytes).expect_err("no model");
    assert_eq!(error.disposition(), Disposition::Poison);
    error
}

fn fault(bytes: &[u8]) -> GgufError {
    match refusal(bytes) {
        LoadError::Gguf { source, .. } => source,
        other => panic!("{other}"),
    }
}

/// The tiny model with the bytes of one metadata value overwritten.
fn patched(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = tiny::tiny_llama(1);
    let found = bytes.windows(key.len()).position(|window| window == key.as_bytes());
    let start = found.expect("the key is in the file") + key.len() + 4;
    bytes[start..start + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn a_sound_file_becomes_a_model_that_knows_itself() {
    let model = load_bytes(&tiny::tiny_llama(1)).expect("it loads");
    let facts = model.facts();
    assert_eq!(facts.architecture, "llama");
    assert_eq!(facts.vocabulary, tiny::VOCABULARY);
    assert_eq!(facts.context_tokens, 256);
    assert!(facts.has_chat_template);
    assert!(facts.weights_bytes > 10_000);
}

#[test]
fn a_file_that_is_not_there_may_be_there_later() {
    let error = Model::load(Path::new("/nonexistent/model.gguf"), &LoadOptions::default()).expect_err("not there");
    assert!(matches!(error, LoadError::Open { .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Retry);
}

#[test]
fn a_folder_is_not_a_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = Model::load(folder.path(), &LoadOptions::default()).expect_err("a folder");
    assert!(matches!(error, LoadError::NotAFile { .. }), "{error}");
}

#[test]
fn empty_foreign_and_torn_files_are_refused() {
    assert!(matches!(fault(b""), GgufError::NotGguf { .. }));
    assert!(matches!(fault(b"<!DOCTYPE html><title>404</title>"), GgufError::NotGguf { .. }));
    let whole = tiny::tiny_llama(1);
    assert!(matches!(fault(&whole[..whole.len() / 2]), GgufError::TensorOutOfBounds { .. }));
    assert!(matches!(fault(&whole[..100]), GgufError::Truncated { .. } | GgufError::Implausible { .. }));
}

#[test]
fn another_architecture_is_named() {
    let mut bytes = patched("general.architecture", &[]);
    let name = bytes.windows(5).position(|window| window == b"llama").expect("it is there");
    bytes[name..name + 5].copy_from_slice(b"mamba");
    let error = refusal(&bytes);
    assert!(matches!(&error, LoadError::UnsupportedArchitecture { architecture, .. } if architecture == "mamba"));
}

#[test]
fn a_shape_that_would_divide_by_zero_or_not_fit_is_refused() {
    let wrong = |key: &str, value: u32| fault(&patched(key, &value.to_le_bytes()));
    for (key, value) in [
        ("llama.attention.head_count_kv", 0),
        ("llama.attention.head_count_kv", 3),
        ("llama.rope.dimension_count", 6),
        ("llama.block_count", 0),
        ("llama.context_length", 0),
    ] {
        let error = wrong(key, value);
        assert!(matches!(&error, GgufError::BadValue { key: named, .. } if named == key), "{error}");
    }
    assert!(matches!(wrong("llama.block_count", 3), GgufError::MissingTensor { .. }));
    assert!(matches!(wrong("llama.block_count", u32::MAX), GgufError::MissingTensor { .. }));
    assert!(matches!(wrong("llama.block_count", 1), GgufError::UnexpectedTensor { .. }));
    assert!(matches!(wrong("llama.feed_forward_length", 64), GgufError::TensorShape { .. }));
    let nan = fault(&patched("llama.rope.freq_base", &f32::NAN.to_le_bytes()));
    assert!(matches!(nan, GgufError::BadValue { .. }), "{nan}");
}

#[test]
fn features_that_would_be_ignored_are_refused() {
    let with = |key: &str, value| fault(&tiny::tiny_llama_writer(1).key(key, value).encode());
    let scaled = with("llama.rope.scaling.type", Value::String("yarn".into()));
    assert!(scaled.to_string().contains("yarn"), "{scaled}");
    let experts = with("llama.expert_count", Value::U32(8));
    assert!(experts.to_string().contains("llama.expert_count"), "{experts}");
    let bias = tiny::tiny_llama_writer(1).tensor("blk.0.attn_q.bias", &[32], &[0.0; 32]);
    let bias = fault(&bias.encode());
    assert!(matches!(&bias, GgufError::UnexpectedTensor { tensor } if tensor == "blk.0.attn_q.bias"), "{bias}");
}

#[test]
fn a_bad_tokenizer_or_template_is_told_apart() {
    let error = refusal(&GgufWriter::new().key("general.architecture", Value::String("llama".into())).encode());
    assert!(matches!(error, LoadError::Tokenizer { source: TokenizerError::Metadata(_), .. }), "{error}");
    let mut bytes = tiny::tiny_llama(1);
    let place = bytes.windows(6).position(|window| window == b"endfor").expect("it is in the template");
    bytes[place..place + 6].copy_from_slice(b"endfur");
    let error = refusal(&bytes);
    assert!(matches!(error, LoadError::Template { .. }), "{error}");
}

fn request(input: Input) -> GenerationSpec {
    GenerationSpec { input, max_tokens: Some(4), sampling: SamplingSpec::GREEDY, stop: Vec::new() }
}

fn prompt(text: &str) -> GenerationSpec {
    request(Input::Prompt(text.to_owned()))
}

fn refused(spec: &GenerationSpec) -> OpenError {
    let mut model = load_bytes(&tiny::tiny_llama(1)).expect("it loads");
    let error = model.open(spec, &[]).expect_err("it cannot be opened");
    assert_eq!(error.disposition(), Disposition::Poison);
    error
}

#[test]
fn an_empty_request_is_refused() {
    assert!(matches!(refused(&prompt("")), OpenError::EmptyPrompt));
    assert!(matches!(refused(&request(Input::Messages(Vec::new()))), OpenError::EmptyPrompt));
}

#[test]
fn numbers_that_do_not_fit_are_refused_with_what_would() {
    let long = prompt(&"x".repeat(256));
    assert!(matches!(refused(&long), OpenError::ContextExceeded { prompt_tokens: 256, context_tokens: 256 }));
    let greedy = GenerationSpec { max_tokens: Some(253), ..prompt("xyzu") };
    assert!(matches!(
        refused(&greedy),
        OpenError::MaxTokensBeyondContext { max_tokens: 253, prompt_tokens: 4, room: 252, .. }
    ));
    let none = GenerationSpec { max_tokens: Some(0), ..prompt("x") };
    assert!(matches!(refused(&none), OpenError::ZeroMaxTokens));
}

#[test]
fn a_prompt_too_long_to_fit_is_not_even_tokenized() {
    let error = refused(&prompt(&"x".repeat(100_000_000)));
    assert!(matches!(error, OpenError::ContextExceeded { prompt_tokens, .. } if prompt_tokens > 256), "{error}");
}

#[test]
fn stop_strings_and_sampling_are_checked() {
    let stops = |stop: Vec<String>| refused(&GenerationSpec { stop, ..prompt("x") });
    for stop in [vec![String::new()], vec!["x".into(); 17], vec!["x".repeat(257)]] {
        assert!(matches!(stops(stop), OpenError::InvalidStop { .. }));
    }
    let hot =
        GenerationSpec { sampling: SamplingSpec { temperature: f32::NAN, ..SamplingSpec::GREEDY }, ..prompt("x") };
    assert!(matches!(refused(&hot), OpenError::Sampling(_)));
}

#[test]
fn messages_need_a_template() {
    let mut bytes = tiny::tiny_llama(1);
    let key = b"tokenizer.chat_template";
    let place = bytes.windows(key.len()).position(|window| window == key).expect("it is there");
    bytes[place] = b'T';
    let mut model = load_bytes(&bytes).expect("a model without a template is a model");
    assert!(!model.facts().has_chat_template);
    let spec = request(Input::Messages(vec![ChatMessage { role: "user".into(), content: "hi".into() }]));
    assert!(matches!(model.open(&spec, &[]), Err(OpenError::NoChatTemplate)));
    assert!(model.open(&prompt("hi"), &[]).is_ok());
}

#[test]
fn logits_for_checks_are_one_a_token_and_errors_leave_the_model_usable() {
    let mut model = load_bytes(&tiny::tiny_llama(1)).expect("it loads");
    let token = TokenId::from(65);
    assert!(model.logits_after(&[]).is_err());
    assert!(model.logits_after(&[TokenId::from(tiny::VOCABULARY as u32)]).is_err());
    assert!(model.logits_after(&[token; 257]).is_err());
    assert_eq!(model.logits_after(&[token; 256]).expect("it fits").len(), tiny::VOCABULARY);
}
