//! Calls that change a supervisor's children.
//!
//! Owns the way from a message to the core's event, and who waits for the answer. It must never answer for the core, but
//! to what is no child at all.

use std::time::Duration;

use ractor::ActorCell;

use super::super::names::ChildId;
use super::super::protocol::{CallError, CallId, Change, ChildKey, Event};
use super::super::spec::{Argument, ChildSpec};
use super::{CallReply, Recipe, State, is_supervisor};
use crate::tasks::TooManyTasks;

impl State {
    pub(super) fn start_child(&mut self, spec: ChildSpec, reply: CallReply) -> Result<(), TooManyTasks> {
        let refusal = match spec.policy() {
            Ok(_) if self.template.is_some() => CallError::Dynamic,
            Ok(policy) => {
                let id = policy.id.clone();
                let key = self.add_recipe(Recipe { id: id.clone(), start: spec.start, argument: None });
                return self.call(id, Change::Start { key, policy }, reply);
            }
            Err(error) => error.into(),
        };
        let _ = reply.send(Err(refusal));
        Ok(())
    }

    pub(super) fn start_dynamic(&mut self, argument: Argument, reply: CallReply) -> Result<(), TooManyTasks> {
        let (Some(start), Some(mut policy)) = (self.template.clone(), self.core.template().cloned()) else {
            let _ = reply.send(Err(CallError::NotDynamic));
            return Ok(());
        };
        self.dynamic_total += 1;
        let id = ChildId::numbered(self.dynamic_total);
        policy.id = id.clone();
        let key = self.add_recipe(Recipe { id: id.clone(), start, argument: Some(argument) });
        self.call(id, Change::Start { key, policy }, reply)
    }

    fn add_recipe(&mut self, recipe: Recipe) -> ChildKey {
        let key = ChildKey(self.keys_total);
        self.keys_total += 1;
        self.recipes.insert(key, recipe);
        key
    }

    pub(super) fn call(&mut self, id: ChildId, change: Change, reply: CallReply) -> Result<(), TooManyTasks> {
        let call = CallId(self.calls_total);
        self.calls_total += 1;
        self.calls.insert(call, (id, reply));
        self.feed(Event::Called { call, change })
    }

    pub(super) fn find_supervisor(&self, id: &ChildId) -> Option<ActorCell> {
        let child = self.core.children(Duration::ZERO).into_iter().find(|child| child.id == *id)?;
        let cell = &self.living.get(&child.run?)?.cell;
        is_supervisor(cell).then(|| cell.clone())
    }
}
