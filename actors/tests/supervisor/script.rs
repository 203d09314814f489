//! A random life of one supervisor, decoded from a tape of bytes: its specification, what is done to it, and how its
//! children behave. Bytes past the tape's end are zero, and zero is the quiet choice, so shorter tapes are simpler lives.

use std::time::Duration;

use halm_actors::supervisor::{
    AutoShutdown, Backoff, ChildId, ChildKind, ExitReason, Hook, Intensity, Policy, Restart, Settings, Shutdown,
    Strategy,
};

const STEPS_MAX: u8 = 24;
const BEHAVIOURS: usize = 24;

/// After so many orders nothing arrives meanwhile, so that children that add children do not do so for ever.
const BUSY_ORDERS: usize = 100;

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) settings: Settings,
    pub(crate) children: Vec<Policy>,
    pub(crate) seed: u64,
    pub(crate) steps: Vec<Step>,
    /// Used in turn, one for each start or stop that is ordered.
    behaviours: Vec<Behaviour>,
    /// The same, undisturbed.
    calm: Vec<Behaviour>,
}

/// Time passes, then something arrives.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) wait: Duration,
    pub(crate) arrival: Arrival,
}

#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    Nothing,
    /// The child at this place of the table, if it runs, ends by itself.
    Exit(usize, ExitReason),
    Start(Policy),
    Terminate(ChildId),
    Restart(ChildId),
    Delete(ChildId),
    Stop,
}

/// How a child takes an order, and what arrives before it has.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) start: OnStart,
    pub(crate) stop: OnStop,
    pub(crate) meanwhile: Vec<Arrival>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStart {
    Succeeds,
    Fails,
    /// Hangs until it is cancelled.
    Hangs,
    /// Hangs, and succeeds in the moment when it is cancelled.
    SucceedsLate,
    /// Hangs, and cannot be cancelled.
    HangsForGood,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStop {
    Obeys,
    /// Ends, but with a panic.
    Panics,
    /// Must be killed.
    Ignores,
    /// Does not even die when killed.
    Unkillable,
}

struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
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

    fn reason(&mut self) -> ExitReason {
        match self.below(6) {
            0..=2 => ExitReason::Panicked { hook: Hook::Handle, message: "boom".to_owned() },
            3 => ExitReason::Normal,
            4 => ExitReason::Shutdown { detail: None },
            _ => ExitReason::Killed,
        }
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
        match self.below(16) {
            0 => Arrival::Nothing,
            1..=8 => Arrival::Exit(usize::from(self.below(6)), self.reason()),
            9 | 10 => {
                let id = self.id();
                Arrival::Start(self.policy(id, auto_shutdown))
            }
            11 | 12 => Arrival::Terminate(self.id()),
            13 => Arrival::Restart(self.id()),
            14 => Arrival::Delete(self.id()),
            _ if self.below(3) == 2 => Arrival::Stop,
            _ => Arrival::Restart(self.id()),
        }
    }

    fn behaviour(&mut self, auto_shutdown: AutoShutdown) -> Behaviour {
        let start = match self.below(16) {
            0..=9 => OnStart::Succeeds,
            10..=12 => OnStart::Fails,
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
        let count = self.pick(&[0, 0, 0, 0, 1, 1, 2]);
        Behaviour { start, stop, meanwhile: (0..count).map(|_| self.arrival(auto_shutdown)).collect() }
    }
}

impl Script {
    pub(crate) fn decode(tape: &[u8]) -> Self {
        let mut tape = Tape(tape);
        let strategy = tape.pick(&[Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne, Strategy::Dynamic]);
        let auto_shutdown =
            tape.pick(&[AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant]);
        let backoff = Backoff {
            first: Duration::from_millis(10),
            max: Duration::from_millis(80),
            reset_after: Duration::from_millis(300),
        };
        let settings = Settings {
            strategy,
            auto_shutdown,
            intensity: Intensity { restarts_max: tape.pick(&[3, 0, 1, 2, 5, 9]), period: Duration::from_millis(1000) },
            backoff: tape.pick(&[Backoff::NONE, backoff]),
        };
        let count = if strategy == Strategy::Dynamic { 1 } else { usize::from(tape.below(5)) };
        let children = ["a", "b", "c", "d"][..count].iter().map(|name| tape.policy(id(name), auto_shutdown)).collect();
        let seed = u64::from(tape.byte());
        let steps = (0..tape.below(STEPS_MAX + 1))
            .map(|_| {
                let wait = Duration::from_millis(tape.pick(&[0, 0, 1, 5, 20, 60, 150, 400, 1100]));
                Step { wait, arrival: tape.arrival(auto_shutdown) }
            })
            .collect();
        let behaviours: Vec<Behaviour> = (0..BEHAVIOURS).map(|_| tape.behaviour(auto_shutdown)).collect();
        let calm = behaviours.iter().map(|busy| Behaviour { meanwhile: Vec::new(), ..busy.clone() }).collect();
        Self { settings, children, seed, steps, behaviours, calm }
    }

    /// How the child behaves that got the `order`th order.
    pub(crate) fn behaviour(&self, order: usize) -> &Behaviour {
        let behaviours = if order < BUSY_ORDERS { &self.behaviours } else { &self.calm };
        &behaviours[order % BEHAVIOURS]
    }
}

pub(crate) fn id(name: &str) -> ChildId {
    ChildId::try_from(name).expect("a valid id")
}
