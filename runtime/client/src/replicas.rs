//! Asks all replicas, or one, how they are.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use futures_util::StreamExt;
use halm_protocol::{ReplicaName, ReplicaStatus, StatusQuestion, subject};
use tokio::time::{Instant, timeout_at};

use crate::{Client, ClientError};

/// One replica answers within milliseconds; one that needs longer is frozen.
const ONE_WITHIN: Duration = Duration::from_secs(2);

/// What the replicas said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Those that answered, by name.
    pub answered: Vec<ReplicaStatus>,
    /// Those that others know, or that were expected, and that did not answer.
    pub silent: Vec<ReplicaName>,
}

impl Client {
    /// Asks every replica for its status and waits until all that are known have answered, `within` at most.
    ///
    /// # Errors
    /// If the broker does not take the question.
    pub async fn replicas(&self, within: Duration) -> Result<Replicas, ClientError> {
        self.replicas_asked(&StatusQuestion::default(), &BTreeSet::new(), within).await
    }

    /// Asks one replica for its status. Whoever may not ask all of them, or asks often, asks this.
    ///
    /// # Errors
    /// If no replica of that name is connected, or it does not answer within two seconds.
    pub async fn replica(&self, name: &ReplicaName) -> Result<ReplicaStatus, ClientError> {
        let question = Request::new().timeout(Some(ONE_WITHIN));
        match self.nats().send_request(subject::status_of(name), question).await {
            Ok(answer) => Ok(serde_json::from_slice(&answer.payload)?),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(ClientError::NobodyListens),
            Err(error) if error.kind() == RequestErrorKind::TimedOut => Err(ClientError::TimedOut(ONE_WITHIN)),
            Err(error) => Err(ClientError::Send(error.to_string())),
        }
    }

    /// Asks every replica something about its status, and waits until all that are known or expected have answered,
    /// `within` at most.
    ///
    /// # Errors
    /// If the broker does not take the question.
    pub async fn replicas_asked(
        &self,
        question: &StatusQuestion,
        expected: &BTreeSet<ReplicaName>,
        within: Duration,
    ) -> Result<Replicas, ClientError> {
        let send = |error: &dyn std::fmt::Display| ClientError::Send(error.to_string());
        let inbox = self.nats().new_inbox();
        let mut answers = self.nats().subscribe(inbox.clone()).await.map_err(|error| send(&error))?;
        let question = serde_json::to_vec(question).map_err(|error| send(&error))?;
        self.nats().publish_with_reply(subject::STATUS, inbox, question.into()).await.map_err(|error| send(&error))?;
        let until = Instant::now() + within;
        let mut replicas = Replicas::default();
        while let Ok(Some(message)) = timeout_at(until, answers.next()).await {
            if message.status.is_some() {
                // Nobody listens at all.
                break;
            }
            // What cannot be read is of another version; its peers still name it.
            if let Ok(status) = serde_json::from_slice(&message.payload) {
                replicas.answered.push(status);
            }
            replicas.settle(expected);
            let some_known = !expected.is_empty() || replicas.answered.iter().any(|replica| !replica.peers.is_empty());
            if replicas.silent.is_empty() && some_known {
                break;
            }
        }
        replicas.answered.sort_by(|a, b| a.replica.cmp(&b.replica));
        replicas.settle(expected);
        Ok(replicas)
    }
}

impl Replicas {
    fn settle(&mut self, expected: &BTreeSet<ReplicaName>) {
        let answered: BTreeSet<_> = self.answered.iter().map(|status| &status.replica).collect();
        let known: BTreeSet<_> = self.answered.iter().flat_map(|status| &status.peers).chain(expected).collect();
        self.silent = known.difference(&answered).map(|name| (*name).clone()).collect();
    }
}
