//! An actor whose panics are caught where they happen, so that a report can tell a panic from an error and in which
//! callback it was.
//!
//! Owns the wrapper around every supervised actor. It must never change what the actor does: ractor would catch the same
//! panics, but turns them into error texts that look like any other error. [`super::ChildSpec::actor`] wraps.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use super::exit::{ExitReason, Hook};
use crate::tasks::panic_message;

/// An actor, watched.
pub(super) struct Watched<A>(pub(super) A);

/// What a callback ended with.
#[derive(Debug)]
struct HookEnded(ExitReason);

impl fmt::Display for HookEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for HookEnded {}

/// Runs a callback and turns its panic or error into a typed reason.
async fn watch<T>(
    hook: Hook,
    callback: impl Future<Output = Result<T, ActorProcessingErr>>,
) -> Result<T, ActorProcessingErr> {
    let reason = match AssertUnwindSafe(callback).catch_unwind().await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => ExitReason::Failed { hook, message: with_sources(error.as_ref()) },
        Err(panic) => ExitReason::Panicked { hook, message: panic_message(panic.as_ref()) },
    };
    Err(Box::new(HookEnded(reason)))
}

/// Why an actor failed, from what ractor says about it.
pub(super) fn failure(error: &ActorProcessingErr) -> ExitReason {
    match error.downcast_ref::<HookEnded>() {
        Some(HookEnded(reason)) => reason.clone(),
        None => ExitReason::Failed { hook: Hook::Handle, message: with_sources(error.as_ref()) },
    }
}

/// Why an actor could not be spawned.
pub(super) fn spawn_failure(error: &SpawnErr) -> ExitReason {
    match error {
        SpawnErr::StartupFailed(error) => match error.downcast_ref::<HookEnded>() {
            Some(HookEnded(reason)) => reason.clone(),
            None => ExitReason::Failed { hook: Hook::PreStart, message: with_sources(error.as_ref()) },
        },
        SpawnErr::ActorAlreadyStarted | SpawnErr::ActorAlreadyRegistered(_) => {
            ExitReason::Failed { hook: Hook::Start, message: error.to_string() }
        }
    }
}

fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

impl<A: Actor> Actor for Watched<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        watch(Hook::PreStart, async { self.0.pre_start(myself, arguments).await }).await
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        watch(Hook::PostStart, async { self.0.post_start(myself, state).await }).await
    }

    async fn post_stop(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        watch(Hook::PostStop, async { self.0.post_stop(myself, state).await }).await
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        watch(Hook::Handle, async { self.0.handle(myself, message, state).await }).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        message: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        watch(Hook::HandleSupervision, async { self.0.handle_supervisor_evt(myself, message, state).await }).await
    }
}
