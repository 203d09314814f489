//! A storm: a thousand dynamic children crash in every way, while others ask, start and terminate.
//!
//! Nothing leaks and every crash is one restart. It blows for `HALM_STORM_SECONDS`, 5 unless told otherwise. Who is
//! struck and how comes from a seeded generator; when, from the machine.

#![expect(clippy::disallowed_methods, reason = "who stands outside of the tree is nobody's child")]

#[path = "storm/leaf.rs"]
mod leaf;

use std::ops::AddAssign;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use halm_actors::supervisor::{
    Backoff, CallError, CallFailed, ChildStanding, Ended, Root, Supervisor, SupervisorRef, SupervisorSpec,
};
use leaf::{Blow, Ledger, MARK, Plan};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

const RESIDENTS: usize = 1_000;

/// Who starts children, strikes some, and terminates them again.
const HOSTS: u64 = 2;

/// Guests after which a host begins again: some fail to start, some die young.
const PLANS: u64 = 8;

/// Who strikes residents.
const CLOUDS: u64 = 2;

const SECONDS: u64 = 5;
const SEED: u64 = 0x5eed;

/// Long enough for a busy machine; no test waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Crashes of each resident, on average, after which the last eight of nearly all of them are known.
const CRASHES_KEPT: u64 = 16;

/// What the resident set may grow by between the calm after the first quarter and the calm at the end. The thousand
/// children with their last eight reasons each, and 256 reports, are there by then; what remains is the allocator's
/// slack, some 2 MiB. A leak of 100 bytes at each of the 140,000 restarts of half a minute would be too much.
const GROWTH_BYTES_MAX: u64 = 8 << 20;

/// Tasks that may be there or not: the supervisor's alarm, its starts, and one that is just ending.
const TASKS_SLACK: usize = 3;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Dice(u64);

impl Dice {
    /// Below `limit`.
    fn roll(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn resident(&mut self) -> usize {
        usize::try_from(self.roll(RESIDENTS as u64)).expect("small")
    }

    fn blow(&mut self) -> Blow {
        match self.roll(16) {
            0..=2 => Blow::Panic,
            3..=5 => Blow::Fail,
            6..=8 => Blow::Kill,
            9..=10 => Blow::PanicInTask,
            11..=12 => Blow::Stop,
            13 => Blow::Haunt(Plan::PostStartPanics),
            14 => Blow::Haunt(Plan::PreStartFails),
            _ => Blow::Haunt(Plan::PreStartPanics),
        }
    }

    /// A blow of which the victim is sure to die, even when it is asked to stop at the same time.
    fn mortal_blow(&mut self) -> Blow {
        [Blow::Panic, Blow::Fail, Blow::Kill][usize::try_from(self.roll(3)).expect("small")]
    }
}

/// What is counted beside the residents' ledgers.
#[derive(Default)]
struct Guests {
    crashes: u64,
    restarts: u64,
    refused: u64,
    welcomed: u64,
}

impl AddAssign for Guests {
    fn add_assign(&mut self, more: Self) {
        self.crashes += more.crashes;
        self.restarts += more.restarts;
        self.refused += more.refused;
        self.welcomed += more.welcomed;
    }
}

struct Storm {
    root: Root,
    residents: Arc<Vec<Arc<Ledger>>>,
    living: Arc<AtomicU64>,
}

/// What must not grow.
#[derive(Debug)]
struct Footprint {
    resident_bytes: u64,
    descriptors: usize,
    tasks: usize,
}

impl Footprint {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel reports it");
        let kilobytes: u64 = line.trim_end_matches("kB").trim().parse().expect("a number");
        Self {
            resident_bytes: kilobytes * 1024,
            descriptors: std::fs::read_dir("/proc/self/fd").expect("Linux tells").count(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }
}

/// Keeps the storm's own panics off the screen, and shows all others.
fn hush() {
    let shout = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let message = info.payload_as_str().unwrap_or_default();
        if !message.starts_with(MARK) {
            shout(info);
        }
    }));
}

