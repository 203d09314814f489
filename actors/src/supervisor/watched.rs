//! An actor whose panics are caught where they happen, so that a report can tell a panic from an error and in which
//! callback it was.
//!
//! Owns the wrapper around every supervised actor. It must never change what the actor does: ractor would catch the same
//! panics, but turns them into error texts that look like any other error. [`super::ChildSpec::actor`] wraps.

use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use super::exit::{ExitReason, Hook};
use crate::address::Address;
use crate::crash_report::{Crash, panics};
use crate::vitals::{self, Vitals};

/// An actor, watched.
pub(super) struct Watched<A: Actor> {
    actor: A,
    address: Address<A::Msg>,
    vitals: Arc<Vitals>,
    entered: OnceLock<ActorId>,
}

impl<A: Actor> Watched<A> {
    pub(super) fn new(actor: A, address: Address<A::Msg>, vitals: Arc<Vitals>) -> Self {
        Self { actor, address, vitals, entered: OnceLock::new() }
    }
}

impl<A: Actor> Drop for Watched<A> {
    fn drop(&mut self) {
        self.vitals.move_out();
        if let Some(actor) = self.entered.get() {
            vitals::leave(*actor);
        }
    }
}

/// Runs a callback and turns its panic or error into a typed end.
async fn watch<T>(
    hook: Hook,
    callback: impl Future<Output = Result<T, ActorProcessingErr>>,
) -> Result<T, ActorProcessingErr> {
    let crash = match AssertUnwindSafe(callback).catch_unwind().await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => match error.downcast::<Crash>() {
            Ok(crash) => *crash,
            Err(error) => ExitReason::Failed { hook, message: with_sources(error.as_ref()) }.into(),
        },
        Err(panic) => {
            Crash::new(ExitReason::Panicked { hook, message: panics::message(panic.as_ref()) }, panics::take())
        }
    };
    Err(Box::new(crash))
}

/// Why an actor failed, from what ractor says about it.
pub(super) fn failure(error: &ActorProcessingErr) -> Crash {
    match error.downcast_ref::<Crash>() {
        Some(crash) => crash.clone(),
        None => ExitReason::Failed { hook: Hook::Handle, message: with_sources(error.as_ref()) }.into(),
    }
}

/// Why an actor could not be spawned.
pub(super) fn spawn_failure(error: &SpawnErr) -> Crash {
    match error {
        SpawnErr::StartupFailed(error) => match error.downcast_ref::<Crash>() {
            Some(crash) => crash.clone(),
            None => ExitReason::Failed { hook: Hook::PreStart, message: with_sources(error.as_ref()) }.into(),
        },
        SpawnErr::ActorAlreadyStarted | SpawnErr::ActorAlreadyRegistered(_) => {
            ExitReason::Failed { hook: Hook::Start, message: error.to_string() }.into()
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
        let _ = self.entered.set(myself.get_id());
        vitals::enter(myself.get_id(), Arc::clone(&self.vitals));
        let me = myself.clone();
        let state = watch(Hook::PreStart, async { self.actor.pre_start(myself, arguments).await }).await?;
        // Before `post_start`, so that whoever is told of this incarnation there finds it.
        self.vitals.move_in(self.address.occupy(&me));
        Ok(state)
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        watch(Hook::PostStart, async { self.actor.post_start(myself, state).await }).await
    }

    async fn post_stop(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        watch(Hook::PostStop, async { self.actor.post_stop(myself, state).await }).await
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        self.vitals.count_out();
        watch(Hook::Handle, async { self.actor.handle(myself, message, state).await }).await
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        message: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        watch(Hook::HandleSupervision, async { self.actor.handle_supervisor_evt(myself, message, state).await }).await
    }
}
