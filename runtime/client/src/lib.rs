//! A Rust client for halm over NATS: asks, and hands out the exact token stream, once.
//!
//! A plain NATS client sees what the broker republishes to its inbox: never a fork, but around a lost connection a
//! record may be missing or come twice. This client mends that: what comes twice is dropped by its offset, and what is
//! missing is filled from the final record, which carries the whole text.
//!
//! ```no_run
//! use halm_client::{Client, Event};
//! use halm_protocol::Request;
//!
//! # async fn example() -> Result<(), halm_client::ClientError> {
//! let client = Client::connect("nats://127.0.0.1:4222").await?;
//! let mut request = Request::prompt("The sea");
//! request.stream = true;
//! let mut stream = client.generate("smollm2", &request).await?;
//! while let Some(event) = stream.next().await {
//!     match event? {
//!         Event::Chunk(chunk) => print!("{}", chunk.text),
//!         Event::Reply(reply) => println!("\n{} tokens", reply.usage.completion_tokens),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod reassembly;
mod replicas;
mod stream;

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use halm_protocol::{CancelState, Cancellation, InvalidId, JobId, ModelToken, Refusal, Reply, Request, subject};

pub use reassembly::{Forked, Reassembly};
pub use replicas::Replicas;
pub use stream::{Event, TokenStream};

/// How long a request looks for somebody who hears it, before it is given up.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// What a client grants beyond a request's deadline, for the error that says so to arrive.
const DEADLINE_SLACK: Duration = Duration::from_secs(15);
/// Waiting time for a request without a deadline: the server's default, and slack.
const DEADLINE_ASSUMED: Duration = Duration::from_secs(120);

/// What a cancellation is given: a broker that is away is waited for, for ten seconds, by whoever cancels.
const CANCEL_WITHIN: Duration = Duration::from_secs(12);

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The broker cannot be reached.
    #[error("no connection to the broker: {0}")]
    Connect(#[from] async_nats::ConnectError),
    /// The broker did not take the request.
    #[error("the request could not be sent: {0}")]
    Send(String),
    /// Nobody runs halm behind this broker.
    #[error("no replica answers at this broker; is `halm serve` running?")]
    NobodyListens,
    /// The model's name cannot be one.
    #[error(transparent)]
    Model(#[from] InvalidId),
    /// halm said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing came in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Something came that is not of the protocol.
    #[error("a record is not of this protocol: {0}")]
    Garbled(#[from] serde_json::Error),
    /// halm broke its promise.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The subscription ended.
    #[error("the connection to the broker was closed")]
    Closed,
}

/// A client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    nats: async_nats::Client,
}

impl Client {
    /// Connects without credentials.
    ///
    /// # Errors
    /// If the broker cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let urls: Vec<&str> = url.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
        Ok(Self::new(async_nats::connect(&urls[..]).await?))
    }

    /// Uses a connection that there is, with whatever credentials it has.
    #[must_use]
    pub fn new(nats: async_nats::Client) -> Self {
        Self { nats }
    }

    /// The connection.
    #[must_use]
    pub fn nats(&self) -> &async_nats::Client {
        &self.nats
    }

    /// Cancels a job: nothing more of it is computed, and its stream ends in `cancelled`. It stays cancelled whoever dies.
    /// A job's id is in every chunk and reply.
    ///
    /// # Errors
    /// If nobody hears it, or nobody answers in time.
    pub async fn cancel(&self, job: &JobId) -> Result<CancelState, ClientError> {
        let request = async_nats::Request::new().timeout(Some(CANCEL_WITHIN));
        match self.nats.send_request(subject::cancel(job), request).await {
            Ok(answer) => Ok(Cancellation::from_bytes(&answer.payload)?.state),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(ClientError::NobodyListens),
            Err(error) if error.kind() == RequestErrorKind::TimedOut => Err(ClientError::TimedOut(CANCEL_WITHIN)),
            Err(error) => Err(ClientError::Send(error.to_string())),
        }
    }

    /// Asks `model` (`smollm2`, `smollm2:135m`) and returns the stream of what it answers: chunks if
    /// [`Request::stream`] is set, then the reply.
    ///
    /// # Errors
    /// If nobody hears the request. What halm answers, refusals included, comes from the stream.
    pub async fn generate(&self, model: &str, request: &Request) -> Result<TokenStream, ClientError> {
        let subject = subject::generate(&ModelToken::of_name(model)?);
        let within = request.deadline_ms.map_or(DEADLINE_ASSUMED, Duration::from_millis) + DEADLINE_SLACK;
        TokenStream::open(self.nats.clone(), subject, request.to_bytes(), HEARD_WITHIN, within).await
    }

    /// Asks and waits for the whole answer.
    ///
    /// # Errors
    /// What halm refused with, or why no answer came.
    pub async fn ask(&self, model: &str, request: &Request) -> Result<Reply, ClientError> {
        let mut stream = self.generate(model, request).await?;
        while let Some(event) = stream.next().await {
            if let Event::Reply(reply) = event? {
                return Ok(*reply);
            }
        }
        Err(ClientError::Closed)
    }
}
