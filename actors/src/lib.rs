//! Supervision and every decision of halm.
//!
//! Two things live here. The first is a supervision runtime over ractor, with OTP's semantics: [`supervisor`],
//! [`address`], [`tasks`], [`tree`] and [`crash_report`]; it knows nothing of models and can be used alone. The second is
//! a [`replica`]: the actors that take jobs from a queue, let worker processes compute them, write what they make into
//! a fenced log, and settle them exactly once.
//!
//! Stateful things come in pairs. A *core* decides, `(Event, now) -> Effects`: [`dispatcher::Core`], [`peers::Core`],
//! [`supervisor::core`]. A *shell*, an actor, performs. What is outside (the broker, processes) is a trait in [`ports`].

pub mod address;
pub mod connection;
pub mod consumer;
pub mod crash_report;
pub mod dispatcher;
pub mod ingress;
pub mod local_broker;
pub mod mailbox;
mod moment;
pub mod peers;
pub mod pool;
pub mod ports;
pub mod replica;
pub mod supervisor;
pub mod tasks;
pub mod tree;
mod vitals;
pub mod worker;

pub use moment::{Clock, Moment};

#[cfg(not(panic = "unwind"))]
compile_error!("halm needs panic = \"unwind\": a panic must reach its supervisor");
