//! `HALM_JOBS`: admission into it, and one model's consumer of it.

use std::time::Duration;

use async_nats::jetstream::{self, AckKind, consumer};
use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt;
use halm_actors::ports::{
    AckSubject, Admitted, Delivery, IntakeFault, JobIntake, JobQueue, JobSpec, PortFuture, Pulled, QueueLength,
    ReadFault,
};
use halm_protocol::subject::{self, Inbox};
use halm_protocol::{Class, Digest, ErrorCode, JobId, ModelToken, Outcome, Refusal, Request, header, stream};

use super::inboxes::error_headers;
use super::link::Link;
use super::streams::consumer_of;
use super::wire::{self, PublishFault};

/// How long one pull waits for jobs. A drain waits for the pulls under way, so not long.
const PULL_FOR: Duration = Duration::from_secs(3);
/// The engine whose bits a job is pinned to. Changes whenever the same weights and seed may give another text.
pub(crate) const ENGINE_REVISION: &str = concat!("candle-llama/", env!("CARGO_PKG_VERSION"));

/// Where accepted jobs are put.
#[derive(Clone)]
pub struct NatsIntake {
    link: Link,
}

impl NatsIntake {
    /// Over this link.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }
}

impl JobIntake for NatsIntake {
    fn admit(&self, job: &JobSpec) -> PortFuture<Result<Admitted, IntakeFault>> {
        let link = self.link.clone();
        let subject = subject::job(&job.model, job.request.class);
        let (headers, payload) = encode(job);
        Box::pin(async move {
            let client = link.client().map_err(IntakeFault::Unavailable)?;
            match wire::publish(&client, subject, headers, payload).await {
                Ok(stored) if stored.duplicate => Ok(Admitted::Duplicate(inbox_of(&client, stored.sequence).await)),
                Ok(_) => Ok(Admitted::Stored),
                Err(PublishFault::Api(error)) if wire::FULL.contains(&error.err_code) => Err(IntakeFault::Full),
                Err(PublishFault::Api(error)) => Err(IntakeFault::Unavailable(error.description)),
                Err(PublishFault::TooLarge) => {
                    let message = "the request is larger than the broker's max_payload";
                    Err(Refusal::new(ErrorCode::InvalidRequest, message).into())
                }
                Err(PublishFault::NoStream) => Err(IntakeFault::Unavailable("the job stream is missing".to_owned())),
                Err(PublishFault::Unknown(cause)) => Err(IntakeFault::Unavailable(cause)),
            }
        })
    }

    fn count(&self, model: &ModelToken) -> PortFuture<Result<QueueLength, ReadFault>> {
        let (link, model) = (self.link.clone(), model.clone());
        Box::pin(async move {
            let client = link.client().map_err(ReadFault)?;
            let (interactive, held) = count(&client, &model, Class::Interactive).await?;
            let (batch, held_of_batch) = count(&client, &model, Class::Batch).await?;
            Ok(QueueLength { interactive, batch, held: held + held_of_batch })
        })
    }
}

/// How many jobs of a class nobody has, and how many replicas have.
async fn count(client: &Client, model: &ModelToken, class: Class) -> Result<(u64, u64), ReadFault> {
    let fault = |error: &dyn std::fmt::Display| ReadFault(format!("count {class} jobs: {error}"));
    let context = jetstream::new(client.clone());
    let consumer: consumer::PullConsumer = context
        .get_consumer_from_stream(consumer_of(model, class), stream::JOBS)
        .await
        .map_err(|error| fault(&error))?;
    // What was asked for just now.
    let counts = consumer.cached_info();
    Ok((counts.num_pending, u64::try_from(counts.num_ack_pending).unwrap_or(u64::MAX)))
}

/// Where a job in the queue is to be answered; `None` if it is not there any more, or cannot be read.
async fn inbox_of(client: &Client, sequence: u64) -> Option<Inbox> {
    let stored = wire::header_of(client, stream::JOBS, sequence, header::REPLY).await.ok()??;
    Inbox::try_from(stored.as_str()).ok()
}

fn encode(job: &JobSpec) -> (HeaderMap, Vec<u8>) {
    let mut headers = HeaderMap::new();
    headers.insert(header::MESSAGE_ID, job.id.as_str());
    headers.insert(header::REPLY, job.inbox.as_str());
    headers.insert(header::DIGEST, job.digest.as_str());
    headers.insert(header::ENGINE, ENGINE_REVISION);
    headers.insert(header::DEADLINE, job.deadline_unix_ms.to_string());
    if let Some(traceparent) = &job.traceparent {
        headers.insert(header::TRACEPARENT, traceparent.as_str());
    }
    let request = Request { seed: Some(job.seed), ..job.request.clone() };
    (headers, request.to_bytes())
}

