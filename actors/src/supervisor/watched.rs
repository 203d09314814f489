//! An actor whose panics are caught where they happen, so that a report can tell a panic from an error and in which
//! callback it was.
//!
//! Owns the wrapper around every supervised actor. It must never change what the actor does: ractor would catch the same
//! panics, but turns them into error texts that look like any other error. [`super::ChildSpec::actor`] wraps.

use std::any::Any;
use std::error::Error;
use std::future::{Future, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use futures_util::future::Either;
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

/// Makes a callback's future and turns a panic in it, or its error, into a typed end. Combinators, because an `async fn`
/// would keep the callback's arguments twice, and every actor's task has room for the largest of its futures.
fn watch<T, F>(hook: Hook, callback: impl FnOnce() -> F) -> impl Future<Output = Result<T, ActorProcessingErr>>
where
    F: Future<Output = Result<T, ActorProcessingErr>>,
{
    match catch_unwind(AssertUnwindSafe(callback)) {
        Ok(callback) => Either::Left(AssertUnwindSafe(callback).catch_unwind()),
        Err(panic) => Either::Right(ready(Err(panic))),
    }
    .map(move |outcome| judge(hook, outcome))
}

fn judge<T>(
    hook: Hook,
    outcome: Result<Result<T, ActorProcessingErr>, Box<dyn Any + Send>>,
) -> Result<T, ActorProcessingErr> {
    let crash = match outcome {
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

    fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<Self::State, ActorProcessingErr>> + Send {
        let _ = self.entered.set(myself.get_id());
        vitals::enter(myself.get_id(), Arc::clone(&self.vitals));
        let me = myself.clone();
        watch(Hook::PreStart, || self.actor.pre_start(myself, arguments)).map(move |started| {
            // Before `post_start`, so that whoever is told of this incarnation there finds it.
            started.inspect(|_| self.vitals.move_in(self.address.occupy(&me, &self.vitals)))
        })
    }

    fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        watch(Hook::PostStart, || self.actor.post_start(myself, state))
    }

    fn post_stop(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        watch(Hook::PostStop, || self.actor.post_stop(myself, state))
    }

    fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        self.vitals.count_out();
        watch(Hook::Handle, || self.actor.handle(myself, message, state))
    }

    fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        message: SupervisionEvent,
        state: &mut Self::State,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        watch(Hook::HandleSupervision, || self.actor.handle_supervisor_evt(myself, message, state))
    }
}
