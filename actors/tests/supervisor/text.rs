//! Lives as text that people read and edit, one line for each thing.
//!
//! Owns the format of the files in `replays`, and that what is written reads back as the same life:
//!
//! ```text
//! # anything
//! seed 7
//! supervisor root one_for_all auto_shutdown never intensity 3/1000ms backoff 10ms 80ms 300ms
//! child root/a permanent shutdown 100ms start 50ms
//! child root/b supervisor transient significant shutdown infinity start unlimited
//! supervisor root/b one_for_one auto_shutdown any intensity 0/1000ms backoff none
//! after 20ms exit 0 panic
//! after 0ms in 1 start e temporary shutdown brutal start 50ms
//! orders 24
//! order 3 fails ignores
//! meanwhile terminate a
//! ```
//!
//! Orders (starts and stops of workers) are answered in turn, and those that are not named are obeyed; `meanwhile` is
//! what arrives before the order above it is. `exit 0` is the end of the table's first child, `in 1` means the second
//! of the supervisors that live.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::str::SplitWhitespace;
use std::time::Duration;

use halm_actors::supervisor::{
    AutoShutdown, Backoff, ChildId, ChildKind, ExitReason, Hook, Intensity, Policy, Restart, Settings, Shutdown,
    Strategy,
};

use crate::script::{Arrival, Behaviour, Nest, OnStart, OnStop, ROOT, Script, Step};

type MakeReason = fn() -> ExitReason;

/// How a child can end by itself; a panic is the common one.
pub(crate) const REASONS: &[(&str, MakeReason)] = &[
    ("panic", || ExitReason::Panicked { hook: Hook::Handle, message: "boom".to_owned() }),
    ("error", || ExitReason::Failed { hook: Hook::Handle, message: "no luck".to_owned() }),
    ("normal", || ExitReason::Normal),
    ("shutdown", || ExitReason::Shutdown { detail: None }),
    ("shutdown_early", || ExitReason::Shutdown { detail: Some("early".to_owned()) }),
    ("stop", || ExitReason::Stopped { reason: "disk full".to_owned() }),
    ("kill", || ExitReason::Killed),
];

const STRATEGIES: &[(&str, Strategy)] = &[
    ("one_for_one", Strategy::OneForOne),
    ("one_for_all", Strategy::OneForAll),
    ("rest_for_one", Strategy::RestForOne),
    ("dynamic", Strategy::Dynamic),
];

const AUTO_SHUTDOWNS: &[(&str, AutoShutdown)] =
    &[("never", AutoShutdown::Never), ("any", AutoShutdown::AnySignificant), ("all", AutoShutdown::AllSignificant)];

const RESTARTS: &[(&str, Restart)] =
    &[("permanent", Restart::Permanent), ("transient", Restart::Transient), ("temporary", Restart::Temporary)];

const STARTS: &[(&str, OnStart)] = &[
    ("succeeds", OnStart::Succeeds),
    ("fails", OnStart::Fails),
    ("dies_at_once", OnStart::DiesAtOnce),
    ("hangs", OnStart::Hangs),
    ("succeeds_late", OnStart::SucceedsLate),
    ("hangs_for_good", OnStart::HangsForGood),
];

const STOPS: &[(&str, OnStop)] = &[
    ("obeys", OnStop::Obeys),
    ("panics", OnStop::Panics),
    ("ignores", OnStop::Ignores),
    ("unkillable", OnStop::Unkillable),
];

/// Where lives are kept that once were lived differently by two sides.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/supervisor/replays")
}

/// Writes a life where every later run will find it; says where.
pub(crate) fn save(script: &Script) -> String {
    let text = script.to_string();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let file = folder().join(format!("found-{:08x}.life", hasher.finish() >> 32));
    match fs::write(&file, &text) {
        Ok(()) => format!("saved as {}", file.display()),
        Err(error) => format!("not saved as {}: {error}", file.display()),
    }
}

/// All lives that were saved, with their files' names.
pub(crate) fn saved() -> Vec<(String, Script)> {
    let mut lives = Vec::new();
    for entry in fs::read_dir(folder()).expect("the folder is there") {
        let file = entry.expect("is readable").path();
        let name = file.file_name().expect("has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("is text");
        lives.push((name.clone(), read(&text).unwrap_or_else(|error| panic!("{name}: {error}"))));
    }
    lives.sort_by(|(left, _), (right, _)| left.cmp(right));
    lives
}

// Writing.

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        write_nest(f, ROOT, &self.settings, &self.children)?;
        for (path, nest) in &self.below {
            write_nest(f, path, &nest.settings, &nest.children)?;
        }
        for step in &self.steps {
            writeln!(f, "after {}ms {}", step.wait.as_millis(), step.arrival)?;
        }
        writeln!(f, "orders {}", self.behaviours.len())?;
        for (number, behaviour) in self.behaviours.iter().enumerate() {
            if *behaviour == Behaviour::quiet() {
                continue;
            }
            writeln!(f, "order {number} {} {}", name(STARTS, behaviour.start), name(STOPS, behaviour.stop))?;
            for arrival in &behaviour.meanwhile {
                writeln!(f, "meanwhile {arrival}")?;
            }
        }
        Ok(())
    }
}

