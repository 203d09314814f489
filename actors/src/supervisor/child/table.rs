//! A supervisor's children in start order, and who is found how.
//!
//! Owns the order, the index by id, and how many wait to be restarted. It must never let a child change its state behind
//! that count's back; [`Table::enter`] is the only way. An event costs the same under four thousand children as under ten.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};

use super::{Child, State};
use crate::supervisor::names::ChildId;
use crate::supervisor::protocol::{ChildKey, RunId, TimerId};

/// The children. Places count from 0 in start order, and hold until a child is removed.
#[derive(Clone, Debug, Default)]
pub(in crate::supervisor) struct Table {
    /// Invariant: keys ascend. Boxed, so that removing one moves little.
    children: Vec<(ChildKey, Box<Child>)>,
    ids: HashMap<ChildId, ChildKey>,
    /// Invariant: how many children are in [`State::BackingOff`].
    backing_off: usize,
}

impl Table {
    /// Adds a child that does not run, last in start order.
    pub(in crate::supervisor) fn push(&mut self, child: Child) {
        debug_assert!(self.children.last().is_none_or(|(last, _)| *last < child.key), "keys must ascend");
        self.ids.insert(child.policy.id.clone(), child.key);
        self.children.push((child.key, Box::new(child)));
    }

    /// Removes a child that does not run.
    pub(in crate::supervisor) fn remove(&mut self, at: usize) -> Child {
        self.enter(at, State::Stopped);
        let (_, child) = self.children.remove(at);
        self.ids.remove(&child.policy.id);
        *child
    }

    /// Moves a child to another state.
    pub(in crate::supervisor) fn enter(&mut self, at: usize, state: State) {
        let child = &mut self[at];
        let was_backing_off = child.is_backing_off();
        child.state = state;
        let is_backing_off = child.is_backing_off();
        self.backing_off -= usize::from(was_backing_off);
        self.backing_off += usize::from(is_backing_off);
    }

    pub(in crate::supervisor) fn index_of(&self, key: ChildKey) -> Option<usize> {
        let last = self.children.len().checked_sub(1)?;
        // Keys are counted up from 0: as long as no child was removed each stands at its key's place, and then the newest
        // still stands last.
        let likely = usize::try_from(key.0).map_or(last, |number| number.min(last));
        if self.children[likely].0 == key {
            return Some(likely);
        }
        self.children.binary_search_by_key(&key, |(key, _)| *key).ok()
    }

    pub(in crate::supervisor) fn index_of_id(&self, id: &ChildId) -> Option<usize> {
        self.index_of(*self.ids.get(id)?)
    }

    pub(in crate::supervisor) fn index_of_run(&self, run: RunId) -> Option<usize> {
        self.index_of(run.child).filter(|at| self[*at].run() == Some(run))
    }

    pub(in crate::supervisor) fn index_of_timer(&self, timer: TimerId) -> Option<usize> {
        self.index_of(timer.child).filter(|at| self[*at].timer() == Some(timer))
    }

    /// Whether an operation on this child has still to end.
    pub(in crate::supervisor) fn is_in_transition(&self, key: ChildKey) -> bool {
        self.index_of(key).is_some_and(|at| self[at].is_in_transition())
    }

    pub(in crate::supervisor) fn len(&self) -> usize {
        self.children.len()
    }

    /// In start order.
    pub(in crate::supervisor) fn iter(&self) -> impl DoubleEndedIterator<Item = &Child> {
        self.children.iter().map(|(_, child)| &**child)
    }

    /// Whether any child waits to be restarted.
    pub(in crate::supervisor) fn is_backing_off(&self) -> bool {
        self.backing_off > 0
    }
}

impl FromIterator<Child> for Table {
    fn from_iter<I: IntoIterator<Item = Child>>(children: I) -> Self {
        let children = children.into_iter();
        let (least, _) = children.size_hint();
        let mut table = Self::default();
        table.children.reserve(least);
        table.ids.reserve(least);
        children.for_each(|child| table.push(child));
        table
    }
}

impl Index<usize> for Table {
    type Output = Child;

    fn index(&self, at: usize) -> &Child {
        &self.children[at].1
    }
}

impl IndexMut<usize> for Table {
    fn index_mut(&mut self, at: usize) -> &mut Child {
        &mut self.children[at].1
    }
}
