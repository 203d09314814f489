//! The work queue: jobs in, acknowledgements out.

use halm_protocol::subject::Inbox;
use halm_protocol::{Class, Digest, JobId, ModelToken, Request};

use super::PortFuture;

/// The subject on which one delivery is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AckSubject(String);

impl AckSubject {
    /// Takes a subject that acknowledges a delivery of the job stream, and no other.
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let plain = |token: &str| {
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>')
        };
        let tokens: Vec<&str> = subject.split('.').collect();
        // `$JS.ACK.<stream>.…` has nine tokens; with a domain and an account before the stream there are more.
        let stream = match tokens.len() {
            9 => tokens[2],
            11 | 12 => tokens[4],
            _ => return None,
        };
        let ours = tokens[0] == "$JS" && tokens[1] == "ACK" && stream == halm_protocol::stream::JOBS;
        (ours && tokens.iter().all(|token| plain(token))).then(|| Self(subject.to_owned()))
    }

    /// The subject.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One delivery of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where to acknowledge it.
    pub ack: AckSubject,
    /// How often the queue has delivered this job, this time included.
    pub deliveries: u64,
}

/// An accepted job, as the queue keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// Its id.
    pub id: JobId,
    /// Whose queue it stands in.
    pub model: ModelToken,
    /// What was asked.
    pub request: Request,
    /// Pinned at admission.
    pub seed: u64,
    /// The weights that it is pinned to.
    pub digest: Digest,
    /// Where the answer goes.
    pub inbox: Inbox,
    /// When the answer must be complete: milliseconds since the Unix epoch.
    pub deadline_unix_ms: u64,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq)]
pub enum Pulled {
    /// A job.
    Job(Box<JobSpec>, Delivery),
    /// A message on the job stream that is no job: it was terminated, with this reason.
    NotAJob(String),
}

/// `HALM_JOBS` through one model's durable consumers.
pub trait JobQueue: Send + Sync + 'static {
    /// Waits for up to `batch` jobs of a class and hands out each as it comes; ends after the batch, or after the port's own
    /// waiting time. The number it returns, also with a fault, is how many it handed out.
    fn pull(
        &self,
        class: Class,
        batch: usize,
        deliver: Box<dyn Fn(Pulled) + Send + Sync>,
    ) -> PortFuture<Result<usize, (usize, String)>>;

    /// The job is settled: remove it.
    fn ack(&self, delivery: &Delivery) -> PortFuture<()>;

    /// Still at it: do not deliver it to another.
    fn progress(&self, delivery: &Delivery) -> PortFuture<()>;

    /// Give it to another, now.
    fn nak(&self, ack: &AckSubject) -> PortFuture<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_acknowledgements_of_the_job_stream_are_taken() {
        assert!(AckSubject::parse("$JS.ACK.HALM_JOBS.smollm2-135m.1.7.9.1700000000000000000.0").is_some());
        assert!(AckSubject::parse("$JS.ACK.hub.acc.HALM_JOBS.smollm2-135m.1.7.9.1700000000000000000.0.x").is_some());
        let forged = "$JS.ACK.OTHER.HALM_JOBS.1.7.9.17.0";
        for subject in
            ["", forged, "$JS.ACK.OTHER.c.1.7.9.17.0", "$JS.API.STREAM.DELETE.HALM_JOBS", "$JS.ACK.HALM_JOBS.>"]
        {
            assert_eq!(AckSubject::parse(subject), None, "{subject} was taken");
        }
    }
}
