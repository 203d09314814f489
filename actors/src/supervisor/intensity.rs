//! How many restarts in which time are borne before a supervisor gives up.
//!
//! Owns the sliding window. It must never be fooled by back-off: the window's clock stands still while any child of the
//! supervisor waits to be restarted. So a loop of crashes that would exceed the intensity without back-off exceeds it
//! with back-off too, and no stretch of real time as long as the period ever holds more restarts than allowed. The core
//! calls it.

use std::collections::VecDeque;
use std::time::Duration;

/// At most `restarts_max` restarts within `period`; one more and the supervisor gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are borne. Zero: the first end that calls for a restart ends the supervisor.
    pub restarts_max: u32,
    /// The time in which they are counted, its end included.
    pub period: Duration,
}

impl Default for Intensity {
    /// 3 restarts in 5 s: the period is OTP's, the number is Elixir's (OTP's own default is 1).
    fn default() -> Self {
        Self { restarts_max: 3, period: Duration::from_secs(5) }
    }
}

/// The restarts that still count.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    intensity: Intensity,
    /// Times of the window's own clock. Invariant: ascending, and no longer than `restarts_max + 1`.
    restarts: VecDeque<Duration>,
    paused_total: Duration,
    paused_since: Option<Duration>,
}

impl Window {
    pub(crate) fn new(intensity: Intensity) -> Self {
        Self { intensity, restarts: VecDeque::new(), paused_total: Duration::ZERO, paused_since: None }
    }

    /// Counts a restart; false when it is one too many.
    pub(crate) fn admit(&mut self, now: Duration) -> bool {
        let at = self.clock(now);
        while self.restarts.front().is_some_and(|first| *first + self.intensity.period < at) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(at);
        self.restarts.len() <= usize::try_from(self.intensity.restarts_max).unwrap_or(usize::MAX)
    }

    /// Stops or starts the window's clock.
    pub(crate) fn set_paused(&mut self, paused: bool, now: Duration) {
        match (self.paused_since, paused) {
            (None, true) => self.paused_since = Some(now),
            (Some(since), false) => {
                self.paused_total += now.saturating_sub(since);
                self.paused_since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    fn clock(&self, now: Duration) -> Duration {
        let paused_now = self.paused_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        now.saturating_sub(self.paused_total).saturating_sub(paused_now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn window(restarts_max: u32) -> Window {
        Window::new(Intensity { restarts_max, period: SECOND * 5 })
    }

    #[test]
    fn one_more_than_allowed_within_the_period_is_refused() {
        let mut window = window(2);
        assert!(window.admit(SECOND));
        assert!(window.admit(SECOND * 2));
        assert!(!window.admit(SECOND * 6), "the period's end still counts");
    }

    #[test]
    fn old_restarts_slide_out() {
        let mut window = window(2);
        for at in [0, 3, 6, 9, 12] {
            assert!(window.admit(SECOND * at), "refused at {at} s");
        }
    }

    #[test]
    fn zero_restarts_bears_none() {
        assert!(!window(0).admit(SECOND));
    }

    #[test]
    fn time_spent_backing_off_does_not_age_restarts() {
        let mut window = window(1);
        assert!(window.admit(SECOND));
        window.set_paused(true, SECOND);
        window.set_paused(false, SECOND * 60);
        assert!(!window.admit(SECOND * 61), "a minute of back-off hid a crash loop");
    }
}
