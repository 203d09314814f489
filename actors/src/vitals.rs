//! What can be known of a living actor from outside: how much waits in its mailbox, what a task of it died of, and that it
//! can be found.
//!
//! Owns one entry for each supervised actor of this process, found by the actor's id while it lives. ractor tells
//! neither, so senders count messages in ([`crate::mailbox::Mailbox`]) and the wrapper around every supervised actor
//! counts them out. It must never decide anything: a missing entry is a count of zero.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use ractor::ActorId;

use crate::address::Occupancy;
use crate::crash_report::Crash;
use crate::serial::SerialMap;

/// Registers, so that actors which start and end at the same time seldom wait for each other.
const REGISTERS: usize = 16;

type Register = Mutex<SerialMap<ActorId, Arc<Vitals>>>;

static LIVING: LazyLock<[Register; REGISTERS]> = LazyLock::new(Default::default);

/// The vitals of one incarnation of an actor.
#[derive(Default)]
pub(crate) struct Vitals {
    /// Messages counted in and not yet out.
    waiting: AtomicUsize,
    /// Boxed: it is large, and hardly ever there.
    task_crash: Mutex<Option<Box<Crash>>>,
    /// Keeps the actor's address filled.
    occupancy: Mutex<Option<Occupancy>>,
}

impl Vitals {
    pub(crate) fn count_in(&self) {
        self.waiting.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_out(&self) {
        // A message that was not counted in must not make the count wrap.
        let _ = self.waiting.fetch_update(Relaxed, Relaxed, |waiting| waiting.checked_sub(1));
    }

    /// Messages that wait to be handled.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Leaves word of the task whose panic stops the actor.
    pub(crate) fn leave(&self, crash: Crash) {
        *self.task_crash.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(crash));
    }

    /// The actor can be found at its address from now on.
    pub(crate) fn move_in(&self, occupancy: Occupancy) {
        *self.occupancy.lock().unwrap_or_else(PoisonError::into_inner) = Some(occupancy);
    }

    /// Nobody may find the actor any more.
    pub(crate) fn move_out(&self) {
        let occupancy = self.occupancy.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(occupancy);
    }

    pub(crate) fn take_task_crash(&self) -> Option<Crash> {
        self.task_crash.lock().unwrap_or_else(PoisonError::into_inner).take().map(|crash| *crash)
    }
}

/// The vitals of a supervised actor that lives.
pub(crate) fn of(actor: ActorId) -> Option<Arc<Vitals>> {
    register(actor).get(&actor).cloned()
}

pub(crate) fn enter(actor: ActorId, vitals: Arc<Vitals>) {
    register(actor).insert(actor, vitals);
}

pub(crate) fn leave(actor: ActorId) {
    register(actor).remove(&actor);
}

fn register(actor: ActorId) -> MutexGuard<'static, SerialMap<ActorId, Arc<Vitals>>> {
    LIVING[actor.pid() as usize % REGISTERS].lock().unwrap_or_else(PoisonError::into_inner)
}
