//! A real tree of supervisors and workers on a paused clock, whose workers wait to be told what to do.
//!
//! Owns the actors. It must never decide: somebody who lives the same life beside it says who takes an order, who ends
//! and who calls, and looks only when all is quiet. Panics unwind without the hook, which would print them.

use std::collections::HashMap;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use halm_actors::address::Address;
use halm_actors::supervisor::{
    CallFailed, ChildKind, ChildSpec, Ended, ExitReason, Policy, Root, StartError, Supervisor, SupervisorMsg,
    SupervisorRef, SupervisorSpec,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::happened::{Call, Happened, Take, parent_of, report_text, row};
use crate::script::{ROOT, Script};

/// Each round lets 61 tasks run, and comes back earlier only when none is left to run.
const QUIET_ROUNDS: usize = 8;

/// What the actors tell, and what is told them.
#[derive(Default)]
struct Board {
    happened: Happened,
    /// Whoever waits to be told how to take its order, by path.
    orders: HashMap<String, oneshot::Sender<Take>>,
    workers: HashMap<String, ActorRef<Die>>,
    supervisors: HashMap<String, Address<SupervisorMsg>>,
    root: Option<SupervisorRef>,
    /// Workers that end by themselves and whose `post_stop` is not an order.
    leaving: HashMap<String, bool>,
}

#[derive(Clone)]
struct Stage {
    board: Arc<Mutex<Board>>,
    script: Arc<Script>,
}

pub(crate) struct Tree {
    stage: Stage,
    starting: Option<JoinHandle<Result<Root, StartError>>>,
    root: Option<Root>,
    reports_seen: usize,
}

#[derive(Debug)]
enum Die {
    Panicking(String),
    Failing(String),
}

struct Worker {
    path: String,
    stage: Stage,
}

/// Writes when it is dropped that the worker is gone, unless that was written before.
struct Life {
    path: String,
    word: &'static str,
    stage: Stage,
}

/// Waits until everything that can happen at this instant has happened. Time stands still meanwhile: the clock moves
/// only when the runtime has nothing to do, and a yielding task is something.
pub(crate) async fn quiet() {
    for _ in 0..QUIET_ROUNDS {
        tokio::task::yield_now().await;
    }
}

impl Tree {
    pub(crate) fn plant(script: &Script) -> Self {
        let stage = Stage { board: Arc::default(), script: Arc::new(script.clone()) };
        let spec = stage.spec(ROOT);
        let starting = Some(tokio::spawn(async move { Supervisor::start_root(ROOT, spec).await }));
        Self { stage, starting, root: None, reports_seen: 0 }
    }

    /// What happened since somebody looked.
    pub(crate) async fn take_happened(&mut self) -> Happened {
        if self.starting.as_ref().is_some_and(JoinHandle::is_finished) {
            let started = self.starting.take().expect("checked").await.expect("does not panic");
            match started {
                Ok(root) => {
                    let mut board = self.stage.board();
                    board.root = Some(root.supervisor().clone());
                    board.happened.booted = true;
                    self.root = Some(root);
                }
                Err(StartError::Failed { reason, .. }) => self.stage.board().happened.ended = Some(reason.to_string()),
                Err(error @ StartError::Id(_)) => panic!("{error}"),
            }
        }
        if let Some(root) = &mut self.root {
            let reports = root.crash_reports();
            let new = reports[self.reports_seen..].iter().map(|report| {
                let path = report.path.as_str();
                let (count, restarts, reason) = (report.incarnation, report.restarts, &report.reason);
                (parent_of(path), report_text(path, count, restarts, report.uptime, &report.action, reason))
            });
            let ended = root.stopped().now_or_never().map(|ended| ending_text(&ended));
            let mut board = self.stage.board();
            board.happened.reports = new.collect();
            self.reports_seen = reports.len();
            if ended.is_some() {
                self.root = None;
                board.happened.ended = ended;
            }
        }
        std::mem::take(&mut self.stage.board().happened)
    }

    /// The table of the supervisor at a path; nothing when it does not live, or cannot be reached yet.
    pub(crate) async fn table(&self, path: &str) -> Option<Vec<String>> {
        let supervisor = self.stage.supervisor(path)?;
        Some(supervisor.which_children().await.ok()?.iter().map(row).collect())
    }

    /// The worker at this path takes its order.
    pub(crate) fn take(&self, path: &str, take: Take) {
        let waiting = self.stage.board().orders.remove(path);
        if let Some(waiting) = waiting {
            // It may be dead, which shows in what happened.
            let _ = waiting.send(take);
        }
    }

    /// The child at this path ends by itself.
    pub(crate) fn exit(&self, path: &str, reason: ExitReason) {
        let worker = self.stage.board().workers.get(path).cloned();
        let Some(worker) = worker else {
            let supervisor = self.stage.board().supervisors.get(path).and_then(Address::get);
            return supervisor.into_iter().for_each(|supervisor| supervisor.kill());
        };
        let stop = |text: Option<String>| {
            self.stage.board().leaving.insert(path.to_owned(), true);
            worker.stop(text);
        };
        match reason {
            ExitReason::Panicked { message, .. } => drop(worker.send_message(Die::Panicking(message))),
            ExitReason::Failed { message, .. } => drop(worker.send_message(Die::Failing(message))),
            ExitReason::Normal => stop(None),
            ExitReason::Killed => worker.kill(),
            ExitReason::Stopped { reason } => stop(Some(reason)),
            shutdown => stop(Some(shutdown.to_string())),
        }
    }

    /// Calls the supervisor at this path; the answer is a reply among what happens.
    pub(crate) fn call(&self, number: u64, path: &str, call: Call) {
        let Some(supervisor) = self.stage.supervisor(path) else { return };
        let (stage, path) = (self.stage.clone(), path.to_owned());
        tokio::spawn(async move {
            let answer = match call {
                Call::Start(policy) => done(supervisor.start_child(stage.child(&path, &policy)).await, "Started"),
                Call::StartDynamic => done(supervisor.start_dynamic(()).await, "Started"),
                Call::Restart(id) => done(supervisor.restart_child(id.as_str()).await, "Started"),
                Call::Terminate(id) => done(supervisor.terminate_child(id.as_str()).await, "Terminated"),
                Call::Delete(id) => done(supervisor.delete_child(id.as_str()).await, "Deleted"),
            };
            stage.board().happened.replies.push((path, format!("reply {number} {answer}")));
        });
    }

    /// The tree shall stop.
    pub(crate) fn stop(&mut self) {
        if let Some(root) = &self.root {
            // It only has to be polled once for the message to be sent.
            let _ = root.shutdown().now_or_never();
        }
    }
}

impl Stage {
    fn board(&self) -> MutexGuard<'_, Board> {
        // A worker that panics while it writes is what some of them do.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn supervisor(&self, path: &str) -> Option<SupervisorRef> {
        let board = self.board();
        if path == ROOT {
            return board.root.clone();
        }
        Some(board.supervisors.get(path)?.get()?.into())
    }

    fn spec(&self, path: &str) -> SupervisorSpec {
        let (settings, children) = self.script.nest(path);
        let spec = SupervisorSpec::new(settings.strategy)
            .intensity(settings.intensity.restarts_max, settings.intensity.period)
            .backoff(settings.backoff)
            .auto_shutdown(settings.auto_shutdown)
            .seed(self.script.seed);
        children.iter().fold(spec, |spec, policy| spec.child(self.child(path, policy)))
    }

    fn child(&self, parent: &str, policy: &Policy) -> ChildSpec {
        let stage = self.clone();
        let mut spec = match policy.kind {
            ChildKind::Worker => ChildSpec::actor_at(policy.id.as_str(), move |context| {
                (Address::new(), Worker { path: context.path().to_string(), stage: stage.clone() }, ())
            }),
            ChildKind::Supervisor => {
                let path = format!("{parent}/{}", policy.id);
                let address = self.board().supervisors.entry(path.clone()).or_default().clone();
                ChildSpec::supervisor_at(policy.id.as_str(), address, move || stage.spec(&path))
            }
        };
        if policy.significant {
            spec = spec.significant();
        }
        if let Some(limit) = policy.start_timeout {
            spec = spec.start_timeout(limit);
        }
        spec.restart(policy.restart).shutdown(policy.shutdown)
    }

    fn write(&self, word: &str, path: &str) {
        self.board().happened.lives.push((parent_of(path), format!("{word} {path}")));
    }

    /// Waits to be told how to take an order.
    async fn ordered(&self, word: &str, path: &str) -> Take {
        let (tell, told) = oneshot::channel();
        {
            let mut board = self.board();
            board.happened.lives.push((parent_of(path), format!("{word} {path}")));
            board.orders.insert(path.to_owned(), tell);
        }
        match told.await {
            Ok(take) => take,
            Err(_) => pending().await,
        }
    }
}

