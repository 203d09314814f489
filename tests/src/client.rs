//! A plain NATS client: the library as it comes, nothing of halm in between.

use std::time::SystemTime;

use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::until::PATIENCE;
use crate::{Record, Transcript};

/// A connected client.
#[derive(Debug, Clone)]
pub struct PlainClient {
    nats: Client,
}

impl PlainClient {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(url: &str) -> Self {
        Self { nats: async_nats::connect(url).await.expect("the broker listens") }
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
