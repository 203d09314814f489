//! Trees of supervisors: cores alone against what must always hold, and real supervisors with real actors against the
//! cores alone, in the same random lives, step by step.
//!
//! The lives are those that actors can live on a paused clock (`Script::for_actors`): nobody is unkillable and every
//! start can be cancelled, because code that does not await would stop the runtime and the clock with it. Whoever would
//! be unkillable ignores its stop instead, and a start that resists hangs until it is cancelled; on both sides.
//!
//! Both sides take one small step: something arrives, an order is taken, a timer fires. Then the runtime works until it
//! has nothing to do at this instant, and both must show the same: who was started, asked and ended, in which order;
//! the crash reports with reason, action, delay, uptime and counts; the answers to calls; the table of every
//! supervisor; as many tasks as actors, starts, alarms and calls need; the end.
//!
//! Left open is the order of what happens in one instant at two supervisors, and that in which those die who are
//! stopped together or fall with a killed supervisor. A life is left when two timers fire in one instant, because their
//! order is the runtime's. Left out is what cannot be done from outside: to stop or call the root before it has
//! started. And a supervisor ends by itself only by a kill: a stop that passes its mailbox by loses the reasons of its
//! children's ends.

#![expect(clippy::disallowed_methods, reason = "who stands outside of the tree is nobody's child")]

#[path = "supervisor/check.rs"]
mod check;
#[path = "supervisor/forest.rs"]
mod forest;
#[path = "supervisor/happened.rs"]
mod happened;
#[path = "supervisor/script.rs"]
mod script;
#[path = "supervisor/tape.rs"]
mod tape;
#[path = "supervisor/text.rs"]
mod text;
#[path = "supervisor/tree.rs"]
mod tree;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use check::{check, quietly, sequences};
use forest::Forest;
use halm_actors::supervisor::Strategy;
use happened::Move;
use script::{Arrival, Script};
use tokio::time::{Duration, Instant, sleep_until};
use tree::{Tree, quiet};

/// Sequences with cores alone in an everyday run, a quarter of a minute. `HALM_SUPERVISOR_SEQUENCES` sets another
/// number.
const CORE_SEQUENCES: u32 = 40_000;

/// Sequences with real actors in an everyday run, for one supervisor and for trees each: a quarter of a minute.
/// `HALM_SHELL_SEQUENCES` sets another number.
const ACTOR_SEQUENCES: u32 = 6_000;

/// Levels of supervisors in a generated tree.
const LEVELS: u8 = 3;

#[test]
fn in_a_tree_of_cores_nobody_is_left_behind_and_everybody_is_stopped_in_order() {
    check(LEVELS, sequences("HALM_SUPERVISOR_SEQUENCES", CORE_SEQUENCES), live_without_actors);
}

#[test]
fn real_actors_live_as_the_core_decides() {
    check_actors(1);
}

#[test]
fn real_trees_live_as_the_cores_decide() {
    check_actors(LEVELS);
}

#[test]
fn every_saved_life_is_lived_by_cores_and_actors_alike() {
    let saved = text::saved();
    assert!(saved.iter().any(|(_, script)| !script.below.is_empty()), "the replays of trees are gone");
    for (name, script) in saved {
        let lived = quietly(|| live_without_actors(&script).and_then(|()| live(&script).map(drop)));
        if let Err(story) = lived.unwrap_or_else(Err) {
            panic!("{name}: {story}");
        }
    }
}

