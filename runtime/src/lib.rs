//! The runtime of halm: NATS, processes, configuration, telemetry and the command line.
//!
//! The only crate that knows all others: `halm-models` computes, `halm-actors` decides, this connects them. `main` is
//! [`cli::main`]; everything is a library, so that tests start exactly what users start.

pub mod assets;
mod chaos;
pub mod cli;
pub mod config;
mod memory;
pub mod nats;
pub mod process;
pub mod replica;
mod stage;
pub mod telemetry;
pub mod worker;

#[cfg(not(panic = "unwind"))]
compile_error!("halm needs panic = \"unwind\": a panic must reach its supervisor");
