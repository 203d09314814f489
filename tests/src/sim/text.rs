//! The one text that each job has: what a model would answer, as a function of the job's number alone.

/// A job of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    number: u32,
    /// Tokens of the answer.
    pub(super) length: u32,
}

impl Text {
    pub(super) fn new(number: u32, length: u32) -> Self {
        Self { number, length }
    }

    pub(super) fn token(self, at: u32) -> u32 {
        self.number * 1000 + at * 7 % 5 * 100 + at
    }

    /// Every third token holds its text back, as half a character does.
    pub(super) fn piece(self, at: u32) -> String {
        if at % 3 == 1 { String::new() } else { format!("{}.{at} ", self.number) }
    }

    /// What the end sets free.
    pub(super) fn tail(self) -> &'static str {
        if self.length.is_multiple_of(2) { "" } else { "end" }
    }

    pub(super) fn pieces(self, from: u32, until: u32) -> String {
        (from..until).map(|at| self.piece(at)).collect()
    }

    pub(super) fn whole(self) -> String {
        self.pieces(0, self.length) + self.tail()
    }
}
