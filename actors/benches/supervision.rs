//! What supervision costs: a bare linked ractor actor, a child of the crate `ractor-supervisor`, a child of ours.
//!
//! Prints a table and a line of JSON, judges nothing:
//! `cargo bench -p halm-actors --features rival --bench supervision`.
//! The subjects take turns within one run, so that what else the machine does hits all of them. Figures are medians
//! over the rounds, and the least of them, which is what a busy machine disturbs least. `HALM_BENCH_ROUNDS` sets another
//! number of rounds; a word behind `--` picks the subjects that have it in their names.
//!
//! All subjects supervise the same actor, and a start or restart has come when that actor's `pre_start` says so, not
//! when a supervisor does. It crashes by returning an error, which costs all of them the same; a panic would measure
//! unwinding. A stop has come when the supervisor has ended and no incarnation is left.
//!
//! What the subjects do in these times is not the same:
//! - Start: ours has told its core of each child, and whoever started the tree, before the time ends.
//!   `ractor-supervisor` hears of its children only afterwards, and then looks for each by its name: in a list of all,
//!   or in a map if it is dynamic. So `settle` is how long it takes from there until the supervisor answers a question,
//!   which ractor delivers after what was heard of children. Of `ractor-supervisor` only `InspectState` can be asked,
//!   which copies all specifications. The next time begins after it, and nobody's restarts are charged with what a
//!   start left to be done.
//! - Stop: ours asks its children to stop one after the other, the last first, each when the one before has ended (the
//!   dynamic ones all at once), lets them run their `post_stop`, and kills those that take too long.
//!   `ractor-supervisor` just ends; ractor then kills what is linked below, all at once, without `post_stop`, and
//!   nobody hears of their ends but this bench. Nothing in that crate stops a tree in order, which is why no row of it
//!   does what ours does.
//!
//! `ractor-supervisor` is used at its fastest: no back-off function, nothing subscribed to its log events, restarts
//! without limit and a window of a millisecond, because it walks the window's restarts at each restart; names that the
//! global registry, which it needs, has never seen. Its dynamic supervisor sleeps 10 ms before each restart, which no
//! setting changes, so fewer children of it are crashed. Ours has the same window, no limit and no back-off, and keeps
//! its crash reports.

#![expect(clippy::disallowed_methods, reason = "bare actors are what ours are compared with")]

#[path = "supervision/bare.rs"]
mod bare;
#[path = "supervision/ours.rs"]
mod ours;
#[path = "supervision/pure.rs"]
mod pure;
#[path = "supervision/rival.rs"]
mod rival;
#[path = "supervision/worker.rs"]
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use worker::Hall;

/// Children of one supervisor.
const CHILDREN: usize = 1_000;

/// Rounds unless told otherwise: odd, so that the median is one of them.
const ROUNDS: usize = 9;

/// The window in which both supervisors count restarts.
const WINDOW: Duration = Duration::from_millis(1);

/// Somebody who keeps children.
trait Subject {
    const NAME: &'static str;
    /// How many children are crashed in a round; none where nobody restarts them.
    const CRASHES: usize;
    type Tree: Send;

    /// Starts a child for every slot of the hall.
    fn start(hall: &Arc<Hall>) -> impl Future<Output = Self::Tree> + Send;

    /// Asks the supervisor something, which it answers when it has seen to what it was told of its children.
    fn settle(tree: &Self::Tree) -> impl Future<Output = ()> + Send;

    /// Ends the supervisor, and waits until it has ended; the hall tells when no child is left.
    fn stop(tree: Self::Tree) -> impl Future<Output = ()> + Send;
}

