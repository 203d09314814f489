//! Who is alive: `(Event, now) -> Effects`.
//!
//! A replica that misses its beats is asked for by a ping. The broker answers that nobody is connected (a process that
//! died), or stays silent (one that is frozen, and may thaw). The first is acted on at once, the second only after
//! [`Settings::frozen_after`], so that a pause of half a second gives nobody's jobs away. A replica that comes back
//! under its name as another incarnation has lost everything it held before.

use std::collections::BTreeMap;
use std::time::Duration;

use halm_protocol::{Beat, Held, Incarnation, JobId, ModelToken, Pace, ReplicaName, RunsModel};

use crate::moment::Moment;
use crate::ports::AckSubject;

/// What is set, with the reason for each value in [`Settings::default_for`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// This replica: its own beats are not a peer's.
    pub replica: ReplicaName,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Silence after which a peer is pinged.
    pub ping_after: Duration,
    /// Without our own beats for this long it is we who are cut off, from a broker that is away or by the network.
    pub deaf_after: Duration,
    /// Between two pings.
    pub ping_every: Duration,
    /// Refused pings in a row that make a death.
    pub refusals_for_death: u32,
    /// Silence after which a peer that is still connected counts as gone.
    pub frozen_after: Duration,
    /// After the connection came back nobody is judged for this long: others are reconnecting too.
    pub grace: Duration,
    /// What each turn waits for the one before it to act.
    pub turn: Duration,
    /// Naks of a frozen peer's delivery, until somebody living is heard to hold the job.
    pub naks_if_frozen: u32,
    /// Between two of them: a new holder says so at once.
    pub nak_every: Duration,
}

impl Settings {
    /// For beats every 100 ms.
    #[must_use]
    pub fn default_for(replica: ReplicaName, incarnation: Incarnation) -> Self {
        Self {
            replica,
            incarnation,
            // Two beats missed, and some slack for a busy machine.
            ping_after: Duration::from_millis(230),
            // Well below the silence that makes a peer frozen, and above what a busy machine does to a beat.
            deaf_after: Duration::from_millis(500),
            ping_every: Duration::from_millis(40),
            // One refusal may be a connection that is just being made again.
            refusals_for_death: 2,
            // Above half a second, which is a pause and not a death.
            frozen_after: Duration::from_millis(1500),
            // A client of NATS reconnects within two seconds.
            grace: Duration::from_secs(2),
            turn: Duration::from_millis(150),
            // Together longer than a frozen peer's pulls stand in the queue, which is three seconds.
            naks_if_frozen: 10,
            nak_every: Duration::from_millis(400),
        }
    }
}

/// Why a frozen peer counts as gone.
const SILENT: &str = "it is silent";

/// A namesake that beats for this long lives: what is heard sooner may be a predecessor's last words, late on their way.
const NAMESAKE_AFTER: Duration = Duration::from_secs(10);

/// Earlier lives of a peer that are remembered, for beats that come late.
const EARLIER_LIVES_MAX: usize = 8;

/// Longer between two ticks than this, and it was we who were frozen.
const LOOKED_AWAY: Duration = Duration::from_millis(700);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A replica beat; our own beats included.
    Beat(Beat),
    /// A ping was refused by the broker, or was not.
    Pinged {
        /// Who was asked for.
        replica: ReplicaName,
        /// Which life of it.
        incarnation: Incarnation,
        /// False only if the broker said that nobody listens.
        connected: bool,
    },
    /// Our own connection was lost and is back.
    ConnectionRestored,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask whether a replica is connected.
    Ping {
        /// Whom.
        replica: ReplicaName,
        /// Which life of it is meant.
        incarnation: Incarnation,
    },
    /// Give a dead replica's delivery back to the queue.
    Nak {
        /// The job.
        job: JobId,
        /// Its delivery.
        ack: AckSubject,
    },
    /// For the log: another living replica has our name.
    Namesake(Incarnation),
    /// For the log: a peer appeared.
    Joined(ReplicaName),
    /// For the log: a peer left, died or froze.
    Left {
        /// Who.
        replica: ReplicaName,
        /// How it was noticed.
        why: &'static str,
        /// What it held.
        held: usize,
    },
}

