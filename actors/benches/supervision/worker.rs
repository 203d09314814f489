//! The actor that all subjects supervise, and the hall in which its incarnations report.
//!
//! Owns what is measured. It must never favour a subject: each incarnation does the same under all of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Notify;

/// Where incarnations are counted, and found to be crashed.
pub(crate) struct Hall {
    slots: Vec<Mutex<Option<ActorRef<WorkerMsg>>>>,
    ups: AtomicUsize,
    living: AtomicUsize,
    changed: Notify,
    awaited: AtomicUsize,
}

pub(crate) struct Worker;

/// What a worker is born with.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) hall: Arc<Hall>,
    pub(crate) number: usize,
}

pub(crate) enum WorkerMsg {
    /// Return an error.
    Crash,
}

/// An incarnation.
pub(crate) struct Life(Arc<Hall>);

impl Drop for Life {
    fn drop(&mut self) {
        if self.0.living.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_one();
        }
    }
}

impl Hall {
    pub(crate) fn new(children: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: (0..children).map(|_| Mutex::new(None)).collect(),
            ups: AtomicUsize::new(0),
            living: AtomicUsize::new(0),
            changed: Notify::new(),
            awaited: AtomicUsize::new(children),
        })
    }

    pub(crate) fn places(self: &Arc<Self>) -> impl Iterator<Item = Place> {
        (0..self.slots.len()).map(|number| Place { hall: Arc::clone(self), number })
    }

    /// Crashes the newest incarnation at a place.
    pub(crate) fn crash(&self, number: usize) {
        let slot = self.slots[number].lock().expect("nobody panics here");
        slot.as_ref().expect("somebody came up").send_message(WorkerMsg::Crash).expect("it lives");
    }

    /// Waits until this many incarnations have come up since the hall was opened.
    pub(crate) async fn ups(&self, count: usize) {
        self.awaited.store(count, Ordering::SeqCst);
        while self.ups.load(Ordering::SeqCst) < count {
            self.changed.notified().await;
        }
    }

    /// Waits until no incarnation is left.
    pub(crate) async fn empty(&self) {
        while self.living.load(Ordering::SeqCst) > 0 {
            self.changed.notified().await;
        }
    }
}

impl Actor for Worker {
    type Msg = WorkerMsg;
    type State = Life;
    type Arguments = Place;

    async fn pre_start(&self, myself: ActorRef<WorkerMsg>, place: Place) -> Result<Life, ActorProcessingErr> {
        let hall = place.hall;
        *hall.slots[place.number].lock().expect("nobody panics here") = Some(myself);
        hall.living.fetch_add(1, Ordering::SeqCst);
        if hall.ups.fetch_add(1, Ordering::SeqCst) + 1 >= hall.awaited.load(Ordering::SeqCst) {
            hall.changed.notify_one();
        }
        Ok(Life(hall))
    }

    async fn handle(
        &self,
        _myself: ActorRef<WorkerMsg>,
        WorkerMsg::Crash: WorkerMsg,
        _life: &mut Life,
    ) -> Result<(), ActorProcessingErr> {
        Err("crash".into())
    }
}
