//! Every message, subject, header and error code that halm speaks: serde, and nothing else.
//!
//! A client sends a [`Request`] to [`subject::generate`] and receives [`Chunk`]s (if it asked for a stream) and one
//! [`Reply`], or one [`Refusal`]. Replicas tell each other who lives in a [`Beat`]; a runtime and its worker process
//! talk in [`worker::Command`]s and [`worker::Event`]s. Nothing here does input or output, and nothing here decides.
//!
//! ```
//! use halm_protocol::{Input, Request};
//!
//! let request = Request::parse(br#"{"prompt": "The sea", "max_tokens": 8, "temperature": 0}"#)?;
//! assert_eq!(request.input, Input::Prompt("The sea".into()));
//!
//! let refused = Request::parse(br#"{"prompt": "The sea", "max_tokenz": 8}"#).expect_err("a typo is refused");
//! assert_eq!(refused.param.as_deref(), Some("max_tokenz"));
//! # Ok::<(), halm_protocol::Refusal>(())
//! ```

mod cancellation;
mod claim;
mod class;
mod dead_letter;
mod digest;
mod fields;
pub mod header;
mod id;
mod notice;
mod pace;
mod refusal;
mod replica;
mod reply;
mod request;
pub mod stream;
pub mod subject;
pub mod worker;

pub use cancellation::{CancelState, Cancellation};
pub use claim::{CancelledBy, Claim, Nonce};
pub use class::Class;
pub use dead_letter::DeadLetter;
pub use digest::{Digest, InvalidDigest};
pub use id::{Incarnation, InvalidId, JobId, ModelToken, ReplicaName};
pub use notice::{Notice, Verdict};
pub use pace::Pace;
pub use refusal::{ErrorCode, Refusal};
pub use replica::{
    Activity, ActorStatus, Beat, CrashCounts, CrashRecord, Held, JobStatus, ReplicaStatus, RunsModel, StatusQuestion,
    WorkerStatus,
};
pub use reply::{Chunk, FinishReason, Outcome, Reply, Usage};
pub use request::{ChatMessage, Input, Limits, Request, Sampling};
