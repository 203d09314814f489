//! `HALM_DONE`: outcomes.

use async_nats::HeaderMap;
use halm_actors::ports::{OutcomeStore, PortFuture, ReadFault, WriteFault};
use halm_protocol::{JobId, Outcome, header, stream, subject};

use super::link::Link;
use super::wire;

/// How long an outcome is remembered: a repeated request within this time gets the stored answer.
const REMEMBERED_FOR: &str = "24h";

/// Outcomes over NATS.
#[derive(Clone)]
pub struct NatsOutcomes {
    link: Link,
}

impl NatsOutcomes {
    /// Over this link.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }
}

impl OutcomeStore for NatsOutcomes {
    fn read(&self, job: &JobId) -> PortFuture<Result<Option<Outcome>, ReadFault>> {
        let (link, subject) = (self.link.clone(), subject::done(job));
        Box::pin(async move {
            let client = link.client().map_err(ReadFault)?;
            let Some(last) = wire::last(&client, stream::DONE, &subject).await? else { return Ok(None) };
            serde_json::from_slice(&last.payload).map(Some).map_err(|error| ReadFault(error.to_string()))
        })
    }

    fn store(&self, job: &JobId, outcome: &Outcome) -> PortFuture<Result<(), WriteFault>> {
        let (link, subject) = (self.link.clone(), subject::done(job));
        let payload = serde_json::to_vec(outcome).expect("an outcome has only strings and numbers");
        Box::pin(async move {
            let client = link.client().map_err(WriteFault::Refused)?;
            let mut headers = HeaderMap::new();
            headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
            headers.insert(header::TTL, REMEMBERED_FOR);
            wire::publish(&client, subject, headers, payload).await?;
            Ok(())
        })
    }
}
