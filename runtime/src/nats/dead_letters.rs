//! `HALM_DEAD`: quarantined jobs, kept for people.

use async_nats::{Client, HeaderMap};
use halm_actors::ports::{DeadLetters, PortFuture, ReadFault, WriteFault};
use halm_protocol::{DeadLetter, JobId, header, stream, subject};

use super::link::Link;
use super::wire::PublishFault;
use super::{messages, wire};

/// Dead letters over NATS.
#[derive(Clone)]
pub struct NatsDeadLetters {
    link: Link,
}

impl NatsDeadLetters {
    /// Over this link.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Every letter, oldest first.
    ///
    /// # Errors
    /// When the broker does not answer, or a letter is none.
    pub async fn all(&self) -> Result<Vec<DeadLetter>, ReadFault> {
        let client = self.client()?;
        let messages = messages::all(&client, stream::DEAD, subject::DEAD_ALL).await?;
        messages.iter().map(|message| read(&message.payload)).collect()
    }

    /// One job's letter, if it has one.
    ///
    /// # Errors
    /// When the broker does not answer, or the letter is none.
    pub async fn of(&self, job: &JobId) -> Result<Option<DeadLetter>, ReadFault> {
        let client = self.client()?;
        let last = wire::last(&client, stream::DEAD, &subject::dead(job)).await?;
        last.map(|last| read(&last.payload)).transpose()
    }

    /// Removes one job's letter; false if it has none.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn remove(&self, job: &JobId) -> Result<bool, ReadFault> {
        wire::purge(&self.client()?, stream::DEAD, &subject::dead(job)).await.map(|purged| purged > 0)
    }

    fn client(&self) -> Result<Client, ReadFault> {
        self.link.client().map_err(ReadFault)
    }
}

impl DeadLetters for NatsDeadLetters {
    fn bury(&self, letter: &DeadLetter) -> PortFuture<Result<(), WriteFault>> {
        let (link, subject) = (self.link.clone(), subject::dead(&letter.job));
        let (whole, bare) = (bytes(letter), bytes(&DeadLetter { crash_reports: Vec::new(), ..letter.clone() }));
        Box::pin(async move {
            let client = link.client().map_err(WriteFault::Refused)?;
            let mut headers = HeaderMap::new();
            headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
            match wire::publish(&client, subject.clone(), headers.clone(), whole).await {
                // The largest request leaves little room beside it.
                Err(PublishFault::TooLarge) => wire::publish(&client, subject, headers, bare).await?,
                stored => stored?,
            };
            Ok(())
        })
    }
}

fn bytes(letter: &DeadLetter) -> Vec<u8> {
    serde_json::to_vec(letter).expect("a letter has only strings and numbers")
}

fn read(payload: &[u8]) -> Result<DeadLetter, ReadFault> {
    serde_json::from_slice(payload).map_err(|error| ReadFault(format!("a dead letter that cannot be read: {error}")))
}
