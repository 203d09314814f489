//! Where a supervised actor is to be found, whichever incarnation lives now.
//!
//! Owns a slot with the living incarnation's reference. It must never queue: a message for nobody is refused, and the
//! sender decides. The supervisor fills and empties it; everybody who was given a clone sends through it.

use std::fmt;

use ractor::{ActorRef, Message};
use tokio::sync::watch;

use crate::mailbox::Mailbox;

/// A place that successive incarnations of one actor occupy. Clones share the place.
pub struct Address<M> {
    slot: watch::Sender<Option<Mailbox<M>>>,
}

/// No incarnation lives at the address just now; the message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody lives at this address: wait for the next incarnation")]
pub struct NobodyHome;

/// Empties the address when dropped, unless the next incarnation has moved in.
pub(crate) struct Occupancy<M: Message> {
    address: Address<M>,
    occupant: Mailbox<M>,
}

impl<M: Message> Address<M> {
    /// A place where nobody lives yet.
    pub fn new() -> Self {
        Self { slot: watch::Sender::new(None) }
    }

    /// Sends to the living incarnation.
    ///
    /// # Errors
    /// [`NobodyHome`] when there is none, or when it is stopping.
    pub fn send(&self, message: M) -> Result<(), NobodyHome> {
        let occupant = self.slot.borrow().clone();
        occupant.ok_or(NobodyHome)?.send(message)
    }

    /// The living incarnation.
    pub fn get(&self) -> Option<ActorRef<M>> {
        self.slot.borrow().as_ref().filter(|occupant| occupant.is_open()).map(|occupant| occupant.actor().clone())
    }

    /// Waits until an incarnation moves in, without limit: put a time-out around it.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn wait(&self) -> ActorRef<M> {
        let mut residents = self.slot.subscribe();
        loop {
            let resident = residents.borrow_and_update().clone();
            if let Some(resident) = resident.filter(Mailbox::is_open) {
                return resident.actor().clone();
            }
            // `self` holds a sender, so the channel cannot close under us.
            if residents.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Moves an incarnation in, for as long as the result is kept.
    pub(crate) fn occupy(&self, occupant: &ActorRef<M>) -> Occupancy<M> {
        let occupant = Mailbox::of(occupant);
        self.slot.send_replace(Some(occupant.clone()));
        Occupancy { address: self.clone(), occupant }
    }
}

impl<M: Message> Drop for Occupancy<M> {
    fn drop(&mut self) {
        self.address.slot.send_if_modified(|slot| {
            let is_ours = slot.as_ref().is_some_and(|occupant| occupant.id() == self.occupant.id());
            if is_ours {
                *slot = None;
            }
            is_ours
        });
    }
}

impl<M: Message> Default for Address<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone() }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("occupant", &*self.slot.borrow()).finish()
    }
}