#[derive(Debug)]
struct Peer {
    incarnation: Incarnation,
    heard_at: Moment,
    pinged_at: Option<Moment>,
    refusals: u32,
    models: Vec<RunsModel>,
    held: Vec<(JobId, AckSubject)>,
    draining: bool,
    paces: BTreeMap<ModelToken, Pace>,
    /// Lives that ended when the next one began: their beats are late.
    earlier: Vec<Incarnation>,
}

#[derive(Debug)]
struct Orphan {
    ack: AckSubject,
    due: Moment,
    /// Naks still to be sent, unless somebody is heard to hold the job.
    naks: u32,
}

/// The living, and what the dead left.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    peers: BTreeMap<ReplicaName, Peer>,
    /// Deliveries of the dead that wait for our turn.
    orphans: BTreeMap<JobId, Orphan>,
    judge_from: Moment,
    ticked_at: Option<Moment>,
    /// When our own beat came back to us: while none does, it is we who are cut off.
    heard_self_at: Option<Moment>,
    /// Since when another replica is heard to have our name, and when it was last heard.
    namesake: Option<(Moment, Moment)>,
    namesake_told: bool,
    /// As our own beats say.
    own_paces: BTreeMap<ModelToken, Pace>,
}

impl Core {
    /// Nobody known yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            peers: BTreeMap::new(),
            orphans: BTreeMap::new(),
            judge_from: Moment::default(),
            ticked_at: None,
            heard_self_at: None,
            namesake: None,
            namesake_told: false,
            own_paces: BTreeMap::new(),
        }
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Beat(beat) => self.beat(beat, now, &mut out),
            Event::Pinged { replica, incarnation, connected } => {
                self.pinged(&replica, &incarnation, connected, now, &mut out);
            }
            Event::ConnectionRestored => self.forgive(now),
            Event::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// It was we who could not hear: everybody begins anew.
    fn forgive(&mut self, now: Moment) {
        self.judge_from = now + self.settings.grace;
        for peer in self.peers.values_mut() {
            peer.refusals = 0;
            peer.heard_at = now;
        }
    }

    /// The living peers, and which life of each it is.
    pub fn replicas(&self) -> impl Iterator<Item = (&ReplicaName, &Incarnation)> {
        self.peers.iter().map(|(replica, peer)| (replica, &peer.incarnation))
    }

    /// Models that living peers run.
    pub fn models(&self) -> impl Iterator<Item = &RunsModel> {
        self.peers.values().filter(|peer| !peer.draining).flat_map(|peer| peer.models.iter())
    }

    /// How fast jobs of each model are computed by all who take more.
    #[must_use]
    pub fn paces(&self) -> BTreeMap<ModelToken, Pace> {
        let peers = self.peers.values().filter(|peer| !peer.draining).map(|peer| &peer.paces);
        let all = || peers.clone().chain([&self.own_paces]);
        let together = |model: &ModelToken| Pace::together(all().filter_map(|paces| paces.get(model)).copied());
        all().flat_map(BTreeMap::keys).filter_map(|model| Some((model.clone(), together(model)?))).collect()
    }

    /// Whether our own beats do not come back to us, though they did before. Whoever hears nothing can hold no job: neither
    /// acknowledgements nor another's claims reach it.
    #[must_use]
    pub fn is_deaf(&self, now: Moment) -> bool {
        self.heard_self_at.is_some_and(|at| now - at > self.settings.deaf_after)
    }

    fn beat(&mut self, beat: Beat, now: Moment, out: &mut Vec<Effect>) {
        if beat.replica == self.settings.replica {
            if beat.incarnation != self.settings.incarnation {
                let (since, last) = self.namesake.unwrap_or((now, now));
                let since = if now - last > LOOKED_AWAY { now } else { since };
                self.namesake = Some((since, now));
                if now - since >= NAMESAKE_AFTER && !self.namesake_told {
                    self.namesake_told = true;
                    out.push(Effect::Namesake(beat.incarnation));
                }
            } else {
                // Who has just begun was not away: it knows only peers that it heard since.
                if self.is_deaf(now) {
                    self.forgive(now);
                }
                self.heard_self_at = Some(now);
                self.found(&beat);
                self.own_paces = beat.paces;
            }
            return;
        }
        if beat.deaf {
            return;
        }
        let mut earlier = Vec::new();
        if let Some(known) = self.peers.get(&beat.replica) {
            if known.earlier.contains(&beat.incarnation) {
                return;
            }
            earlier.clone_from(&known.earlier);
            if known.incarnation != beat.incarnation {
                earlier.truncate(EARLIER_LIVES_MAX - 1);
                earlier.insert(0, known.incarnation.clone());
            }
        }
        self.found(&beat);
        let known = self.peers.get(&beat.replica);
        if known.is_some_and(|peer| peer.incarnation != beat.incarnation) {
            self.bury(&beat.replica, "it was started again", now, out);
        }
        if !self.peers.contains_key(&beat.replica) {
            out.push(Effect::Joined(beat.replica.clone()));
        }
        let peer = Peer {
            incarnation: beat.incarnation,
            heard_at: now,
            pinged_at: None,
            refusals: 0,
            models: beat.models,
            held: beat.held.into_iter().filter_map(held).collect(),
            draining: beat.draining,
            paces: beat.paces,
            earlier,
        };
        self.peers.insert(beat.replica, peer);
    }

    /// Somebody runs them: they are no orphans any more.
    fn found(&mut self, beat: &Beat) {
        for held in &beat.held {
            self.orphans.remove(&held.job);
        }
    }

    fn pinged(
        &mut self,
        replica: &ReplicaName,
        incarnation: &Incarnation,
        connected: bool,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        let (judged, ping_after) = (now >= self.judge_from, self.settings.ping_after);
        let Some(peer) = self.peers.get_mut(replica).filter(|peer| peer.incarnation == *incarnation) else { return };
        if connected || now - peer.heard_at < ping_after || !judged {
            peer.refusals = 0;
            return;
        }
        peer.refusals += 1;
        if peer.refusals >= self.settings.refusals_for_death {
            self.bury(&replica.clone(), "it is not connected", now, out);
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if self.ticked_at.is_some_and(|at| now - at > LOOKED_AWAY) {
            self.forgive(now);
        }
        self.ticked_at = Some(now);
        if self.heard_self_at.is_none() || self.is_deaf(now) {
            // Whoever is silent now, it is we who hear nothing; and what we say would be heard too late.
            return;
        }
        if now >= self.judge_from {
            let frozen = |peer: &Peer| now - peer.heard_at >= self.settings.frozen_after;
            let gone: Vec<_> =
                self.peers.iter().filter(|(_, peer)| frozen(peer)).map(|(name, _)| name.clone()).collect();
            for replica in gone {
                self.bury(&replica, SILENT, now, out);
            }
            for (replica, peer) in &mut self.peers {
                let due = peer.pinged_at.is_none_or(|at| now - at >= self.settings.ping_every);
                if now - peer.heard_at >= self.settings.ping_after && due {
                    peer.pinged_at = Some(now);
                    out.push(Effect::Ping { replica: replica.clone(), incarnation: peer.incarnation.clone() });
                }
            }
            // Not within the grace: whoever took an orphan while we could not hear has had no time to say so.
            self.give_back(now, out);
        }
    }

    /// Naks what is due of what the dead left.
    fn give_back(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let due: Vec<_> =
            self.orphans.iter().filter(|(_, orphan)| now >= orphan.due).map(|(job, _)| job.clone()).collect();
        for job in due {
            let Some(orphan) = self.orphans.get_mut(&job) else { continue };
            out.push(Effect::Nak { job: job.clone(), ack: orphan.ack.clone() });
            orphan.naks -= 1;
            orphan.due = now + self.settings.nak_every;
            if orphan.naks == 0 {
                self.orphans.remove(&job);
            }
        }
    }

    /// Takes a peer from the living; the survivors take turns with what it held.
    fn bury(&mut self, replica: &ReplicaName, why: &'static str, now: Moment, out: &mut Vec<Effect>) {
        let frozen = why == SILENT;
        let Some(peer) = self.peers.remove(replica) else { return };
        out.push(Effect::Left { replica: replica.clone(), why, held: peer.held.len() });
        let me = &self.settings.replica;
        // Everyone who lives computes the same order without asking. A second nak of the same delivery would start a
        // second attempt, so only one replica acts, and the next only if that one did not.
        let rank = self.peers.keys().filter(|name| *name != replica && *name < me).count();
        let due = now + self.settings.turn * u32::try_from(rank).unwrap_or(u32::MAX);
        // A frozen replica's pulls still stand in the queue, and what is given back may be delivered to it again.
        let naks = if frozen { self.settings.naks_if_frozen } else { 1 };
        for (job, ack) in peer.held {
            self.orphans.insert(job, Orphan { ack, due, naks });
        }
        self.give_back(now, out);
    }
}

