//! Hears requests: one queue group over all replicas.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use halm_actors::ingress::Heard;
use halm_actors::ports::{PortFuture, Requests};
use halm_protocol::{header, subject};
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

impl Requests for NatsRequests {
    fn listen(&self, heard: OnHeard, closing: watch::Receiver<bool>) -> PortFuture<Result<(), String>> {
        let link = self.link.clone();
        Box::pin(async move {
            let client = link.client()?;
            let requests = client
                .queue_subscribe(subject::GENERATE_ALL, QUEUE_GROUP.to_owned())
                .await
                .map_err(|error| error.to_string())?;
            let discovery = Discovery::start(&client).await?;
            tokio::select! {
                ended = hear(requests, heard, closing) => ended,
                fault = discovery.answer(&client) => Err(fault),
            }
        })
    }
}

/// Hands on what comes; once closing, what had come before the server heard of it.
async fn hear(mut requests: Subscriber, heard: OnHeard, mut closing: watch::Receiver<bool>) -> Result<(), String> {
    loop {
        let closed = *closing.borrow_and_update();
        if closed {
            requests.drain().await.map_err(|error| error.to_string())?;
            while let Some(message) = requests.next().await {
                heard(read(&message));
            }
            return Ok(());
        }
        tokio::select! {
            message = requests.next() => match message {
                Some(message) => heard(read(&message)),
                None => return Err("the subscription to requests ended".to_owned()),
            },
            Ok(()) = closing.changed() => {}
        }
    }
}

fn read(message: &Message) -> Heard {
    let header = |name: &str| {
        message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned())
    };
    let span = tracing::info_span!(SPAN_REQUEST, subject = %message.subject);
    let came_with = header(header::TRACEPARENT);
    telemetry::set_parent(&span, came_with.as_deref());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Heard {
        subject: message.subject.to_string(),
        reply: message.reply.as_ref().map(ToString::to_string).unwrap_or_default(),
        key: header(header::MESSAGE_ID),
        traceparent: telemetry::traceparent(&span).or(came_with),
        payload: message.payload.to_vec(),
        heard_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    }
}