/// Reads a job as [`encode`] wrote it.
fn decode(model: &ModelToken, message: &Message) -> Result<JobSpec, Refusal> {
    let headers = message.headers.as_ref();
    let get = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned());
    let need =
        |name: &'static str| get(name).ok_or_else(|| Refusal::of_param(name, format!("the job has no {name} header")));
    let wrong = |name: &'static str, error: &dyn std::fmt::Display| Refusal::of_param(name, error.to_string());
    let engine = need(header::ENGINE)?;
    if engine != ENGINE_REVISION {
        let message = format!("the job is pinned to the engine {engine:?}, which is not run here");
        return Err(Refusal::new(ErrorCode::Unavailable, message));
    }
    let request = Request::parse(&message.payload)?;
    Ok(JobSpec {
        id: JobId::try_from(need(header::MESSAGE_ID)?).map_err(|error| wrong(header::MESSAGE_ID, &error))?,
        model: model.clone(),
        seed: request.seed.ok_or_else(|| Refusal::of_param("seed", "the job has no seed"))?,
        request,
        digest: Digest::try_from(need(header::DIGEST)?).map_err(|error| wrong(header::DIGEST, &error))?,
        inbox: Inbox::try_from(need(header::REPLY)?.as_str()).map_err(|error| wrong(header::REPLY, &error))?,
        deadline_unix_ms: need(header::DEADLINE)?
            .parse()
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, format!("{}: {error}", header::DEADLINE)))?,
        traceparent: get(header::TRACEPARENT),
    })
}

/// One model's jobs.
#[derive(Clone)]
pub struct JobConsumer {
    link: Link,
    model: ModelToken,
}

impl JobConsumer {
    /// Over this link.
    #[must_use]
    pub fn new(link: Link, model: ModelToken) -> Self {
        Self { link, model }
    }

    fn send(&self, ack: &AckSubject, kind: AckKind) -> PortFuture<()> {
        let (link, subject) = (self.link.clone(), ack.as_str().to_owned());
        Box::pin(async move {
            if let Ok(client) = link.client()
                && let Err(error) = client.publish(subject, kind.into()).await
            {
                // The queue's ack wait stands behind every acknowledgement.
                tracing::debug!(%error, "acknowledgement was not sent");
            }
        })
    }
}

impl JobQueue for JobConsumer {
    fn pull(
        &self,
        class: Class,
        batch: usize,
        deliver: Box<dyn Fn(Pulled) + Send + Sync>,
    ) -> PortFuture<Result<usize, (usize, String)>> {
        let (link, model) = (self.link.clone(), self.model.clone());
        Box::pin(async move {
            let client = link.client().map_err(|fault| (0, fault))?;
            let mut generation = link.generation();
            let context = jetstream::new(client.clone());
            let consumer: consumer::PullConsumer = context
                .get_consumer_from_stream(consumer_of(&model, class), stream::JOBS)
                .await
                .map_err(|error| (0, error.to_string()))?;
            let mut messages = consumer
                .batch()
                .max_messages(batch)
                .expires(PULL_FOR)
                .messages()
                .await
                .map_err(|error| (0, error.to_string()))?;
            let mut got = 0;
            loop {
                // A server that restarted, or another one, knows nothing of a pull that is under way.
                let message = tokio::select! {
                    message = messages.next() => message,
                    Ok(()) = generation.changed() => return Err((got, "the connection changed".to_owned())),
                };
                let Some(message) = message else { return Ok(got) };
                let message = message.map_err(|error| (got, error.to_string()))?;
                match pulled(&client, &model, &message).await {
                    Some(job @ Pulled::Job(..)) => {
                        deliver(job);
                        got += 1;
                    }
                    Some(junk @ Pulled::NotAJob(_)) => deliver(junk),
                    None => {}
                }
            }
        })
    }

    fn ack(&self, delivery: &Delivery) -> PortFuture<()> {
        self.send(&delivery.ack, AckKind::Ack)
    }

    fn progress(&self, delivery: &Delivery) -> PortFuture<()> {
        self.send(&delivery.ack, AckKind::Progress)
    }

    fn nak(&self, ack: &AckSubject) -> PortFuture<()> {
        self.send(ack, AckKind::Nak(None))
    }
}

/// Deliveries after which a job that cannot be read here is given up: until then a replica of another version may read
/// it.
const UNREADABLE_DELIVERIES_MAX: u64 = 5;
/// Between two such deliveries.
const UNREADABLE_AGAIN_AFTER: Duration = Duration::from_secs(1);

async fn pulled(client: &Client, model: &ModelToken, message: &jetstream::Message) -> Option<Pulled> {
    let ack = message.reply.as_ref().and_then(|reply| AckSubject::parse(reply.as_str()))?;
    let deliveries = message.info().map_or(1, |info| u64::try_from(info.delivered).unwrap_or(1));
    match decode(model, &message.message) {
        Ok(spec) => Some(Pulled::Job(Box::new(spec), Delivery { ack, deliveries })),
        Err(refusal) if deliveries < UNREADABLE_DELIVERIES_MAX => {
            let _ = message.ack_with(AckKind::Nak(Some(UNREADABLE_AGAIN_AFTER))).await;
            Some(Pulled::NotAJob(refusal.to_string()))
        }
        Err(refusal) => {
            let reason = refusal.to_string();
            give_up(client, message, refusal).await;
            Some(Pulled::NotAJob(reason))
        }
    }
}

/// Answers a message that nobody can read, if it says who waits for an answer, and takes it out of the queue.
async fn give_up(client: &Client, message: &jetstream::Message, refusal: Refusal) {
    let headers = message.headers.as_ref();
    let reply = headers.and_then(|headers| headers.get(header::REPLY)).map(|value| value.as_str().to_owned());
    if let Some(inbox) = reply.and_then(|reply| Inbox::try_from(reply.as_str()).ok()) {
        let outcome = Outcome::Refusal(refusal);
        let payload = outcome.to_bytes().into();
        let _ = client.publish_with_headers(inbox.as_str().to_owned(), error_headers(&outcome), payload).await;
    }
    let _ = message.ack_with(AckKind::Term).await;
}
