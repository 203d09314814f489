//! How many threads take the next step.
//!
//! Owns what steps took with how many threads, by how many rows they had, and the choice that follows. It must never read
//! a clock: it is told. More threads are faster only while each has a core of its own: beside a busy neighbour all wait at
//! each barrier for the one that has to share, and one thread alone is several times faster than two. So the crew is
//! tried a size smaller or larger now and then, and at once when steps become slow. No bit depends on it.

use std::time::Duration;

/// Steps between two trials at first. A trial takes two of them.
const GAP_MIN: u32 = 32;
/// And at most: each trial that changed nothing doubles the gap, so that trying costs nothing in the long run.
const GAP_MAX: u32 = 2_048;
/// Steps at least between two trials, however slow they are.
const TRIALS_APART: u32 = GAP_MIN / 2;
/// Steps of a trial. The first may have had to wake a thread, the second counts.
const TRIAL_STEPS: u32 = 2;
/// Steps this much slower than when they were last compared call for a trial.
const SLOWER: f64 = 1.5;
/// A trial must be this much faster to be followed.
const FASTER: f64 = 0.95;
/// A step that took longer than this many means counts as so many: one interruption is no trend.
const OUTLIER: f64 = 3.0;
/// Weight of a new time in the mean.
const WEIGHT: f64 = 0.2;

/// Steps of about as many rows behave alike.
const CLASSES: usize = 4;

/// The choice.
#[derive(Debug)]
pub(crate) struct Crew {
    /// What can be chosen: halves of the most, down to one. Invariant: ascending, and not empty.
    sizes: Vec<usize>,
    classes: [Class; CLASSES],
}

#[derive(Debug, Clone)]
struct Class {
    /// Index of the size at work.
    at: usize,
    /// Mean seconds a row with it.
    mean: Option<f64>,
    /// What the mean was when sizes were last compared.
    compared: f64,
    /// Steps until the next trial.
    left: u32,
    gap: u32,
    trial: Option<Trial>,
    /// Where the last trial went.
    was_up: bool,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    at: usize,
    steps: u32,
}

impl Crew {
    /// At most `threads`, and that many at first.
    pub(crate) fn new(threads: usize) -> Self {
        let mut sizes: Vec<usize> =
            std::iter::successors(Some(threads.max(1)), |size| (*size > 1).then(|| size / 2)).collect();
        sizes.reverse();
        let class = Class {
            at: sizes.len() - 1,
            mean: None,
            compared: f64::INFINITY,
            left: GAP_MIN,
            gap: GAP_MIN,
            trial: None,
            was_up: true,
        };
        Self { sizes, classes: std::array::from_fn(|_| class.clone()) }
    }

    /// How many threads should take a step of so many rows.
    pub(crate) fn size(&self, rows: usize) -> usize {
        let class = &self.classes[class_of(rows)];
        self.sizes[class.trial.map_or(class.at, |trial| trial.at)]
    }

    /// Such a step took so long with them.
    pub(crate) fn took(&mut self, rows: usize, time: Duration) {
        let seconds = time.as_secs_f64() / rows.max(1) as f64;
        self.classes[class_of(rows)].took(seconds, self.sizes.len());
    }
}

fn class_of(rows: usize) -> usize {
    match rows {
        0..=1 => 0,
        2..=8 => 1,
        9..=64 => 2,
        _ => 3,
    }
}

impl Class {
    fn took(&mut self, seconds: f64, sizes: usize) {
        if let Some(trial) = &mut self.trial {
            trial.steps += 1;
            if trial.steps == TRIAL_STEPS {
                self.compare(seconds);
            }
            return;
        }
        let mean = self.mean.map_or(seconds, |mean| mean + WEIGHT * (seconds.min(OUTLIER * mean) - mean));
        self.mean = Some(mean);
        // Until sizes are compared, and when steps become much faster, this is what slowness is measured by: the first
        // steps of all fault memory in, and say little.
        self.compared = self.compared.min(mean * 2.0);
        self.left = self.left.saturating_sub(1);
        let is_slow = mean > SLOWER * self.compared && self.left + TRIALS_APART < self.gap;
        if self.left == 0 || is_slow {
            self.try_another(is_slow, sizes);
        }
    }

