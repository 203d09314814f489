//! Availability: the share of client-seconds that were good, and how sure that is.
//!
//! A request is good from its sending to its end, but for silences over the bound (the whole of such a silence is bad, not
//! only what exceeds it) and what lies past its deadline. Of a stream a silence is the time between two records, or before
//! the first; a plain request has no silences. A request that failed or was refused is bad from beginning to end, and for
//! the bound at least, so that a quick refusal is not the cheapest answer.
//!
//! Seconds are no independent draws: a fault makes several bad ones in a row. So the interval comes from a *circular block
//! bootstrap* (Politis and Romano, "A circular block-resampling procedure for stationary data", 1992): the run is put
//! together again from stretches of [`BLOCK_BINS`] seconds, longer than what one fault does, and the share computed anew
//! [`RESAMPLES`] times; 95 % of them lie in the percentile interval. Where nothing at all was bad there is nothing to
//! resample. Then the lower end is by the rule of three (Hanley and Lippman-Hand, JAMA 1983): of n independent stretches none
//! was bad, so with 95 % confidence at most 3/n are, and each is counted as bad altogether.

use std::time::Duration;

use serde::Serialize;

use crate::chaos::random::Random;

/// What is resampled together: more than a leader's election.
const BLOCK_BINS: usize = 15;
const RESAMPLES: usize = 2_000;

/// Seconds of clients, by the second of the run in which they lie.
#[derive(Debug, Default)]
pub(crate) struct ClientSeconds {
    bins: Vec<Bin>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    all: f64,
    bad: f64,
}

impl Bin {
    fn plus(self, other: Self) -> Self {
        Self { all: self.all + other.all, bad: self.bad + other.bad }
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Availability {
    pub(crate) client_seconds: f64,
    pub(crate) bad_seconds: f64,
    /// From 0 to 1.
    pub(crate) share: f64,
    /// `None` if the run is too short to tell.
    pub(crate) nines: Option<f64>,
    /// The ends of the interval.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) method: &'static str,
}

impl ClientSeconds {
    /// A stretch of a client's time.
    pub(crate) fn add(&mut self, from: Duration, to: Duration) {
        self.spread(from, to, |bin, share| bin.all += share);
    }

    /// A stretch that was bad; it has been added too. Stretches of one request do not overlap.
    pub(crate) fn spoil(&mut self, from: Duration, to: Duration) {
        self.spread(from, to, |bin, share| bin.bad += share);
    }

    fn spread(&mut self, from: Duration, to: Duration, mut each: impl FnMut(&mut Bin, f64)) {
        let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
        let last = to as usize;
        if self.bins.len() <= last {
            self.bins.resize(last + 1, Bin::default());
        }
        for (at, bin) in self.bins.iter_mut().enumerate().take(last + 1).skip(from as usize) {
            let share = to.min(at as f64 + 1.0) - from.max(at as f64);
            each(bin, share.max(0.0));
        }
    }

    /// From a moment on.
    pub(crate) fn availability(&self, from: Duration, seed: u64) -> Availability {
        let bins: Vec<Bin> = self.bins.iter().copied().skip(from.as_secs() as usize).collect();
        let sum = bins.iter().copied().fold(Bin::default(), Bin::plus);
        let (Bin { all, bad }, share) = (sum, share(sum));
        let (low, high, method) = if bad > 0.0 {
            let (low, high) = bootstrap(&bins, seed);
            (low, high, "circular block bootstrap, blocks of 15 s, 95 %")
        } else {
            let blocks = (bins.len() / BLOCK_BINS).max(1) as f64;
            ((1.0 - 3.0 / blocks).max(0.0), 1.0, "rule of three over blocks of 15 s, 95 %")
        };
        // Of a run without a bad second only the lower end can be told in nines.
        let told = if bad > 0.0 { share } else { low };
        let nines = (told > 0.0).then(|| -(1.0 - told).log10());
        Availability { client_seconds: all, bad_seconds: bad, share, nines, low, high, method }
    }
}

fn share(bin: Bin) -> f64 {
    if bin.all > 0.0 { 1.0 - bin.bad / bin.all } else { 0.0 }
}

fn bootstrap(bins: &[Bin], seed: u64) -> (f64, f64) {
    let mut chance = Random::new(seed, "bootstrap");
    let block = |begin: usize| {
        let bins = (begin..begin + BLOCK_BINS).map(|at| bins[at % bins.len()]);
        bins.fold(Bin::default(), Bin::plus)
    };
    let stretches: Vec<Bin> = (0..bins.len()).map(block).collect();
    let blocks = bins.len().div_ceil(BLOCK_BINS);
    let mut again = || {
        let drawn = (0..blocks).map(|_| stretches[chance.index(stretches.len())]);
        share(drawn.fold(Bin::default(), Bin::plus))
    };
    let mut shares: Vec<f64> = (0..RESAMPLES).map(|_| again()).collect();
    shares.sort_by(f64::total_cmp);
    (shares[RESAMPLES / 40], shares[RESAMPLES - 1 - RESAMPLES / 40])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_share_is_of_client_seconds_wherever_they_lie() {
        let mut seconds = ClientSeconds::default();
        seconds.add(s(0.5), s(10.5));
        seconds.add(s(3.0), s(13.0));
        seconds.spoil(s(3.25), s(5.25));
        let found = seconds.availability(Duration::ZERO, 1);
        assert!((found.client_seconds - 20.0).abs() < 1e-9 && (found.bad_seconds - 2.0).abs() < 1e-9, "{found:?}");
        assert!(
            (found.share - 0.9).abs() < 1e-9 && found.nines.is_some_and(|nines| (nines - 1.0).abs() < 1e-9),
            "{found:?}"
        );
        assert!(found.low <= found.share && found.share <= found.high, "{found:?}");
    }

    #[test]
    fn a_run_without_a_bad_second_does_not_claim_more_than_its_length_shows() {
        let mut seconds = ClientSeconds::default();
        seconds.add(s(0.0), s(180.0));
        let found = seconds.availability(Duration::ZERO, 1);
        assert_eq!((found.share, found.bad_seconds), (1.0, 0.0));
        assert!((found.low - 0.75).abs() < 1e-9, "twelve stretches of 15 s: {found:?}");
        assert!(found.nines < Some(1.0), "{found:?}");
    }

    /// The interval must hold what it promises where the truth is known: bad stretches that come in clusters.
    #[test]
    fn the_interval_covers_the_truth_about_as_often_as_it_says() {
        let (mut covered, rounds) = (0, 200);
        for seed in 0..rounds {
            let mut chance = Random::new(seed, "test");
            let mut seconds = ClientSeconds::default();
            for at in (0..600).step_by(10) {
                let at = f64::from(at);
                seconds.add(s(at), s(at + 10.0));
                if chance.unit() < 0.3 {
                    seconds.spoil(s(at + 2.0), s(at + 4.0));
                }
            }
            let found = seconds.availability(Duration::ZERO, seed);
            covered += u32::from((found.low..=found.high).contains(&0.94));
        }
        let share = f64::from(covered) / rounds as f64;
        assert!(share > 0.88, "{share}");
    }

    #[test]
    fn nobody_asking_is_not_available() {
        assert_eq!(ClientSeconds::default().availability(Duration::ZERO, 1).share, 0.0);
    }
}
