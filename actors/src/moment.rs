//! Time as the cores see it: a duration since their shell began. No core reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, as the time since the shell's clock began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `since` after the clock began.
    #[must_use]
    pub const fn after(since: Duration) -> Self {
        Self(since)
    }

    /// How long after `earlier` this is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl Sub<Moment> for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// A shell's clock: the only source of [`Moment`]s.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: tokio::time::Instant,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { began: tokio::time::Instant::now() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(self.began.elapsed())
    }

    /// When `moment` is, for a timer.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        self.began + moment.0
    }
}