impl Life {
    fn end(&mut self) {
        let word = std::mem::take(&mut self.word);
        if !word.is_empty() {
            self.stage.write(word, &self.path);
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end();
    }
}

impl Actor for Worker {
    type Msg = Die;
    type State = (Life, bool);
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Die>, (): ()) -> Result<(Life, bool), ActorProcessingErr> {
        let mut life = Life { path: self.path.clone(), word: "fail", stage: self.stage.clone() };
        let take = self.stage.ordered("start", &self.path).await;
        if take == Take::Fails {
            return Err("no luck".into());
        }
        self.stage.write("up", &self.path);
        life.word = "down";
        let mut board = self.stage.board();
        board.leaving.insert(self.path.clone(), false);
        board.workers.insert(self.path.clone(), myself);
        drop(board);
        Ok((life, take == Take::DiesAtOnce))
    }

    async fn post_start(
        &self,
        _myself: ActorRef<Die>,
        (life, dies): &mut (Life, bool),
    ) -> Result<(), ActorProcessingErr> {
        if *dies {
            life.end();
            resume_unwind(Box::new("too soon"));
        }
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Die>,
        message: Die,
        (life, _): &mut (Life, bool),
    ) -> Result<(), ActorProcessingErr> {
        life.end();
        match message {
            Die::Panicking(text) => resume_unwind(Box::new(text)),
            Die::Failing(text) => Err(text.into()),
        }
    }

    async fn post_stop(&self, _myself: ActorRef<Die>, (life, _): &mut (Life, bool)) -> Result<(), ActorProcessingErr> {
        let leaving = self.stage.board().leaving.get(&self.path) == Some(&true);
        let take = if leaving { Take::Obeys } else { self.stage.ordered("ask", &self.path).await };
        life.end();
        if take == Take::Panics {
            resume_unwind(Box::new("bang"));
        }
        Ok(())
    }
}

fn done<T>(outcome: Result<T, CallFailed>, answer: &str) -> String {
    outcome.map_or_else(|failed| failed.to_string(), |_| answer.to_owned())
}

fn ending_text(ended: &Ended) -> String {
    match ended {
        Ended::Shutdown => "stopped".to_owned(),
        Ended::AutoShutdown { child, reason } => format!("shut down after {child}: {reason}"),
        Ended::Escalated(escalation) => format!("gave up after {}: {}", escalation.child, escalation.reason),
        Ended::Killed => "killed".to_owned(),
    }
}
