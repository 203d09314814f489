//! One start of one child after the other, in a task beside the supervisor's mailbox.
//!
//! Owns that each start ends in exactly one report, whatever the child does: a panic while it is made, a hang, a
//! supervisor whose children fail. It must never leave an actor behind: what was spawned and is not wanted dies.
//!
//! Dropping ractor's spawn future before `pre_start` returned runs the actor's lifecycle guard, which marks it stopped
//! and kills what it had linked below itself; nobody is told, which is why the report is ours.
//!
//! The core has one start under way at a time, so one task makes all of them. A start that was given up and still hangs
//! keeps its task, and the next start gets a new one.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
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

/// A start to be made.
pub(super) struct Order {
    pub(super) run: RunId,
    pub(super) start: StartFn,
    pub(super) context: StartContext,
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
                let outcome = start(order.start, order.context, order.cancelled).await;
                // If nobody takes the child, dropping it kills it.
                let _ = supervisor.send(SupervisorMsg(Msg::StartReported { run: order.run, outcome }));
            }
        })?;
        Ok(Self(sender))
    }

    /// Has a start made, which [`Msg::StartReported`] will tell of. No start may be under way.
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

/// Starts a child. Dropping the sender of `cancelled` gives the start up.
async fn start(
    start: StartFn,
    context: StartContext,
    mut cancelled: oneshot::Receiver<()>,
) -> Result<Spawned, NotStarted> {
    let making = AssertUnwindSafe(async move { start(context).await }).catch_unwind();
    let not_started = |crash| NotStarted { crash, actor: None };
    let mut child = tokio::select! {
        biased;
        _ = &mut cancelled => return Err(not_started(ExitReason::Cancelled.into())),
        made = making => match made {
            Ok(made) => made.map_err(not_started)?,
            Err(panic) => {
                let reason = ExitReason::Panicked { hook: Hook::Start, message: panics::message(panic.as_ref()) };
                return Err(not_started(Crash::new(reason, panics::take())));
            }
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
