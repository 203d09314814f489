//! Replicas, clients and a broker in one virtual time, with whatever can go wrong between them.
//!
//! The cores of dispatcher and peers are the real ones; the broker is a model of JetStream that is held against the real
//! server elsewhere. Everything an episode does follows from its seed. Faults strike at every message: processes die,
//! hang, freeze and thaw; connections break; messages come late, twice or not at all; the broker forgets what it had not
//! flushed, loses its leader or its log, or is full. The [judge](judge) looks at every fact as it comes about, and when
//! the faults end, everything must come to its end.

mod broker;
mod call;
mod fault;
mod intake;
pub mod jetstream;
mod job;
mod judge;
mod mutation;
mod random;
mod replica;
mod strike;
mod text;
mod wire;
mod worker;
mod world;

pub use judge::Broken;
pub use mutation::Mutation;

use world::World;

/// What came of one episode.
#[derive(Debug)]
pub struct Episode {
    /// Its seed.
    pub seed: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Events that happened.
    pub events: u64,
    /// How much time passed in it, in microseconds.
    pub lasted_us: u64,
    /// The promise that was broken, if one was.
    pub broken: Option<Broken>,
    /// What happened, line by line, if that was asked for.
    pub trace: Vec<String>,
}

/// Lives through the episode of a seed.
#[must_use]
pub fn episode(seed: u64, mutation: Option<Mutation>, traced: bool) -> Episode {
    let mut world = World::new(seed, mutation, traced);
    let broken = world.run().err();
    Episode {
        seed,
        faults: world.faults,
        events: world.events,
        lasted_us: world.now_us,
        broken,
        trace: world.take_trace(),
    }
}
