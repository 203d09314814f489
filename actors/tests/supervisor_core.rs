//! The supervisor core against a naive, blocking model of OTP's supervisor: the same random lives, the same diary.

#[path = "supervisor/check.rs"]
mod check;
#[path = "supervisor/model.rs"]
mod model;
#[path = "supervisor/script.rs"]
mod script;
#[path = "supervisor/tape.rs"]
mod tape;
#[path = "supervisor/text.rs"]
mod text;
#[path = "supervisor/world.rs"]
mod world;

use std::fmt::Write as _;

use check::{check, quietly, sequences};
use model::Model;
use proptest::prelude::*;
use script::{Arrival, Script};
use world::World;

/// Sequences in an everyday run, half a minute; `HALM_SUPERVISOR_SEQUENCES` sets another number.
const SEQUENCES: u32 = 100_000;

#[test]
fn the_core_does_what_a_blocking_otp_supervisor_does() {
    check(1, sequences("HALM_SUPERVISOR_SEQUENCES", SEQUENCES), live);
}

#[test]
fn every_saved_life_still_agrees() {
    let saved: Vec<(String, Script)> =
        text::saved().into_iter().filter(|(_, script)| script.below.is_empty()).collect();
    assert!(saved.len() >= 3, "the replays are gone");
    for (name, script) in saved {
        if let Err(story) = quietly(|| live(&script)).unwrap_or_else(Err) {
            panic!("{name}: {story}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_life_written_down_reads_back_as_the_same_life(script in tape::lives(3)) {
        prop_assert_eq!(text::read(&script.to_string()), Ok(script));
    }
}

/// Lives a life on both sides; the story of what happened, if they differ.
fn live(script: &Script) -> Result<(), String> {
    let mut world = World::new(script);
    let mut model = Model::new(script);
    world.boot();
    model.boot();
    compare("boot", &world, &model)?;
    for (number, step) in script.steps.iter().enumerate() {
        world.wait(step.wait);
        model.wait(step.wait);
        compare(&format!("step {number}: {:?} pass", step.wait), &world, &model)?;
        world.arrive(step.arrival.clone());
        model.arrive(step.arrival.clone());
        compare(&format!("step {number}: {}", step.arrival), &world, &model)?;
    }
    world.arrive(Arrival::Stop);
    model.arrive(Arrival::Stop);
    compare("the end", &world, &model)?;
    if world.core.has_ended() { Ok(()) } else { Err(tell("the end: it does not end", &world, &model)) }
}

fn compare(moment: &str, world: &World<'_>, model: &Model<'_>) -> Result<(), String> {
    let same_log = world.log == model.log;
    let same_table = world.core.has_ended() || world.table() == model.table();
    if same_log && same_table { Ok(()) } else { Err(tell(moment, world, model)) }
}

fn tell(moment: &str, world: &World<'_>, model: &Model<'_>) -> String {
    let mut story = format!("they differ at {moment}\n");
    let _ = writeln!(story, "{:>5}  {:<60} model", "", "core");
    let nothing = String::new();
    for number in 0..world.log.len().max(model.log.len()) {
        let (left, right) = (world.log.get(number).unwrap_or(&nothing), model.log.get(number).unwrap_or(&nothing));
        let mark = if left == right { " " } else { "≠" };
        let _ = writeln!(story, "{number:>4} {mark} {left:<60} {right}");
    }
    let _ = writeln!(story, "core's table  {:?}\nmodel's table {:?}", world.table(), model.table());
    story
}
