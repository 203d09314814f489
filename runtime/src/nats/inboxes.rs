//! Final records and refusals, sent directly to a client.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{HeaderMap, Request, StatusCode};
use futures_util::{FutureExt, StreamExt};
use halm_actors::ports::{Inboxes, Offered, PortFuture};
use halm_protocol::subject::{self, Inbox};
use halm_protocol::{Chunk, Outcome, ReplicaName, header};

use super::link::Link;

/// A server that has not passed a request on and back within this time does not answer at all.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// Client inboxes over NATS.
#[derive(Clone)]
pub struct NatsInboxes {
    link: Link,
    replica: ReplicaName,
}

impl NatsInboxes {
    /// Over this link, as this replica.
    #[must_use]
    pub fn new(link: Link, replica: ReplicaName) -> Self {
        Self { link, replica }
    }
}

impl Inboxes for NatsInboxes {
    fn send(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<()> {
        let (link, inbox) = (self.link.clone(), inbox.as_str().to_owned());
        let (headers, payload) = (error_headers(outcome), outcome.to_bytes());
        Box::pin(async move {
            let Ok(client) = link.client() else { return };
            if let Err(error) = client.publish_with_headers(inbox, headers, payload.into()).await {
                tracing::debug!(%error, "record was not sent");
            }
        })
    }

    fn show(&self, inbox: &Inbox, chunk: &Chunk) -> PortFuture<()> {
        let (link, inbox) = (self.link.clone(), inbox.as_str().to_owned());
        let payload = serde_json::to_vec(chunk).expect("a chunk has only strings and numbers");
        Box::pin(async move {
            let Ok(client) = link.client() else { return };
            if let Err(error) = client.publish(inbox, payload.into()).await {
                tracing::debug!(%error, "chunk was not sent");
            }
        })
    }

    fn offer(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<Offered> {
        let (link, inbox, own) = (self.link.clone(), inbox.as_str().to_owned(), subject::ping(&self.replica));
        let (headers, payload) = (error_headers(outcome), outcome.to_bytes());
        Box::pin(async move {
            let (Ok(client), Some(before)) = (link.client(), link.generation_if_up()) else { return Offered::Unknown };
            let refusals = client.new_inbox();
            let Ok(mut refused) = client.subscribe(refusals.clone()).await else { return Offered::Unknown };
            let sent = client.publish_with_reply_and_headers(inbox, refusals, headers, payload.into()).await;
            // A listener says nothing, and a server refuses what is sent to nobody at once. So it is over when an answer
            // comes to something that was sent after it; from this replica itself, whoever else listens there.
            let barrier = Request::new().timeout(Some(ANSWERED_WITHIN));
            let over = match client.send_request(own, barrier).await {
                Ok(_) => true,
                Err(error) => error.kind() == RequestErrorKind::NoResponders,
            };
            // What waited for the next connection was refused over none.
            if sent.is_err() || !over || link.generation_if_up() != Some(before) {
                return Offered::Unknown;
            }
            match refused.next().now_or_never() {
                Some(Some(answer)) if answer.status == Some(StatusCode::NO_RESPONDERS) => Offered::Unheard,
                Some(_) | None => Offered::Heard,
            }
        })
    }
}

/// What marks a final record as an error, as NATS services do.
pub(super) fn error_headers(outcome: &Outcome) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Outcome::Refusal(refusal) = outcome {
        // A header is one line.
        headers.insert(header::SERVICE_ERROR, refusal.message.replace(['\r', '\n'], " "));
        headers.insert(header::SERVICE_ERROR_CODE, refusal.code.status().to_string());
    }
    headers
}
