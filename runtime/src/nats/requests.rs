//! Hears requests: one queue group over all replicas.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use halm_actors::ingress::{CancelHeard, Heard};
use halm_actors::ports::{Ears, PortFuture, Requests};
use halm_protocol::subject::Inbox;
use halm_protocol::{Cancellation, JobId, Notice, header, subject};
use tokio::sync::watch;

use super::discovery::Discovery;
use super::link::Link;
use crate::telemetry::{self, SPAN_REQUEST};

/// Requests go to one member of this group.
pub(super) const QUEUE_GROUP: &str = "halm";

/// Requests over NATS.
#[derive(Clone)]
pub struct NatsRequests {
    link: Link,
}

impl NatsRequests {
    /// Over this link.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }
}

type OnHeard = Box<dyn Fn(Heard) + Send + Sync>;
type OnNotice = Box<dyn Fn(Notice) + Send + Sync>;
type OnCancel = Box<dyn Fn(CancelHeard) + Send + Sync>;
type OnSettled = Box<dyn Fn(JobId) + Send + Sync>;

impl Requests for NatsRequests {
    fn listen(&self, ears: Ears, closing: watch::Receiver<bool>) -> PortFuture<Result<(), String>> {
        let link = self.link.clone();
        let Ears { heard, noticed, cancelled, settled } = ears;
        Box::pin(async move {
            let client = link.client()?;
            // What others say before what there is to say it of.
            let notices = client.subscribe(subject::HEARD_ALL).await.map_err(|error| error.to_string())?;
            let witnessed = client.subscribe(subject::GENERATE_ALL).await.map_err(|error| error.to_string())?;
            let cancels = client.subscribe(subject::CANCEL_ALL).await.map_err(|error| error.to_string())?;
            let outcomes = client.subscribe(subject::DONE_ALL).await.map_err(|error| error.to_string())?;
            let taken = client
                .queue_subscribe(subject::GENERATE_ALL, QUEUE_GROUP.to_owned())
                .await
                .map_err(|error| error.to_string())?;
            let discovery = Discovery::start(&client).await?;
            tokio::select! {
                ended = hear(taken, &heard, closing) => ended,
                fault = witness(witnessed, notices, &heard, &noticed) => Err(fault),
                fault = cancel(cancels, &cancelled) => Err(fault),
                fault = settle(outcomes, &settled) => Err(fault),
                fault = discovery.answer(&client) => Err(fault),
            }
        })
    }

    fn confirm(&self, inbox: &Inbox, told: &Cancellation) -> PortFuture<()> {
        let (link, inbox, payload) = (self.link.clone(), inbox.as_str().to_owned(), told.to_bytes());
        Box::pin(async move {
            let Ok(client) = link.client() else { return };
            if let Err(error) = client.publish(inbox, payload.into()).await {
                tracing::debug!(%error, "a cancellation was not confirmed");
            }
        })
    }

    fn tell(&self, notice: &Notice) -> PortFuture<()> {
        let (link, subject, payload) = (self.link.clone(), subject::heard(&notice.job), notice.to_bytes());
        Box::pin(async move {
            let Ok(client) = link.client() else { return };
            if let Err(error) = client.publish(subject, payload.into()).await {
                tracing::debug!(%error, "notice was not sent");
            }
        })
    }
}

/// Hands on the requests that are this replica's; once closing, what had come before the server heard of it.
async fn hear(mut requests: Subscriber, heard: &OnHeard, mut closing: watch::Receiver<bool>) -> Result<(), String> {
    loop {
        let closed = *closing.borrow_and_update();
        if closed {
            requests.drain().await.map_err(|error| error.to_string())?;
            while let Some(message) = requests.next().await {
                heard(take(&message));
            }
            return Ok(());
        }
        tokio::select! {
            message = requests.next() => match message {
                Some(message) => heard(take(&message)),
                None => return Err("the subscription to requests ended".to_owned()),
            },
            Ok(()) = closing.changed() => {}
        }
    }
}

/// Hands on every replica's requests, and what is said of them.
async fn witness(mut requests: Subscriber, mut notices: Subscriber, heard: &OnHeard, noticed: &OnNotice) -> String {
    loop {
        tokio::select! {
            biased;
            notice = notices.next() => match notice.map(|message| Notice::from_bytes(&message.payload)) {
                Some(Ok(notice)) => noticed(notice),
                Some(Err(error)) => tracing::warn!(%error, "what is said of a request cannot be read"),
                None => return "the subscription to notices ended".to_owned(),
            },
            message = requests.next() => match message {
                Some(message) => heard(read(&message)),
                None => return "the subscription to requests ended".to_owned(),
            },
        }
    }
}

/// Hands on every cancellation.
async fn cancel(mut cancels: Subscriber, cancelled: &OnCancel) -> String {
    while let Some(message) = cancels.next().await {
        let Some(job) = subject::job_of_cancel(&message.subject) else { continue };
        // Nothing may be published anywhere else, whoever asks.
        let inbox = message.reply.as_ref().and_then(|reply| Inbox::try_from(reply.as_str()).ok());
        cancelled(CancelHeard { job, inbox });
    }
    "the subscription to cancellations ended".to_owned()
}

/// Hands on whose outcome was stored.
async fn settle(mut outcomes: Subscriber, settled: &OnSettled) -> String {
    while let Some(message) = outcomes.next().await {
        if let Some(job) = subject::job_of_done(&message.subject) {
            settled(job);
        }
    }
    "the subscription to outcomes ended".to_owned()
}

/// A request that is this replica's: its trace goes on here.
fn take(message: &Message) -> Heard {
    let span = tracing::info_span!(SPAN_REQUEST, subject = %message.subject);
    let heard = read(message);
    telemetry::set_parent(&span, heard.traceparent.as_deref());
    Heard { traceparent: telemetry::traceparent(&span).or(heard.traceparent), taken: true, ..heard }
}

fn read(message: &Message) -> Heard {
    let header = |name: &str| {
        message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned())
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Heard {
        subject: message.subject.to_string(),
        reply: message.reply.as_ref().map(ToString::to_string).unwrap_or_default(),
        key: header(header::MESSAGE_ID),
        offset: header(header::OFFSET),
        traceparent: header(header::TRACEPARENT),
        payload: message.payload.to_vec(),
        heard_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        taken: false,
    }
}
