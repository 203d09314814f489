//! Direct delivery to a client's inbox, beside the republished log.

use halm_protocol::Outcome;
use halm_protocol::subject::Inbox;

use super::PortFuture;

/// Sends a final record directly. Needed when its republish may have been missed.
pub trait Inboxes: Send + Sync + 'static {
    /// True if the inbox had a listener when the record arrived.
    fn deliver(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<bool>;
}
