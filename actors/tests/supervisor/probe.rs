//! An actor that does as it is told: lives, panics, hangs, and writes down what happened to it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use halm_actors::address::Address;
use halm_actors::supervisor::{Backoff, ChildSpec, Root, Strategy, SupervisorSpec};
use halm_actors::tasks::Tasks;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::time::timeout;

/// Long enough for a busy machine; no test waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an incarnation of a probe does in one of its callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    PanicInPreStart,
    FailInPreStart,
    HangInPreStart,
    PanicInPostStart,
    CallHomeInPostStart,
    FailInPostStart,
    PanicInPostStop,
    HangInPostStop,
}

#[derive(Debug)]
pub(crate) enum ProbeMsg {
    Panic(&'static str),
    Fail(&'static str),
    /// Never return from the handler, but await.
    Hang,
    PanicInTask(&'static str),
}

/// What happened, in order, to all probes of a test.
#[derive(Clone)]
pub(crate) struct Diary {
    lines: watch::Sender<Vec<String>>,
    acts: Arc<Mutex<HashMap<(String, u64), Act>>>,
    addresses: Arc<Mutex<HashMap<String, Address<ProbeMsg>>>>,
}

pub(crate) struct Probe {
    name: String,
    act: Option<Act>,
    diary: Diary,
}

/// Writes at the end of `post_stop`, or when the state is dropped before, or when the start is given up.
pub(crate) struct Life {
    name: String,
    over: bool,
    diary: Diary,
    tasks: Tasks,
}

impl Life {
    fn end(&mut self) {
        if !self.over {
            self.over = true;
            self.diary.write(format!("{} gone", self.name));
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end();
    }
}

impl Diary {
    pub(crate) fn new() -> Self {
        Self { lines: watch::Sender::new(Vec::new()), acts: Arc::default(), addresses: Arc::default() }
    }

    /// Plans what one incarnation of a probe does.
    pub(crate) fn plan(&self, name: &str, incarnation: u64, act: Act) {
        self.acts.lock().expect("no test panics with the lock").insert((name.to_owned(), incarnation), act);
    }

    /// A permanent probe.
    pub(crate) fn probe(&self, name: &str) -> ChildSpec {
        let (diary, own) = (self.clone(), name.to_owned());
        ChildSpec::actor(name, self.address(name), move |context| {
            let acts = diary.acts.lock().expect("no test panics with the lock");
            let act = acts.get(&(own.clone(), context.incarnation)).copied();
            (Probe { name: own.clone(), act, diary: diary.clone() }, ())
        })
    }

    pub(crate) fn address(&self, name: &str) -> Address<ProbeMsg> {
        self.addresses.lock().expect("no test panics with the lock").entry(name.to_owned()).or_default().clone()
    }

    pub(crate) fn send(&self, name: &str, message: ProbeMsg) {
        self.address(name).send(message).expect("the probe lives");
    }

    pub(crate) fn write(&self, line: String) {
        self.lines.send_modify(|lines| lines.push(line));
    }

    /// Waits until the lines about the given probes' ups and downs are these.
    pub(crate) async fn reads(&self, expected: &[&str]) {
        let mut lines = self.lines.subscribe();
        let done = timeout(PATIENCE, lines.wait_for(|lines| lines.as_slice() == expected)).await.is_ok();
        assert!(done, "the diary never read {expected:?}, but reads {:?}", self.lines.borrow());
    }

    /// Waits until a line is written, once.
    pub(crate) async fn contains(&self, expected: &str) {
        self.contains_times(expected, 1).await;
    }

    pub(crate) async fn contains_times(&self, expected: &str, times: usize) {
        let mut lines = self.lines.subscribe();
        let enough = |lines: &Vec<String>| lines.iter().filter(|line| *line == expected).count() >= times;
        let done = timeout(PATIENCE, lines.wait_for(enough)).await.is_ok();
        assert!(done, "`{expected}` was never written {times} times, but {:?}", self.lines.borrow());
    }

    pub(crate) fn clear(&self) {
        self.lines.send_modify(Vec::clear);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }
}

impl Probe {
    /// A probe that does nothing special.
    pub(crate) fn named(name: &str, diary: &Diary) -> Self {
        Self { name: name.to_owned(), act: None, diary: diary.clone() }
    }
}

impl Actor for Probe {
    type Msg = ProbeMsg;
    type State = Life;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<ProbeMsg>, (): ()) -> Result<Life, ActorProcessingErr> {
        let tasks = Tasks::new(myself.get_cell());
        let life = Life { name: self.name.clone(), over: false, diary: self.diary.clone(), tasks };
        match self.act {
            Some(Act::PanicInPreStart) => panic!("boom in pre_start"),
            Some(Act::FailInPreStart) => return Err("no luck in pre_start".into()),
            Some(Act::HangInPreStart) => {
                self.diary.write(format!("{} hangs", self.name));
                pending::<()>().await;
            }
            _ => {}
        }
        self.diary.write(format!("{} up", self.name));
        Ok(life)
    }

    async fn post_start(&self, _myself: ActorRef<ProbeMsg>, _life: &mut Life) -> Result<(), ActorProcessingErr> {
        match self.act {
            Some(Act::PanicInPostStart) => panic!("boom in post_start"),
            Some(Act::CallHomeInPostStart) => {
                self.diary.address(&self.name).send(ProbeMsg::Fail("called home"))?;
                Ok(())
            }
            Some(Act::FailInPostStart) => Err("no luck in post_start".into()),
            _ => Ok(()),
        }
    }

    async fn post_stop(&self, _myself: ActorRef<ProbeMsg>, life: &mut Life) -> Result<(), ActorProcessingErr> {
        match self.act {
            Some(Act::PanicInPostStop) => panic!("boom in post_stop"),
            Some(Act::HangInPostStop) => {
                self.diary.write(format!("{} lingers", self.name));
                pending::<()>().await;
            }
            _ => life.end(),
        }
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<ProbeMsg>,
        message: ProbeMsg,
        life: &mut Life,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ProbeMsg::Panic(text) => panic!("{text}"),
            ProbeMsg::Fail(text) => return Err(text.into()),
            ProbeMsg::Hang => {
                self.diary.write(format!("{} hangs", self.name));
                pending::<()>().await;
            }
            ProbeMsg::PanicInTask(text) => life.tasks.spawn(async move { panic!("{text}") })?,
        }
        Ok(())
    }
}

/// A supervisor that restarts at once and bears much.
pub(crate) fn patient(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec::new(strategy).backoff(Backoff::NONE).intensity(10, Duration::from_secs(60))
}

/// Waits until the last crash report is about this, and returns its reason and action.
pub(crate) async fn last_report(root: &Root, path: &str, count: usize) -> (String, String) {
    let reports = timeout(PATIENCE, async {
        loop {
            let reports = root.crash_reports();
            if reports.iter().filter(|report| report.path.as_str() == path).count() >= count {
                return reports;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let Ok(reports) = reports else {
        let mut text = String::new();
        for report in root.crash_reports() {
            let _ = writeln!(text, "{:?}", report.record());
        }
        panic!("never {count} reports about {path}, but:\n{text}");
    };
    let report = reports.iter().rfind(|report| report.path.as_str() == path).expect("counted above");
    (report.reason.to_string(), report.action.name().to_owned())
}
