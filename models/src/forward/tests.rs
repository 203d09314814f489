//! The pass gives the same bits however a sequence comes to be computed, and what it computes is what the architecture
//! says, by an independent and naive reading of it.

mod scheduled;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};
use proptest::prelude::*;

use super::*;
use crate::engine::{Chunk, PageId, Wanted};
use crate::gguf::MappedGguf;
use crate::tiny::{self, Family};
use crate::tokenizer::TokenId;

fn network(family: Family, threads: usize, isa: Isa) -> Network {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), tiny::tiny(family, 1).encode()).expect("a few kilobytes fit");
    let mapped = MappedGguf::open(file.path()).expect("it is sound");
    let threads = NonZeroUsize::new(threads).expect("above zero");
    let options = LoadOptions { threads, isa, ..LoadOptions::default() };
    Network::load(&mapped, tiny::VOCABULARY, &options).expect("it loads")
}

fn tokens(seed: u64, count: usize) -> Vec<TokenId> {
    let token = |at| (crate::sampler::uniform(seed, 0, at) * tiny::VOCABULARY as f64) as u32;
    (0..count as u64).map(|at| TokenId::from(token(at))).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// What a step lends: chunk, token, values.
fn step(network: &mut Network, chunks: &[Chunk<'_>]) -> Result<Vec<(usize, usize, Vec<f32>)>, StepError> {
    let mut lent = Vec::new();
    network.step(chunks, &mut |computed| lent.push((computed.chunk, computed.token, computed.values.to_vec())))?;
    Ok(lent)
}

/// The pages of the sequence at `at` of several: those of one do not lie together.
fn pages(at: usize, tokens: usize) -> Vec<PageId> {
    (0..tokens.div_ceil(PAGE_TOKENS)).map(|page| PageId((page * 5 + at) as u32)).collect()
}

/// What is wanted of every token, computed token by token, alone.
fn each_alone(network: &mut Network, tokens: &[TokenId], wanted: Wanted) -> Vec<Vec<u32>> {
    let pages = pages(0, tokens.len());
    let mut all = Vec::new();
    for (start, tokens) in (0..).zip(tokens.chunks(1)) {
        let lent = step(network, &[Chunk { start, tokens, pages: &pages, wanted }]).expect("it computes");
        assert_eq!(lent.len(), 1);
        all.push(bits(&lent[0].2));
    }
    all
}

/// The logits after every token, computed token by token, alone.
fn one_by_one(network: &mut Network, tokens: &[TokenId]) -> Vec<Vec<u32>> {
    each_alone(network, tokens, Wanted::Logits(1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_sequence_has_the_same_bits_in_any_chunks_any_company_and_on_any_threads(
        family in prop::sample::select(Family::ALL.to_vec()),
        isa in prop::sample::select(Isa::available()),
        threads in 1_usize..=3,
        lengths in prop::collection::vec(1_usize..90, 1..5),
        cuts in prop::collection::vec(0_usize..=30, 1..60),
    ) {
        let mut plain = network(family, 1, Isa::Plain);
        let texts: Vec<_> = (0..).zip(&lengths).map(|(seed, length)| tokens(seed, *length)).collect();
        let expected: Vec<_> = texts.iter().map(|text| one_by_one(&mut plain, text)).collect();

        let mut network = network(family, threads, isa);
        let pages: Vec<_> = (0..).zip(&texts).map(|(at, text)| pages(at, text.len())).collect();
        let mut fed = vec![0; texts.len()];
        let mut cuts = cuts.into_iter().cycle();
        while fed.iter().zip(&texts).any(|(fed, text)| *fed < text.len()) {
            let mut chunks = Vec::new();
            for (at, text) in texts.iter().enumerate() {
                // A cut of nothing leaves a sequence out of this step.
                let cut = cuts.next().expect("it goes round");
                let end = text.len().min(fed[at] + cut);
                if end > fed[at] {
                    let (start, tokens) = (fed[at], &text[fed[at]..end]);
                    chunks.push((at, Chunk { start, tokens, pages: &pages[at], wanted: Wanted::Logits(1) }));
                    fed[at] = end;
                }
            }
            // Somebody gets on in every step.
            if chunks.is_empty() {
                let at = (0..texts.len()).find(|at| fed[*at] < texts[*at].len()).expect("somebody is left");
                let (start, tokens) = (fed[at], &texts[at][fed[at]..=fed[at]]);
                chunks.push((at, Chunk { start, tokens, pages: &pages[at], wanted: Wanted::Logits(1) }));
                fed[at] += 1;
            }
            let all: Vec<_> = chunks.iter().map(|(_, chunk)| *chunk).collect();
            let lent = step(&mut network, &all).expect("it computes");
            prop_assert_eq!(lent.len(), chunks.len());
            for ((at, _), (_, _, logits)) in chunks.iter().zip(&lent) {
                prop_assert!(bits(logits) == expected[*at][fed[*at] - 1], "{family:?}, sequence {at} after {}", fed[*at]);
            }
        }
    }

    #[test]
    fn what_is_wanted_of_many_tokens_has_the_bits_that_each_has_alone(
        family in prop::sample::select(Family::ALL.to_vec()),
        isa in prop::sample::select(vec![Isa::Plain, Isa::best()]),
        threads in 1_usize..=2,
        // More rows than a group of the head has, and chunks of which nothing is wanted between others.
        wanted in prop::collection::vec((1_usize..80, any_wanted()), 1..5),
    ) {
        let mut alone = network(family, 1, Isa::Plain);
        let mut network = network(family, threads, isa);
        let texts: Vec<_> = (0..).zip(&wanted).map(|(seed, (length, _))| tokens(seed, *length)).collect();
        let all_pages: Vec<_> = texts.iter().enumerate().map(|(at, text)| pages(at, text.len())).collect();
        let chunks: Vec<_> = texts
            .iter()
            .zip(&all_pages)
            .zip(&wanted)
            .map(|((tokens, pages), (_, wanted))| Chunk { start: 0, tokens, pages, wanted: *wanted })
            .collect();
        let mut lent: BTreeMap<usize, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
        for (chunk, token, values) in step(&mut network, &chunks).expect("it computes") {
            lent.entry(chunk).or_default().push((token, bits(&values)));
        }
        for (at, (text, (length, wanted))) in texts.iter().zip(&wanted).enumerate() {
            let count = match *wanted {
                Wanted::Nothing => 0,
                Wanted::Logits(last) => last.min(*length),
                Wanted::States => *length,
            };
            let expected: Vec<_> =
                if count == 0 { Vec::new() } else { (0..).zip(each_alone(&mut alone, text, *wanted)).collect() };
            let lent = lent.remove(&at).unwrap_or_default();
            prop_assert!(lent[..] == expected[expected.len() - count..], "{family:?}, chunk {at}: {wanted:?}");
        }
    }
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![Just(Wanted::Nothing), (0_usize..90).prop_map(Wanted::Logits), Just(Wanted::States)]
}

#[test]
fn a_state_is_what_the_head_reads() {
    for family in [Family::Llama, Family::Qwen2, Family::Qwen3, Family::Gemma3] {
        let mut network = network(family, 1, Isa::best());
        let text = tokens(5, 40);
        let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let states = each_alone(&mut network, &text, Wanted::States);
        let logits = one_by_one(&mut network, &text);
        let head = network.weights.head.as_ref().expect("tiny models have one");
        for (state, logits) in states.into_iter().map(floats).zip(logits.into_iter().map(floats)) {
            let mut column = vec![0.0; state.len()];
            for (token, logit) in logits.iter().enumerate() {
                head.column(token, &mut column);
                let product: f32 = state.iter().zip(&column).map(|(a, b)| a * b).sum();
                assert!((product - logit).abs() < 1e-3, "{family:?}, token {token}: {product} is not {logit}");
            }
        }
    }
}

#[test]
fn the_logits_of_a_long_text_are_never_there_at_once() {
    let mut network = network(Family::Llama, 1, Isa::best());
    let text = tokens(1, 256);
    let mut count = 0;
    let chunk = Chunk { start: 0, tokens: &text, pages: &pages(0, 256), wanted: Wanted::Logits(256) };
    network.step(&[chunk], &mut |_| count += 1).expect("it computes");
    assert_eq!(count, 256);
    assert!(network.pass.logits_held() <= 32 * tiny::VOCABULARY, "{}", network.pass.logits_held());
}

#[test]
fn pages_are_used_again_and_what_was_in_them_does_not_show() {
    let mut network = network(Family::Llama, 1, Isa::best());
    let text = tokens(3, 70);
    let expected = one_by_one(&mut network, &text);
    for seed in 10..14 {
        one_by_one(&mut network, &tokens(seed, 100));
        assert_eq!(one_by_one(&mut network, &text), expected);
    }
}

#[test]
fn full_pages_are_read_by_several_sequences_in_one_step() {
    for family in Family::ALL {
        let mut network = network(family, 2, Isa::best());
        let common = tokens(3, 64);
        let texts = [4, 5].map(|seed| [common.clone(), tokens(seed, 20)].concat());
        let expected = texts.each_ref().map(|text| one_by_one(&mut network, text).pop());
        let pages = [[0, 5, 7], [0, 5, 8]].map(|pages| pages.map(PageId));
        let prefix = Chunk { start: 0, tokens: &common, pages: &pages[0], wanted: Wanted::Nothing };
        step(&mut network, &[prefix]).expect("it computes");
        let wanted = Wanted::Logits(1);
        let chunk = |at: usize| Chunk { start: 64, tokens: &texts[at][64..], pages: &pages[at], wanted };
        let lent = step(&mut network, &[chunk(0), chunk(1)]).expect("it computes");
        let logits: Vec<_> = lent.iter().map(|(_, _, logits)| Some(bits(logits))).collect();
        assert!(logits == expected, "{family:?}");
    }
}

#[test]
fn a_step_that_cannot_be_computed_is_refused_and_changes_nothing() {
    let mut network = network(Family::Llama, 1, Isa::best());
    let text = tokens(1, 8);
    let expected = one_by_one(&mut network, &text);
    let (some, others) = (pages(0, 257), pages(1, 257));
    let chunk = |start, tokens, pages| Chunk { start, tokens, pages, wanted: Wanted::Logits(1) };
    let mut refused = |chunks: &[Chunk<'_>]| step(&mut network, chunks).expect_err("it cannot be computed");
    let unknown = [TokenId::from(tiny::VOCABULARY as u32)];
    let long = tokens(2, 257);
    assert!(matches!(refused(&[chunk(0, &[], &some)]), StepError::NoTokens));
    assert!(matches!(refused(&[chunk(0, &unknown, &some)]), StepError::UnknownToken { .. }));
    assert!(matches!(refused(&[chunk(0, &long, &some)]), StepError::ContextExceeded { tokens: 257, .. }));
    assert!(matches!(refused(&[chunk(30, &text, &some[..1])]), StepError::NoPage { tokens: 38, pages: 1 }));
    // Written to by two, written to by one and read by another, and twice in one sequence.
    let twice = |chunks: &[Chunk<'_>], network: &mut Network| matches!(step(network, chunks), Err(StepError::PageTwice { page }) if page == some[0]);
    assert!(twice(&[chunk(0, &text, &some), chunk(0, &text, &some)], &mut network));
    let (reads_it, doubled) = ([some[0], others[1]], [some[0], some[0]]);
    assert!(twice(&[chunk(0, &text, &some), chunk(32, &text, &reads_it)], &mut network));
    assert!(twice(&[chunk(32, &text, &reads_it), chunk(0, &text, &some)], &mut network));
    assert!(twice(&[chunk(32, &text, &doubled)], &mut network));

    let lent = step(&mut network, &[chunk(7, &text[7..], &some)]).expect("nothing had changed");
    assert_eq!(bits(&lent[0].2), *expected.last().expect("eight"));
}

/// What candle's models make of the same file: an implementation that nobody here wrote.
fn candle_logits(family: Family, bytes: &[u8], tokens: &[TokenId]) -> Vec<f32> {
    let mut reader = std::io::Cursor::new(bytes);
    let content = gguf_file::Content::read(&mut reader).expect("candle reads it");
    let ids: Vec<u32> = tokens.iter().map(|token| token.get()).collect();
    let input = Tensor::from_vec(ids, (1, tokens.len()), &Device::Cpu).expect("a tensor");
    let device = Device::Cpu;
    let logits = match family {
        Family::Llama | Family::LlamaQ8 => {
            let model = quantized_llama::ModelWeights::from_gguf(content, &mut reader, &device);
            model.and_then(|mut model| model.forward(&input, 0))
        }
        Family::Qwen2 => {
            let model = quantized_qwen2::ModelWeights::from_gguf(content, &mut reader, &device);
            model.and_then(|mut model| model.forward(&input, 0))
        }
        Family::Qwen3 => {
            let model = quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, &device);
            model.and_then(|mut model| model.forward(&input, 0))
        }
        Family::Gemma3 => panic!("candle's gemma3 computes something else: SiLU where Gemma has GELU"),
    };
    logits.and_then(|logits| logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()).expect("candle computes")
}

#[test]
fn logits_agree_with_candles_models() {
    // Float weights differ in the order of sums and in half-precision keys and values; 8-bit ones in how activations
    // are rounded. The logits of these models spread over several units.
    for (family, bound) in [(Family::Llama, 0.02), (Family::LlamaQ8, 0.4), (Family::Qwen2, 0.02), (Family::Qwen3, 0.02)]
    {
        let mut network = network(family, 1, Isa::best());
        let bytes = tiny::tiny(family, 1).encode();
        for (seed, length) in [(1, 1), (2, 5), (3, 33), (4, 70)] {
            let text = tokens(seed, length);
            let chunk = Chunk { start: 0, tokens: &text, pages: &pages(0, length), wanted: Wanted::Logits(1) };
            let ours = step(&mut network, &[chunk]).expect("it computes").remove(0).2;
            let theirs = candle_logits(family, &bytes, &text);
            let worst = ours.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
            assert!(worst < bound, "{family:?} after {length} tokens: {worst}");
            let spread =
                theirs.iter().copied().fold(f32::MIN, f32::max) - theirs.iter().copied().fold(f32::MAX, f32::min);
            assert!(spread > 10.0 * bound, "{family:?}: the logits hardly differ ({spread})");
        }
    }
}

#[test]
fn packed_weights_are_kept_found_again_and_never_trusted_when_they_are_not_sound() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (weights, packed) = (folder.path().join("tiny.gguf"), folder.path().join("packed").join("tiny"));
    let text = tokens(3, 20);
    let logits = |seed: u64| {
        std::fs::write(&weights, tiny::tiny(Family::LlamaQ8, seed).encode()).expect("a few kilobytes fit");
        let mapped = MappedGguf::open(&weights).expect("it is sound");
        let options = LoadOptions { packed: Some(packed.clone()), ..LoadOptions::default() };
        one_by_one(&mut Network::load(&mapped, tiny::VOCABULARY, &options).expect("it loads"), &text)
    };
    let first = logits(1);
    let written = std::fs::read(&packed).expect("it was written");
    assert_eq!(logits(1), first, "out of the packed file");
    assert_eq!(std::fs::read(&packed).expect("it is there"), written, "it was not written again");

    for damage in [64, 1000, written.len() - 1] {
        let mut torn = written.clone();
        torn[damage] ^= 1;
        std::fs::write(&packed, &torn).expect("it fits");
        assert_eq!(logits(1), first, "byte {damage} was trusted");
        assert_eq!(std::fs::read(&packed).expect("it is there"), written, "it was made again");
    }
    std::fs::write(&packed, &written[..written.len() / 2]).expect("it fits");
    assert_eq!(logits(1), first, "half a file was trusted");
    // What a process left that died while it wrote.
    std::fs::remove_file(&packed).expect("it was there");
    std::fs::write(packed.with_added_extension("part"), vec![7; written.len() * 2]).expect("it fits");
    assert_eq!(logits(1), first);
    assert_eq!(std::fs::read(&packed).expect("it is there"), written, "the remains were written over");
    assert_eq!(std::fs::read_dir(folder.path().join("packed")).expect("a folder").count(), 1, "nothing else is left");
}

#[test]
fn instructions_that_the_processor_does_not_have_are_refused() {
    let refused = check_isa(Isa::Avx512Vnni, vec![Isa::Plain, Isa::Avx2]).expect_err("it is not among them");
    assert_eq!(refused.to_string(), "compute with avx512-vnni: this processor has only plain, avx2");
    assert!(Isa::available().into_iter().all(|isa| check_isa(isa, Isa::available()).is_ok()));
}
