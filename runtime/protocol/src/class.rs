//! Who waits for a job: it decides what comes first when there is not room for all.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The class of a job. The last token of its subject in the job stream, and a field of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person or a program waits for it.
    #[default]
    Interactive,
    /// Nobody waits: it is computed when no interactive job needs the room, and never forgotten for them.
    Batch,
}

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }

    /// The class of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