    fn try_another(&mut self, is_slow: bool, sizes: usize) {
        let (down, up) = (self.at.checked_sub(1), Some(self.at + 1).filter(|up| *up < sizes));
        let wanted = if is_slow || self.was_up { down.or(up) } else { up.or(down) };
        self.left = self.gap;
        let Some(at) = wanted else { return };
        self.was_up = at > self.at;
        self.trial = Some(Trial { at, steps: 0 });
    }

    fn compare(&mut self, seconds: f64) {
        let Some(trial) = self.trial.take() else { return };
        let mean = self.mean.unwrap_or(f64::INFINITY);
        if seconds < FASTER * mean {
            (self.at, self.mean, self.gap) = (trial.at, Some(seconds), GAP_MIN);
        } else {
            self.gap = (self.gap * 2).min(GAP_MAX);
        }
        self.compared = self.mean.unwrap_or(seconds);
        self.left = self.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes steps of one row; how long one takes with so many threads is `costs`, in microseconds. The sizes taken.
    fn steps(crew: &mut Crew, count: usize, costs: impl Fn(usize) -> u64) -> Vec<usize> {
        let step = |_| {
            let size = crew.size(1);
            crew.took(1, Duration::from_micros(costs(size)));
            size
        };
        (0..count).map(step).collect()
    }

    fn share_of(size: usize, sizes: &[usize]) -> f64 {
        sizes.iter().filter(|taken| **taken == size).count() as f64 / sizes.len() as f64
    }

    const ALONE: fn(usize) -> u64 = |size| if size == 2 { 2_100 } else { 3_600 };
    const BESIDE_A_NEIGHBOUR: fn(usize) -> u64 = |size| if size == 2 { 15_000 } else { 3_700 };

    #[test]
    fn a_crew_that_is_fast_stays_and_trials_become_rare() {
        let mut crew = Crew::new(2);
        let sizes = steps(&mut crew, 10_000, ALONE);
        assert!(share_of(2, &sizes) > 0.99, "{}", share_of(2, &sizes));
        assert!(sizes.contains(&1), "it never tried");
    }

    #[test]
    fn beside_a_busy_neighbour_one_thread_goes_on_within_forty_steps_and_the_other_comes_back_later() {
        let mut crew = Crew::new(2);
        steps(&mut crew, 3_000, ALONE);
        let sizes = steps(&mut crew, 40, BESIDE_A_NEIGHBOUR);
        assert_eq!(sizes.last(), Some(&1), "{sizes:?}");
        let sizes = steps(&mut crew, 10_000, BESIDE_A_NEIGHBOUR);
        assert!(share_of(1, &sizes) > 0.99, "{}", share_of(1, &sizes));
        let sizes = steps(&mut crew, 3 * GAP_MAX as usize, ALONE);
        assert_eq!(sizes.last(), Some(&2), "it never came back");
    }

    #[test]
    fn a_step_that_was_slow_by_chance_changes_nothing_for_long() {
        let mut crew = Crew::new(2);
        steps(&mut crew, 100, ALONE);
        crew.took(1, Duration::from_secs(1));
        let sizes = steps(&mut crew, 400, ALONE);
        assert!(share_of(2, &sizes) > 0.9, "{}", share_of(2, &sizes));
        assert_eq!(sizes.last(), Some(&2));
    }

    #[test]
    fn of_eight_threads_the_best_number_is_found_whatever_it_is() {
        for best in [1, 2, 4, 8] {
            let mut crew = Crew::new(8);
            let sizes = steps(&mut crew, 8_000, |size| 1_000 + 500 * size.abs_diff(best) as u64);
            assert_eq!(sizes.last(), Some(&best));
        }
    }

    #[test]
    fn one_thread_is_one_thread() {
        let mut crew = Crew::new(1);
        assert!(steps(&mut crew, 1_000, |_| 10).iter().all(|size| *size == 1));
    }

    #[test]
    fn wide_steps_and_narrow_ones_are_judged_apart() {
        let mut crew = Crew::new(2);
        for _ in 0..200 {
            crew.took(1, Duration::from_micros(if crew.size(1) == 2 { 900 } else { 300 }));
            crew.took(512, Duration::from_micros(if crew.size(512) == 2 { 100_000 } else { 200_000 }));
        }
        assert_eq!((crew.size(1), crew.size(512)), (1, 2));
    }
}
