//! When what is broken: a pure function of the seed, the length of the run and the rungs.

use std::time::Duration;

use serde::Serialize;

use super::ladder::Rung;
use super::random::Random;

/// A blow falls at the beginning of its room, moved by at most this much, so that blows are not in step with anything.
const JITTER_MAX: Duration = Duration::from_millis(1_500);

/// One blow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Strike {
    /// Since the faults began. It may fall later if what was broken before is not whole yet.
    pub(crate) at: Duration,
    pub(crate) rung: Rung,
    /// Chooses the victim.
    pub(crate) pick: u64,
}

/// All of them, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Schedule {
    pub(crate) strikes: Vec<Strike>,
}

impl Schedule {
    /// Every rung once, in an order that the seed gives, then again in another, while there is time.
    ///
    /// A rung that does not fit any more makes way for one that does.
    pub(crate) fn new(seed: u64, length: Duration, rungs: &[Rung]) -> Self {
        let mut chance = Random::new(seed, "schedule");
        let mut strikes = Vec::new();
        let mut now = Duration::ZERO;
        loop {
            let mut round = rungs.to_vec();
            chance.shuffle(&mut round);
            let before = strikes.len();
            for rung in round {
                let at = now + JITTER_MAX.mul_f64(chance.unit());
                let pick = chance.next();
                if now + rung.room() <= length {
                    strikes.push(Strike { at, rung, pick });
                    now += rung.room();
                }
            }
            if strikes.len() == before {
                return Self { strikes };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Rung> {
        Rung::all().collect()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// What all rungs take, once each.
    fn round(rungs: &[Rung]) -> Duration {
        rungs.iter().map(|rung| rung.room()).sum()
    }

    #[test]
    fn the_seed_replays_the_schedule_and_another_seed_gives_another() {
        let of = |seed| Schedule::new(seed, 5 * MINUTE, &all());
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn the_schedule_of_a_known_seed_stays_what_it_was() {
        let schedule = Schedule::new(1, MINUTE, &[Rung::WorkerKill, Rung::ReplicaKill, Rung::LeaderKill]);
        let told: Vec<_> = schedule.strikes.iter().map(|strike| (strike.at.as_millis(), strike.rung.name())).collect();
        let (leader, worker, replica) = ("leader-kill", "worker-kill", "replica-kill");
        let round = [(208, leader), (15_218, worker), (20_037, replica)];
        let again = [(28_202, leader), (42_455, worker), (47_064, replica), (54_637, worker)];
        assert_eq!(told, [&round[..], &again[..]].concat());
    }

    #[test]
    fn three_minutes_are_enough_for_every_rung() {
        assert!(round(&all()) <= 3 * MINUTE);
    }

    #[test]
    fn strikes_are_in_order_within_the_time_and_each_round_has_each_rung_once() {
        for seed in 0..200 {
            let rungs = [Rung::WorkerKill, Rung::BrokerKill, Rung::Partition, Rung::LinkReset];
            let round = round(&rungs);
            let schedule = Schedule::new(seed, 3 * round, &rungs);
            assert_eq!(schedule.strikes.len(), 3 * rungs.len());
            for turn in schedule.strikes.chunks(rungs.len()) {
                let mut turn: Vec<_> = turn.iter().map(|strike| strike.rung).collect();
                turn.sort_unstable();
                let mut all = rungs.to_vec();
                all.sort_unstable();
                assert_eq!(turn, all);
            }
            assert!(schedule.strikes.windows(2).all(|pair| pair[0].at <= pair[1].at));
            assert!(schedule.strikes.iter().all(|strike| strike.at < 3 * round));
        }
    }

    #[test]
    fn no_time_or_no_rungs_is_an_empty_schedule() {
        assert!(Schedule::new(1, Duration::ZERO, &all()).strikes.is_empty());
        assert!(Schedule::new(1, MINUTE, &[]).strikes.is_empty());
    }
}
