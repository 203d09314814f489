//! The broker: NATS adapters for the ports of `halm-actors`.
//!
//! Each port is one file. None decides or retries: a call is made once, and what came of it is told. All go through one
//! [`Link`], which is connected when the tree starts and connects again by itself.

mod beats;
mod dead_letters;
mod discovery;
mod inboxes;
mod jobs;
mod link;
pub(crate) mod messages;
mod outcomes;
mod requests;
mod streams;
mod token_log;
mod wire;

pub use beats::NatsBeats;
pub use dead_letters::NatsDeadLetters;
pub use inboxes::NatsInboxes;
pub use jobs::{JobConsumer, NatsIntake};
pub use link::{ConnectFault, Credentials, Link, LinkSpec, SERVER_VERSION_MIN};
pub use outcomes::NatsOutcomes;
pub use requests::NatsRequests;
pub use streams::StreamLimits;
pub use token_log::NatsTokenLog;
