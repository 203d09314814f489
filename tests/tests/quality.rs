//! Real weights give the numbers that they mean: the whole forward pass, 8-bit activations and half-precision keys and
//! values and all, beside the same weights computed in floats.
//!
//! Bounds are about twice what was measured (candle 0.11.1 for the floats; the engine's own bits are the same on every
//! processor). `cargo bench -p halm-tests --bench quality` prints the figures over all of the text, for any file.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use halm_models::{LoadOptions, Model, TokenId};
use halm_tests::quality::{PERSUASION, Quality, windows};
use halm_tests::reference::Reference;
use halm_tests::weights;

/// Tokens of the text that are measured on.
const TOKENS: usize = 10_240;

/// What the figures of one model may be.
struct Bounds {
    perplexity_error: f64,
    divergence: f64,
    error: f64,
    same_top: f64,
    margin_lost: f64,
}

/// Measured: 0.18 %, 0.0030, 0.021, 0.961, 0.11.
const SMOLLM2: Bounds =
    Bounds { perplexity_error: 0.005, divergence: 0.006, error: 0.042, same_top: 0.92, margin_lost: 0.22 };

/// Measured: 0.25 %, 0.0020, 0.016, 0.969, 0.071.
const GEMMA3: Bounds =
    Bounds { perplexity_error: 0.005, divergence: 0.004, error: 0.032, same_top: 0.94, margin_lost: 0.15 };

impl Bounds {
    fn check(&self, found: &Quality) {
        println!("{found:#.5?}\nperplexity off by {:.3} %", 100.0 * found.perplexity_error());
        assert!(found.perplexity_error() <= self.perplexity_error, "perplexity {}", found.perplexity);
        assert!(found.divergence <= self.divergence, "divergence {}", found.divergence);
        assert!(found.error <= self.error, "error {}", found.error);
        assert!(found.same_top >= self.same_top, "same likeliest token: {}", found.same_top);
        assert!(found.margin_lost <= self.margin_lost, "margin lost {}", found.margin_lost);
    }
}

/// Each of these tests uses all cores, and memory for a model in floats.
static TURN: Mutex<()> = Mutex::new(());

/// The engine, the floats, and the text in windows of so many tokens.
fn both(path: &Path, window_tokens: usize) -> (Model, Reference, Vec<Vec<TokenId>>) {
    let threads = available_parallelism().expect("a number of cores");
    let model = Model::load(path, &LoadOptions { threads, ..LoadOptions::default() }).expect("it loads");
    let mut windows = windows(model.tokenizer(), PERSUASION, window_tokens);
    windows.truncate(TOKENS / window_tokens);
    assert_eq!(windows.len() * window_tokens, TOKENS, "the text is too short");
    (model, Reference::load(path), windows)
}

#[test]
fn smollm2_says_what_its_weights_mean() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut model, reference, windows) = both(&weights::smollm2(), 512);
    SMOLLM2.check(&Quality::measure(&mut model, &reference, &windows));
}

#[test]
fn gemma3_says_what_its_weights_mean_within_its_local_layers_window_and_beyond() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut model, mut reference, windows) = both(&weights::gemma3(), 1024);
    let local = reference.shape.local.expect("it has local layers");
    assert_eq!(local.window, 512, "half of the positions see less than everything");
    GEMMA3.check(&Quality::measure(&mut model, &reference, &windows));

    // The bounds would notice if the window were not kept to.
    reference.shape.local = None;
    let some_beyond = windows[0][..local.window + 64].to_vec();
    let wrong = Quality::measure(&mut model, &reference, &[some_beyond]);
    println!("without the window: divergence {:.5}, error {:.5}", wrong.divergence, wrong.error);
    assert!(wrong.divergence > GEMMA3.divergence && wrong.error > GEMMA3.error);
}
