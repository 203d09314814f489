//! The root of a tree, and references to supervisors for those who change a tree.
//!
//! Owns the ways in from outside: start, stop, calls, snapshots. It must never keep a tree alive or dead by accident:
//! dropping a [`Root`] does neither.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use halm_protocol::CrashCounts;
use ractor::{ActorCell, ActorRef};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::exit::{Escalation, ExitReason};
use super::names::{ChildId, ChildPath, InvalidId};
use super::protocol::{Answer, CallError, ChildCount, ChildView, Ending};
use super::shell::{self, CallReply, Msg, Place, SupervisorMsg};
use super::spec::{ChildSpec, Spawned, SupervisorSpec};
use crate::address::Address;
use crate::crash_report::{CrashHistory, CrashReport, panics};
use crate::mailbox::Mailbox;
use crate::tree::TreeNode;
use crate::vitals::Vitals;

/// How long a call that changes a tree may take: a stop waits for the child's shutdown time, a start for its start.
pub const CHANGE_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a question may take; supervisors answer at once, whatever they are doing.
pub const QUESTION_WAIT_MAX: Duration = Duration::from_secs(2);

/// Where trees start.
pub struct Supervisor;

/// The tree did not start; nothing of it is left running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The root's id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The root, or something below it.
    #[error("start {path}: {reason}")]
    Failed {
        /// The root.
        path: ChildPath,
        /// Why.
        reason: ExitReason,
    },
}

/// A call that did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// The supervisor refused.
    #[error(transparent)]
    Refused(#[from] CallError),
    /// An id is not one.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The supervisor does not live.
    #[error("the supervisor is gone")]
    Gone,
    /// The supervisor did not answer in time; what was asked for may still happen.
    #[error("the supervisor did not answer in {0:?}: look at its tree")]
    NoAnswer(Duration),
}

/// How a tree ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Shutdown,
    /// Significant children of the root ended.
    AutoShutdown {
        /// The last of them.
        child: ChildId,
        /// How it ended.
        reason: ExitReason,
    },
    /// Restarts came more often than the root bears; with the chain of causes.
    Escalated(Escalation),
    /// The root was killed, or panicked: a defect.
    Killed,
}

/// A running tree.
#[derive(Debug)]
pub struct Root {
    supervisor: SupervisorRef,
    path: ChildPath,
    crashes: CrashHistory,
    ended: watch::Receiver<Option<Ended>>,
}

/// A supervisor, for calls. It names one incarnation: after a restart, get another.
#[derive(Clone, Debug)]
pub struct SupervisorRef(ActorRef<SupervisorMsg>);

impl Supervisor {
    /// Starts a tree; returns when all its first children run.
    ///
    /// # Errors
    /// When a specification is not valid or a child fails to start; what was started is stopped again by then.
    ///
    /// # Cancel safety
    /// Dropping the future kills what was started.
    pub async fn start_root(id: &str, spec: SupervisorSpec) -> Result<Root, StartError> {
        let path = ChildPath::root(&ChildId::try_from(id)?);
        let crashes = CrashHistory::default();
        let (tell_ended, ended) = watch::channel(None);
        let failed = |reason| StartError::Failed { path: path.clone(), reason };
        panics::watch();
        let vitals = Arc::<Vitals>::default();
        let place = Place { parent: None, address: Address::new(), vitals: Arc::clone(&vitals) };
        let (supervisor, ready) = shell::spawn(path.clone(), spec, crashes.clone(), Some(tell_ended), place)
            .await
            .map_err(|crash| failed(crash.reason))?;
        let unwanted = Spawned::new(supervisor.get_cell(), None, vitals);
        match ready.await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                // It has stopped its children and is stopping itself.
                let _ = supervisor.wait(None).await;
                return Err(failed(reason));
            }
            Err(_) => return Err(failed(ExitReason::Killed)),
        }
        unwanted.keep();
        Ok(Root { supervisor: SupervisorRef(supervisor), path, crashes, ended })
    }
}

impl Root {
    /// The root's path.
    pub fn path(&self) -> &ChildPath {
        &self.path
    }

    /// The root's actor.
    pub fn cell(&self) -> ActorCell {
        self.supervisor.0.get_cell()
    }

    /// The root, for calls.
    pub fn supervisor(&self) -> &SupervisorRef {
        &self.supervisor
    }

