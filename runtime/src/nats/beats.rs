//! Beats and pings among replicas, over core NATS.

use std::time::Duration;

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use futures_util::StreamExt;
use halm_actors::ports::{PeerBus, PortFuture};
use halm_protocol::subject::{self, Inbox};
use halm_protocol::{Beat, ReplicaName};

use super::link::Link;

/// A living replica answers a ping within microseconds; the broker refuses one for a dead replica as fast. Neither
/// within this time is a frozen one.
const PING_WITHIN: Duration = Duration::from_millis(200);

/// The replicas' common ground over NATS.
#[derive(Clone)]
pub struct NatsBeats {
    link: Link,
    replica: ReplicaName,
}

impl NatsBeats {
    /// Over this link, as this replica.
    #[must_use]
    pub fn new(link: Link, replica: ReplicaName) -> Self {
        Self { link, replica }
    }
}

impl PeerBus for NatsBeats {
    fn beat(&self, beat: &Beat) -> PortFuture<()> {
        let (link, subject) = (self.link.clone(), subject::beat(&self.replica));
        let payload = serde_json::to_vec(beat).expect("a beat has only strings and booleans");
        Box::pin(async move {
            if let Ok(client) = link.client() {
                // Lost beats are missed, and that is what they are for.
                let _ = client.publish(subject, payload.into()).await;
            }
        })
    }

    fn listen(&self, heard: Box<dyn Fn(Beat) + Send + Sync>) -> PortFuture<String> {
        let (link, replica) = (self.link.clone(), self.replica.clone());
        Box::pin(async move {
            let client = match link.client() {
                Ok(client) => client,
                Err(fault) => return fault,
            };
            let beats = client.subscribe(subject::BEAT_ALL).await;
            let pings = client.subscribe(subject::ping(&replica)).await;
            let (mut beats, mut pings) = match (beats, pings) {
                (Ok(beats), Ok(pings)) => (beats, pings),
                (Err(error), _) | (_, Err(error)) => return error.to_string(),
            };
            loop {
                tokio::select! {
                    beat = beats.next() => {
                        let Some(message) = beat else { return "beats ended".to_owned() };
                        // What is no beat is of another version; a peer that cannot be read is no peer.
                        if let Ok(beat) = serde_json::from_slice(&message.payload) {
                            heard(beat);
                        }
                    }
                    ping = pings.next() => {
                        let Some(message) = ping else { return "pings ended".to_owned() };
                        // Nothing is published but to an inbox, whoever asks.
                        let inbox = message.reply.as_ref().and_then(|reply| Inbox::try_from(reply.as_str()).ok());
                        if let Some(inbox) = inbox {
                            let _ = client.publish(inbox.as_str().to_owned(), "".into()).await;
                        }
                    }
                }
            }
        })
    }

    fn is_connected(&self, replica: &ReplicaName) -> PortFuture<bool> {
        let (link, subject) = (self.link.clone(), subject::ping(replica));
        Box::pin(async move {
            let Ok(client) = link.client() else { return true };
            match client.send_request(subject, Request::new().timeout(Some(PING_WITHIN))).await {
                Ok(_) => true,
                Err(error) => error.kind() != RequestErrorKind::NoResponders,
            }
        })
    }
}
