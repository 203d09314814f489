//! The streams and consumers, as they must be. Made if missing; one that is there is left as its operator set it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::Client;
use async_nats::jetstream::consumer::{self, AckPolicy};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, Republish, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, Context};
use halm_actors::ports::JobStream;
use halm_protocol::{Class, ModelToken, stream, subject};
use tokio::time::Instant;

/// Bounds of the streams.
#[derive(Debug, Clone)]
pub struct StreamLimits {
    /// Copies of each stream: 1, or 3 in a cluster.
    pub copies: usize,
    /// Jobs that may wait per model and class; more are refused.
    pub jobs_max: i64,
    /// Bytes of the token log.
    pub log_bytes_max: i64,
    /// Bytes of stored outcomes.
    pub outcomes_bytes_max: i64,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { copies: 1, jobs_max: 1024, log_bytes_max: 1 << 30, outcomes_bytes_max: 1 << 30 }
    }
}

/// A delivery that is neither acknowledged nor prolonged for this long is delivered to another. Shorter was measured to
/// redeliver healthy jobs at every restart of a broker; peers notice a dead replica much sooner.
pub(super) const ACK_WAIT: Duration = Duration::from_secs(15);
/// A repeated job id is recognised by the job stream for this long; outcomes are remembered longer.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Bytes of waiting jobs, of all models together.
const JOBS_BYTES_MAX: i64 = 1 << 30;
/// No job waits longer: no deadline is later than a day after admission.
const JOB_AGE_MAX: Duration = Duration::from_secs(26 * 60 * 60);
/// Bytes of quarantined jobs; the oldest make way.
const DEAD_BYTES_MAX: i64 = 1 << 28;
/// How long people have to look into a quarantined job.
const DEAD_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Unacknowledged deliveries of one consumer: far above what all replicas' slots add up to.
const ACK_PENDING_MAX: i64 = 100_000;

/// How long servers may take to elect the leader of a stream that was just made: a question to one without a leader gets no
/// answer for five seconds, and a busy host needs more than one election.
const MADE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Makes what is missing.
pub(super) async fn prepare(
    client: &Client,
    limits: &StreamLimits,
    models: &[ModelToken],
) -> Result<JobStream, String> {
    let context = jetstream::new(client.clone());
    for config in [jobs(limits), log(limits), done(limits), dead(limits)] {
        let name = config.name.clone();
        ensure(&context, config).await.map_err(|cause| format!("stream {name} could not be made: {cause}"))?;
    }
    let of_jobs = |error: &dyn std::fmt::Display| format!("stream {} could not be read: {error}", stream::JOBS);
    let jobs = context.get_stream(stream::JOBS).await.map_err(|error| of_jobs(&error))?;
    for model in models {
        let of_model = |cause: String| format!("the consumer of {model} could not be made: {cause}");
        for class in Class::ALL {
            ensure_consumer(&jobs, consumer(model, class)).await.map_err(of_model)?;
        }
    }
    let found = jobs.cached_info();
    Ok(JobStream { made: found.created.to_string(), last: found.state.last_sequence })
}

/// One that was made before there were classes takes all jobs of its model: it goes on with those of its class.
async fn ensure_consumer(jobs: &Stream, needed: consumer::pull::Config) -> Result<(), String> {
    let name = needed.durable_name.clone().unwrap_or_default();
    let filter = needed.filter_subject.clone();
    let found = jobs.get_or_create_consumer(&name, needed).await.map_err(|error| error.to_string())?;
    let config = &found.cached_info().config;
    if config.filter_subject == filter {
        return Ok(());
    }
    let config = consumer::Config { filter_subject: filter, ..config.clone() };
    jobs.update_consumer(config).await.map(drop).map_err(|error| error.to_string())
}

