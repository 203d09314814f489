//! The tasks of an actor: the one place where a task is spawned.
//!
//! Owns futures that run beside an actor's mailbox and live no longer than its state. A panic in one must never pass
//! unseen: it stops the owner, with the panic's message in the reason, so that the owner's supervisor sees a crash.
//! Every actor that waits for something keeps one of these in its state.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ractor::{ActorCell, ActorRef, Message};
use tokio::task::{AbortHandle, JoinSet};

use crate::crash_report::{Crash, panics};
use crate::mailbox::Mailbox;
use crate::supervisor::{ExitReason, Hook};
use crate::vitals::{self, Vitals};

/// Tasks of one actor unless it says otherwise: each is a wait, and an actor that waits for more than a thousand things
/// is leaking them.
pub const TASKS_MAX: usize = 1024;

/// An actor's tasks; dropping it aborts them all.
pub struct Tasks {
    owner: ActorCell,
    vitals: Option<Arc<Vitals>>,
    running: JoinSet<()>,
    limit: usize,
}

/// The actor has as many tasks as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spawn task {task}: its actor already has {limit}")]
pub struct TooManyTasks {
    /// The task that was refused.
    pub task: &'static str,
    /// The limit.
    pub limit: usize,
}

impl Tasks {
    /// No tasks yet, and at most [`TASKS_MAX`].
    pub fn new(owner: ActorCell) -> Self {
        Self::with_limit(owner, TASKS_MAX)
    }

    /// No tasks yet, and at most `limit`.
    pub fn with_limit(owner: ActorCell, limit: usize) -> Self {
        let vitals = vitals::of(owner.get_id());
        Self { owner, vitals, running: JoinSet::new(), limit }
    }

    /// Runs a future beside the mailbox.
    ///
    /// # Errors
    /// When the limit is reached; a handler can return it with `?`, which fails the actor.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) -> Result<(), TooManyTasks> {
        self.spawn_named("unnamed", future).map(drop)
    }

    /// Runs a future that can be aborted alone, and that has a name in errors.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn spawn_named(
        &mut self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Result<AbortHandle, TooManyTasks> {
        while self.running.try_join_next().is_some() {}
        if self.running.len() >= self.limit {
            return Err(TooManyTasks { task: name, limit: self.limit });
        }
        let (owner, vitals) = (self.owner.clone(), self.vitals.clone());
        let watched = async move {
            let Err(panic) = AssertUnwindSafe(future).catch_unwind().await else { return };
            let reason = ExitReason::Panicked { hook: Hook::Task, message: panics::message(panic.as_ref()) };
            let text = reason.to_string();
            if let Some(vitals) = vitals {
                vitals.leave(Crash::new(reason, panics::take()));
            }
            owner.stop(Some(text));
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that spawns tasks, and it supervises them"
        )]
        Ok(self.running.spawn(watched))
    }

    /// Sends a message after a time, unless aborted.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn send_after<M: Message>(
        &mut self,
        after: Duration,
        to: &ActorRef<M>,
        message: M,
    ) -> Result<AbortHandle, TooManyTasks> {
        let to = Mailbox::of(to);
        self.spawn_named("timer", async move {
            tokio::time::sleep(after).await;
            // A receiver that is gone needs no timer.
            let _ = to.send(message);
        })
    }

    /// Sends a message again and again, the first after one period, until the receiver is gone.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn send_every<M: Message>(
        &mut self,
        period: Duration,
        to: &ActorRef<M>,
        message: impl Fn() -> M + Send + 'static,
    ) -> Result<(), TooManyTasks> {
        let to = Mailbox::of(to);
        self.spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                if to.send(message()).is_err() {
                    return;
                }
            }
        })
    }

    /// Tasks that have not been seen to end.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}