async fn wait_for(what: &str, mut state: impl FnMut() -> (bool, String)) {
    let waited = timeout(PATIENCE, async {
        while !state().0 {
            sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: never, but {}", state().1);
}

/// Restarts are unlimited by number; the window is short, because it remembers each restart in it.
fn unlimited() -> SupervisorSpec {
    SupervisorSpec::dynamic(leaf::template()).backoff(Backoff::NONE).intensity(u32::MAX, Duration::from_secs(1))
}

impl Storm {
    async fn gather(spec: SupervisorSpec, residents: usize) -> Self {
        let living = Arc::new(AtomicU64::new(0));
        let root = Supervisor::start_root("root", spec).await.expect("starts");
        let mut ledgers = Vec::new();
        for _ in 0..residents {
            let ledger = Ledger::new(&living, None);
            root.supervisor().start_dynamic(Arc::clone(&ledger)).await.expect("starts");
            ledgers.push(ledger);
        }
        let storm = Self { root, residents: Arc::new(ledgers), living };
        storm.calm().await;
        storm
    }

    /// Waits until every resident is up, and nobody else lives.
    async fn calm(&self) {
        let count = self.residents.len();
        wait_for("all residents are up again", || {
            let up = self.residents.iter().filter(|ledger| ledger.is_up()).count();
            let living = self.living.load(Ordering::SeqCst);
            (up == count && living == count as u64, format!("{up} are up and {living} live"))
        })
        .await;
    }

    async fn blow(&self, seed: u64, time: Duration) -> Guests {
        let end = Instant::now() + time;
        let clouds = (0..CLOUDS).map(|cloud| {
            let residents = Arc::clone(&self.residents);
            tokio::spawn(strike(residents, Dice(seed + cloud), end))
        });
        let clouds: Vec<_> = clouds.collect();
        let asking = tokio::spawn(ask(self.root.supervisor().clone(), end));
        let hosts = (0..HOSTS).map(|host| {
            let dice = Dice(seed + CLOUDS + host);
            tokio::spawn(welcome(self.root.supervisor().clone(), Arc::clone(&self.living), dice, end))
        });
        let hosts: Vec<_> = hosts.collect();
        for cloud in clouds {
            cloud.await.expect("does not panic");
        }
        asking.await.expect("does not panic");
        let mut guests = Guests::default();
        for host in hosts {
            guests += host.await.expect("does not panic");
        }
        self.calm().await;
        guests
    }

    fn crashes(&self) -> u64 {
        self.residents.iter().map(|ledger| ledger.crashes.load(Ordering::SeqCst)).sum()
    }
}

/// Gusts: many at once, then a breath.
async fn strike(residents: Arc<Vec<Arc<Ledger>>>, mut dice: Dice, end: Instant) {
    while Instant::now() < end {
        for _ in 0..dice.roll(200) {
            residents[dice.resident()].strike(dice.blow());
        }
        sleep(Duration::from_millis(dice.roll(50))).await;
    }
}

/// Asks everything there is to ask, and believes no impossible answer.
async fn ask(supervisor: SupervisorRef, end: Instant) {
    let most = RESIDENTS + usize::try_from(HOSTS).expect("small");
    let mut answers = [0; 3];
    while Instant::now() < end {
        if let Some(children) = answer(supervisor.which_children().await) {
            assert!((RESIDENTS..=most).contains(&children.len()), "{} children", children.len());
            assert!(children.is_sorted_by_key(|child| child.key), "not in start order");
            answers[0] += 1;
        }
        if let Some(count) = answer(supervisor.count_children().await) {
            assert_eq!((count.specs, count.supervisors), (1, 0));
            assert!(count.active <= count.workers && count.workers <= most, "{count:?}");
            answers[1] += 1;
        }
        if let Some(tree) = answer(supervisor.tree().await) {
            assert!((RESIDENTS..=most).contains(&tree.children.len()), "{} in the tree", tree.children.len());
            answers[2] += 1;
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert!(answers.iter().all(|count| *count > 0), "some question was never answered: {answers:?}");
}

/// On a machine that stands still, an answer may come too late; nothing else may go wrong.
fn answer<T>(answered: Result<T, CallFailed>) -> Option<T> {
    match answered {
        Ok(answer) => Some(answer),
        Err(CallFailed::NoAnswer(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Starts a child, which may fail; strikes it or not; and terminates it, perhaps while it crashes or is restarted.
async fn welcome(supervisor: SupervisorRef, living: Arc<AtomicU64>, mut dice: Dice, end: Instant) -> Guests {
    let mut guests = Guests::default();
    let mut ledgers = Vec::new();
    // All plans have their turn, however slow the machine is.
    for number in 0_u64.. {
        if number >= PLANS && Instant::now() >= end {
            break;
        }
        let plan = match number % PLANS {
            1 => Some(Plan::PreStartFails),
            3 => Some(Plan::PreStartPanics),
            5 => Some(Plan::PostStartPanics),
            _ => None,
        };
        let refuses = matches!(plan, Some(Plan::PreStartFails | Plan::PreStartPanics));
        let ledger = Ledger::new(&living, plan);
        match supervisor.start_dynamic(Arc::clone(&ledger)).await {
            Ok(id) => {
                assert!(!refuses, "{id} was started though its start failed");
                guests.welcomed += 1;
                for _ in 0..dice.roll(3) {
                    ledger.strike(dice.mortal_blow());
                    tokio::task::yield_now().await;
                }
                supervisor.terminate_child(id.as_str()).await.expect("is there");
            }
            Err(CallFailed::Refused(CallError::StartFailed { .. })) => {
                assert!(refuses, "a start failed that should not");
                guests.refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        ledgers.push(ledger);
        if ledgers.len() == 1_000 {
            settle(&mut ledgers, &mut guests).await;
        }
    }
    settle(&mut ledgers, &mut guests).await;
    guests
}

/// Adds up what happened to guests that are gone, once their last incarnations have let go of their ledgers.
async fn settle(ledgers: &mut Vec<Arc<Ledger>>, guests: &mut Guests) {
    for ledger in ledgers.drain(..) {
        // A guest that was terminated has ended for its supervisor a moment before its state is dropped.
        wait_for("a guest is gone", || {
            let holders = Arc::strong_count(&ledger);
            (holders == 1, format!("{holders} hold its ledger"))
        })
        .await;
        guests.crashes += ledger.crashes.load(Ordering::SeqCst);
        guests.restarts += ledger.attempts.load(Ordering::SeqCst) - 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_leaks_nothing_and_every_crash_is_one_restart() {
    hush();
    let seconds = std::env::var("HALM_STORM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let time = Duration::from_secs(seconds);
    let storm = Storm::gather(unlimited(), RESIDENTS).await;
    let mut first = storm.blow(SEED, time / 4).await;
    // On a slow machine it takes longer until everything is there that is kept of crashes.
    for again in 1.. {
        if storm.crashes() >= CRASHES_KEPT * RESIDENTS as u64 {
            break;
        }
        first += storm.blow(SEED << 16 | again << 8, time / 4).await;
    }
    let before = Footprint::now();
    let then = storm.blow(SEED << 32, time * 3 / 4).await;

    wait_for("tasks have ended", || {
        let now = Footprint::now();
        (now.tasks <= before.tasks + TASKS_SLACK, format!("{now:?} after {before:?}"))
    })
    .await;
    let after = Footprint::now();
    assert!(after.descriptors <= before.descriptors, "{after:?} after {before:?}");
    assert!(after.resident_bytes <= before.resident_bytes + GROWTH_BYTES_MAX, "{after:?} after {before:?}");

    let children = storm.root.supervisor().which_children().await.expect("answers");
    assert_eq!(children.len(), RESIDENTS);
    for (child, ledger) in children.iter().zip(storm.residents.iter()) {
        let (crashes, attempts) = (ledger.crashes.load(Ordering::SeqCst), ledger.attempts.load(Ordering::SeqCst));
        assert_eq!(child.standing, ChildStanding::Running, "{child:?}");
        assert_eq!((child.restarts, attempts), (crashes, crashes + 1), "{child:?}");
    }
    let counts = storm.root.crash_counts();
    assert_eq!(counts.restarts, storm.crashes() + first.restarts + then.restarts);
    let crashes = storm.crashes() + first.crashes + then.crashes;
    assert_eq!(counts.reports, crashes + first.refused + then.refused, "each crash and each refused start, once");
    assert_eq!(counts.escalations, 0);
    assert!(storm.crashes() > RESIDENTS as u64 && then.welcomed > 0 && then.refused > 0, "hardly a storm: {counts:?}");
    println!("{counts:?}, {} guests; before {before:?}, after {after:?}", first.welcomed + then.welcomed);

    storm.root.shutdown().await;
    wait_for("nobody lives", || {
        let living = storm.living.load(Ordering::SeqCst);
        (living == 0, format!("{living} live"))
    })
    .await;
    wait_for("no task is left", || {
        let tasks = Handle::current().metrics().num_alive_tasks();
        (tasks <= TASKS_SLACK, format!("{tasks} tasks"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_gust_the_limit_of_restarts_is_borne_and_not_one_more() {
    hush();
    const LIMIT: u32 = 40;
    let spec =
        SupervisorSpec::dynamic(leaf::template()).backoff(Backoff::NONE).intensity(LIMIT, Duration::from_secs(3600));
    let mut storm = Storm::gather(spec, 100).await;
    let struck = |ledgers: &[Arc<Ledger>]| ledgers.iter().all(|ledger| ledger.strike(Blow::Kill));
    let (first, rest) = storm.residents.split_at(usize::try_from(LIMIT).expect("small"));
    assert!(struck(first), "somebody was down before the gust");
    storm.calm().await;
    let borne = storm.root.crash_counts();
    assert_eq!((borne.restarts, borne.escalations), (u64::from(LIMIT), 0));
    assert!(struck(rest), "somebody was down after the calm");
    let ended = timeout(PATIENCE, storm.root.stopped()).await.expect("it gives up");
    assert!(matches!(ended, Ended::Escalated(_)), "{ended:?}");
    let counts = storm.root.crash_counts();
    assert_eq!((counts.restarts, counts.escalations), (u64::from(LIMIT), 1));
    wait_for("nobody lives", || {
        let living = storm.living.load(Ordering::SeqCst);
        (living == 0, format!("{living} live"))
    })
    .await;
}
