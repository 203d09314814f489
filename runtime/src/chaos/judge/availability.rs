//! Availability: the share of client-seconds that were good, and how sure that is.
//!
//! It is *user-uptime* (Hauer, Hoffmann, Lunney, Ardelean and Diwan, "Meaningful Availability", NSDI 2020): a client
//! is up until something it asked for is bad, and from when that is over. So an outage weighs the same however fast
//! the service is otherwise, and however much is asked meanwhile.
//!
//! Bad is every silence over the bound (the whole of it, not only what exceeds it), what lies past a request's
//! deadline, and the whole life of a request that failed or was refused, for the bound at least, so that a quick
//! refusal is not the cheapest answer. Of a stream a silence is the time between two records, or before the first; a
//! plain request has no silences.
//!
//! Beside it stands the share of the time in which something was asked: the same, without the seconds of idle clients.
//!
//! Seconds are no independent draws: a fault makes several bad ones in a row. So the interval comes from a *circular
//! block bootstrap* (Politis and Romano, "A circular block-resampling procedure for stationary data", 1992): the run
//! is put together again from stretches of [`BLOCK_BINS`] seconds, longer than what one fault does, and the share
//! computed anew [`RESAMPLES`] times; 95 % of them lie in the percentile interval. Where nothing at all was bad there
//! is nothing to resample. Then the lower end is by the rule of three (Hanley and Lippman-Hand, JAMA 1983): of n
//! independent stretches none was bad, so with 95 % confidence at most 3/n are, and each is counted as bad altogether.

use std::time::Duration;

use serde::Serialize;

use crate::chaos::event::ClientNo;
use crate::chaos::random::Random;

/// What is resampled together: more than a leader's election.
const BLOCK_BINS: usize = 15;
const RESAMPLES: usize = 2_000;

/// Seconds of clients.
#[derive(Debug)]
pub(crate) struct ClientSeconds {
    /// Of each client, stretches that were bad.
    bad: Vec<Vec<(Duration, Duration)>>,
    /// Of requests under way, stretches of all and those that were bad.
    asked: [Vec<(Duration, Duration)>; 2],
}

/// A second of the run.
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
    /// The share of the time in which something was asked, from 0 to 1.
    pub(crate) asked_share: f64,
}

impl ClientSeconds {
    pub(crate) fn new(clients: usize) -> Self {
        Self { bad: vec![Vec::new(); clients], asked: Default::default() }
    }

    /// The life of a request.
    pub(crate) fn add(&mut self, from: Duration, to: Duration) {
        self.asked[0].push((from, to));
    }

    /// A stretch of a request's life that was bad. Stretches of one request do not overlap.
    pub(crate) fn spoil(&mut self, client: ClientNo, from: Duration, to: Duration) {
        if to > from {
            self.asked[1].push((from, to));
            self.bad[client.0].push((from, to));
        }
    }

    /// Between two moments, or until the last bad stretch is over.
    pub(crate) fn availability(&self, from: Duration, to: Duration, seed: u64) -> Availability {
        let last = self.asked[1].iter().map(|(_, to)| *to).max().unwrap_or_default();
        let (begin, end) = (from.as_secs_f64(), to.max(last).as_secs_f64());
        let mut bins = vec![Bin::default(); (end - begin).max(0.0).ceil() as usize];
        for (at, bin) in bins.iter_mut().enumerate() {
            bin.all = self.bad.len() as f64 * (end - begin - at as f64).min(1.0);
        }
        for (bad_from, bad_to) in self.bad.iter().flat_map(|client| merged(client)) {
            let (bad_from, bad_to) = (bad_from.as_secs_f64() - begin, bad_to.as_secs_f64() - begin);
            for (at, bin) in bins.iter_mut().enumerate().skip(bad_from.max(0.0) as usize) {
                bin.bad += (bad_to.min(at as f64 + 1.0) - bad_from.max(at as f64)).max(0.0);
            }
        }
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
        let asked_share = self.asked_share(from);
        Availability { client_seconds: all, bad_seconds: bad, share, nines, low, high, method, asked_share }
    }

    fn asked_share(&self, from: Duration) -> f64 {
        let of = |stretches: &[(Duration, Duration)]| -> f64 {
            stretches.iter().map(|(begin, end)| end.saturating_sub((*begin).max(from)).as_secs_f64()).sum()
        };
        share(Bin { all: of(&self.asked[0]), bad: of(&self.asked[1]) })
    }
}

/// Stretches that overlap are one.
fn merged(stretches: &[(Duration, Duration)]) -> Vec<(Duration, Duration)> {
    let mut sorted = stretches.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(Duration, Duration)> = Vec::new();
    for (from, to) in sorted {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
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

    const ALL: Duration = Duration::ZERO;

    #[test]
    fn the_share_is_of_all_clients_time_and_what_overlaps_counts_once() {
        let mut seconds = ClientSeconds::new(2);
        seconds.add(s(0.5), s(10.5));
        seconds.add(s(3.0), s(13.0));
        seconds.spoil(ClientNo(0), s(3.25), s(5.25));
        seconds.spoil(ClientNo(0), s(4.25), s(5.75));
        seconds.spoil(ClientNo(1), s(9.5), s(9.5));
        let found = seconds.availability(ALL, s(12.5), 1);
        assert!((found.client_seconds - 25.0).abs() < 1e-9 && (found.bad_seconds - 2.5).abs() < 1e-9, "{found:?}");
        assert!((found.share - 0.9).abs() < 1e-9, "{found:?}");
        assert!(found.nines.is_some_and(|nines| (nines - 1.0).abs() < 1e-9), "{found:?}");
        assert!(found.low <= found.share && found.share <= found.high, "{found:?}");
        assert!((found.asked_share - (1.0 - 3.5 / 20.0)).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_run_without_a_bad_second_does_not_claim_more_than_its_length_shows() {
        let mut seconds = ClientSeconds::new(1);
        seconds.add(s(0.0), s(180.0));
        let found = seconds.availability(ALL, s(180.0), 1);
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
            let mut seconds = ClientSeconds::new(1);
            for at in (0..600).step_by(10) {
                if chance.unit() < 0.3 {
                    seconds.spoil(ClientNo(0), s(f64::from(at) + 2.0), s(f64::from(at) + 4.0));
                }
            }
            let found = seconds.availability(ALL, s(600.0), seed);
            covered += u32::from((found.low..=found.high).contains(&0.94));
        }
        let share = f64::from(covered) / rounds as f64;
        assert!(share > 0.88, "{share}");
    }

    #[test]
    fn no_time_is_not_available() {
        assert_eq!(ClientSeconds::new(1).availability(ALL, ALL, 1).share, 0.0);
    }
}
