//! The witness: reads what the brokers themselves store, beside what clients see.
//!
//! Follows the token log with an ordered consumer: claims and records with their sequences and fences, as stored. At
//! the end it reads every kept outcome and what is left in the queue. It is no listener of any inbox: whether anybody
//! hears a client's final record decides how long that is offered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::{self, Message as StreamMessage};
use futures_util::StreamExt;
use halm_client::Client;
use halm_protocol::{Chunk, JobId, Outcome, header, stream, subject};
use tokio::time::Instant;

use super::event::{Happened, Kept, Logged, Tape};
use crate::nats::messages;

/// After a consumer was lost, with the broker that had it.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Ends are acknowledged in the queue when their clients have heard them: at once, but for a client that is away.
const QUEUE_EMPTY_WITHIN: Duration = Duration::from_secs(45);
/// For the outcomes, from brokers that may have a leader to elect.
const AUDIT_WITHIN: Duration = Duration::from_secs(30);

/// Watches the log of one deployment.
pub(crate) struct Witness {
    nats: async_nats::Client,
    tape: Tape,
}

impl Witness {
    pub(crate) fn new(observer: &Client, tape: &Tape) -> Self {
        Self { nats: observer.nats().clone(), tape: tape.clone() }
    }

    /// Watches. Never ends by itself.
    pub(crate) async fn run(&self) {
        futures_util::future::join(self.follow_log(), self.follow_queue()).await;
    }

    /// What is stored in the queue.
    async fn follow_queue(&self) {
        let Ok(mut admitted) = self.nats.subscribe(subject::ADMITTED_ALL).await else { return };
        while let Some(message) = admitted.next().await {
            if let Some(job) = header_of(&message, header::MESSAGE_ID).and_then(|job| JobId::try_from(job).ok()) {
                self.tape.say(Happened::Admitted(job));
            }
        }
    }

    async fn follow_log(&self) {
        let mut after = None;
        loop {
            // A consumer goes with its broker. Another begins where it was.
            let _ = self.follow_log_after(&mut after).await;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn follow_log_after(&self, after: &mut Option<u64>) -> anyhow::Result<()> {
        let context = jetstream::new(self.nats.clone());
        let log = context.get_stream(stream::LOG).await?;
        let deliver_policy = match after {
            Some(after) => DeliverPolicy::ByStartSequence { start_sequence: *after + 1 },
            None => DeliverPolicy::New,
        };
        let consumer = log.create_consumer(pull::OrderedConfig { deliver_policy, ..pull::OrderedConfig::default() });
        let mut messages = consumer.await?.messages().await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let Ok(sequence) = message.info().map(|info| info.stream_sequence) else { continue };
            *after = Some(sequence);
            if let Some(happened) = read(&message, sequence) {
                self.tape.say(happened);
            }
        }
        Ok(())
    }

    /// Looks up every outcome, and waits until nothing is left in the queue.
    ///
    /// # Errors
    /// If the brokers do not tell.
    pub(crate) async fn audit(&self) -> anyhow::Result<()> {
        let until = Instant::now() + QUEUE_EMPTY_WITHIN;
        let left = loop {
            let left = self.queue_length().await;
            if matches!(left, Ok(0)) || Instant::now() > until {
                break left.context("ask how long the queue is")?;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        let mut kept: BTreeMap<JobId, Vec<Kept>> = BTreeMap::new();
        for message in self.stored(stream::DONE, subject::DONE_ALL).await? {
            let (job, outcome) = outcome(&message).context("read an outcome")?;
            kept.entry(job).or_default().push(outcome);
        }
        let jobs: BTreeSet<JobId> = self.tape.look(|judge| judge.jobs());
        for job in jobs.into_iter().chain(kept.keys().cloned()).collect::<BTreeSet<_>>() {
            let kept = kept.remove(&job).unwrap_or_default();
            self.tape.say(Happened::Outcomes { job, kept });
        }
        self.tape.say(Happened::LeftInQueue(left));
        Ok(())
    }

    async fn queue_length(&self) -> anyhow::Result<u64> {
        let told = self.nats.request(format!("$JS.API.STREAM.INFO.{}", stream::JOBS), "".into()).await?;
        let told: serde_json::Value = serde_json::from_slice(&told.payload)?;
        told["state"]["messages"]
            .as_u64()
            .with_context(|| format!("the brokers do not say how long the queue is: {told}"))
    }

    async fn stored(&self, stream: &str, subject: &str) -> anyhow::Result<Vec<Message>> {
        let until = Instant::now() + AUDIT_WITHIN;
        loop {
            match messages::all(&self.nats, stream, subject).await {
                Ok(all) => return Ok(all),
                Err(fault) if Instant::now() > until => bail!("read {stream}: {}", fault.0),
                Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
    }
}

/// Whether a quarantined job is kept for people.
pub(crate) async fn has_dead_letter(observer: &Client, job: &JobId) -> anyhow::Result<bool> {
    let letters = messages::all(observer.nats(), stream::DEAD, &subject::dead(job)).await;
    Ok(!letters.map_err(|fault| anyhow::anyhow!("read the dead letters: {}", fault.0))?.is_empty())
}

fn header_of<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

/// A message of the log.
fn read(message: &StreamMessage, sequence: u64) -> Option<Happened> {
    let rest = message.subject.as_str().strip_prefix(subject::PREFIX)?.strip_prefix('.')?;
    let mut tokens = rest.split('.');
    let (kind, job) = (tokens.next()?, JobId::try_from(tokens.next()?).ok()?);
    if kind == "fence" {
        return Some(Happened::Claimed { job, sequence });
    }
    let fence = header_of(message, header::EXPECTED_LAST_SUBJECT_SEQUENCE).and_then(|fence| fence.parse().ok());
    // Only pieces say which attempt wrote them; the final record is read by whoever waits for it.
    let chunk = match header_of(message, header::ATTEMPT) {
        Some(_) => {
            let chunk: Chunk = serde_json::from_slice(&message.payload).ok()?;
            Some((chunk.offset, chunk.tokens))
        }
        None => None,
    };
    Some(Happened::Logged(Logged { job, sequence, fence, chunk }))
}

/// A kept outcome. One that was read directly says in a header on which subject it was stored.
fn outcome(message: &Message) -> anyhow::Result<(JobId, Kept)> {
    let subject = header_of(message, "Nats-Subject").unwrap_or(message.subject.as_str());
    let job = subject.rsplit('.').next().unwrap_or_default();
    let job = JobId::try_from(job).with_context(|| format!("the subject {subject}"))?;
    Ok(match serde_json::from_slice(&message.payload)? {
        Outcome::Reply(reply) => (job, Kept::Answer(reply.text().to_owned())),
        Outcome::Refusal(refusal) => (job, Kept::Error(refusal.code.to_string())),
    })
}
