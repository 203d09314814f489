//! One request's stream.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{Client, StatusCode, Subscriber};
use futures_util::StreamExt;
use halm_protocol::{Chunk, Refusal, Reply};
use tokio::time::{Instant, timeout_at};

use crate::{ClientError, Reassembly};

/// Silence after which a request is said again: longer than a busy replica takes for a first token, most often.
const HEARD_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Between two tries to be heard.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// New text.
    Chunk(Chunk),
    /// The whole answer; the last event.
    Reply(Box<Reply>),
}

/// The answer to one request, as it comes.
#[derive(Debug)]
pub struct TokenStream {
    inbox: Subscriber,
    reassembly: Reassembly,
    ready: VecDeque<Event>,
    first: Option<async_nats::Message>,
    until: Instant,
    within: Duration,
    over: bool,
}

impl TokenStream {
    pub(crate) async fn open(
        nats: Client,
        subject: String,
        payload: Vec<u8>,
        heard_within: Duration,
        within: Duration,
    ) -> Result<Self, ClientError> {
        let send = |error: &dyn std::fmt::Display| ClientError::Send(error.to_string());
        let reply_to = nats.new_inbox();
        let mut inbox = nats.subscribe(reply_to.clone()).await.map_err(|error| send(&error))?;
        let began = Instant::now();
        let first = loop {
            nats.publish_with_reply(subject.clone(), reply_to.clone(), payload.clone().into())
                .await
                .map_err(|error| send(&error))?;
            let again_at = (Instant::now() + HEARD_AGAIN_AFTER).min(began + within);
            match timeout_at(again_at, inbox.next()).await {
                Err(_) if again_at >= began + within => return Err(ClientError::TimedOut(within)),
                // It may have been lost with whoever heard it. The same request from the same inbox is the same job.
                Err(_) => {}
                Ok(None) => return Err(ClientError::Closed),
                // Nobody heard it, so it may be said again without being done twice.
                Ok(Some(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => {
                    if began.elapsed() > heard_within {
                        return Err(ClientError::NobodyListens);
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Ok(Some(message)) => break message,
            }
        };
        Ok(Self {
            inbox,
            reassembly: Reassembly::default(),
            ready: VecDeque::new(),
            first: Some(first),
            until: began + within,
            within,
            over: false,
        })
    }

    /// The next event; `None` after the reply or an error.
    ///
    /// # Cancel safety
    /// Safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            let message = match self.first.take() {
                Some(message) => message,
                None => match timeout_at(self.until, self.inbox.next()).await {
                    Ok(Some(message)) => message,
                    Ok(None) => return self.fail(ClientError::Closed),
                    Err(_) => return self.fail(ClientError::TimedOut(self.within)),
                },
            };
            if let Err(error) = self.take(&message.payload) {
                return self.fail(error);
            }
        }
    }

    fn fail(&mut self, error: ClientError) -> Option<Result<Event, ClientError>> {
        self.over = true;
        Some(Err(error))
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        if let Some(refusal) = Refusal::from_bytes(payload) {
            return Err(refusal.into());
        }
        if let Ok(chunk) = serde_json::from_slice::<Chunk>(payload) {
            self.ready.extend(self.reassembly.chunk(chunk).map(Event::Chunk));
            return Ok(());
        }
        let reply: Reply = serde_json::from_slice(payload)?;
        if reply.is_final {
            self.ready.extend(self.reassembly.rest(&reply)?.map(Event::Chunk));
        }
        self.ready.push_back(Event::Reply(Box::new(reply)));
        self.over = true;
        Ok(())
    }
}
