//! What breaks halm: fixtures, faults, and a test per promise.
//!
//! The fixtures are real: a `nats-server`, the `halm` binary, worker processes, a Python client. A test says what it
//! starts, what it breaks, and what a client must have seen:
//!
//! ```no_run
//! use halm_tests::{Cluster, story};
//!
//! # async fn example() {
//! let mut cluster = Cluster::start(&["one", "two"]).await;
//! let undisturbed = cluster.ask(&story()).await;
//! let asking = cluster.asking(&story());
//! let killed_at = cluster.job_with_tokens(30).await.kill_worker();
//! let seen = asking.transcript().await;
//! seen.assert_same_stream(&undisturbed);
//! println!("{:?}", seen.longest_silence_after(killed_at));
//! # }
//! ```
//!
//! Everything started dies with its fixture, and with the test process whatever ends that. Tests that start replicas
//! take turns, over all test processes of the machine: see [`Turn`].

mod broker;
mod client;
mod cluster;
mod gaps;
mod nursery;
mod process;
mod program;
mod python;
pub mod quality;
pub mod reference;
mod replica;
pub mod rogue;
mod shipped;
pub mod sim;
pub mod stack;
mod transcript;
mod turn;
mod until;
pub mod weights;

pub use broker::{Broker, BrokerOptions};
pub use client::{PlainClient, text_of};
pub use cluster::{Cluster, RunningJob, greedy, question, story};
pub use gaps::{Gaps, kills_or};
pub use nursery::{JOB, Nursery, crowd, group_of, how_it_stops};
pub use process::{Process, kill};
pub use program::{Finished, Halm};
pub use python::{Asking, Python};
pub use replica::Replica;
pub use rogue::{Fault, POISON, STEP_US};
pub use shipped::{ShippedBroker, ShippedFiles, Watched, repository};
pub use transcript::{Record, Transcript};
pub use turn::Turn;
pub use until::until;
