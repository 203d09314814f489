//! Direct delivery to a client's inbox, beside the republished log.

use halm_protocol::subject::Inbox;
use halm_protocol::{Chunk, Outcome};

use super::PortFuture;

/// What is sent to a client beside the log: refusals, and final records whose republish may have been missed.
pub trait Inboxes: Send + Sync + 'static {
    /// Sends without asking whether anybody listens.
    fn send(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<()>;

    /// The same with a part of an answer.
    fn show(&self, inbox: &Inbox, chunk: &Chunk) -> PortFuture<()>;

    /// Sends, and tells whether the inbox had a listener when the broker handled the record.
    fn offer(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<Offered>;
}

/// What became of a record that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// Somebody listened.
    Heard,
    /// Nobody did.
    Unheard,
    /// The broker did not say.
    Unknown,
}
