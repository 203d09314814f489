//! The NATS service that hears requests (ADR-32 of NATS: discoverable by `nats micro`).

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::service::ServiceExt;
use futures_util::StreamExt;
use halm_actors::ingress::Heard;
use halm_actors::ports::{PortFuture, Requests};
use halm_protocol::{header, subject};

use super::link::Link;
use crate::telemetry::{self, SPAN_REQUEST};

/// Requests go to one member of this group.
const QUEUE_GROUP: &str = "halm";

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

impl Requests for NatsRequests {
    fn listen(&self, heard: Box<dyn Fn(Heard) + Send + Sync>) -> PortFuture<String> {
        let link = self.link.clone();
        Box::pin(async move {
            match serve(&link, heard).await {
                Ok(()) => "the request service ended".to_owned(),
                Err(error) => error,
            }
        })
    }
}

async fn serve(link: &Link, heard: Box<dyn Fn(Heard) + Send + Sync>) -> Result<(), String> {
    let client = link.client()?;
    let text = |error: async_nats::Error| error.to_string();
    let service = client
        .service_builder()
        .description("small language models, highly available")
        .queue_group(QUEUE_GROUP)
        .start("halm", env!("CARGO_PKG_VERSION"))
        .await
        .map_err(text)?;
    let mut requests =
        service.endpoint_builder().name("generate").add(subject::GENERATE_ALL).await.map_err(text)?;
    while let Some(request) = requests.next().await {
        let message = request.message;
        let header = |name: &str| {
            message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned())
        };
        let span = tracing::info_span!(SPAN_REQUEST, subject = %message.subject);
        let came_with = header(header::TRACEPARENT);
        telemetry::set_parent(&span, came_with.as_deref());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        heard(Heard {
            subject: message.subject.to_string(),
            reply: message.reply.as_ref().map(ToString::to_string).unwrap_or_default(),
            key: header(header::MESSAGE_ID),
            traceparent: telemetry::traceparent(&span).or(came_with),
            payload: message.payload.to_vec(),
            heard_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        });
    }
    Ok(())
}
