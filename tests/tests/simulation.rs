//! The simulation: nothing is broken, the same seed is the same episode, and a planted bug is found.

use halm_tests::sim::{Mutation, episode};

/// Episodes without a planted bug: some seconds of an unoptimised build.
const EPISODES: u64 = 1500;
/// Episodes within which a planted bug must be found: under a minute of an optimised build.
const FOUND_WITHIN: u64 = 60_000;
/// Faults that the episodes must have had, or the test is none.
const FAULTS_MIN: u64 = 10_000;

/// Two cores, so two threads.
fn on_two_threads<T: Send>(jobs: Vec<impl FnOnce() -> T + Send>) -> Vec<T> {
    let jobs = std::sync::Mutex::new(jobs);
    let done = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = jobs.lock().ok().and_then(|mut jobs| jobs.pop()) {
                    let result = job();
                    done.lock().expect("nobody panics with it").push(result);
                }
            });
        }
    });
    done.into_inner().expect("nobody panicked with it")
}

#[test]
fn whatever_fails_every_promise_is_kept() {
    let halves = [0..EPISODES / 2, EPISODES / 2..EPISODES];
    let live = |seeds: std::ops::Range<u64>| {
        move || {
            let mut faults = 0;
            for seed in seeds {
                let lived = episode(seed, None, false);
                faults += lived.faults;
                if let Some(broken) = lived.broken {
                    let log = episode(seed, None, true).trace.join("\n");
                    panic!("seed {seed}: {} broken: {}\n{log}", broken.invariant, broken.seen);
                }
            }
            faults
        }
    };
    let faults: u64 = on_two_threads(halves.map(live).into()).into_iter().sum();
    assert!(faults > FAULTS_MIN, "{faults} faults in {EPISODES} episodes");
}

#[test]
fn the_same_seed_is_the_same_episode() {
    for seed in [3, 14, 159] {
        let (one, other) = (episode(seed, None, true), episode(seed, None, true));
        assert!(!one.trace.is_empty());
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!((one.events, one.faults, one.lasted_us), (other.events, other.faults, other.lasted_us));
    }
    assert_ne!(episode(3, None, true).trace, episode(4, None, true).trace);
}

/// The promises that a planted bug may be seen to break.
fn breaks(mutation: Mutation) -> &'static [&'static str] {
    match mutation {
        Mutation::AckBeforeFinal | Mutation::AckBeforeOutcome | Mutation::FinalOnce => &["INV-1"],
        Mutation::ResumeLate => &["INV-3"],
        Mutation::NoFence => &["INV-2", "INV-3", "INV-5"],
        Mutation::RetryUnderOldFence
        | Mutation::AppendOverAnotherConnection
        | Mutation::AgeLimitOnLog
        | Mutation::PipelinedAppends => &["INV-2"],
        Mutation::FenceKeptAcrossStreams => &["INV-1", "INV-2", "INV-3"],
        Mutation::WitnessOverrules => &["INV-6"],
        Mutation::CancelOnFirst503 => &["INV-4"],
        Mutation::QueueBeginsAtOne | Mutation::QueueNotFilledAgain => &["INV-1"],
        Mutation::TrustInDedup => &["INV-1", "INV-5"],
        Mutation::NakUnannounced => &["INV-5"],
        Mutation::RedeliveriesAreAttempts => &["INV-7"],
    }
}

#[test]
fn each_planted_bug_is_found() {
    let hunt = |mutation: Mutation| {
        move || {
            let found = (0..FOUND_WITHIN).find_map(|seed| episode(seed, Some(mutation), false).broken);
            (mutation, found)
        }
    };
    for (mutation, found) in on_two_threads(Mutation::ALL.map(hunt).into()) {
        let broken = found.unwrap_or_else(|| panic!("{mutation:?} was not found"));
        assert!(breaks(mutation).contains(&broken.invariant), "{mutation:?} was found as {broken:?}");
    }
}
