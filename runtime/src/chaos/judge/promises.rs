//! The promises, and the first thing that broke each.

use serde::Serialize;

/// What halm promises, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    OneOutcome,
    OneStream,
    SameAnswer,
    NothingLost,
    ZombiesAreHarmless,
    Bounded,
    PoisonIsContained,
    PlannedIsInvisible,
    HealthIsTrue,
}

impl Promise {
    pub(crate) const ALL: [Self; 9] = [
        Self::OneOutcome,
        Self::OneStream,
        Self::SameAnswer,
        Self::NothingLost,
        Self::ZombiesAreHarmless,
        Self::Bounded,
        Self::PoisonIsContained,
        Self::PlannedIsInvisible,
        Self::HealthIsTrue,
    ];

    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::OneOutcome => "INV-1",
            Self::OneStream => "INV-2",
            Self::SameAnswer => "INV-3",
            Self::NothingLost => "INV-4",
            Self::ZombiesAreHarmless => "INV-5",
            Self::Bounded => "INV-6",
            Self::PoisonIsContained => "INV-7",
            Self::PlannedIsInvisible => "INV-8",
            Self::HealthIsTrue => "INV-9",
        }
    }

    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::OneOutcome => "every accepted job ends in exactly one outcome",
            Self::OneStream => "what a client receives is a prefix of one token sequence",
            Self::SameAnswer => "with its seed, a text is the same whatever crashed",
            Self::NothingLost => "nothing accepted is lost",
            Self::ZombiesAreHarmless => "an attempt that lost its lease changes nothing",
            Self::Bounded => "everything is bounded",
            Self::PoisonIsContained => "a job that kills workers is quarantined, alone",
            Self::PlannedIsInvisible => "a planned stop fails nothing",
            Self::HealthIsTrue => "health tells the truth",
        }
    }
}

/// Whether a promise was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "why")]
pub(crate) enum Finding {
    /// It was looked at, and nothing broke it. What was looked at.
    Kept(String),
    /// The first counterexample.
    Broken(String),
    /// Nothing was measured that could tell. Why.
    NotJudged(String),
}

/// The first counterexample of each promise.
#[derive(Debug, Default)]
pub(crate) struct Broken([Option<String>; 9]);

impl Broken {
    /// Only the first counts.
    pub(crate) fn note(&mut self, promise: Promise, counterexample: impl Into<String>) {
        self.0[promise as usize].get_or_insert_with(|| counterexample.into());
    }

    /// What was found, if looking is what happened.
    pub(crate) fn finding(&self, promise: Promise, looked_at: Result<String, String>) -> Finding {
        match (&self.0[promise as usize], looked_at) {
            (Some(counterexample), _) => Finding::Broken(counterexample.clone()),
            (None, Ok(looked_at)) => Finding::Kept(looked_at),
            (None, Err(why)) => Finding::NotJudged(why),
        }
    }
}
