//! Direct delivery to a client's inbox, beside the republished log.

use halm_protocol::Outcome;
use halm_protocol::subject::Inbox;

use super::PortFuture;

/// What is sent to a client beside the log: refusals, and final records whose republish may have been missed.
pub trait Inboxes: Send + Sync + 'static {
    /// Sends without asking whether anybody listens.
    fn send(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<()>;

    /// Sends, and tells whether the inbox had a listener when the record arrived. `false` also when that is not known.
    fn deliver(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<bool>;
}