    /// A supervisor further down, if it lives.
    ///
    /// # Errors
    /// When one on the way does not answer.
    pub async fn find_supervisor(&self, path: &ChildPath) -> Result<Option<SupervisorRef>, CallFailed> {
        let mut segments = path.segments();
        if segments.next() != Some(self.path.as_str()) {
            return Ok(None);
        }
        let mut found = self.supervisor.clone();
        for segment in segments {
            match found.find_supervisor(segment).await? {
                Some(next) => found = next,
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// Waits until the tree has ended.
    ///
    /// # Cancel safety
    /// Safe: the end is kept.
    pub async fn stopped(&mut self) -> Ended {
        let ended = match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        };
        // Without a time-out it cannot time out.
        let _ = self.supervisor.0.wait(None).await;
        ended.unwrap_or(Ended::Killed)
    }

    /// Stops the tree, children last to first, and waits until it has stopped. Safe to call twice.
    pub async fn shutdown(&self) {
        if Mailbox::of(&self.supervisor.0).send(SupervisorMsg(Msg::Stop)).is_err() {
            self.supervisor.0.stop(Some("shutdown".to_owned()));
        }
        // Without a time-out it cannot time out.
        let _ = self.supervisor.0.wait(None).await;
    }

    /// The tree as it is now.
    ///
    /// # Errors
    /// When the root does not answer.
    pub async fn tree(&self) -> Result<TreeNode, CallFailed> {
        self.supervisor.tree().await
    }

    /// How many crash reports there were since the tree began.
    pub fn crash_counts(&self) -> CrashCounts {
        self.crashes.counts()
    }

    /// The last crash reports of the whole tree, oldest first.
    pub fn crash_reports(&self) -> Vec<CrashReport> {
        self.crashes.reports()
    }
}

impl SupervisorRef {
    /// Adds a child at the end and starts it.
    ///
    /// # Errors
    /// When it is there already, its specification is not valid, or it fails to start (it is then not added).
    pub async fn start_child(&self, spec: ChildSpec) -> Result<ChildId, CallFailed> {
        self.change(|reply| Msg::StartChild { spec, reply }).await
    }

    /// Starts a child of a dynamic supervisor, which gets the argument in its [`super::StartContext`].
    ///
    /// # Errors
    /// When the supervisor is not dynamic, or the child fails to start.
    pub async fn start_dynamic(&self, argument: impl Any + Send + Sync) -> Result<ChildId, CallFailed> {
        self.change(|reply| Msg::StartDynamic { argument: Arc::new(argument), reply }).await
    }

    /// Stops a child, which is then not restarted. A temporary or dynamic one is forgotten.
    ///
    /// # Errors
    /// When there is no such child.
    pub async fn terminate_child(&self, id: &str) -> Result<(), CallFailed> {
        let id = ChildId::try_from(id)?;
        self.change(|reply| Msg::TerminateChild { id, reply }).await.map(drop)
    }

    /// Starts a child again that does not run.
    ///
    /// # Errors
    /// When there is no such child, it runs or is about to, or fails to start.
    pub async fn restart_child(&self, id: &str) -> Result<(), CallFailed> {
        let id = ChildId::try_from(id)?;
        self.change(|reply| Msg::RestartChild { id, reply }).await.map(drop)
    }

    /// Forgets a child that does not run.
    ///
    /// # Errors
    /// When there is no such child, or it runs or is about to.
    pub async fn delete_child(&self, id: &str) -> Result<(), CallFailed> {
        let id = ChildId::try_from(id)?;
        self.change(|reply| Msg::DeleteChild { id, reply }).await.map(drop)
    }

    /// The table, in start order.
    ///
    /// # Errors
    /// When the supervisor is gone or silent.
    pub async fn which_children(&self) -> Result<Vec<ChildView>, CallFailed> {
        self.ask(QUESTION_WAIT_MAX, |reply| Msg::WhichChildren { reply }).await
    }

    /// The counts.
    ///
    /// # Errors
    /// When the supervisor is gone or silent.
    pub async fn count_children(&self) -> Result<ChildCount, CallFailed> {
        self.ask(QUESTION_WAIT_MAX, |reply| Msg::CountChildren { reply }).await
    }

    /// A child that is a supervisor and lives.
    ///
    /// # Errors
    /// When the supervisor is gone or silent.
    pub async fn find_supervisor(&self, id: &str) -> Result<Option<Self>, CallFailed> {
        let id = ChildId::try_from(id)?;
        let cell = self.ask(QUESTION_WAIT_MAX, |reply| Msg::FindSupervisor { id, reply }).await?;
        Ok(cell.map(|cell| Self(cell.into())))
    }

    /// What is below this supervisor.
    ///
    /// # Errors
    /// When the supervisor is gone or silent.
    pub async fn tree(&self) -> Result<TreeNode, CallFailed> {
        self.ask(QUESTION_WAIT_MAX, |reply| Msg::Snapshot { within: QUESTION_WAIT_MAX * 4 / 5, reply }).await
    }

    async fn change(&self, message: impl FnOnce(CallReply) -> Msg) -> Result<ChildId, CallFailed> {
        let answered: Result<(ChildId, Answer), CallError> = self.ask(CHANGE_WAIT_MAX, message).await?;
        let (id, Answer::Started | Answer::Terminated | Answer::Deleted) = answered?;
        Ok(id)
    }

    async fn ask<T>(&self, within: Duration, message: impl FnOnce(oneshot::Sender<T>) -> Msg) -> Result<T, CallFailed> {
        let (reply, answer) = oneshot::channel();
        Mailbox::of(&self.0).send(SupervisorMsg(message(reply))).map_err(|_| CallFailed::Gone)?;
        match timeout(within, answer).await {
            Ok(answer) => answer.map_err(|_| CallFailed::Gone),
            Err(_) => Err(CallFailed::NoAnswer(within)),
        }
    }
}

impl From<ActorRef<SupervisorMsg>> for SupervisorRef {
    fn from(supervisor: ActorRef<SupervisorMsg>) -> Self {
        Self(supervisor)
    }
}

impl Ended {
    pub(super) fn of(root: &ChildPath, ending: &Ending) -> Self {
        match ending.clone() {
            Ending::Stopped => Self::Shutdown,
            Ending::AutoShutdown { child, reason } => Self::AutoShutdown { child, reason },
            // A failed start is told to whoever started the tree, and is a failure of that child all the same.
            Ending::Intensity { child, reason } | Ending::StartFailed { child, reason } => {
                Self::Escalated(Escalation { supervisor: root.clone(), child, reason })
            }
        }
    }
}
