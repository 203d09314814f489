//! The demo's clients: each keeps what it saw, record by record, as it came.
//!
//! They are plain NATS clients on purpose: nothing is mended on the way, so that what was lost or doubled would show.

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::Subscriber;
use futures_util::StreamExt;
use halm_client::Client;
use halm_protocol::{Chunk, JobId, ModelToken, Refusal, Reply, Request, subject};
use tokio::time::{Instant, timeout};

/// A first chunk may wait for a prompt to be computed.
const FIRST_WITHIN: Duration = Duration::from_secs(30);

/// A stream in progress.
pub(super) struct Stream {
    inbox: Subscriber,
    job: JobId,
    chunks: Vec<Chunk>,
    reply: Option<Reply>,
    fault: Option<String>,
    last_at: Instant,
    hit_at: Option<Instant>,
    gap: Option<Duration>,
}

/// What one client saw.
pub(super) struct Transcript {
    pub(super) text: String,
    pub(super) tokens: Vec<u32>,
    offsets: Vec<(u32, usize)>,
    pub(super) gap: Option<Duration>,
    pub(super) attempts: u32,
    pub(super) resumed_at: Vec<u32>,
}

/// How one transcript differs from another.
pub(super) struct Difference {
    pub(super) lost: usize,
    pub(super) doubled: usize,
    pub(super) changed: usize,
}

impl Difference {
    pub(super) fn is_same(&self) -> bool {
        self.lost + self.doubled + self.changed == 0
    }
}

impl Stream {
    /// Asks, and waits for the first chunk.
    pub(super) async fn open(client: &Client, model: &str, request: &Request) -> anyhow::Result<Self> {
        let nats = client.nats();
        let reply_to = nats.new_inbox();
        let mut inbox = nats.subscribe(reply_to.clone()).await?;
        let subject = subject::generate(&ModelToken::of_name(model)?);
        nats.publish_with_reply(subject, reply_to, request.to_bytes().into()).await?;
        let first = timeout(FIRST_WITHIN, inbox.next()).await.ok().flatten();
        let first = super::step(first, "nothing came from any replica")?;
        let chunk: Chunk = serde_json::from_slice(&first.payload)
            .with_context(|| format!("the first record: {}", String::from_utf8_lossy(&first.payload)))?;
        Ok(Self {
            inbox,
            job: chunk.job.clone(),
            chunks: vec![chunk],
            reply: None,
            fault: None,
            last_at: Instant::now(),
            hit_at: None,
            gap: None,
        })
    }

    pub(super) fn job(&self) -> &JobId {
        &self.job
    }

    pub(super) fn is_over(&self) -> bool {
        self.reply.is_some() || self.fault.is_some()
    }

    /// Tokens seen so far.
    pub(super) fn tokens(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.tokens.len()).sum()
    }

    /// Text seen so far.
    pub(super) fn text(&self) -> String {
        self.chunks.iter().map(|chunk| chunk.text.as_str()).collect()
    }

    /// Whether it was hit and waits to go on.
    pub(super) fn is_in_gap(&self) -> bool {
        self.hit_at.is_some() && self.gap.is_none() && !self.is_over()
    }

    pub(super) fn gap(&self) -> Option<Duration> {
        self.gap
    }

    /// What computes it was killed in this moment.
    pub(super) fn hit(&mut self) {
        self.hit_at = Some(Instant::now());
    }

    /// Takes the next record, if one comes in time.
    async fn take(&mut self, within: Duration) {
        let Ok(next) = timeout(within, self.inbox.next()).await else { return };
        let now = Instant::now();
        let Some(message) = next else {
            self.fault = Some("the subscription ended".to_owned());
            return;
        };
        if let Ok(chunk) = serde_json::from_slice::<Chunk>(&message.payload) {
            // A record that was under way when the blow fell is no recovery: the gap is the longest silence after it.
            if self.hit_at.is_some() {
                let silence = now - self.last_at;
                self.gap = Some(self.gap.map_or(silence, |gap| gap.max(silence)));
            }
            self.chunks.push(chunk);
        } else if let Ok(reply) = serde_json::from_slice::<Reply>(&message.payload) {
            self.reply = Some(reply);
        } else {
            let refusal = Refusal::from_bytes(&message.payload).map(|refusal| refusal.to_string());
            self.fault = Some(refusal.unwrap_or_else(|| "a record that is none".to_owned()));
        }
        self.last_at = now;
    }

    /// Reads to the end.
    pub(super) async fn drain(&mut self) {
        while !self.is_over() {
            self.take(FIRST_WITHIN).await;
        }
    }

    pub(super) fn finish(self) -> anyhow::Result<Transcript> {
        if let Some(fault) = self.fault {
            bail!("a stream ended with an error: {fault}");
        }
        let text = self.text();
        let reply = super::step(self.reply, "a stream has no reply")?;
        if reply.text() != text {
            bail!("a stream's chunks do not add up to its reply");
        }
        Ok(Transcript {
            text,
            offsets: self.chunks.iter().map(|chunk| (chunk.offset, chunk.tokens.len())).collect(),
            tokens: self.chunks.into_iter().flat_map(|chunk| chunk.tokens).collect(),
            gap: self.gap,
            attempts: reply.attempts,
            resumed_at: reply.resumed_at,
        })
    }
}

impl Transcript {
    /// Compares by the offsets that the records themselves state.
    pub(super) fn compare(&self, reference: &Self) -> Difference {
        let mut seen = vec![0_usize; reference.tokens.len()];
        let mut changed = 0;
        let mut tokens = self.tokens.iter();
        for (offset, count) in &self.offsets {
            for (at, token) in (*offset as usize..).zip(tokens.by_ref().take(*count)) {
                match seen.get_mut(at) {
                    Some(times) => *times += 1,
                    None => changed += 1,
                }
                if reference.tokens.get(at).is_some_and(|expected| expected != token) {
                    changed += 1;
                }
            }
        }
        let lost = seen.iter().filter(|times| **times == 0).count();
        let doubled = seen.iter().map(|times| times.saturating_sub(1)).sum();
        Difference { lost, doubled, changed }
    }
}

/// Takes what comes on any of the streams within a time.
pub(super) async fn wait_any(streams: &mut [Stream], within: Duration) {
    let waiting = streams.iter_mut().filter(|stream| !stream.is_over());
    let takes = waiting.map(|stream| Box::pin(stream.take(within)));
    let takes: Vec<_> = takes.collect();
    if !takes.is_empty() {
        futures_util::future::select_all(takes).await;
    }
}
