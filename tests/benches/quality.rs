//! How far a model's numbers are from those of its weights computed in floats, over the whole text.
//!
//! Prints figures, judges nothing: `cargo bench -p halm-tests --bench quality`, or for a file of your own
//! `cargo bench -p halm-tests --bench quality -- WINDOW_TOKENS FILE.gguf`.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Instant;

use halm_models::{LoadOptions, Model};
use halm_tests::quality::{PERSUASION, Quality, windows};
use halm_tests::reference::Reference;
use halm_tests::weights;

fn main() {
    // Cargo adds an argument of its own.
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &given[..] {
        [] => {
            measure(&weights::smollm2(), 512);
            measure(&weights::gemma3(), 1024);
        }
        [tokens, file] => measure(&PathBuf::from(file), tokens.parse().expect("a number of tokens")),
        _ => panic!("a number of tokens and a file, or nothing"),
    }
}

fn measure(path: &Path, window_tokens: usize) {
    let began = Instant::now();
    let threads = available_parallelism().expect("a number of cores");
    let mut model = Model::load(path, &LoadOptions { threads, ..LoadOptions::default() }).expect("it loads");
    let windows = windows(model.tokenizer(), PERSUASION, window_tokens);
    println!("{}: {} windows of {window_tokens} tokens", path.display(), windows.len());
    let reference = Reference::load(path);
    println!("loaded after {:.1} s", began.elapsed().as_secs_f64());
    let quality = Quality::measure(&mut model, &reference, &windows);
    println!("{quality:#.5?}\nperplexity is off by {:.3} %", 100.0 * quality.perplexity_error());
    println!("done after {:.1} s", began.elapsed().as_secs_f64());
}