async fn ensure(context: &Context, config: Config) -> Result<(), String> {
    let name = config.name.clone();
    if let Ok(found) = context.get_stream(&name).await {
        return differs(&found.cached_info().config, &config).map_or(Ok(()), |what| {
            Err(format!("it is there with another {what}; delete it, or set it as halm would"))
        });
    }
    match context.create_stream(config).await {
        Ok(_) => Ok(()),
        // Another replica may have made it in this moment, with a first sequence of its own.
        Err(error) if is_there(context, &name).await => {
            tracing::debug!(%error, stream = name, "another replica made the stream");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a stream that could not be made is there. In a cluster one that was just made by another cannot be asked for
/// until its servers have a leader.
async fn is_there(context: &Context, name: &str) -> bool {
    let until = Instant::now() + MADE_WITHIN;
    loop {
        if context.get_stream(name).await.is_ok() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a stream that is there has differently, of what the protocol rests on. Bounds and copies are the operator's.
fn differs(found: &Config, needed: &Config) -> Option<&'static str> {
    let republish = |config: &Config| config.republish.as_ref().map(|to| (to.source.clone(), to.destination.clone()));
    let subjects = |config: &Config| {
        let mut subjects = config.subjects.clone();
        subjects.sort();
        subjects
    };
    [
        (subjects(found) != subjects(needed), "set of subjects"),
        (found.retention != needed.retention, "retention"),
        (found.discard != needed.discard, "discard policy"),
        (republish(found) != republish(needed), "republish"),
        (needed.max_age.is_zero() && !found.max_age.is_zero(), "max_age"),
        (needed.allow_message_ttl && !found.allow_message_ttl, "allow_msg_ttl"),
        (needed.allow_direct && !found.allow_direct, "allow_direct"),
    ]
    .into_iter()
    .find_map(|(differs, what)| differs.then_some(what))
}

fn jobs(limits: &StreamLimits) -> Config {
    Config {
        name: stream::JOBS.to_owned(),
        description: Some("accepted jobs, each until it is settled".to_owned()),
        subjects: vec![subject::JOB_ALL.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        num_replicas: limits.copies,
        max_messages_per_subject: limits.jobs_max,
        // For subjects that no consumer reads: a misspelt model of a program that publishes jobs itself.
        max_bytes: JOBS_BYTES_MAX,
        max_age: JOB_AGE_MAX,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        // An acknowledgement that comes late, of a job in a stream that was lost, must settle no other's.
        first_sequence: begin(),
        duplicate_window: DUPLICATE_WINDOW,
        republish: Some(Republish {
            source: subject::JOB_REPUBLISH.to_owned(),
            destination: subject::ADMITTED_ALL.to_owned(),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// Sequences must not repeat after a stream was lost and made anew, so they begin with the time.
fn begin() -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).ok()
}

fn log(limits: &StreamLimits) -> Config {
    Config {
        name: stream::LOG.to_owned(),
        description: Some("fences and token records of unfinished jobs".to_owned()),
        subjects: vec![subject::FENCE_ALL.to_owned(), subject::TOKENS_ALL.to_owned(), subject::LOG_ALL.to_owned()],
        storage: StorageType::File,
        num_replicas: limits.copies,
        max_bytes: limits.log_bytes_max,
        discard: DiscardPolicy::New,
        allow_direct: true,
        allow_message_ttl: true,
        first_sequence: begin(),
        // One server flushes each append by itself, which costs more than it gives here: a lost tail is written again
        // after the next fence. Servers before 2.12 do not know the setting and flush.
        persist_mode: (limits.copies == 1).then_some(PersistenceMode::Async),
        republish: Some(Republish {
            source: subject::TOKENS_ALL.to_owned(),
            destination: format!("{}>", subject::INBOX_PREFIX),
            headers_only: false,
        }),
        ..Config::default()
    }
}

fn done(limits: &StreamLimits) -> Config {
    Config {
        name: stream::DONE.to_owned(),
        description: Some("outcomes of jobs".to_owned()),
        subjects: vec![subject::DONE_ALL.to_owned()],
        storage: StorageType::File,
        num_replicas: limits.copies,
        max_bytes: limits.outcomes_bytes_max,
        // A full store forgets its oldest outcomes, which only a repeated request would ask for, and never keeps a job
        // from being settled.
        discard: DiscardPolicy::Old,
        allow_direct: true,
        allow_message_ttl: true,
        ..Config::default()
    }
}

fn dead(limits: &StreamLimits) -> Config {
    Config {
        name: stream::DEAD.to_owned(),
        description: Some("quarantined jobs, for people to look into".to_owned()),
        subjects: vec![subject::DEAD_ALL.to_owned()],
        storage: StorageType::File,
        num_replicas: limits.copies,
        max_bytes: DEAD_BYTES_MAX,
        max_age: DEAD_AGE_MAX,
        discard: DiscardPolicy::Old,
        allow_direct: true,
        ..Config::default()
    }
}

/// The name of the consumer of a model's jobs of a class. No model's token has a plus sign.
pub(super) fn consumer_of(model: &ModelToken, class: Class) -> String {
    match class {
        Class::Interactive => model.as_str().to_owned(),
        Class::Batch => format!("{model}+{class}"),
    }
}

fn consumer(model: &ModelToken, class: Class) -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some(consumer_of(model, class)),
        filter_subject: subject::job(model, class),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: ACK_PENDING_MAX,
        ..consumer::pull::Config::default()
    }
}
