//! The dispatcher: who runs which job, what is in its log, and when it is settled.
//!
//! One per pool. The [`Core`] decides, the [`Dispatcher`] actor performs: it turns effects into port calls, runs them
//! as tasks, and turns their results into events. It is started by the pool's supervisor, before the workers and the
//! consumer, and its death restarts both (`rest_for_one`): its jobs are then redelivered by the queue.

mod core;
mod effect;
mod event;
mod job;
mod shell;
mod suspicion;

pub use core::{Core, Settings};
pub use effect::{Effect, Op, Room};
pub use event::{Event, OpResult};
pub use shell::{Dispatcher, DispatcherMsg, DispatcherPorts, DispatcherStart};

use serde::{Deserialize, Serialize};

/// A worker's number within its pool, from 1; the same for all its incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

impl std::fmt::Display for WorkerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}