/// Microseconds per child, by what was done to it.
#[derive(Default)]
struct Figures(BTreeMap<&'static str, Vec<f64>>);

impl Figures {
    fn note(&mut self, what: &'static str, began: Instant, children: usize) {
        let count = u32::try_from(children).expect("some thousands");
        self.0.entry(what).or_default().push(began.elapsed().as_secs_f64() * 1e6 / f64::from(count));
    }

    /// Median and least.
    fn summary(&self, what: &str) -> Option<(f64, f64)> {
        let mut figures = self.0.get(what)?.clone();
        figures.sort_by(f64::total_cmp);
        Some((figures[figures.len() / 2], figures[0]))
    }
}

const START: &str = "start";
const SETTLE: &str = "settle";
const RESTART: &str = "restart";
const BURST: &str = "restart in a burst";
const STOP: &str = "stop";
const COLUMNS: [&str; 5] = [START, SETTLE, RESTART, BURST, STOP];

async fn round<S: Subject>(mut figures: Figures) -> Figures {
    let hall = Hall::new(CHILDREN);
    let began = Instant::now();
    let tree = S::start(&hall).await;
    hall.ups(CHILDREN).await;
    figures.note(START, began, CHILDREN);
    let began = Instant::now();
    S::settle(&tree).await;
    figures.note(SETTLE, began, CHILDREN);
    if S::CRASHES > 0 {
        let began = Instant::now();
        for number in 0..S::CRASHES {
            hall.crash(number);
            hall.ups(CHILDREN + number + 1).await;
        }
        figures.note(RESTART, began, S::CRASHES);
        let began = Instant::now();
        (0..S::CRASHES).for_each(|number| hall.crash(number));
        hall.ups(CHILDREN + 2 * S::CRASHES).await;
        figures.note(BURST, began, S::CRASHES);
        S::settle(&tree).await;
    }
    let began = Instant::now();
    S::stop(tree).await;
    hall.empty().await;
    figures.note(STOP, began, CHILDREN);
    figures
}

/// One subject on one runtime.
struct Contest {
    name: &'static str,
    play: fn(&Runtime, Figures) -> Figures,
    figures: Figures,
}

impl Contest {
    fn of<S: Subject + 'static>() -> Self {
        let play = |runtime: &Runtime, figures| {
            // In a task: the thread that waits for a runtime is none of its own, and slow to wake.
            let round = runtime.spawn(round::<S>(figures));
            runtime.block_on(round).expect("the round does not panic")
        };
        Self { name: S::NAME, play, figures: Figures::default() }
    }

    fn all() -> Vec<Self> {
        let wanted = wanted();
        let mut all = vec![
            Self::of::<bare::Linked>(),
            Self::of::<rival::Fixed>(),
            Self::of::<rival::Dynamic>(),
            Self::of::<ours::Fixed>(),
            Self::of::<ours::Dynamic>(),
        ];
        all.retain(|contest| contest.name.contains(&wanted));
        all
    }
}

/// What the names of the subjects have that are wanted.
fn wanted() -> String {
    std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default()
}

fn rounds() -> usize {
    std::env::var("HALM_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

fn main() {
    let one = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let two = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let runtimes = [("one thread", one), ("two threads", two)];
    let mut contests = [Contest::all(), Contest::all()];
    let mut speeds = pure::Speeds::of(&wanted());
    for _ in 0..rounds() {
        for ((_, runtime), contests) in runtimes.iter().zip(&mut contests) {
            for contest in contests {
                contest.figures = (contest.play)(runtime, std::mem::take(&mut contest.figures));
            }
        }
        speeds.round();
    }
    println!("µs per child, {CHILDREN} children, medians (and least) of {} rounds", rounds());
    let mut lines = Vec::new();
    for ((place, _), contests) in runtimes.iter().zip(&contests) {
        print!("{place:<28}");
        COLUMNS.iter().for_each(|column| print!("{column:>20}"));
        println!();
        for contest in contests {
            print!("  {:<26}", contest.name);
            for column in COLUMNS {
                let summary = contest.figures.summary(column);
                let text =
                    summary.map_or_else(|| "–".to_owned(), |(median, least)| format!("{median:.1} ({least:.1})"));
                print!("{text:>20}");
                let (median, least) = summary.unzip();
                lines.push(json!({
                    "on": place, "subject": contest.name, "figure": column, "median_us": median, "least_us": least,
                }));
            }
            println!();
        }
    }
    for (name, events_per_s) in speeds.medians() {
        println!("{name}: {:.2} million events a second", events_per_s / 1e6);
        lines.push(json!({"subject": name, "events_per_s": events_per_s}));
    }
    println!("{}", Value::Array(lines));
}
