//! Makes halm discoverable as a NATS service (ADR-32 of NATS): `nats micro ls`, `nats micro info halm`.
//!
//! Written by hand because the client library's service cannot be drained, and answers wherever it is told to; this
//! one answers to inboxes only.

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use halm_protocol::subject::{self, Inbox};
use serde_json::{Value, json};

use super::requests::QUEUE_GROUP;

/// The service's name.
const NAME: &str = "halm";

/// The subscriptions, and who we are.
pub(super) struct Discovery {
    questions: SelectAll<Subscriber>,
    id: String,
}

impl Discovery {
    pub(super) async fn start(client: &Client) -> Result<Self, String> {
        // The library's inboxes end in a unique token.
        let inbox = client.new_inbox();
        let id = inbox.rsplit('.').next().unwrap_or(&inbox).to_owned();
        let mut questions = Vec::new();
        for verb in ["PING", "INFO", "STATS"] {
            for place in [format!("$SRV.{verb}"), format!("$SRV.{verb}.{NAME}"), format!("$SRV.{verb}.{NAME}.{id}")] {
                questions.push(client.subscribe(place).await.map_err(|error| error.to_string())?);
            }
        }
        Ok(Self { questions: select_all(questions), id })
    }

    /// Answers until the subscriptions end, which is a fault.
    pub(super) async fn answer(mut self, client: &Client) -> String {
        while let Some(message) = self.questions.next().await {
            if let Some((inbox, answer)) = self.reply(&message) {
                // Whoever asked may be gone.
                let _ = client.publish(inbox.as_str().to_owned(), answer.to_string().into()).await;
            }
        }
        "the subscriptions for discovery ended".to_owned()
    }

    fn reply(&self, message: &Message) -> Option<(Inbox, Value)> {
        let inbox = Inbox::try_from(message.reply.as_ref()?.as_str()).ok()?;
        let verb = message.subject.split('.').nth(1)?;
        let mut answer = json!({
            "type": format!("io.nats.micro.v1.{}_response", verb.to_lowercase()),
            "name": NAME,
            "id": self.id,
            "version": env!("CARGO_PKG_VERSION"),
            "metadata": {},
        });
        if verb != "PING" {
            answer["description"] = json!("small language models, highly available");
            answer["endpoints"] =
                json!([{ "name": "generate", "subject": subject::GENERATE_ALL, "queue_group": QUEUE_GROUP }]);
        }
        Some((inbox, answer))
    }
}
