//! Where outcomes are kept: the one truth about how a job ended.

use halm_protocol::{JobId, Outcome};

use super::{PortFuture, ReadFault, WriteFault};

/// `HALM_DONE`.
pub trait OutcomeStore: Send + Sync + 'static {
    /// The outcome, if the job has one.
    fn read(&self, job: &JobId) -> PortFuture<Result<Option<Outcome>, ReadFault>>;

    /// Stores the outcome, if the job has none. [`WriteFault::Superseded`] means that it has one.
    fn store(&self, job: &JobId, outcome: &Outcome) -> PortFuture<Result<(), WriteFault>>;
}
