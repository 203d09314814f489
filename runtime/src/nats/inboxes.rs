//! Final records and refusals, sent directly to a client.

use std::time::Duration;

use async_nats::client::{RequestError, RequestErrorKind};
use async_nats::{HeaderMap, Message, Request};
use halm_actors::ports::{Inboxes, Offered, PortFuture};
use halm_protocol::subject::{self, Inbox};
use halm_protocol::{Outcome, header};

use super::link::Link;

/// A server that does not refuse a request to nobody within this time does not answer at all.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// Client inboxes over NATS.
#[derive(Clone)]
pub struct NatsInboxes {
    link: Link,
}

impl NatsInboxes {
    /// Over this link.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
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

    fn offer(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<Offered> {
        let (link, inbox) = (self.link.clone(), inbox.as_str().to_owned());
        let (headers, payload) = (error_headers(outcome), outcome.to_bytes());
        Box::pin(async move {
            let (Ok(client), Some(before)) = (link.client(), link.generation_if_up()) else { return Offered::Unknown };
            let request = |headers: HeaderMap, payload: Vec<u8>| {
                Request::new().headers(headers).payload(payload.into()).timeout(Some(REFUSED_WITHIN))
            };
            let record = client.send_request(inbox, request(headers, payload));
            // A listener says nothing, and a server refuses a request to nobody at once. What it refuses after the
            // record it handled after the record.
            let nobody = client.send_request(subject::NOBODY.to_owned(), request(HeaderMap::new(), Vec::new()));
            let refused = |answer: &Result<Message, RequestError>| {
                answer.as_ref().is_err_and(|error| error.kind() == RequestErrorKind::NoResponders)
            };
            let offered = tokio::select! {
                biased;
                answer = record => match answer {
                    Ok(_) => Offered::Heard,
                    answer if refused(&answer) => Offered::Unheard,
                    Err(_) => Offered::Unknown,
                },
                answer = nobody => if refused(&answer) { Offered::Heard } else { Offered::Unknown },
            };
            // A record that waited for the next connection was refused over none.
            if link.generation_if_up() == Some(before) { offered } else { Offered::Unknown }
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
