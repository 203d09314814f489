//! Where a supervised actor is to be found, whichever incarnation lives now.
//!
//! Owns a slot with the living incarnation's reference. It must never queue: a message for nobody is refused, and the
//! sender decides. The supervisor fills and empties it; everybody who was given a clone sends through it.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{ActorId, ActorRef, Message};
use tokio::sync::Notify;

use crate::mailbox::Mailbox;
use crate::vitals::Vitals;

/// A place that successive incarnations of one actor occupy. Clones share the place.
pub struct Address<M> {
    place: Arc<Place<M>>,
}

struct Place<M> {
    occupant: Mutex<Option<Mailbox<M>>>,
    moved_in: Notify,
}

/// No incarnation lives at the address just now; the message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody lives at this address: wait for the next incarnation")]
pub struct NobodyHome;

/// Empties the address when dropped, unless the next incarnation has moved in. Without the messages' type, so that all
/// supervised actors keep theirs in the same way.
pub(crate) struct Occupancy {
    place: Arc<dyn Leave>,
    occupant: ActorId,
}

trait Leave: Send + Sync {
    /// Empties the place if this is who lives there.
    fn leave(&self, occupant: ActorId);
}

impl<M: Message> Address<M> {
    /// A place where nobody lives yet.
    pub fn new() -> Self {
        Self { place: Arc::new(Place { occupant: Mutex::new(None), moved_in: Notify::new() }) }
    }

    /// Sends to the living incarnation.
    ///
    /// # Errors
    /// [`NobodyHome`] when there is none, or when it is stopping.
    pub fn send(&self, message: M) -> Result<(), NobodyHome> {
        let occupant = self.place.occupant().clone();
        occupant.ok_or(NobodyHome)?.send(message)
    }

    /// The living incarnation.
    pub fn get(&self) -> Option<ActorRef<M>> {
        self.place.occupant().as_ref().filter(|occupant| occupant.is_open()).map(|occupant| occupant.actor().clone())
    }

    /// Waits until an incarnation moves in, without limit: put a time-out around it.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn wait(&self) -> ActorRef<M> {
        loop {
            let mut moved_in = pin!(self.place.moved_in.notified());
            // From here on none is missed.
            moved_in.as_mut().enable();
            if let Some(resident) = self.get() {
                return resident;
            }
            moved_in.await;
        }
    }

    /// Moves an incarnation in, for as long as the result is kept.
    pub(crate) fn occupy(&self, occupant: &ActorRef<M>, vitals: &Arc<Vitals>) -> Occupancy {
        let occupant = Mailbox::with_vitals(occupant, vitals);
        let id = occupant.id();
        *self.place.occupant() = Some(occupant);
        self.place.moved_in.notify_waiters();
        Occupancy { place: Arc::clone(&self.place) as Arc<dyn Leave>, occupant: id }
    }
}

impl<M> Place<M> {
    fn occupant(&self) -> MutexGuard<'_, Option<Mailbox<M>>> {
        self.occupant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Message> Leave for Place<M> {
    fn leave(&self, occupant: ActorId) {
        self.occupant().take_if(|resident| resident.id() == occupant);
    }
}

impl Drop for Occupancy {
    fn drop(&mut self) {
        self.place.leave(self.occupant);
    }
}

impl<M: Message> Default for Address<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { place: Arc::clone(&self.place) }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("occupant", &*self.place.occupant()).finish()
    }
}
