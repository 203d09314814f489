//! Final records and refusals, sent directly to a client.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{HeaderMap, Request};
use halm_actors::ports::{Inboxes, PortFuture};
use halm_protocol::subject::Inbox;
use halm_protocol::{Outcome, header};

use super::link::Link;

/// A listening inbox answers nothing; one without a listener is answered by the server at once. Silence for this long
/// is a listener.
const SILENCE_IS_CONSENT: Duration = Duration::from_millis(250);

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

    fn deliver(&self, inbox: &Inbox, outcome: &Outcome) -> PortFuture<bool> {
        let (link, inbox) = (self.link.clone(), inbox.as_str().to_owned());
        let (headers, payload) = (error_headers(outcome), outcome.to_bytes());
        Box::pin(async move {
            let (Ok(client), Some(before)) = (link.client(), link.generation_if_up()) else { return false };
            let request = Request::new().headers(headers).payload(payload.into()).timeout(Some(SILENCE_IS_CONSENT));
            let heard = match client.send_request(inbox, request).await {
                Ok(_) => true,
                Err(error) => error.kind() == RequestErrorKind::TimedOut,
            };
            // A record that waited for a lost connection was silent too.
            heard && link.generation_if_up() == Some(before)
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
