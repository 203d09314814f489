//! The target that chaos starts by itself: three brokers in a cluster, three replicas, and a link in front of each
//! party.

mod strike;
mod victims;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use halm_client::Client;
use halm_protocol::stream;
use serde_json::Value;
use tokio::time::Instant;

use super::link::Link;
use crate::config::ModelConfig;
use crate::stage::{Ground, Replica, StageSpec, wait_whole};

/// Replicas.
const NAMES: [&str; 3] = ["chaos-1", "chaos-2", "chaos-3"];
/// Worker processes of each, and threads of each of these.
const WORKERS: u32 = 2;
const THREADS: usize = 1;
/// What no recovery takes.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Streams that brokers must hold again before the next one may be killed.
const STREAMS: [&str; 3] = [stream::JOBS, stream::LOG, stream::DONE];

/// The links of all parties.
pub(crate) struct Links {
    /// One for each replica.
    replicas: Vec<Link>,
    /// All clients share one.
    clients: Link,
}

/// Everything that was started.
pub(crate) struct Host {
    ground: Ground,
    replicas: Vec<Replica>,
    links: Rc<Links>,
    observer: Client,
    /// What ended without having been hit, since this was asked last.
    restarted: Vec<String>,
}

impl Links {
    /// Carries all bytes. Never ends by itself.
    pub(crate) async fn run(&self) {
        join_all(self.replicas.iter().chain([&self.clients]).map(Link::run)).await;
    }
}

impl Host {
    /// Starts everything. The replicas find the brokers once [`Links::run`] is.
    pub(crate) async fn build(model: &str) -> anyhow::Result<Self> {
        let model =
            ModelConfig { name: model.to_owned(), workers: WORKERS, threads: THREADS, ..ModelConfig::default() };
        let ground = Ground::build(&StageSpec { brokers: 3, replicas: &NAMES, model }).await?;
        let addresses = ground.brokers.addresses();
        let (mut links, mut replicas) = (Vec::new(), Vec::new());
        for name in NAMES {
            let link = Link::open(&addresses).await?;
            replicas.push(ground.replica(name, &link.url()?)?);
            links.push(link);
        }
        let links = Rc::new(Links { replicas: links, clients: Link::open(&addresses).await? });
        let observer = Client::connect(&ground.brokers.url()).await?;
        Ok(Self { ground, replicas, links, observer, restarted: Vec::new() })
    }

    pub(crate) fn links(&self) -> Rc<Links> {
        Rc::clone(&self.links)
    }

    /// A connection that no link is in front of.
    pub(crate) fn observer(&self) -> &Client {
        &self.observer
    }

    pub(crate) async fn clients(&self, count: usize) -> anyhow::Result<Vec<Client>> {
        let url = self.links.clients.url()?;
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Client::connect(&url).await.context("connect a client")?);
        }
        Ok(clients)
    }

    /// Waits until every replica and worker is ready, and every broker holds every stream.
    ///
    /// # Errors
    /// If that takes too long.
    pub(crate) async fn whole(&mut self, gone: &BTreeSet<u32>) -> anyhow::Result<()> {
        let restarted = &mut self.restarted;
        // As an orchestrator would; what it says with its last words is told in the report.
        let start_again = |replica: &mut Replica, end: String| {
            restarted.push(format!("{} ended by itself and was started again: {end}", replica.name()));
            replica.start_again()
        };
        wait_whole(&self.observer, &mut self.replicas, gone, WHOLE_WITHIN, start_again).await?;
        let until = Instant::now() + WHOLE_WITHIN;
        for name in STREAMS {
            loop {
                let seen = self.stream(name).await;
                // Of the queue's consumer it is enough that it is there: its followers are those of the stream.
                let read = name != stream::JOBS || seen.as_ref().is_ok_and(|told| told["state"]["consumer_count"] != 0);
                if read && seen.as_ref().is_ok_and(|told| is_held(told, self.ground.brokers.len())) {
                    break;
                }
                if Instant::now() > until {
                    bail!("the brokers do not all hold {name} again; last seen: {seen:?}");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// What the brokers say of a stream.
    async fn stream(&self, name: &str) -> anyhow::Result<Value> {
        let asked = self.observer.nats().request(format!("$JS.API.STREAM.INFO.{name}"), "".into()).await;
        Ok(serde_json::from_slice(&asked?.payload)?)
    }

    /// What ended without having been hit, and was started again, since this was asked last.
    pub(crate) fn restarted(&mut self) -> Vec<String> {
        std::mem::take(&mut self.restarted)
    }

    pub(crate) async fn clear(mut self) {
        for replica in &mut self.replicas {
            replica.kill().await;
        }
        self.ground.clear().await;
    }
}

/// Whether a stream has a leader, and every follower is there and has all of it.
fn is_held(told: &Value, servers: usize) -> bool {
    let cluster = &told["cluster"];
    let followers = cluster["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    let current = |follower: &Value| follower["current"] == true && follower["offline"] != true;
    cluster["leader"].is_string() && followers.len() + 1 == servers && followers.iter().all(current)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_is_held_when_it_has_a_leader_and_every_follower_has_all_of_it() {
        let told = |leader: Value, second: Value| {
            json!({ "cluster": {
            "leader": leader, "replicas": [{ "name": "b", "current": true }, second],
        } })
        };
        let current = json!({ "name": "c", "current": true, "offline": false });
        assert!(is_held(&told(json!("a"), current.clone()), 3));
        assert!(!is_held(&told(Value::Null, current.clone()), 3), "no leader");
        assert!(!is_held(&told(json!("a"), json!({ "name": "c", "current": false })), 3), "one lags");
        assert!(
            !is_held(&told(json!("a"), json!({ "name": "c", "current": true, "offline": true })), 3),
            "one is away"
        );
        assert!(!is_held(&told(json!("a"), current), 4), "one is missing");
        assert!(!is_held(&json!({ "error": { "code": 503 } }), 3));
    }
}