fn held(held: Held) -> Option<(JobId, AckSubject)> {
    // What is no acknowledgement of the job stream is not published to, whoever says so.
    AckSubject::parse(&held.ack).map(|ack| (held.job, ack))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ReplicaName {
        ReplicaName::try_from(text).expect("a plain name")
    }

    fn life(text: &str) -> Incarnation {
        Incarnation::try_from(text).expect("a plain name")
    }

    fn at(ms: u64) -> Moment {
        Moment::after(Duration::from_millis(ms))
    }

    fn core(me: &str) -> Core {
        Core::new(Settings::default_for(name(me), life("me")))
    }

    fn beat(replica: &str, incarnation: &str, jobs: &[&str]) -> Event {
        let held = |job: &&str| Held {
            job: JobId::try_from(*job).expect("a plain name"),
            ack: format!("$JS.ACK.HALM_JOBS.m.1.1.{}.0.0", job.len()),
        };
        Event::Beat(Beat {
            replica: name(replica),
            incarnation: life(incarnation),
            models: Vec::new(),
            held: jobs.iter().map(held).collect(),
            draining: false,
            deaf: false,
            paces: BTreeMap::new(),
        })
    }

    /// Our own beat comes back to us, and we look.
    fn tick(core: &mut Core, ms: u64) -> Vec<Effect> {
        let Settings { replica, incarnation, .. } = core.settings.clone();
        core.handle(beat(replica.as_str(), incarnation.as_str(), &[]), at(ms));
        core.handle(Event::Tick, at(ms))
    }

    fn refused(replica: &str, incarnation: &str) -> Event {
        Event::Pinged { replica: name(replica), incarnation: life(incarnation), connected: false }
    }

    fn naks(effects: &[Effect]) -> Vec<&str> {
        let mut jobs = Vec::new();
        for effect in effects {
            if let Effect::Nak { job, .. } = effect {
                jobs.push(job.as_str());
            }
        }
        jobs
    }

    #[test]
    fn a_peer_that_died_is_pinged_and_its_jobs_are_given_back_after_two_refusals() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1", "job2"]), at(0));
        assert!(tick(&mut core, 200).is_empty());
        assert!(matches!(tick(&mut core, 240)[..], [Effect::Ping { .. }]));
        assert!(core.handle(refused("b", "1"), at(241)).is_empty());
        assert!(matches!(tick(&mut core, 290)[..], [Effect::Ping { .. }]));
        assert_eq!(naks(&core.handle(refused("b", "1"), at(291))), ["j1", "job2"]);
        assert_eq!(core.replicas().count(), 0);
    }

    #[test]
    fn a_pause_of_half_a_second_gives_nobodys_jobs_away() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(0));
        let pause = |core: &mut Core, ms: std::ops::Range<u64>| {
            for ms in ms.step_by(50) {
                assert_eq!(naks(&tick(core, ms)), [""; 0]);
                let still = Event::Pinged { replica: name("b"), incarnation: life("1"), connected: true };
                assert!(core.handle(still, at(ms)).is_empty());
            }
        };
        pause(&mut core, 0..1000);
        core.handle(beat("b", "1", &["j1"]), at(1000));
        pause(&mut core, 1000..2500);
        assert_eq!(naks(&tick(&mut core, 2500)), ["j1"], "a second and a half is no pause");
    }

    #[test]
    fn a_frozen_peers_job_is_given_back_until_somebody_living_holds_it() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(0));
        let given_back = |core: &mut Core, ms: std::ops::Range<u64>| {
            ms.step_by(50).filter(|ms| !naks(&tick(core, *ms)).is_empty()).collect::<Vec<_>>()
        };
        assert_eq!(given_back(&mut core, 0..2000), [1500, 1900]);
        core.handle(beat("c", "1", &["j1"]), at(2000));
        assert_eq!(given_back(&mut core, 2000..3400), [0; 0]);
    }

    #[test]
    fn a_replica_that_was_frozen_itself_gives_nobodys_jobs_away() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(0));
        tick(&mut core, 50);
        assert!(tick(&mut core, 60_000).is_empty());
        assert!(core.handle(refused("b", "1"), at(60_001)).is_empty());
    }

    #[test]
    fn who_has_just_begun_notices_a_death_as_soon_as_anybody() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(3000));
        assert!(tick(&mut core, 3050).is_empty());
        assert!(matches!(tick(&mut core, 3240)[..], [Effect::Ping { .. }]));
        core.handle(refused("b", "1"), at(3241));
        tick(&mut core, 3290);
        assert_eq!(naks(&core.handle(refused("b", "1"), at(3291))), ["j1"]);
    }

    #[test]
    fn a_new_incarnation_buries_the_old_one_at_once() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(0));
        assert_eq!(naks(&core.handle(beat("b", "2", &[]), at(50))), ["j1"]);
        assert_eq!(core.replicas().count(), 1);
    }

    #[test]
    fn survivors_take_turns_and_a_job_that_runs_again_is_left_alone() {
        let mut core = core("b");
        core.handle(beat("a", "1", &[]), at(0));
        core.handle(beat("c", "1", &["j1", "job2"]), at(0));
        assert_eq!(naks(&core.handle(beat("c", "2", &[]), at(10))), [""; 0], "it is a's turn");
        core.handle(beat("a", "1", &["j1"]), at(100));
        assert_eq!(naks(&tick(&mut core, 170)), ["job2"], "a took j1 and not the other");
    }

    #[test]
    fn after_its_own_reconnection_it_judges_nobody_for_a_while() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(0));
        core.handle(Event::ConnectionRestored, at(3000));
        assert!(tick(&mut core, 3100).is_empty());
        assert!(core.handle(refused("b", "1"), at(3200)).is_empty());
        core.handle(beat("b", "1", &["j1"]), at(3300));
        assert!(tick(&mut core, 3400).is_empty());
    }

    #[test]
    fn a_replica_that_does_not_hear_itself_gives_nobodys_jobs_away() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(0));
        tick(&mut core, 50);
        for ms in (100..60_000).step_by(50) {
            let effects = core.handle(Event::Tick, at(ms));
            assert!(effects.iter().all(|effect| matches!(effect, Effect::Ping { .. })), "the broker is away");
        }
        assert!(tick(&mut core, 60_050).is_empty(), "the others are only just coming back");
        let naks: Vec<_> =
            (60_100..64_000).step_by(50).filter(|ms| !naks(&tick(&mut core, *ms)).is_empty()).take(1).collect();
        assert_eq!(naks, [62_050], "b did not come back within the grace");
    }

    #[test]
    fn a_peer_that_says_that_it_hears_nothing_is_as_good_as_silent() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(0));
        let deaf = |ms: u64| {
            let Event::Beat(beat) = beat("b", "1", &["j1"]) else { unreachable!("a beat") };
            (Event::Beat(Beat { deaf: true, ..beat }), at(ms))
        };
        let mut given_back = Vec::new();
        for ms in (50..2000).step_by(50) {
            let (event, now) = deaf(ms);
            assert!(core.handle(event, now).is_empty());
            if !naks(&tick(&mut core, ms)).is_empty() {
                given_back.push(ms);
            }
        }
        assert_eq!(given_back, [1500, 1900]);
    }

    #[test]
    fn who_does_not_hear_itself_is_deaf_until_it_does_and_who_has_just_begun_is_not() {
        let mut core = core("a");
        assert!(!core.is_deaf(at(5_000)));
        tick(&mut core, 5_000);
        assert!(!core.is_deaf(at(5_500)) && core.is_deaf(at(5_550)));
        tick(&mut core, 9_000);
        assert!(!core.is_deaf(at(9_000)));
    }

    #[test]
    fn the_last_beats_of_an_earlier_life_do_not_bury_the_next_one() {
        let mut core = core("a");
        core.handle(beat("b", "1", &["j1"]), at(0));
        assert_eq!(naks(&core.handle(beat("b", "2", &["job2"]), at(50))), ["j1"]);
        assert!(core.handle(beat("b", "1", &["j1"]), at(60)).is_empty());
        assert_eq!(naks(&core.handle(beat("b", "3", &[]), at(70))), ["job2"]);
    }

    #[test]
    fn a_namesake_is_told_once_it_has_lived_for_long_and_a_predecessors_last_words_are_none() {
        let mut core = core("a");
        let told = |core: &mut Core, ms: u64| !core.handle(beat("a", "before", &[]), at(ms)).is_empty();
        assert!(!told(&mut core, 0) && !told(&mut core, 100) && !told(&mut core, 15_000));
        let told: Vec<_> = (15_100..40_000).step_by(100).filter(|ms| told(&mut core, *ms)).collect();
        assert_eq!(told, [25_000], "once is enough");
    }
}
