//! The peers: who else lives, what they hold, and what to do with it when one is gone.
//!
//! One per replica. The [`Core`] decides who is dead and who gives back what it held; the [`Peers`] actor beats, listens
//! and naks. Its death costs nothing but a pause in beats: what is held is told again by the dispatchers' next changes,
//! and the queue's ack wait stands behind everything.

mod core;
mod shell;

pub use core::{Core, Effect, Event, Settings};
pub use shell::{Known, Peers, PeersMsg, PeersStart};