fn write_nest(f: &mut fmt::Formatter<'_>, path: &str, settings: &Settings, children: &[Policy]) -> fmt::Result {
    let Settings { strategy, intensity, backoff, auto_shutdown } = settings;
    write!(f, "supervisor {path} {} auto_shutdown ", name(STRATEGIES, *strategy))?;
    write!(f, "{} intensity ", name(AUTO_SHUTDOWNS, *auto_shutdown))?;
    write!(f, "{}/{}ms backoff ", intensity.restarts_max, intensity.period.as_millis())?;
    if *backoff == Backoff::NONE {
        writeln!(f, "none")?;
    } else {
        let Backoff { first, max, reset_after } = backoff;
        writeln!(f, "{}ms {}ms {}ms", first.as_millis(), max.as_millis(), reset_after.as_millis())?;
    }
    for policy in children {
        writeln!(f, "child {path}/{} {}", policy.id, Rules(policy))?;
    }
    Ok(())
}

/// A policy without its id.
struct Rules<'a>(&'a Policy);

impl fmt::Display for Rules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.kind == ChildKind::Supervisor {
            f.write_str("supervisor ")?;
        }
        f.write_str(name(RESTARTS, self.0.restart))?;
        if self.0.significant {
            f.write_str(" significant")?;
        }
        match self.0.shutdown {
            Shutdown::Brutal => f.write_str(" shutdown brutal")?,
            Shutdown::Infinity => f.write_str(" shutdown infinity")?,
            Shutdown::Timeout(limit) => write!(f, " shutdown {}ms", limit.as_millis())?,
        }
        match self.0.start_timeout {
            None => f.write_str(" start unlimited"),
            Some(limit) => write!(f, " start {}ms", limit.as_millis()),
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Exit(place, reason) => {
                let known = REASONS.iter().find(|(_, make)| make() == *reason).expect("a reason of the list");
                write!(f, "exit {place} {}", known.0)
            }
            Self::Start(policy) => write!(f, "start {} {}", policy.id, Rules(policy)),
            Self::Terminate(id) => write!(f, "terminate {id}"),
            Self::Restart(id) => write!(f, "restart {id}"),
            Self::Delete(id) => write!(f, "delete {id}"),
            Self::Stop => f.write_str("stop"),
            Self::In(supervisor, arrival) => write!(f, "in {supervisor} {arrival}"),
        }
    }
}

