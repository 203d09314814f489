//! The core alone: how many events a second it decides.
//!
//! Owns a performer that does at once what the core orders. Each child's crash is three events: its end, its back-off's
//! timer, its start.

use std::hint::black_box;
use std::time::{Duration, Instant};

use halm_actors::supervisor::core::Core;
use halm_actors::supervisor::{
    Backoff, ChildId, ChildKey, ChildKind, Effect, Event, ExitReason, Intensity, Policy, Restart, RunId, Settings,
    Shutdown, TimerId,
};

/// Crashes of one measurement.
const CRASHES: u64 = 20_000;

/// Children that are down at the same time.
const DOWN: u64 = 8;

/// Events of one crash.
const EVENTS: u64 = 3;

/// Events a second, by how many children the core has.
pub(crate) struct Speeds(Vec<(&'static str, u64, Vec<f64>)>);

impl Speeds {
    /// Those that have a word in their names.
    pub(crate) fn of(wanted: &str) -> Self {
        let mut speeds = vec![("core, 10 children", 10, Vec::new()), ("core, 1000 children", 1_000, Vec::new())];
        speeds.retain(|(name, ..)| name.contains(wanted));
        Self(speeds)
    }

    pub(crate) fn round(&mut self) {
        for (_, children, speeds) in &mut self.0 {
            let mut performer = Performer::new(*children);
            let began = Instant::now();
            performer.storm();
            let events = u32::try_from(CRASHES * EVENTS).expect("some thousands");
            speeds.push(f64::from(events) / began.elapsed().as_secs_f64());
            black_box(&performer.core);
        }
    }

    pub(crate) fn medians(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().map(|(name, _, speeds)| {
            let mut speeds = speeds.clone();
            speeds.sort_by(f64::total_cmp);
            (*name, speeds[speeds.len() / 2])
        })
    }
}

struct Performer {
    core: Core,
    now: Duration,
    /// By key, which is also the place in the table.
    runs: Vec<RunId>,
    timers: Vec<TimerId>,
    started: Vec<RunId>,
}

impl Performer {
    fn new(children: u64) -> Self {
        let policy = |number: u64| Policy {
            id: ChildId::try_from(number.to_string().as_str()).expect("a valid id"),
            restart: Restart::Permanent,
            significant: false,
            shutdown: Shutdown::Brutal,
            kind: ChildKind::Worker,
            start_timeout: Some(Duration::from_secs(1)),
        };
        let millisecond = Duration::from_millis(1);
        let settings = Settings {
            intensity: Intensity { restarts_max: u32::MAX, period: millisecond },
            backoff: Backoff { first: millisecond, max: millisecond, reset_after: Duration::ZERO },
            ..Settings::default()
        };
        let table = (0..children).map(|number| (ChildKey(number), policy(number)));
        let core = Core::new(settings, table, 7);
        let mut performer =
            Self { core, now: Duration::ZERO, runs: Vec::new(), timers: Vec::new(), started: Vec::new() };
        performer.feed(Event::Boot);
        performer.settle();
        performer
    }

    fn storm(&mut self) {
        let children = u64::try_from(self.runs.len()).expect("some");
        // A stride that visits all children, far apart, in an order that repeats.
        let mut number = 0;
        for _ in 0..CRASHES / DOWN {
            for _ in 0..DOWN {
                number = (number + 7_919) % children;
                let run = self.runs[usize::try_from(number).expect("small")];
                self.feed(Event::ChildExited { run, reason: ExitReason::Killed });
            }
            for timer in std::mem::take(&mut self.timers) {
                self.now += Duration::from_micros(100);
                self.feed(Event::TimerFired { timer });
                self.settle();
            }
        }
    }

    /// Starts what is to be started.
    fn settle(&mut self) {
        while let Some(run) = self.started.pop() {
            self.feed(Event::ChildStarted { run });
        }
    }

    fn feed(&mut self, event: Event) {
        for effect in self.core.handle(event, self.now) {
            match effect {
                Effect::Start { run } => {
                    // The first incarnations come in the order of the keys.
                    match self.runs.get_mut(usize::try_from(run.child().0).expect("small")) {
                        Some(last) => *last = run,
                        None => self.runs.push(run),
                    }
                    self.started.push(run);
                }
                Effect::SetTimer { timer, .. } => self.timers.push(timer),
                Effect::CancelTimer { timer } => self.timers.retain(|set| *set != timer),
                other => drop(black_box(other)),
            }
        }
    }
}
