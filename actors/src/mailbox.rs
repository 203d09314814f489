//! The way into an actor's mailbox: every message to a supervised actor goes through here, so that what waits can be
//! counted.
//!
//! Owns the counting in. It must never hold messages back: mailboxes are unbounded, and work enters them only against
//! credit. The `disallowed-methods` lint refuses ractor's own ways in, which do not count.

use std::fmt;
use std::sync::Arc;

use ractor::{ActorId, ActorRef, ActorStatus, Message};

use crate::address::NobodyHome;
use crate::vitals::{self, Vitals};

/// The mailbox of one incarnation of an actor. Clones share it.
pub struct Mailbox<M> {
    actor: ActorRef<M>,
    vitals: Option<Arc<Vitals>>,
}

impl<M: Message> Mailbox<M> {
    /// The mailbox of an actor that lives; of one that is not supervised, what waits is not counted.
    pub fn of(actor: &ActorRef<M>) -> Self {
        Self { actor: actor.clone(), vitals: vitals::of(actor.get_id()) }
    }

    pub(crate) fn with_vitals(actor: &ActorRef<M>, vitals: &Arc<Vitals>) -> Self {
        Self { actor: actor.clone(), vitals: Some(Arc::clone(vitals)) }
    }

    /// Puts a message in.
    ///
    /// # Errors
    /// [`NobodyHome`] when the actor has ended or is stopping; the message is lost.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that sends, and it counts")]
    pub fn send(&self, message: M) -> Result<(), NobodyHome> {
        if let Some(vitals) = &self.vitals {
            vitals.count_in();
        }
        self.actor.send_message(message).map_err(|_| {
            if let Some(vitals) = &self.vitals {
                vitals.count_out();
            }
            NobodyHome
        })
    }

    /// Whose it is.
    pub fn actor(&self) -> &ActorRef<M> {
        &self.actor
    }

    /// Whether the actor takes messages.
    pub(crate) fn is_open(&self) -> bool {
        self.actor.get_status() < ActorStatus::Draining
    }
}

impl<M> Mailbox<M> {
    pub(crate) fn id(&self) -> ActorId {
        self.actor.get_id()
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), vitals: self.vitals.clone() }
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mailbox").field(&self.actor).finish()
    }
}
