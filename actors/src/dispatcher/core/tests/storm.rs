//! Thousands of worlds, each with its own sequence of faults: every promise is looked at after every event, and when
//! the faults end, every job must come to its end.
//!
//! A failure is shrunk and printed as the log of its events. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` choose others.

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::history::Verdict;
use super::world::{Fate, World};

/// Worlds, unless the environment says otherwise: some seconds of an unoptimised build.
const CASES: u32 = 2000;
/// Steps of one world: enough to have each job claimed by each replica, several times.
const STEPS_MAX: usize = 160;
const SEED: u64 = 0x68_61_6c_6d;

#[derive(Debug, Clone)]
enum Step {
    Deliver(usize, usize),
    Handle(usize),
    Call(usize, usize, Fate),
    Haunt(usize),
    Work(usize, u32, usize, usize),
    Fail(usize, u32),
    KillOrBoot(usize, u32),
    Crash(usize),
    FreezeOrThaw(usize),
    Forget(u64),
    Reconnect(usize),
    LoseAck,
    Pass(u64),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Answered),
        1 => Just(Fate::Unheard),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Late),
        1 => Just(Fate::Refused),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let replica = || 0..3_usize;
    prop_oneof![
        6 => (0..3_usize, replica()).prop_map(|(side, replica)| Step::Deliver(side, replica)),
        40 => replica().prop_map(Step::Handle),
        24 => (replica(), 0..4_usize, fate()).prop_map(|(replica, call, fate)| Step::Call(replica, call, fate)),
        4 => (0..4_usize).prop_map(Step::Haunt),
        16 => (replica(), 0..2_u32, 0..2_usize, 1..4_usize).prop_map(|(r, w, lease, n)| Step::Work(r, w, lease, n)),
        1 => (replica(), 0..2_u32).prop_map(|(replica, worker)| Step::Fail(replica, worker)),
        4 => (replica(), 0..2_u32).prop_map(|(replica, worker)| Step::KillOrBoot(replica, worker)),
        1 => replica().prop_map(Step::Crash),
        2 => replica().prop_map(Step::FreezeOrThaw),
        1 => (0..5_u64).prop_map(Step::Forget),
        1 => replica().prop_map(Step::Reconnect),
        1 => Just(Step::LoseAck),
        4 => (1..120_u64).prop_map(Step::Pass),
    ]
}

fn take(world: &mut World, step: &Step) -> Verdict {
    match *step {
        Step::Deliver(side, replica) => world.deliver(side, replica),
        Step::Handle(replica) => world.handle(replica)?,
        Step::Call(replica, call, fate) => world.call(replica, call, fate)?,
        Step::Haunt(ghost) => world.haunt(ghost)?,
        Step::Work(replica, worker, lease, tokens) => world.work(replica, worker, lease, tokens),
        Step::Fail(replica, worker) => world.fail(replica, worker),
        Step::KillOrBoot(replica, worker) => world.kill_or_boot(replica, worker),
        Step::Crash(replica) => world.crash(replica),
        Step::FreezeOrThaw(replica) => world.freeze_or_thaw(replica),
        Step::Forget(newest) => world.forget(newest)?,
        Step::Reconnect(replica) => world.reconnect(replica),
        Step::LoseAck => world.lose_next_ack(),
        Step::Pass(ms) => world.pass(ms),
    }
    Ok(())
}

fn live(world: &mut World, steps: &[Step]) -> Verdict {
    world.boot()?;
    steps.iter().try_for_each(|step| take(world, step))?;
    world.settle()
}

#[test]
fn whatever_fails_each_job_ends_once_and_its_log_is_one_text() {
    let mut config = ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    let worlds = (
        2..=3_usize,
        prop::collection::vec(0..8_u32, 1..=3),
        prop_oneof![Just(3_u32), Just(1000)],
        prop::collection::vec(step(), 20..STEPS_MAX),
    );
    let mut runner = TestRunner::new(config);
    let result = runner.run(&worlds, |(replicas, lengths, deaths_max, steps)| {
        let Err((invariant, how)) = live(&mut World::new(replicas, &lengths, deaths_max), &steps) else {
            return Ok(());
        };
        // The same once more, with its log.
        let mut world = World::new(replicas, &lengths, deaths_max);
        world.trace = Some(Vec::new());
        let again = live(&mut world, &steps).is_err();
        let log = world.trace.unwrap_or_default().join("\n");
        Err(TestCaseError::fail(format!("{invariant} broken: {how} (again: {again})\n{log}")))
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
