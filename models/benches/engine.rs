//! One workload of `halm bench` again and again: for profilers.
//!
//! `cargo bench -p halm-models --bench engine -- FILE [prefill | decode | batch] [threads] [rounds]`; prints the best
//! round's tokens a second, and judges nothing.

use std::num::NonZeroUsize;
use std::path::Path;

use halm_models::bench::{self, Workload};
use halm_models::{LoadOptions, Model};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(file) = arguments.first() else {
        println!("no file given, nothing measured");
        return;
    };
    let number = |at: usize, otherwise: usize| arguments.get(at).map_or(Ok(otherwise), |text| text.parse());
    let threads = NonZeroUsize::new(number(2, 1).expect("a number of threads")).expect("one thread at least");
    let workload = match arguments.get(1).map(String::as_str) {
        None | Some("prefill") => Workload::Prefill,
        Some("decode") => Workload::Decode,
        Some("batch") => Workload::Batch,
        Some(other) => panic!("no workload `{other}`: prefill, decode or batch"),
    };
    let options = LoadOptions { threads, ..LoadOptions::default() };
    let mut model = Model::load(Path::new(file), &options).expect("loads");
    let rounds = number(3, 10).expect("a number of rounds");
    let best = (0..rounds).map(|_| bench::tokens_per_s(&mut model, workload).expect("computes")).fold(0.0, f64::max);
    println!("{best:.0} tokens/s");
}
