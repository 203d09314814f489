//! `HALM_LOG`: fences and records, compared and appended by the server.

use async_nats::{Client, HeaderMap, StatusCode};
use futures_util::StreamExt;
use halm_actors::ports::{
    FenceRecord, LogRecord, LogTarget, PortFuture, ReadFault, Record, Sequence, TokenLog, WriteFault,
};
use halm_protocol::{Chunk, Claim, JobId, Outcome, Refusal, Reply, header, stream, subject};

use super::inboxes::error_headers;
use super::link::Link;
use super::wire;

/// Records asked for in one batch: an answer of 4,096 tokens in single ones.
const READ_BATCH: usize = 4096;

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
            let client = link.client().map_err(ReadFault)?;
            let Some(last) = wire::last(&client, stream::LOG, &subject).await? else { return Ok(None) };
            let claim = Claim::from_bytes(&last.payload).map_err(|error| ReadFault(error.to_string()))?;
            Ok(Some(FenceRecord { sequence: Sequence(last.sequence), claim }))
        })
    }

    fn write_fence(
        &self,
        job: &JobId,
        expected: Option<Sequence>,
        claim: &Claim,
    ) -> PortFuture<Result<Sequence, WriteFault>> {
        let (link, subject, payload) = (self.link.clone(), subject::fence(job), claim.to_bytes());
        Box::pin(async move {
            let client = link.client().map_err(WriteFault::Refused)?;
            let mut headers = HeaderMap::new();
            headers.insert(header::TTL, FORGOTTEN_AFTER);
            let expected = expected.map_or(0, |sequence| sequence.0);
            headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
            let stored = wire::publish(&client, subject, headers, payload).await?;
            Ok(Sequence(stored.sequence))
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

    fn append(&self, target: &LogTarget, fence: Sequence, record: &Record) -> PortFuture<Result<(), WriteFault>> {
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
        headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, fence.0.to_string());
        headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, subject::fence(&target.job));
        let link = self.link.clone();
        Box::pin(async move {
            let client = link.client().map_err(WriteFault::Refused)?;
            if link.generation_if_up().is_none() {
                // It would wait, and go out over the next connection, under a fence of this one.
                return Err(WriteFault::Unknown("the connection is lost".to_owned()));
            }
            wire::publish(&client, subject, headers, payload).await?;
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
                let body = serde_json::json!({ "filter": subject });
                wire::ask(&client, &format!("STREAM.PURGE.{}", stream::LOG), body).await?;
            }
            Ok(())
        })
    }
}

/// All records on a subject. They come by Direct Get, perhaps from a follower, so the leader says first where the last
/// one is, and what does not reach that far is a fault.
async fn read_subject(client: &Client, subject: String) -> Result<Vec<LogRecord>, ReadFault> {
    let Some(last) = wire::last(client, stream::LOG, &subject).await? else { return Ok(Vec::new()) };
    let mut records: Vec<LogRecord> = Vec::new();
    let mut next = 1;
    loop {
        let batch = read_batch(client, &subject, next).await?;
        let Some(newest) = batch.last().map(|record| record.sequence.0) else {
            return Err(ReadFault(format!("the log of {subject} ends before its last record")));
        };
        records.extend(batch);
        if newest >= last.sequence {
            return Ok(records);
        }
        next = newest + 1;
    }
}

async fn read_batch(client: &Client, subject: &str, from: u64) -> Result<Vec<LogRecord>, ReadFault> {
    let fault = |error: &dyn std::fmt::Display| ReadFault(error.to_string());
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| fault(&error))?;
    let body = serde_json::json!({ "seq": from, "next_by_subj": subject, "batch": READ_BATCH });
    let call = format!("$JS.API.DIRECT.GET.{}", stream::LOG);
    client.publish_with_reply(call, inbox, body.to_string().into()).await.map_err(|error| fault(&error))?;
    let mut records = Vec::new();
    loop {
        let answer = tokio::time::timeout(wire::READ_WITHIN, answers.next()).await;
        let Ok(Some(message)) = answer else { return Err(ReadFault("the log did not answer in time".to_owned())) };
        match message.status {
            None => records.push(record(&message)?),
            // End of batch, or nothing from here on.
            Some(StatusCode::NOT_FOUND) => return Ok(records),
            Some(status) if status.as_u16() == 204 => return Ok(records),
            Some(status) => return Err(ReadFault(format!("the log answered with status {status}"))),
        }
    }
}

fn record(message: &async_nats::Message) -> Result<LogRecord, ReadFault> {
    let headers = message.headers.as_ref();
    let number =
        |name: &str| headers.and_then(|headers| headers.get(name)).and_then(|value| value.as_str().parse().ok());
    let sequence =
        number("Nats-Sequence").map(Sequence).ok_or_else(|| ReadFault("a record without a sequence".to_owned()))?;
    let record = match number(header::ATTEMPT) {
        Some(attempt) => {
            let chunk: Chunk =
                serde_json::from_slice(&message.payload).map_err(|error| ReadFault(error.to_string()))?;
            Record::Chunk { chunk, attempt: u32::try_from(attempt).unwrap_or(u32::MAX) }
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
