//! Who goes before whom.
//!
//! Owns the one order that rows and pages are given in, and taken away against. It must be total, and a sequence's
//! place in it may change once in its life, to a better one: that everybody is done some day rests on it (see
//! [`super`]).

use std::time::Duration;

use super::SequenceId;

/// What a sequence is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody waits for each token.
    #[default]
    Interactive,
    /// Somebody wants the whole some time.
    Batch,
}

/// On what terms a sequence is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// What it is for.
    pub priority: Priority,
    /// When nobody wants it any more, on the clock that steps are planned by.
    pub deadline: Option<Duration>,
}

/// A sequence's place: the smaller goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    class: Class,
    /// [`Duration::MAX`] where there is none.
    deadline: Duration,
    /// Identifiers grow with time.
    arrived: SequenceId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// It had to stand back so often that it goes first, in the order of arrival.
    Owed,
    Of(Priority),
}

impl Rank {
    pub(super) fn of(sequence: SequenceId, terms: Terms, is_owed: bool) -> Self {
        if is_owed {
            return Self { class: Class::Owed, deadline: Duration::ZERO, arrived: sequence };
        }
        Self { class: Class::Of(terms.priority), deadline: terms.deadline.unwrap_or(Duration::MAX), arrived: sequence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owed_go_first_then_priority_then_deadline_then_arrival() {
        let rank = |id, priority, deadline: Option<u64>, owed| {
            Rank::of(SequenceId(id), Terms { priority, deadline: deadline.map(Duration::from_secs) }, owed)
        };
        let order = [
            rank(7, Priority::Batch, Some(9), true),
            rank(8, Priority::Interactive, Some(1), true),
            rank(6, Priority::Interactive, Some(2), false),
            rank(5, Priority::Interactive, Some(3), false),
            rank(1, Priority::Interactive, None, false),
            rank(2, Priority::Interactive, None, false),
            rank(0, Priority::Batch, Some(1), false),
            rank(3, Priority::Batch, None, false),
        ];
        assert!(order.is_sorted(), "{order:?}");
    }
}
