//! A life of a supervision tree: its specifications, what is done to it, and how its workers behave.
//!
//! Owns what a life can be. It must never decide what comes of it. `tape` draws lives,
//! `text` writes them down and reads them; a performer (`world`, `model`, `forest`, or real actors) lives them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use halm_actors::supervisor::{ChildId, ExitReason, Policy, Settings};

/// After so many orders everybody behaves, so that children that add children do not do so for ever, and starts that
/// fail more slowly than the intensity counts are not repeated for ever.
const BUSY_ORDERS: usize = 100;

static QUIET: Behaviour = Behaviour { start: OnStart::Succeeds, stop: OnStop::Obeys, meanwhile: Vec::new() };

/// The path of a life's topmost supervisor.
pub(crate) const ROOT: &str = "root";

/// Its `Debug` is its text.
#[derive(Clone, PartialEq)]
pub(crate) struct Script {
    /// The topmost supervisor.
    pub(crate) settings: Settings,
    pub(crate) children: Vec<Policy>,
    /// The supervisors further down, by path.
    pub(crate) below: BTreeMap<String, Nest>,
    pub(crate) seed: u64,
    pub(crate) steps: Vec<Step>,
    /// Used in turn, one for each start or stop that is ordered.
    pub(crate) behaviours: Vec<Behaviour>,
}

/// A supervisor and its first children.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nest {
    pub(crate) settings: Settings,
    pub(crate) children: Vec<Policy>,
}

/// Time passes, then something arrives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) wait: Duration,
    pub(crate) arrival: Arrival,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Arrival {
    Nothing,
    /// The child at this place of the table, if it runs, ends by itself.
    Exit(usize, ExitReason),
    Start(Policy),
    Terminate(ChildId),
    Restart(ChildId),
    Delete(ChildId),
    Stop,
    /// The same at another supervisor than the root: at this one of those that live, counted round, from the root down.
    In(usize, Box<Arrival>),
}

/// How a child takes an order, and what arrives before it has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Behaviour {
    pub(crate) start: OnStart,
    pub(crate) stop: OnStop,
    pub(crate) meanwhile: Vec<Arrival>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStart {
    Succeeds,
    Fails,
    /// Starts, and panics before anybody has heard of it. Where nothing is ever on its way, it lives on.
    DiesAtOnce,
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

impl Script {
    pub(crate) fn new(
        seed: u64,
        mut nests: BTreeMap<String, Nest>,
        steps: Vec<Step>,
        behaviours: Vec<Behaviour>,
    ) -> Option<Self> {
        let Nest { settings, children } = nests.remove(ROOT)?;
        if behaviours.is_empty() {
            return None;
        }
        Some(Self { settings, children, below: nests, seed, steps, behaviours })
    }

    /// How the child behaves that got the `order`th order.
    pub(crate) fn behaviour(&self, order: usize) -> &Behaviour {
        if order < BUSY_ORDERS { &self.behaviours[order % self.behaviours.len()] } else { &QUIET }
    }
}

impl Behaviour {
    pub(crate) fn quiet() -> Self {
        QUIET.clone()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(crate) fn id(name: &str) -> ChildId {
    ChildId::try_from(name).expect("a valid id")
}
