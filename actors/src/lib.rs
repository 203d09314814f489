//! Supervision and every decision of halm.
//!
//! Two things live here. The first is a supervision runtime over ractor, with OTP's semantics; it knows nothing of models
//! and can be used alone. The second is a [`replica`]: the actors that take jobs from a queue, let worker processes
//! compute them, write what they make into a fenced log, and settle them exactly once.
//!
//! # A tour of the supervision runtime
//!
//! A tree is described by specifications and started at its root. A [`ChildSpec`](supervisor::ChildSpec) says how an actor
//! is made and what its end means (permanent, transient, temporary; significant; how it is shut down); a
//! [`SupervisorSpec`](supervisor::SupervisorSpec) says what the supervisor does about it (strategy, intensity, back-off,
//! automatic shutdown). Supervisors are children like any other. An actor's place is its path, `root/pools/1`; there are no
//! global names. Others find it at an [`Address`](address::Address), whichever incarnation lives there.
//!
//! ```
//! use halm_actors::address::Address;
//! use halm_actors::supervisor::{ChildSpec, Strategy, Supervisor, SupervisorSpec};
//! use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
//! use tokio::sync::oneshot;
//!
//! /// Divides 100, and dies of dividing by zero.
//! struct Divider;
//!
//! enum DividerMsg {
//!     By(u32, RpcReplyPort<u32>),
//! }
//!
//! impl Actor for Divider {
//!     type Msg = DividerMsg;
//!     type State = ();
//!     type Arguments = ();
//!
//!     async fn pre_start(&self, _: ActorRef<DividerMsg>, (): ()) -> Result<(), ActorProcessingErr> {
//!         Ok(())
//!     }
//!
//!     async fn handle(
//!         &self,
//!         _: ActorRef<DividerMsg>,
//!         DividerMsg::By(by, reply): DividerMsg,
//!         (): &mut (),
//!     ) -> Result<(), ActorProcessingErr> {
//!         reply.send(100 / by)?;
//!         Ok(())
//!     }
//! }
//!
//! async fn divide(divider: &Address<DividerMsg>, by: u32) -> Option<u32> {
//!     let (reply, answer) = oneshot::channel();
//!     divider.send(DividerMsg::By(by, reply.into())).ok()?;
//!     answer.await.ok()
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let divider = Address::new();
//! let spec = SupervisorSpec::new(Strategy::OneForOne)
//!     .child(ChildSpec::actor("divider", divider.clone(), |_| (Divider, ())));
//! let root = Supervisor::start_root("root", spec).await?;
//! assert_eq!(divide(&divider, 5).await, Some(20));
//!
//! // It panics. Its supervisor starts another, and the address is the same.
//! let first = divider.wait().await;
//! assert_eq!(divide(&divider, 0).await, None);
//! first.wait(None).await?;
//! divider.wait().await;
//! assert_eq!(divide(&divider, 4).await, Some(25));
//!
//! // Who died, why and what was done about it: a crash report. Who lives: the tree.
//! let report = root.crash_reports().remove(0).record();
//! assert_eq!(report.path, "root/divider");
//! assert_eq!(report.reason, "panicked in handle: attempt to divide by zero");
//! assert_eq!(root.tree().await?.find("root/divider").map(|divider| divider.restarts), Some(1));
//! root.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! What each sentence of OTP's manual became, and the test that shows it: `actors/docs/supervisor.md`.
//!
//! | module | what it owns |
//! |---|---|
//! | [`supervisor`] | when a child is started, stopped, restarted and given up on |
//! | [`address`] | where an actor is to be found, whichever incarnation lives |
//! | [`mailbox`] | the way into an actor, which counts |
//! | [`tasks`] | futures that run beside an actor and end with it: the only place where a task is spawned |
//! | [`crash_report`] | who ended, why, what it was doing, what was done about it |
//! | [`tree`] | a picture of a tree |
//!
//! # Cores and shells
//!
//! Stateful things come in pairs. A *core* decides, `(Event, now) -> Effects`: [`dispatcher::Core`], [`peers::Core`],
//! [`supervisor::core`]. A *shell*, an actor, performs. What is outside (the broker, processes) is a trait in [`ports`].

pub mod address;
pub mod connection;
pub mod consumer;
pub mod crash_report;
pub mod dispatcher;
pub mod ingress;
pub mod local_broker;
pub mod mailbox;
mod moment;
pub mod peers;
pub mod pool;
pub mod ports;
pub mod replica;
mod serial;
pub mod supervisor;
pub mod tasks;
pub mod tree;
mod vitals;
pub mod worker;

pub use moment::{Clock, Moment};

#[cfg(not(panic = "unwind"))]
compile_error!("halm needs panic = \"unwind\": a panic must reach its supervisor");
