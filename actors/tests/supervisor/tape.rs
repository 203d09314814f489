//! Lives drawn at random, decoded from a tape of bytes.
//!
//! Owns which lives are likely. Bytes past the tape's end are zero, and zero is the quiet choice, so shorter tapes are
//! simpler lives: shrinking a tape shrinks the life.

use std::collections::BTreeMap;
use std::time::Duration;

use halm_actors::supervisor::{
    AutoShutdown, Backoff, ChildId, ChildKind, ExitReason, Intensity, Policy, Restart, Settings, Shutdown, Strategy,
};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::strategy::Strategy as Generator;

use crate::script::{Arrival, Behaviour, Nest, OnStart, OnStop, ROOT, Script, Step, id};
use crate::text::REASONS;

const STEPS_MAX: u8 = 24;
const BEHAVIOURS: usize = 24;

/// Bytes of a tape: a life of two dozen events with all its trouble takes about 300, a tree some more.
const TAPE_BYTES_MAX: usize = 400;

/// Lives of trees of so many levels of supervisors.
pub(crate) fn lives(levels: u8) -> impl Generator<Value = Script> {
    vec(any::<u8>(), 0..TAPE_BYTES_MAX).prop_map(move |bytes| decode(&bytes, levels))
}

fn decode(bytes: &[u8], levels: u8) -> Script {
    let mut tape = Tape { left: bytes, is_tree: levels > 1 };
    let mut nests = BTreeMap::new();
    tape.nest(ROOT, levels, &mut nests);
    let auto_shutdown = nests[ROOT].settings.auto_shutdown;
    let seed = u64::from(tape.byte());
    let steps = (0..tape.below(STEPS_MAX + 1))
        .map(|_| {
            let wait = Duration::from_millis(tape.pick(&[0, 0, 1, 5, 20, 60, 150, 400, 1000, 1100]));
            Step { wait, arrival: tape.arrival(auto_shutdown) }
        })
        .collect();
    let behaviours = (0..BEHAVIOURS).map(|_| tape.behaviour(auto_shutdown)).collect();
    Script::new(seed, nests, steps, behaviours).expect("has a root and behaviours")
}

struct Tape<'a> {
    left: &'a [u8],
    is_tree: bool,
}

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        match self.left.split_first() {
            Some((first, rest)) => {
                self.left = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    fn id(&mut self) -> ChildId {
        id(self.pick(&["a", "b", "c", "d", "e", "f"]))
    }

    /// Mostly a panic.
    fn reason(&mut self) -> ExitReason {
        let reason = usize::from(self.below(10));
        (REASONS.get(reason).unwrap_or(&REASONS[0]).1)()
    }

    fn nest(&mut self, path: &str, levels: u8, nests: &mut BTreeMap<String, Nest>) {
        let strategy = self.pick(&[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne, Strategy::Dynamic]);
        let auto_shutdown =
            self.pick(&[AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant]);
        let backoff = Backoff {
            first: Duration::from_millis(10),
            max: Duration::from_millis(80),
            reset_after: Duration::from_millis(300),
        };
        let settings = Settings {
            strategy,
            auto_shutdown,
            intensity: Intensity { restarts_max: self.pick(&[3, 0, 1, 2, 5, 9]), period: Duration::from_millis(1000) },
            backoff: self.pick(&[Backoff::NONE, backoff]),
        };
        let count = if strategy == Strategy::Dynamic { 1 } else { usize::from(self.below(5)) };
        let mut children = Vec::new();
        for name in &["a", "b", "c", "d"][..count] {
            let mut policy = self.policy(id(name), auto_shutdown);
            if levels > 1 && strategy != Strategy::Dynamic && self.below(3) > 0 {
                policy.kind = ChildKind::Supervisor;
                policy.shutdown = self.pick(&[Shutdown::Infinity, Shutdown::Infinity, policy.shutdown]);
                policy.start_timeout = self.pick(&[None, None, policy.start_timeout]);
                self.nest(&format!("{path}/{name}"), levels - 1, nests);
            }
            children.push(policy);
        }
        nests.insert(path.to_owned(), Nest { settings, children });
    }

    fn policy(&mut self, id: ChildId, auto_shutdown: AutoShutdown) -> Policy {
        let restart = self.pick(&[Restart::Permanent, Restart::Permanent, Restart::Transient, Restart::Temporary]);
        let may_matter = restart != Restart::Permanent && auto_shutdown != AutoShutdown::Never;
        let timeout = Shutdown::Timeout(Duration::from_millis(100));
        Policy {
            id,
            restart,
            significant: self.below(2) == 1 && may_matter,
            shutdown: self.pick(&[timeout, timeout, Shutdown::Brutal, Shutdown::Infinity]),
            kind: ChildKind::Worker,
            start_timeout: self.pick(&[Some(Duration::from_millis(50)), None]),
        }
    }

    fn arrival(&mut self, auto_shutdown: AutoShutdown) -> Arrival {
        let supervisor = if self.is_tree { self.below(12) } else { 0 };
        let arrival = match self.below(16) {
            0 => Arrival::Nothing,
            1..=8 => Arrival::Exit(usize::from(self.below(6)), self.reason()),
            9 | 10 => {
                let id = self.id();
                Arrival::Start(self.policy(id, auto_shutdown))
            }
            11 | 12 => Arrival::Terminate(self.id()),
            13 => Arrival::Restart(self.id()),
            14 => Arrival::Delete(self.id()),
            _ if self.below(3) == 2 => return Arrival::Stop,
            _ => Arrival::Restart(self.id()),
        };
        if supervisor == 0 { arrival } else { Arrival::In(usize::from(supervisor), Box::new(arrival)) }
    }

    fn behaviour(&mut self, auto_shutdown: AutoShutdown) -> Behaviour {
        let start = match self.below(16) {
            0..=8 => OnStart::Succeeds,
            9..=11 => OnStart::Fails,
            12 => OnStart::DiesAtOnce,
            13 => OnStart::Hangs,
            14 => OnStart::SucceedsLate,
            _ => OnStart::HangsForGood,
        };
        let stop = match self.below(16) {
            0..=10 => OnStop::Obeys,
            11 | 12 => OnStop::Panics,
            13 | 14 => OnStop::Ignores,
            _ => OnStop::Unkillable,
        };
        let count = self.pick(&[0, 0, 0, 1, 1, 2, 3]);
        Behaviour { start, stop, meanwhile: (0..count).map(|_| self.arrival(auto_shutdown)).collect() }
    }
}
