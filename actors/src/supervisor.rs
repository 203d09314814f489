//! Supervision as OTP has it, over ractor.
//!
//! Owns: when a child is started, stopped, restarted, given up on, and what is said about it. The [`core::Core`]
//! decides, pure, `(Event, now) -> Effects`; the [`Supervisor`] actor performs. It must never run a child's work, block
//! its own mailbox, or know what the children are for. Everything that lives in a replica is started through here.
//! `docs/supervisor.md` goes through OTP's manual rule by rule, and names the tests that show each.
//!
//! What ractor does and what this adds, in short: ractor links a child once its `pre_start` returned, reports its end
//! as a supervision event, and when an actor dies it kills whatever is linked below it (all at once, without waiting,
//! and not what is already in `post_stop`). Order, time-outs, restarts, escalation and the kill of those stragglers are
//! ours. `kill` cannot interrupt code that does not await: such a child is waited for [`core::KILL_WAIT_MAX`] and then
//! given up, with a crash report.

mod backoff;
mod child;
pub mod core;
mod exit;
mod intensity;
mod names;
mod policy;
mod process_end;
mod protocol;
mod root;
mod shell;
mod spec;
mod watched;

pub use backoff::Backoff;
pub use child::{ChildStanding, LAST_RESTARTS_MAX, LastRestart};
pub use exit::{Escalation, ExitClass, ExitReason, Hook};
pub use intensity::Intensity;
pub use names::{CHILD_ID_BYTES_MAX, ChildId, ChildPath, InvalidId};
pub use policy::{AutoShutdown, CHILDREN_MAX, ChildKind, Policy, Restart, Settings, Shutdown, SpecError, Strategy};
pub use process_end::ProcessEnd;
pub use protocol::{
    Action, Answer, CallError, CallId, Change, ChildCount, ChildKey, ChildView, Effect, Ending, Event, Report, RunId,
    TimerId,
};
pub use root::{CHANGE_WAIT_MAX, CallFailed, Ended, QUESTION_WAIT_MAX, Root, StartError, Supervisor, SupervisorRef};
pub use shell::SupervisorMsg;
pub use spec::{ChildSpec, Spawned, StartContext, SupervisorSpec, WORKER_SHUTDOWN_TIMEOUT, WORKER_START_TIMEOUT};
