//! What takes longer than a test may.
//!
//! `simulate`: episodes of the simulation, as long as wanted. Prints each broken promise with its seed, and as its last line
//! what was done in all. `--seed N` begins elsewhere, `--trace` shows the one episode of that seed, `--mutation NAME` plants
//! a bug.
//!
//! `stack`: the container stack, built, started, broken and stopped. It needs Docker with Compose; with `--local-images` no
//! registry of images, but root and debootstrap. `--image NAME` is one of halm that is built already.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use halm_tests::sim::{Mutation, episode};
use halm_tests::stack::{Images, live_through};

const USAGE: &str =
    "say simulate [--seconds N] [--seed N] [--trace] [--mutation NAME], or stack [--local-images] [--image NAME]";
/// Broken promises after which there is no point in looking for more.
const SHOWN_MAX: u64 = 10;

#[derive(Debug)]
struct Wanted {
    seconds: u64,
    seed: u64,
    trace: bool,
    mutation: Option<Mutation>,
}

fn wanted(mut words: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted { seconds: 60, seed: 0, trace: false, mutation: None };
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok()).ok_or(format!("{word} needs a number"));
        match word.as_str() {
            "--seconds" => wanted.seconds = number()?,
            "--seed" => wanted.seed = number()?,
            "--trace" => wanted.trace = true,
            "--mutation" => {
                let name = words.next().unwrap_or_default();
                let known = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name);
                wanted.mutation = Some(known.ok_or(format!("{name:?} is none of {:?}", Mutation::ALL))?);
            }
            other => return Err(format!("{other:?} is not known")),
        }
    }
    Ok(wanted)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let done = match words.next().as_deref() {
        Some("simulate") => wanted(words).map(simulate),
        Some("stack") => images(words).map(stack),
        _ => Err(USAGE.to_owned()),
    };
    done.unwrap_or_else(|wrong| {
        eprintln!("{wrong}");
        ExitCode::FAILURE
    })
}

fn images(words: impl Iterator<Item = String>) -> Result<Images, String> {
    let words: Vec<String> = words.collect();
    let (local, rest) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--local-images", ref rest @ ..] => (true, rest.to_vec()),
        ref rest => (false, rest.to_vec()),
    };
    let images = || if local { Images::local() } else { Images::published() };
    match rest[..] {
        [] => Ok(images()),
        ["--image", name] => Ok(images().built(name)),
        _ => Err(USAGE.to_owned()),
    }
}

fn stack(images: Images) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    runtime.block_on(async {
        tokio::select! {
            () = live_through(&images) => ExitCode::SUCCESS,
            // What was started is taken down as when it ends by itself.
            _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
        }
    })
}

fn simulate(wanted: Wanted) -> ExitCode {
    if wanted.trace {
        let lived = episode(wanted.seed, wanted.mutation, true);
        lived.trace.iter().for_each(|line| println!("{line}"));
        println!("{:?}", lived.broken);
        return if lived.broken.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let began = Instant::now();
    let (mut episodes, mut faults, mut events, mut lasted_us, mut broken) = (0_u64, 0, 0, 0, 0);
    while began.elapsed() < Duration::from_secs(wanted.seconds) && broken < SHOWN_MAX {
        let lived = episode(wanted.seed + episodes, wanted.mutation, false);
        episodes += 1;
        faults += lived.faults;
        events += lived.events;
        lasted_us += lived.lasted_us;
        if let Some(what) = lived.broken {
            broken += 1;
            println!("seed {}: {} broken: {}", lived.seed, what.invariant, what.seen);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{episodes} episodes, {:.0} s of their time, {events} events ({:.2} million per s), {faults} faults",
        lasted_us as f64 / 1e6,
        events as f64 / seconds / 1e6
    );
    println!("{:.0} faults per minute, {broken} invariants broken", faults as f64 / seconds * 60.0);
    if broken > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