fn check_actors(levels: u8) {
    let sequences = sequences("HALM_SHELL_SEQUENCES", ACTOR_SEQUENCES);
    let left_early = AtomicU32::new(0);
    check(levels, sequences, |script| {
        if live(script)? == Lived::UntilATie {
            left_early.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let left_early = left_early.into_inner();
    assert!(left_early <= 10 + sequences / 20, "{left_early} of {sequences} lives were left early");
}

/// Lives a life with cores alone, which check themselves.
fn live_without_actors(script: &Script) -> Result<(), String> {
    let script = script.clone().for_actors();
    let mut forest = Forest::new(&script);
    let lived = quietly(|| {
        settle(&mut forest);
        for step in &script.steps {
            let until = forest.now() + step.wait;
            while forest.next_due().is_some_and(|due| due <= until) {
                forest.fire();
                settle(&mut forest);
            }
            forest.wait_until(until);
            forest.arrive(step.arrival.clone());
            settle(&mut forest);
        }
        while !forest.has_ended() {
            forest.arrive(Arrival::Stop);
            settle(&mut forest);
            forest.fire();
        }
    });
    lived.map_err(|panic| format!("{}\n{panic}", forest.story()))
}

fn settle(forest: &mut Forest<'_>) {
    while forest.step().is_some() {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lived {
    ToTheEnd,
    /// Two timers were to fire in one instant.
    UntilATie,
}

/// Lives a life on both sides, on a clock of its own; the story of what happened, if they differ.
fn live(script: &Script) -> Result<Lived, String> {
    let script = script.clone().for_actors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without IO").block_on(async {
        let (forest, tree) = (Forest::new(&script), Tree::plant(&script));
        let mut sides = Sides { script: &script, forest, tree, born: Instant::now() };
        sides.live().await
    })
}

struct Sides<'a> {
    script: &'a Script,
    forest: Forest<'a>,
    tree: Tree,
    born: Instant,
}

impl Sides<'_> {
    async fn live(&mut self) -> Result<Lived, String> {
        self.settle().await?;
        for step in &self.script.steps {
            let until = self.forest.now() + step.wait;
            if !self.pass(until).await? {
                return Ok(Lived::UntilATie);
            }
            self.forest.arrive(step.arrival.clone());
            self.settle().await?;
        }
        while !self.forest.has_ended() {
            self.forest.arrive(Arrival::Stop);
            self.settle().await?;
            let next = self.forest.next_due();
            if !self.forest.has_ended() && !self.pass(next.expect("what does not end has a timer")).await? {
                return Ok(Lived::UntilATie);
            }
        }
        Ok(Lived::ToTheEnd)
    }

    /// Lets time pass on both sides; false at a tie.
    async fn pass(&mut self, until: Duration) -> Result<bool, String> {
        while let Some(due) = self.forest.next_due().filter(|due| *due <= until) {
            if self.forest.is_tied() {
                return Ok(false);
            }
            sleep_until(self.born + due).await;
            self.forest.fire();
            self.compare("a timer").await?;
            self.settle().await?;
        }
        sleep_until(self.born + until).await;
        self.forest.wait_until(until);
        self.compare("time").await?;
        Ok(true)
    }

    /// Takes small steps until nothing is left to happen at this instant.
    async fn settle(&mut self) -> Result<(), String> {
        self.compare("what was").await?;
        while let Some(made) = self.forest.step() {
            let moment = format!("{made:?}");
            match made {
                Move::Nothing => {}
                Move::Takes(path, take) => self.tree.take(&path, take),
                Move::Exits(path, reason) => self.tree.exit(&path, reason),
                Move::Calls(number, path, call) => self.tree.call(number, &path, call),
                Move::Stops => self.tree.stop(),
            }
            self.compare(&moment).await?;
        }
        Ok(())
    }

    async fn compare(&mut self, moment: &str) -> Result<(), String> {
        quiet().await;
        let (mut cores, mut actors) = (self.forest.take_happened(), self.tree.take_happened().await);
        let in_disorder = std::mem::take(&mut self.forest.in_disorder);
        for happened in [&mut cores, &mut actors] {
            happened.sort(|at| in_disorder || self.script.nest(at).0.strategy == Strategy::Dynamic);
        }
        if cores != actors {
            return Err(self.tell(&format!("after {moment}\ncores  {cores:#?}\nactors {actors:#?}")));
        }
        let (tasks, alive) = (self.forest.tasks(), tokio::runtime::Handle::current().metrics().num_alive_tasks());
        if !tasks.contains(&alive) {
            return Err(self.tell(&format!("after {moment}: {alive} tasks where {tasks:?} belong")));
        }
        for (path, table) in self.forest.tables() {
            let actors = self.tree.table(&path).await;
            // Until the root has started nobody can ask it.
            if actors.as_ref() != Some(&table) && (actors.is_some() || path != script::ROOT) {
                return Err(self.tell(&format!("after {moment}, {path}\ncore   {table:?}\nactor  {actors:?}")));
            }
        }
        Ok(())
    }

    fn tell(&self, difference: &str) -> String {
        let mut story = self.forest.story();
        let _ = writeln!(story, "\nthey differ {difference}");
        story
    }
}
