//! What a request becomes: a job with everything pinned that its text depends on, or a refusal. Pure.

use std::time::Duration;

use halm_protocol::subject::{self, Inbox};
use halm_protocol::{ErrorCode, JobId, ModelToken, Refusal, Request, RunsModel};

use super::core::Asked;
use crate::ports::JobSpec;

/// Longest idempotency key, in bytes: a UUID and then some.
const KEY_BYTES_MAX: usize = 256;

/// A request as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// `halm.v1.generate.<model>`.
    pub subject: String,
    /// Where the answer goes, as the client said.
    pub reply: String,
    /// Idempotency key.
    pub key: Option<String>,
    /// Where to begin to show the answer, if another asked for it before.
    pub offset: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The body.
    pub payload: Vec<u8>,
    /// When it was heard: milliseconds since the Unix epoch.
    pub heard_unix_ms: u64,
    /// Whether the broker picked this replica for it.
    pub taken: bool,
}

/// A cancellation as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelHeard {
    /// Of this job.
    pub job: JobId,
    /// Where the answer goes, if one is wanted.
    pub inbox: Option<Inbox>,
}

/// Reads a request as every replica that hears it does.
#[must_use]
pub fn read(heard: &Heard, inbox: &Inbox, models: &[RunsModel], deadline_default: Duration) -> Asked {
    let (wanted, known) = model_of(heard, models);
    let model = known.map_or(wanted, |model| model.token.as_str());
    let id = JobId::derive(model, heard.key.as_deref().unwrap_or_else(|| inbox.as_str()), &heard.payload);
    let job = admit(heard, inbox, models, deadline_default).map(Box::new);
    let within = job.as_ref().map_or(Duration::ZERO, |job| allowed(&job.request, deadline_default));
    let from = heard.offset.as_deref().map_or(Ok(0), str::parse);
    let job = match from {
        Ok(_) => job,
        Err(_) => Err(Refusal::of_param(halm_protocol::header::OFFSET, "the offset must be a whole number of tokens")),
    };
    Asked { id, inbox: inbox.clone(), keyed: heard.key.is_some(), from: from.unwrap_or_default(), within, job }
}

/// What the client calls the model, and the model of that name.
fn model_of<'a>(heard: &'a Heard, models: &'a [RunsModel]) -> (&'a str, Option<&'a RunsModel>) {
    let wanted = subject::model_of_generate(&heard.subject).unwrap_or_default();
    (wanted, models.iter().find(|model| model.token.as_str() == wanted || model.alias.as_str() == wanted))
}

/// Decides what a request becomes.
fn admit(heard: &Heard, inbox: &Inbox, models: &[RunsModel], deadline_default: Duration) -> Result<JobSpec, Refusal> {
    let (wanted, model) = model_of(heard, models);
    let model = model.ok_or_else(|| unknown(wanted, models))?;
    if heard.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
        let message = format!("the idempotency key must have 1 to {KEY_BYTES_MAX} bytes");
        return Err(Refusal::of_param(halm_protocol::header::MESSAGE_ID, message));
    }
    let request = Request::parse(&heard.payload)?;
    let key = heard.key.as_deref().unwrap_or_else(|| inbox.as_str());
    let id = JobId::derive(model.token.as_str(), key, &heard.payload);
    let deadline_ms = millis(allowed(&request, deadline_default));
    Ok(JobSpec {
        seed: request.seed.unwrap_or_else(|| seed_of(&id)),
        id,
        model: model.token.clone(),
        request,
        digest: model.digest.clone(),
        inbox: inbox.clone(),
        deadline_unix_ms: heard.heard_unix_ms.saturating_add(deadline_ms),
        traceparent: heard.traceparent.clone(),
    })
}

/// How long the client of a request waits.
fn allowed(request: &Request, default: Duration) -> Duration {
    request.deadline_ms.map_or(default, Duration::from_millis)
}

fn unknown(wanted: &str, models: &[RunsModel]) -> Refusal {
    let mut known: Vec<&ModelToken> = models.iter().flat_map(|model| [&model.alias, &model.token]).collect();
    known.sort();
    known.dedup();
    let known = known.iter().map(|token| token.as_str()).collect::<Vec<_>>().join(", ");
    let wanted: String = wanted.chars().take(64).collect();
    Refusal {
        param: Some("model".to_owned()),
        ..Refusal::new(ErrorCode::UnknownModel, format!("no replica runs {wanted:?}; there are: {known}"))
    }
}

/// A seed for a request that names none. Whoever admits the request again draws the same.
fn seed_of(id: &JobId) -> u64 {
    let digits = &id.as_str()[..13];
    u64::from_str_radix(digits, 16).expect("a derived id begins with 13 hexadecimal digits")
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use halm_protocol::{Digest, Limits};

    use super::*;

    fn models() -> Vec<RunsModel> {
        vec![RunsModel {
            token: ModelToken::try_from("smollm2-135m").expect("a token"),
            alias: ModelToken::try_from("smollm2").expect("a token"),
            name: "smollm2:135m".to_owned(),
            digest: Digest::try_from("0".repeat(64)).expect("a digest"),
        }]
    }

    fn heard(subject: &str, key: Option<&str>) -> Result<JobSpec, Refusal> {
        let inbox = Inbox::try_from("_INBOX.a").expect("an inbox");
        let heard = Heard {
            subject: subject.to_owned(),
            reply: inbox.as_str().to_owned(),
            key: key.map(str::to_owned),
            offset: None,
            traceparent: None,
            payload: br#"{"prompt":"a","deadline_ms":5}"#.to_vec(),
            heard_unix_ms: 100,
            taken: true,
        };
        admit(&heard, &inbox, &models(), Duration::from_secs(60))
    }

    #[test]
    fn a_job_has_its_seed_its_weights_and_its_deadline_pinned() {
        let job = heard("halm.v1.generate.smollm2", None).expect("a good request");
        assert_eq!(job.deadline_unix_ms, 105);
        assert_eq!(job.digest.as_str(), "0".repeat(64));
        assert!(job.seed <= Limits::SEED_MAX);
        assert_eq!(heard("halm.v1.generate.smollm2-135m", None), Ok(job), "the alias is the same model");
    }

    #[test]
    fn a_key_makes_the_id_independent_of_the_inbox_and_a_bad_one_is_refused() {
        let (a, b) = (heard("halm.v1.generate.smollm2", Some("k")), heard("halm.v1.generate.smollm2", None));
        assert_ne!(a.expect("a good request").id, b.expect("a good request").id);
        let refusal = heard("halm.v1.generate.smollm2", Some("")).expect_err("an empty key");
        assert_eq!(refusal.param.as_deref(), Some("Nats-Msg-Id"));
    }

    #[test]
    fn an_unknown_model_is_refused_by_name_and_told_what_there_is() {
        let refusal = heard("halm.v1.generate.gpt5", None).expect_err("not run here");
        assert_eq!(refusal.code, ErrorCode::UnknownModel);
        assert_eq!(refusal.message, "no replica runs \"gpt5\"; there are: smollm2, smollm2-135m");
    }
}
