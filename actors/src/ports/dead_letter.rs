//! Where quarantined jobs are kept.

use halm_protocol::DeadLetter;

use super::{PortFuture, WriteFault};

/// `HALM_DEAD`.
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps a letter, if the job has none. [`WriteFault::Superseded`] means that it has one.
    fn bury(&self, letter: &DeadLetter) -> PortFuture<Result<(), WriteFault>>;
}
