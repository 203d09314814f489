//! `HALM_LOG`: fences and records, compared and appended by the server.

use async_nats::{Client, HeaderMap};
use halm_actors::ports::{
    Connection, Fence, FenceRecord, LogRecord, LogTarget, PortFuture, ReadFault, Record, Sequence, TokenLog, WriteFault,
};
use halm_protocol::{Chunk, Claim, JobId, Outcome, Refusal, Reply, header, stream, subject};

use super::inboxes::error_headers;
use super::link::Link;
use super::{messages, wire};

/// What a purge missed goes by itself: later than any deadline, so that no living job's fence ever does.
const FORGOTTEN_AFTER: &str = "26h";

/// The token log over NATS.
#[derive(Clone)]
pub struct NatsTokenLog {
    link: Link,
}

impl NatsTokenLog {
    /// Over this link.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }
}

impl TokenLog for NatsTokenLog {
    fn read_fence(&self, job: &JobId) -> PortFuture<Result<Option<FenceRecord>, ReadFault>> {
        let (link, subject) = (self.link.clone(), subject::fence(job));
        Box::pin(async move {
            // Before asking: if the connection changes meanwhile, the fence is one of a connection that is no more.
            let over = Connection(link.connection());
            let client = link.client().map_err(ReadFault)?;
            let Some(last) = wire::last(&client, stream::LOG, &subject).await? else { return Ok(None) };
            let claim = Claim::from_bytes(&last.payload).map_err(|error| ReadFault(error.to_string()))?;
            Ok(Some(FenceRecord { fence: Fence { sequence: Sequence(last.sequence), over }, claim }))
        })
    }

    fn write_fence(
        &self,
        job: &JobId,
        expected: Option<Sequence>,
        claim: &Claim,
    ) -> PortFuture<Result<Fence, WriteFault>> {
        let (link, subject, payload) = (self.link.clone(), subject::fence(job), claim.to_bytes());
        Box::pin(async move {
            let over = Connection(link.connection());
            let client = link.client().map_err(WriteFault::Refused)?;
            let mut headers = HeaderMap::new();
            headers.insert(header::TTL, FORGOTTEN_AFTER);
            let expected = expected.map_or(0, |sequence| sequence.0);
            headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
            let stored = wire::publish(&client, subject, headers, payload).await?;
            Ok(Fence { sequence: Sequence(stored.sequence), over })
        })
    }

    fn read(&self, target: &LogTarget) -> PortFuture<Result<Vec<LogRecord>, ReadFault>> {
        let (link, target) = (self.link.clone(), target.clone());
        Box::pin(async move {
            let client = link.client().map_err(ReadFault)?;
            let mut records = read_subject(&client, subject::tokens(&target.job, &target.inbox)).await?;
            if !target.streamed {
                let mut chunks = read_subject(&client, subject::log(&target.job)).await?;
                chunks.append(&mut records);
                records = chunks;
            }
            Ok(records)
        })
    }

    fn append(&self, target: &LogTarget, fence: Fence, record: &Record) -> PortFuture<Result<(), WriteFault>> {
        let for_client = target.streamed || matches!(record, Record::Final(_));
        let subject = if for_client { subject::tokens(&target.job, &target.inbox) } else { subject::log(&target.job) };
        let (mut headers, payload) = match record {
            Record::Chunk { chunk, attempt } => {
                let mut headers = HeaderMap::new();
                headers.insert(header::ATTEMPT, attempt.to_string());
                (headers, serde_json::to_vec(chunk).expect("a chunk has only strings and numbers"))
            }
            Record::Final(outcome) => {
                let mut headers = error_headers(outcome);
                if let Some(traceparent) = &target.traceparent {
                    headers.insert(header::TRACEPARENT, traceparent.as_str());
                }
                (headers, outcome.to_bytes())
            }
        };
        headers.insert(header::TTL, FORGOTTEN_AFTER);
        headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, fence.sequence.0.to_string());
        headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, subject::fence(&target.job));
        let link = self.link.clone();
        Box::pin(async move {
            let client = link.client().map_err(WriteFault::Refused)?;
            if link.generation_if_up() != Some(fence.over.0) {
                // It would go out over another connection than that of its fence.
                return Err(WriteFault::Unknown("the connection changed".to_owned()));
            }
            wire::publish(&client, subject, headers, payload).await?;
            if link.connection() != fence.over.0 {
                // The library may have sent it over the next connection, when this one was lost in between.
                return Err(WriteFault::Unknown("the connection changed".to_owned()));
            }
            Ok(())
        })
    }

    fn purge(&self, target: &LogTarget) -> PortFuture<Result<(), ReadFault>> {
        let (link, target) = (self.link.clone(), target.clone());
        Box::pin(async move {
            let client = link.client().map_err(ReadFault)?;
            // The fence first: without it nothing can be appended to what is being removed.
            let subjects =
                [subject::fence(&target.job), subject::tokens(&target.job, &target.inbox), subject::log(&target.job)];
            for subject in subjects {
                wire::purge(&client, stream::LOG, &subject).await?;
            }
            Ok(())
        })
    }
}

/// All records on a subject.
async fn read_subject(client: &Client, subject: String) -> Result<Vec<LogRecord>, ReadFault> {
    messages::all(client, stream::LOG, &subject).await?.iter().map(record).collect()
}

fn record(message: &async_nats::Message) -> Result<LogRecord, ReadFault> {
    let sequence = messages::sequence(message).map(Sequence)?;
    let attempt = message.headers.as_ref().and_then(|headers| headers.get(header::ATTEMPT));
    let record = match attempt.and_then(|attempt| attempt.as_str().parse().ok()) {
        Some(attempt) => {
            let chunk: Chunk =
                serde_json::from_slice(&message.payload).map_err(|error| ReadFault(error.to_string()))?;
            Record::Chunk { chunk, attempt }
        }
        None => Record::Final(outcome(&message.payload)?),
    };
    Ok(LogRecord { sequence, record })
}

/// A final record, read back as the outcome that it tells.
fn outcome(payload: &[u8]) -> Result<Outcome, ReadFault> {
    if let Some(refusal) = Refusal::from_bytes(payload) {
        return Ok(Outcome::Refusal(refusal));
    }
    let reply: Reply = serde_json::from_slice(payload).map_err(|error| ReadFault(error.to_string()))?;
    Ok(Outcome::Reply(Box::new(reply)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_delivered_reads_back_as_the_same_outcome() {
        let refusal = Outcome::Refusal(Refusal::new(halm_protocol::ErrorCode::Poison, "because"));
        assert_eq!(outcome(&refusal.to_bytes()), Ok(refusal.clone()));
    }
}