fn name<T: Copy + PartialEq>(names: &[(&'static str, T)], wanted: T) -> &'static str {
    names.iter().find(|(_, value)| *value == wanted).expect("every value has a name").0
}

// Reading.

/// Reads a life; an error names the line.
pub(crate) fn read(text: &str) -> Result<Script, String> {
    let (mut seed, mut nests) = (0, BTreeMap::<String, Nest>::new());
    let (mut steps, mut behaviours) = (Vec::new(), Vec::<Behaviour>::new());
    let mut last_order = None;
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = Words(line.split_whitespace());
        let Some(word) = words.0.next().filter(|word| !word.starts_with('#')) else { continue };
        let mut read_line = || -> Result<(), String> {
            match word {
                "seed" => seed = words.number()?,
                "supervisor" => {
                    let path = words.next()?.to_owned();
                    nests.insert(path, Nest { settings: words.settings()?, children: Vec::new() });
                }
                "child" => {
                    let (parent, id) = words.next()?.rsplit_once('/').ok_or("a child has a path")?;
                    let policy = words.policy(id)?;
                    nests.get_mut(parent).ok_or("its supervisor comes first")?.children.push(policy);
                }
                "after" => steps.push(Step { wait: words.duration()?, arrival: words.arrival()? }),
                "orders" => behaviours.resize(words.number()?, Behaviour::quiet()),
                "order" => {
                    let order: usize = words.number()?;
                    let behaviour = behaviours.get_mut(order).ok_or("there are not so many orders")?;
                    (behaviour.start, behaviour.stop) = (words.one_of(STARTS)?, words.one_of(STOPS)?);
                    last_order = Some(order);
                }
                "meanwhile" => {
                    let order = last_order.ok_or("an order comes first")?;
                    behaviours[order].meanwhile.push(words.arrival()?);
                }
                _ => return Err(format!("`{word}` starts no line")),
            }
            words.0.next().map_or(Ok(()), |word| Err(format!("`{word}` is too much")))
        };
        read_line().map_err(|error| format!("line {number}: {error}"))?;
    }
    for (path, nest) in &nests {
        let known = |policy: &&Policy| policy.kind == ChildKind::Supervisor;
        for child in nest.children.iter().filter(known) {
            let path = format!("{path}/{}", child.id);
            nests.get(&path).ok_or_else(|| format!("supervisor {path} is not described"))?;
        }
    }
    Script::new(seed, nests, steps, behaviours).ok_or_else(|| format!("supervisor {ROOT} or orders are missing"))
}

struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "ends too early".to_owned())
    }

    fn keyword(&mut self, wanted: &str) -> Result<(), String> {
        let word = self.next()?;
        if word == wanted { Ok(()) } else { Err(format!("`{word}` where `{wanted}` belongs")) }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        number(self.next()?)
    }

    fn duration(&mut self) -> Result<Duration, String> {
        duration(self.next()?)
    }

    fn one_of<T: Copy>(&mut self, names: &[(&str, T)]) -> Result<T, String> {
        one_of(self.next()?, names)
    }

    fn id(&mut self) -> Result<ChildId, String> {
        ChildId::try_from(self.next()?).map_err(|error| error.to_string())
    }

    fn settings(&mut self) -> Result<Settings, String> {
        let strategy = self.one_of(STRATEGIES)?;
        self.keyword("auto_shutdown")?;
        let auto_shutdown = self.one_of(AUTO_SHUTDOWNS)?;
        self.keyword("intensity")?;
        let (restarts_max, period) = self.next()?.split_once('/').ok_or("an intensity is a number/a time")?;
        let intensity = Intensity { restarts_max: number(restarts_max)?, period: duration(period)? };
        self.keyword("backoff")?;
        let backoff = match self.next()? {
            "none" => Backoff::NONE,
            first => Backoff { first: duration(first)?, max: self.duration()?, reset_after: self.duration()? },
        };
        Ok(Settings { strategy, intensity, backoff, auto_shutdown })
    }

    fn policy(&mut self, id: &str) -> Result<Policy, String> {
        let id = ChildId::try_from(id).map_err(|error| error.to_string())?;
        let mut word = self.next()?;
        let mut kind = ChildKind::Worker;
        if word == "supervisor" {
            (kind, word) = (ChildKind::Supervisor, self.next()?);
        }
        let restart = one_of(word, RESTARTS)?;
        word = self.next()?;
        let significant = word == "significant";
        if significant {
            word = self.next()?;
        }
        if word != "shutdown" {
            return Err(format!("`{word}` where `shutdown` belongs"));
        }
        let shutdown = match self.next()? {
            "brutal" => Shutdown::Brutal,
            "infinity" => Shutdown::Infinity,
            limit => Shutdown::Timeout(duration(limit)?),
        };
        self.keyword("start")?;
        let start_timeout = match self.next()? {
            "unlimited" => None,
            limit => Some(duration(limit)?),
        };
        Ok(Policy { id, restart, significant, shutdown, kind, start_timeout })
    }

    fn arrival(&mut self) -> Result<Arrival, String> {
        Ok(match self.next()? {
            "nothing" => Arrival::Nothing,
            "exit" => Arrival::Exit(self.number()?, self.one_of(REASONS)?()),
            "start" => {
                let id = self.next()?;
                Arrival::Start(self.policy(id)?)
            }
            "terminate" => Arrival::Terminate(self.id()?),
            "restart" => Arrival::Restart(self.id()?),
            "delete" => Arrival::Delete(self.id()?),
            "stop" => Arrival::Stop,
            "in" => Arrival::In(self.number()?, Box::new(self.arrival()?)),
            word => return Err(format!("`{word}` is nothing that arrives")),
        })
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("`{word}` is not a number that fits"))
}

fn duration(word: &str) -> Result<Duration, String> {
    let digits = word.strip_suffix("ms").ok_or_else(|| format!("`{word}` does not end in ms"))?;
    number(digits).map(Duration::from_millis)
}

fn one_of<T: Copy>(word: &str, names: &[(&str, T)]) -> Result<T, String> {
    let known = names.iter().find(|(name, _)| *name == word);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("`{word}` is none of {names:?}")
    })
}
