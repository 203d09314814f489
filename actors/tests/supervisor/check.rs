//! Random lives by the thousand, on all cores.
//!
//! Owns how they are drawn, and that a life that fails is made as small as possible and saved where every later run
//! finds it. It must never say what a right life is.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use halm_actors::supervisor::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::script::{Arrival, Behaviour, ROOT, Script};
use crate::{tape, text};

/// Attempts at making a life smaller, and the time for them.
const SHRINK_ITERATIONS_MAX: u32 = 20_000;
const SHRINK_TIME_MAX_MS: u32 = 20_000;

/// The number in an environment variable, or this one.
pub(crate) fn sequences(variable: &str, everyday: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(everyday)
}

/// Lives random lives of trees of so many levels of supervisors; `live` tells the story of one that went wrong.
///
/// # Panics
/// With that story.
pub(crate) fn check(levels: u8, sequences: u32, live: impl Fn(&Script) -> Result<(), String> + Sync) {
    let threads = u32::try_from(thread::available_parallelism().map_or(1, usize::from)).expect("few");
    let stories: Vec<String> = thread::scope(|scope| {
        let check_some = || check_some(levels, sequences.div_ceil(threads), &live);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(check_some)).collect();
        running.into_iter().filter_map(|thread| thread.join().expect("panics are caught")).collect()
    });
    assert!(stories.is_empty(), "{}", stories.join("\n\n"));
}

fn check_some(levels: u8, sequences: u32, live: &impl Fn(&Script) -> Result<(), String>) -> Option<String> {
    let config = Config {
        cases: sequences,
        max_shrink_iters: SHRINK_ITERATIONS_MAX,
        max_shrink_time: SHRINK_TIME_MAX_MS,
        failure_persistence: None,
        ..Config::default()
    };
    let lived = Cell::new(0);
    let attempt = |script: &Script| {
        lived.set(lived.get() + 1);
        quietly(|| live(script)).unwrap_or_else(|panic| Err(format!("panicked: {panic}")))
    };
    let first_failure = Cell::new(None);
    let outcome = TestRunner::new(config).run(&tape::lives(levels), |script| {
        attempt(&script).map_err(|story| {
            first_failure.set(first_failure.get().or(Some(lived.get())));
            TestCaseError::fail(story)
        })
    });
    match outcome {
        Ok(()) => None,
        Err(TestError::Fail(_, script)) => {
            let script = simplify(script, |script| attempt(script).is_err());
            let story = attempt(&script).expect_err("it failed before");
            let number = first_failure.get().unwrap_or_default();
            Some(format!("life {number} of a thread, {}\n{script}\n{story}", text::save(&script)))
        }
        Err(abort @ TestError::Abort(_)) => Some(abort.to_string()),
    }
}

/// Leaves out whatever can be left out of a life that fails: a short tape is not always a life that reads well.
fn simplify(mut script: Script, fails: impl Fn(&Script) -> bool) -> Script {
    while let Some(simpler) = simpler(&script).into_iter().find(|simpler| fails(simpler)) {
        script = simpler;
    }
    script
}

/// All lives with one thing less.
fn simpler(script: &Script) -> Vec<Script> {
    let mut lives = Vec::new();
    let mut without = |leave_out: &dyn Fn(&mut Script)| {
        let mut life = script.clone();
        leave_out(&mut life);
        if life != *script {
            lives.push(life);
        }
    };
    for at in 0..script.steps.len() {
        without(&|life| drop(life.steps.remove(at)));
        without(&|life| life.steps[at].wait = Duration::ZERO);
        without(&|life| life.steps[at].arrival = life.steps[at].arrival.clone().at_the_root());
    }
    for (order, behaviour) in script.behaviours.iter().enumerate() {
        without(&|life| life.behaviours[order] = Behaviour::quiet());
        for at in 0..behaviour.meanwhile.len() {
            without(&|life| drop(life.behaviours[order].meanwhile.remove(at)));
        }
    }
    if script.settings.strategy != Strategy::Dynamic {
        for at in 0..script.children.len() {
            without(&|life| life.leave_out_child(at));
        }
    }
    for (path, nest) in &script.below {
        for at in (0..nest.children.len()).filter(|_| nest.settings.strategy != Strategy::Dynamic) {
            without(&|life| life.leave_out_child_of(path, at));
        }
    }
    lives
}

impl Script {
    fn leave_out_child(&mut self, at: usize) {
        let gone = format!("{ROOT}/{}", self.children.remove(at).id);
        self.leave_out_below(&gone);
    }

    fn leave_out_child_of(&mut self, path: &str, at: usize) {
        let nest = self.below.get_mut(path).expect("is there");
        let gone = format!("{path}/{}", nest.children.remove(at).id);
        self.leave_out_below(&gone);
    }

    fn leave_out_below(&mut self, gone: &str) {
        self.below.retain(|path, _| path != gone && !path.starts_with(&format!("{gone}/")));
    }
}

impl Arrival {
    fn at_the_root(self) -> Self {
        match self {
            Self::In(_, arrival) => *arrival,
            other => other,
        }
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic before it is printed: while a life is made smaller it panics thousands of times.
pub(crate) fn quietly<T>(live: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(live));
    QUIET.set(before);
    outcome.map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map(ToString::to_string).unwrap_or_default(),
    })
}
