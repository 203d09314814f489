//! A plain NATS client: the library as it comes, nothing of halm in between.

use std::time::SystemTime;

use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use halm_client::Event;
use halm_protocol::Request;
use serde_json::Value;
use tokio::time::timeout;

use crate::until::PATIENCE;
use crate::{Record, Transcript};

/// A connected client.
#[derive(Debug, Clone)]
pub struct PlainClient {
    nats: Client,
}

impl PlainClient {
    /// Connects to one of these addresses, which are separated by commas.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(url: &str) -> Self {
        let urls: Vec<&str> = url.split(',').collect();
        Self { nats: async_nats::connect(&urls[..]).await.expect("the broker listens") }
    }

    /// Over a connection with whatever credentials it has.
    #[must_use]
    pub fn of(nats: Client) -> Self {
        Self { nats }
    }

    /// The connection.
    #[must_use]
    pub fn nats(&self) -> &Client {
        &self.nats
    }

    /// Asks and reads to the end.
    pub async fn ask(&self, model: &str, payload: impl Into<Vec<u8>>) -> Transcript {
        self.ask_with(model, HeaderMap::new(), payload).await
    }

    /// Asks with headers and reads to the end.
    ///
    /// # Panics
    /// When nothing comes for a minute.
    pub async fn ask_with(&self, model: &str, headers: HeaderMap, payload: impl Into<Vec<u8>>) -> Transcript {
        let inbox = self.nats.new_inbox();
        let mut records = self.nats.subscribe(inbox.clone()).await.expect("a subscription");
        let subject = format!("halm.v1.generate.{model}");
        let payload = payload.into().into();
        self.nats.publish_with_reply_and_headers(subject, inbox, headers, payload).await.expect("a request is sent");
        let mut seen = Transcript::default();
        loop {
            let next = timeout(PATIENCE, records.next()).await;
            let message = next.unwrap_or_else(|_| panic!("no more came after {seen:?}")).expect("a connection");
            assert_eq!(message.status, None, "nobody heard the request");
            let record = Record::of(&message.payload);
            let last = record.is_last();
            seen.push(SystemTime::now(), record);
            if last {
                return seen;
            }
        }
    }
}

/// What halm's own client hands out for a request, added up.
///
/// # Panics
/// On an error, or a reply that is another text than the chunks.
pub async fn text_of(client: &halm_client::Client, request: &Value) -> String {
    let request = Request::parse(request.to_string().as_bytes()).expect("a good request");
    let mut stream = client.generate("smollm2", &request).await.expect("somebody hears it");
    let mut text = String::new();
    while let Some(event) = stream.next().await {
        match event.expect("no error comes") {
            Event::Chunk(chunk) => text.push_str(&chunk.text),
            Event::Reply(reply) => assert_eq!(reply.text(), text),
        }
    }
    text
}
