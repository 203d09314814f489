//! Random lives: whatever comes, goes and runs out, every invariant holds after every event, and everybody is done.
//!
//! A failure is shrunk and printed with its seed. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` choose others.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::super::{Limits, Priority, Terms, pages};
use super::world::{Job, World};
use crate::tokenizer::TokenId;

/// Lives in everyday tests.
const CASES: u32 = 10_000;
const EVENTS_MAX: usize = 60;

/// What happens.
#[derive(Debug, Clone)]
enum Event {
    Arrives(Job, Option<u64>),
    Cancelled(usize),
    Steps(usize),
    StepOfSome(bool),
    Passes(Duration),
    Lends(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let job =
        (0..100_usize, 0..3_u32, 0..60_usize, 1..40_usize, any::<bool>(), prop::option::weighted(0.2, 0..3000_u64));
    prop_oneof![
        6 => job.prop_map(|(prefix, family, tail, answer, batch, due_in)| {
            let priority = if batch { Priority::Batch } else { Priority::Interactive };
            // A prompt has one token at least.
            let tail = if prefix + tail == 0 { 1 } else { tail };
            let job = Job { prefix, family, tail, answer, terms: Terms { priority, deadline: None } };
            Event::Arrives(job, due_in)
        }),
        1 => (0..8_usize).prop_map(Event::Cancelled),
        8 => (1..12_usize).prop_map(Event::Steps),
        1 => any::<bool>().prop_map(Event::StepOfSome),
        2 => (0..800_u64).prop_map(|ms| Event::Passes(Duration::from_millis(ms))),
        1 => (0..4_usize).prop_map(Event::Lends),
    ]
}

fn some_limits() -> impl Strategy<Value = Limits> {
    (1..6_usize, 1..35_usize, 1..120_usize, 1..12_usize, 0..8_usize, 0..6_u32).prop_map(
        |(sequences, rows_beside_others, rows_alone, pages, pages_cached, setbacks)| Limits {
            sequences,
            rows_alone,
            rows_beside_others,
            pages,
            pages_cached,
            setbacks,
        },
    )
}

/// A hash that tells little apart.
fn weak_chain(start: u64, tokens: &[TokenId]) -> u64 {
    pages::chain(start, tokens) % 5
}

fn live(limits: &Limits, weak: bool, events: &[Event]) -> Result<(), String> {
    let mut world = World::with_chain(limits.clone(), if weak { weak_chain } else { pages::chain });
    for event in events {
        match event {
            Event::Arrives(job, due_in) => {
                let deadline = due_in.map(|ms| world.now + Duration::from_millis(ms));
                let _ = world.arrive(&Job { terms: Terms { deadline, ..job.terms }, ..job.clone() })?;
            }
            Event::Cancelled(which) => world.cancel_one_of_all(*which)?,
            Event::Steps(count) => {
                for _ in 0..*count {
                    world.now += Duration::from_millis(7);
                    world.step()?;
                }
            }
            Event::StepOfSome(odd) => drop(world.step_of_some(*odd)?),
            Event::Passes(time) => world.now += *time,
            Event::Lends(count) => world.lend(*count)?,
        }
    }
    // Its own bound ends this.
    while !world.is_empty() {
        world.step()?;
    }
    Ok(())
}

#[test]
fn whatever_comes_goes_and_runs_out_pages_are_right_and_everybody_is_done() {
    let mut config =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(RandomState::new().build_hasher().finish());
    }
    let seed = config.rng_seed;
    let lives = (some_limits(), any::<bool>(), prop::collection::vec(event(), 1..EVENTS_MAX));
    let result = TestRunner::new(config)
        .run(&lives, |(limits, weak, events)| live(&limits, weak, &events).map_err(TestCaseError::fail));
    if let Err(failure) = result {
        panic!("{failure}\nwith PROPTEST_RNG_SEED of {seed:?}");
    }
}
