//! The tasks of an actor: the one place where a task is spawned.
//!
//! Owns futures that run beside an actor's mailbox and live no longer than its state. A panic in one must never pass
//! unseen: it stops the owner, with the panic's message in the reason, so that the owner's supervisor sees a crash.
//! Every actor that waits for something keeps one of these in its state.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use ractor::{ActorCell, ActorRef, Message};
use tokio::task::{AbortHandle, JoinSet};

use crate::supervisor::TASK_PANICKED;

/// Tasks of one actor unless it says otherwise: each is a wait, and an actor that waits for more than a thousand things
/// is leaking them.
pub const TASKS_MAX: usize = 1024;

/// An actor's tasks; dropping it aborts them all.
pub struct Tasks {
    owner: ActorCell,
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
        Self { owner, running: JoinSet::new(), limit }
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
        let owner = self.owner.clone();
        Ok(self.running.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                owner.stop(Some(format!("{TASK_PANICKED}{}", panic_message(panic.as_ref()))));
            }
        }))
    }

    /// Sends a message after a time, unless aborted.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn send_after<M: Message>(
        &mut self,
        after: Duration,
        to: ActorRef<M>,
        message: M,
    ) -> Result<AbortHandle, TooManyTasks> {
        self.spawn_named("timer", async move {
            tokio::time::sleep(after).await;
            // A receiver that is gone needs no timer.
            let _ = to.send_message(message);
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

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
