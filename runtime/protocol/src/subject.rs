//! Subjects, each built from validated tokens only.

use crate::{Class, JobId, ModelToken, ReplicaName};

/// Everything of this protocol version.
pub const PREFIX: &str = "halm.v1";
/// The only place outside [`PREFIX`] to which the broker republishes: inboxes of halm's own account.
pub const INBOX_PREFIX: &str = "_INBOX.";

/// Every request: `halm.v1.generate.*`.
pub const GENERATE_ALL: &str = "halm.v1.generate.*";
/// Every job: `halm.v1.job.*.*`.
pub const JOB_ALL: &str = "halm.v1.job.*.*";
/// Where the job stream republishes to, so that witnesses see what was stored.
pub const ADMITTED_ALL: &str = "halm.v1.admitted.>";
/// What the job stream republishes.
pub const JOB_REPUBLISH: &str = "halm.v1.job.>";
/// Every fence.
pub const FENCE_ALL: &str = "halm.v1.fence.*";
/// Every record that a client reads.
pub const TOKENS_ALL: &str = "halm.v1.tok.*.>";
/// Every record of a job that did not ask for a stream.
pub const LOG_ALL: &str = "halm.v1.log.*";
/// Every outcome.
pub const DONE_ALL: &str = "halm.v1.done.*";
/// Every dead letter.
pub const DEAD_ALL: &str = "halm.v1.dead.*";
/// Every replica's beat.
pub const BEAT_ALL: &str = "halm.v1.beat.*";
/// What replicas say of requests that they heard.
pub const HEARD_ALL: &str = "halm.v1.heard.*";
/// Cancellations.
pub const CANCEL_ALL: &str = "halm.v1.cancel.*";
/// Asks every replica for its status.
pub const STATUS: &str = "halm.v1.status";

/// Where one replica is asked for its status: refused by the broker, at once, when it is not connected.
#[must_use]
pub fn status_of(replica: &ReplicaName) -> String {
    format!("{STATUS}.{replica}")
}

/// Where a request for `model` goes.
#[must_use]
pub fn generate(model: &ModelToken) -> String {
    format!("{PREFIX}.generate.{model}")
}

/// Where a job of `model` is kept until it is settled.
#[must_use]
pub fn job(model: &ModelToken, class: Class) -> String {
    format!("{PREFIX}.job.{model}.{class}")
}

/// What is said of a request.
#[must_use]
pub fn heard(job: &JobId) -> String {
    format!("{PREFIX}.heard.{job}")
}

/// Where a job is cancelled.
#[must_use]
pub fn cancel(job: &JobId) -> String {
    format!("{PREFIX}.cancel.{job}")
}

/// The job that a subject of [`CANCEL_ALL`] names.
#[must_use]
pub fn job_of_cancel(subject: &str) -> Option<JobId> {
    JobId::try_from(subject.strip_prefix(PREFIX)?.strip_prefix(".cancel.")?).ok()
}

/// The claims on a job.
#[must_use]
pub fn fence(job: &JobId) -> String {
    format!("{PREFIX}.fence.{job}")
}

/// The records that go to the client's inbox, by republish.
#[must_use]
pub fn tokens(job: &JobId, inbox: &Inbox) -> String {
    format!("{PREFIX}.tok.{job}.{}", inbox.suffix())
}

/// The records of a job whose client waits for the reply only.
#[must_use]
pub fn log(job: &JobId) -> String {
    format!("{PREFIX}.log.{job}")
}

/// A job's outcome.
#[must_use]
pub fn done(job: &JobId) -> String {
    format!("{PREFIX}.done.{job}")
}

/// The job that a subject of [`DONE_ALL`] names.
#[must_use]
pub fn job_of_done(subject: &str) -> Option<JobId> {
    JobId::try_from(subject.strip_prefix(PREFIX)?.strip_prefix(".done.")?).ok()
}

/// A quarantined job.
#[must_use]
pub fn dead(job: &JobId) -> String {
    format!("{PREFIX}.dead.{job}")
}

/// One replica's beats.
#[must_use]
pub fn beat(replica: &ReplicaName) -> String {
    format!("{PREFIX}.beat.{replica}")
}

/// Answered by a living replica; refused by the broker, at once, when it is not connected.
#[must_use]
pub fn ping(replica: &ReplicaName) -> String {
    format!("{PREFIX}.ping.{replica}")
}

/// The model token of a request's subject, as the client wrote it.
#[must_use]
pub fn model_of_generate(subject: &str) -> Option<&str> {
    subject.strip_prefix(PREFIX)?.strip_prefix(".generate.")
}

/// A reply subject that the token log may be republished to: `_INBOX.` and at least one plain token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Inbox(String);

/// A reply subject that is not a plain inbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reply subject {0:?} is not an inbox: it must begin with \"_INBOX.\" and hold plain tokens only")]
pub struct InvalidInbox(String);

impl Inbox {
    /// Longest inbox, in bytes; clients use 30 to 60.
    const BYTES_MAX: usize = 200;

    /// The whole subject.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows `_INBOX.`.
    #[must_use]
    pub fn suffix(&self) -> &str {
        &self.0[INBOX_PREFIX.len()..]
    }
}

impl TryFrom<&str> for Inbox {
    type Error = InvalidInbox;

    fn try_from(value: &str) -> Result<Self, InvalidInbox> {
        let plain =
            |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>');
        let suffix = value.strip_prefix(INBOX_PREFIX).filter(|_| value.len() <= Self::BYTES_MAX);
        if suffix.is_some_and(|suffix| suffix.split('.').all(plain)) {
            Ok(Self(value.to_owned()))
        } else {
            Err(InvalidInbox(value.chars().take(Self::BYTES_MAX).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_inboxes_can_be_published_to() {
        for subject in ["_INBOX.a", "_INBOX.a.b.c", "_INBOX.x-Y_9"] {
            assert!(Inbox::try_from(subject).is_ok(), "{subject} was refused");
        }
        for subject in
            ["", "_INBOX.", "_INBOX", "_INBOX.a..b", "_INBOX.*", "_INBOX.a.>", "$JS.API.STREAM.DELETE.X", "_INBOX.a b"]
        {
            assert!(Inbox::try_from(subject).is_err(), "{subject} was taken");
        }
    }

    #[test]
    fn a_record_lands_on_the_subject_that_is_republished_to_the_inbox() {
        let job = JobId::try_from("j1").expect("a plain token");
        let inbox = Inbox::try_from("_INBOX.a.b").expect("a plain inbox");
        assert_eq!(tokens(&job, &inbox), "halm.v1.tok.j1.a.b");
    }
}
