//! One start of one child after the other.
//!
//! Owns that each start ends in exactly one outcome, whatever the child does: a panic while it is made, a hang, a
//! supervisor whose children fail. It must never leave an actor behind: what was spawned and is not wanted dies.
//!
//! Nearly every start is over at its first poll, so that is made in the supervisor's own turn ([`begin`]); one that has
//! to wait goes on in a task beside the mailbox. The core has one start under way at a time, so one task makes all of
//! them. A start that was given up and still hangs keeps its task, and the next start gets a new one.
//!
//! Dropping ractor's spawn future before `pre_start` returned runs the actor's lifecycle guard, which marks it stopped
//! and kills what it had linked below itself; nobody is told, which is why the report is ours.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ractor::ActorId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::core::KILL_WAIT_MAX;
use super::super::exit::{ExitReason, Hook};
use super::super::protocol::RunId;
use super::super::spec::{Spawned, StartContext, StartFn};
use super::{Msg, SupervisorMsg, ask_to_stop};
use crate::crash_report::{Crash, panics};
use crate::mailbox::Mailbox;
use crate::tasks::{Tasks, TooManyTasks};

/// A start, after its first poll.
pub(super) enum Begun {
    /// It is over.
    Over(Outcome),
    /// It has to wait.
    Waiting(Waiting),
}

/// What came of a start.
pub(super) type Outcome = Result<Spawned, NotStarted>;

/// What a start waits for.
pub(super) enum Waiting {
    /// Its `pre_start`, mostly.
    Made(BoxFuture<'static, Result<Spawned, Crash>>),
    /// The children of a supervisor.
    Booted(Spawned),
}

/// A start that goes on beside the mailbox.
pub(super) struct Order {
    pub(super) run: RunId,
    pub(super) waiting: Waiting,
    /// Dropping its sender gives the start up.
    pub(super) cancelled: oneshot::Receiver<()>,
}

/// The task that makes starts. Dropping it lets the task end after the start under way.
pub(super) struct Starter(mpsc::Sender<Order>);

impl Starter {
    pub(super) fn spawn(tasks: &mut Tasks, supervisor: Mailbox<SupervisorMsg>) -> Result<Self, TooManyTasks> {
        // One start is under way at a time.
        let (sender, mut orders) = mpsc::channel::<Order>(1);
        tasks.spawn_named("starts", async move {
            while let Some(order) = orders.recv().await {
                let outcome = finish(order.waiting, order.cancelled).await;
                // If nobody takes the child, dropping it kills it.
                let _ = supervisor.send(SupervisorMsg(Msg::StartReported { run: order.run, outcome }));
            }
        })?;
        Ok(Self(sender))
    }

    /// Has a start finished, which [`Msg::StartReported`] will tell of. No start may be under way.
    pub(super) fn order(&self, order: Order) {
        // The channel is empty, and its receiver lives as long as the supervisor.
        let _ = self.0.try_send(order);
    }
}

/// A start that gave no child.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// Why; [`ExitReason::Cancelled`] when it was given up, or when the actor died without a word.
    pub(super) crash: Crash,
    /// The actor, if there was one.
    pub(super) actor: Option<ActorId>,
}

/// Starts a child, as far as that goes without waiting. Whatever it waits for then is told the starter's waker when the
/// starter polls it again.
pub(super) fn begin(start: &StartFn, context: StartContext) -> Begun {
    let first_poll = catch_unwind(AssertUnwindSafe(|| {
        let mut making = start(context);
        let polled = making.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        (making, polled)
    }));
    match first_poll {
        Ok((making, Poll::Pending)) => Begun::Waiting(Waiting::Made(making)),
        Ok((_, Poll::Ready(Ok(child)))) if child.ready.is_some() => Begun::Waiting(Waiting::Booted(child)),
        Ok((_, Poll::Ready(made))) => Begun::Over(made.map_err(not_started)),
        Err(panic) => Begun::Over(Err(panicked(panic.as_ref()))),
    }
}

fn not_started(crash: impl Into<Crash>) -> NotStarted {
    NotStarted { crash: crash.into(), actor: None }
}

fn panicked(panic: &(dyn Any + Send)) -> NotStarted {
    let reason = ExitReason::Panicked { hook: Hook::Start, message: panics::message(panic) };
    not_started(Crash::new(reason, panics::take()))
}

/// Goes on with a start. Dropping the sender of `cancelled` gives it up.
async fn finish(waiting: Waiting, mut cancelled: oneshot::Receiver<()>) -> Outcome {
    let mut child = match waiting {
        Waiting::Booted(child) => child,
        Waiting::Made(making) => tokio::select! {
            biased;
            _ = &mut cancelled => return Err(not_started(ExitReason::Cancelled)),
            made = AssertUnwindSafe(making).catch_unwind() => match made {
                Ok(made) => made.map_err(not_started)?,
                Err(panic) => return Err(panicked(panic.as_ref())),
            },
        },
    };
    let Some(ready) = child.ready.take() else { return Ok(child) };
    let reason = tokio::select! {
        biased;
        _ = &mut cancelled => {
            ask_to_stop(&child.cell);
            ExitReason::Cancelled
        }
        outcome = ready => match outcome {
            Ok(Ok(())) => return Ok(child),
            Ok(Err(reason)) => reason,
            Err(_) => ExitReason::Cancelled,
        },
    };
    // It is on its way out. Its descendants go in order if they go soon, and are killed if not.
    if timeout(KILL_WAIT_MAX / 2, child.cell.wait(None)).await.is_err() {
        child.cell.kill();
        let _ = timeout(KILL_WAIT_MAX, child.cell.wait(None)).await;
    }
    Err(NotStarted { crash: reason.into(), actor: Some(child.cell.get_id()) })
}
