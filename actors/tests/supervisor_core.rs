//! The supervisor core against a naive, blocking model of OTP's supervisor: the same random lives, the same diary.

#[path = "supervisor/model.rs"]
mod model;
#[path = "supervisor/script.rs"]
mod script;
#[path = "supervisor/world.rs"]
mod world;

use std::fmt::{self, Write as _};

use model::Model;
use proptest::collection::vec;
use proptest::prelude::*;
use script::{Arrival, Script};
use world::World;

/// Sequences in an everyday run; `HALM_SUPERVISOR_SEQUENCES` sets another number.
const SEQUENCES: u32 = 4_000;

/// Bytes of a tape: a life of two dozen events with all its trouble takes about 300.
const TAPE_BYTES_MAX: usize = 320;

fn sequences() -> u32 {
    std::env::var("HALM_SUPERVISOR_SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(SEQUENCES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: sequences(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_core_does_what_a_blocking_otp_supervisor_does(tape in vec(any::<u8>(), 0..TAPE_BYTES_MAX).prop_map(Tape)) {
        let script = Script::decode(&tape.0);
        if let Err(story) = live(&script) {
            return Err(TestCaseError::fail(story));
        }
    }
}

/// Prints on one line, to be replayed.
struct Tape(Vec<u8>);

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Lives a life on both sides; the story of what happened, if they differ.
fn live(script: &Script) -> Result<(), String> {
    let mut world = World::new(script);
    let mut model = Model::new(script);
    world.boot();
    model.boot();
    compare(script, "boot", &world, &model)?;
    for (number, step) in script.steps.iter().enumerate() {
        world.wait(step.wait);
        model.wait(step.wait);
        compare(script, &format!("step {number}: {:?} pass", step.wait), &world, &model)?;
        world.arrive(step.arrival.clone());
        model.arrive(step.arrival.clone());
        compare(script, &format!("step {number}: {:?}", step.arrival), &world, &model)?;
    }
    world.arrive(Arrival::Stop);
    model.arrive(Arrival::Stop);
    compare(script, "the end", &world, &model)?;
    if world.core.has_ended() { Ok(()) } else { Err(tell(script, "the end: it does not end", &world, &model)) }
}

fn compare(script: &Script, moment: &str, world: &World<'_>, model: &Model<'_>) -> Result<(), String> {
    let same_log = world.log == model.log;
    let same_table = world.core.has_ended() || world.table() == model.table();
    if same_log && same_table { Ok(()) } else { Err(tell(script, moment, world, model)) }
}

fn tell(script: &Script, moment: &str, world: &World<'_>, model: &Model<'_>) -> String {
    let mut story = format!("they differ at {moment}\n{:#?}\n", script.settings);
    for child in &script.children {
        let _ = writeln!(story, "{child:?}");
    }
    for (number, step) in script.steps.iter().enumerate() {
        let _ = writeln!(story, "step {number}: after {:?} {:?}", step.wait, step.arrival);
    }
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
