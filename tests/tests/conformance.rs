//! The modelled JetStream, held against the real one: the same scripts get the same answers.

use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use halm_protocol::header;
use halm_tests::sim::jetstream::{Consumer, Delivered, Expected, Refused, Stream, StreamConfig};
use halm_tests::{Broker, PlainClient, until};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Scripts, each with streams of its own.
const SCRIPTS: usize = 30;
/// Steps of one script.
const STEPS: usize = 60;
/// Messages on one subject of the queue, so that it is full now and then.
const PER_SUBJECT_MAX: usize = 4;
/// Longer than any script: what waits for an acknowledgement is delivered again only when it is given back.
const ACK_WAIT: Duration = Duration::from_secs(600);
/// A broker that says nothing for this long is broken.
const PATIENCE: Duration = Duration::from_secs(10);
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);
/// Where the log begins.
const FIRST: u64 = 1000;

/// One request to a broker. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    /// To the log, if the last message of a subject is the one expected: the last that there is, or another.
    Append {
        subject: u8,
        expected_of: Option<u8>,
        right: bool,
    },
    /// To the queue, perhaps with an id.
    Enqueue {
        subject: u8,
        id: Option<u8>,
    },
    Last {
        subject: u8,
    },
    Purge {
        subject: u8,
    },
    Next,
    /// Of any delivery so far, also one that is over.
    Settle {
        delivery: usize,
        how: How,
    },
    Count,
    /// The broker is stopped in order and started again.
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Ack,
    Nak,
    Progress,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Stored { sequence: u64, duplicate: bool },
    Refused(u64),
    Last(Option<u64>),
    Purged(u64),
    Next(Option<Delivered>),
    Settled,
    Counts { queue: u64, log: u64 },
    Restarted,
}

fn step() -> impl Strategy<Value = Step> {
    let subject = || 0..3_u8;
    let how = prop_oneof![3 => Just(How::Ack), 2 => Just(How::Nak), 1 => Just(How::Progress)];
    prop_oneof![
        6 => (subject(), prop::option::weighted(0.7, subject()), prop::bool::weighted(0.7))
            .prop_map(|(subject, expected_of, right)| Step::Append { subject, expected_of, right }),
        6 => (subject(), prop::option::of(0..6_u8)).prop_map(|(subject, id)| Step::Enqueue { subject, id }),
        2 => subject().prop_map(|subject| Step::Last { subject }),
        1 => subject().prop_map(|subject| Step::Purge { subject }),
        6 => Just(Step::Next),
        6 => (0..8_usize, how).prop_map(|(delivery, how)| Step::Settle { delivery, how }),
        1 => Just(Step::Count),
    ]
}

/// The model, as a broker.
struct Modelled {
    queue: Stream<u8, ()>,
    log: Stream<u8, ()>,
    consumer: Consumer,
    deliveries: Vec<Delivered>,
}

impl Modelled {
    fn new() -> Self {
        let queue = StreamConfig {
            per_subject_max: Some(PER_SUBJECT_MAX),
            duplicate_window_us: Some(u64::MAX / 2),
            first_sequence: 1,
            max_age_us: None,
        };
        Self {
            queue: Stream::new(queue),
            log: Stream::new(StreamConfig { first_sequence: FIRST, ..StreamConfig::default() }),
            consumer: Consumer::new(u64::MAX / 2),
            deliveries: Vec::new(),
        }
    }

    fn expected(&self, of: u8, right: bool) -> u64 {
        let last = self.log.last_of(&of).map_or(0, |last| last.sequence);
        if right { last } else { last + 1 }
    }

    fn perform(&mut self, step: &Step) -> Answer {
        let stored = |answer: Result<halm_tests::sim::jetstream::Stored, Refused>| match answer {
            Ok(stored) => Answer::Stored { sequence: stored.sequence, duplicate: stored.duplicate },
            Err(Refused::WrongLastSequence) => Answer::Refused(10071),
            Err(Refused::MaximumMessagesPerSubject) => Answer::Refused(10077),
        };
        match *step {
            Step::Append { subject, expected_of, right } => {
                let expected = expected_of.map(|of| Expected { subject: of, sequence: self.expected(of, right) });
                stored(self.log.publish(subject, (), expected.as_ref(), None, 0))
            }
            Step::Enqueue { subject, id } => {
                let id = id.map(|id| id.to_string());
                stored(self.queue.publish(subject, (), None, id.as_deref(), 0))
            }
            Step::Last { subject } => Answer::Last(self.log.last_of(&subject).map(|last| last.sequence)),
            Step::Purge { subject } => Answer::Purged(self.log.purge(&subject) as u64),
            Step::Next => {
                let next = self.consumer.next(&self.queue, 0);
                self.deliveries.extend(next);
                Answer::Next(next)
            }
            Step::Settle { delivery, how } => {
                let Some(delivered) = pick(&self.deliveries, delivery) else { return Answer::Settled };
                match how {
                    How::Ack => drop(self.consumer.ack(&mut self.queue, delivered.stream_sequence, 0)),
                    How::Nak => self.consumer.nak(delivered.stream_sequence),
                    How::Progress => self.consumer.progress(delivered.stream_sequence, 0),
                }
                Answer::Settled
            }
            Step::Count => Answer::Counts { queue: self.queue.len() as u64, log: self.log.len() as u64 },
            Step::Restart => {
                let gone = (self.queue.crash(0), self.log.crash(0));
                assert!(gone.0.is_empty() && gone.1.is_empty(), "a broker that flushes forgets nothing");
                self.consumer.restart(0, true);
                Answer::Restarted
            }
        }
    }
}

/// The newest deliveries are chosen most.
fn pick(deliveries: &[Delivered], back: usize) -> Option<Delivered> {
    deliveries.iter().rev().nth(back % deliveries.len().max(1)).copied()
}

/// The real one, with the streams of one script.
struct Real<'a> {
    broker: &'a mut Broker,
    nats: Client,
    script: usize,
}

impl Real<'_> {
    async fn prepare(&self) {
        let context = jetstream::new(self.nats.clone());
        let queue = stream::Config {
            name: self.queue(),
            subjects: vec![format!("queue.{}.*", self.script)],
            retention: stream::RetentionPolicy::WorkQueue,
            max_messages_per_subject: PER_SUBJECT_MAX as i64,
            discard: stream::DiscardPolicy::New,
            discard_new_per_subject: true,
            duplicate_window: DUPLICATE_WINDOW,
            ..stream::Config::default()
        };
        let log = stream::Config {
            name: self.log(),
            subjects: vec![format!("log.{}.*", self.script)],
            first_sequence: Some(FIRST),
            ..stream::Config::default()
        };
        context.create_stream(log).await.expect("a stream is made");
        let queue = context.create_stream(queue).await.expect("a stream is made");
        let consumer = consumer::pull::Config {
            durable_name: Some("c".to_owned()),
            ack_wait: ACK_WAIT,
            ..consumer::pull::Config::default()
        };
        queue.create_consumer(consumer).await.expect("a consumer is made");
    }

    fn queue(&self) -> String {
        format!("QUEUE{}", self.script)
    }

    fn log(&self) -> String {
        format!("LOG{}", self.script)
    }

    async fn ask(&self, subject: String, body: Value) -> Value {
        let payload = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.nats.request(subject, payload.into()).await.expect("the broker answers");
        serde_json::from_slice(&answer.payload).expect("an answer is JSON")
    }

    async fn publish(&self, subject: String, headers: HeaderMap) -> Answer {
        let answer = self.nats.request_with_headers(subject, headers, "".into()).await.expect("the broker answers");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("an answer is JSON");
        match answer["error"]["err_code"].as_u64() {
            Some(code) => Answer::Refused(code),
            None => Answer::Stored {
                sequence: answer["seq"].as_u64().expect("a sequence"),
                duplicate: answer["duplicate"].as_bool().unwrap_or(false),
            },
        }
    }

    async fn perform(&mut self, step: &Step, model: &Modelled) -> Answer {
        match *step {
            Step::Append { subject, expected_of, right } => {
                let mut headers = HeaderMap::new();
                if let Some(of) = expected_of {
                    let expected = model.expected(of, right).to_string();
                    let subject = format!("log.{}.{of}", self.script);
                    headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, expected);
                    headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, subject);
                }
                self.publish(format!("log.{}.{subject}", self.script), headers).await
            }
            Step::Enqueue { subject, id } => {
                let mut headers = HeaderMap::new();
                if let Some(id) = id {
                    headers.insert(header::MESSAGE_ID, id.to_string());
                }
                self.publish(format!("queue.{}.{subject}", self.script), headers).await
            }
            Step::Last { subject } => {
                let body = json!({ "last_by_subj": format!("log.{}.{subject}", self.script) });
                let answer = self.ask(format!("$JS.API.STREAM.MSG.GET.{}", self.log()), body).await;
                Answer::Last(answer["message"]["seq"].as_u64())
            }
            Step::Purge { subject } => {
                let body = json!({ "filter": format!("log.{}.{subject}", self.script) });
                let answer = self.ask(format!("$JS.API.STREAM.PURGE.{}", self.log()), body).await;
                Answer::Purged(answer["purged"].as_u64().expect("a number"))
            }
            Step::Next => Answer::Next(self.next(model.consumer.clone().next(&model.queue, 0).is_some()).await),
            Step::Settle { delivery, how } => {
                let Some(delivered) = pick(&model.deliveries, delivery) else { return Answer::Settled };
                let Delivered { stream_sequence, consumer_sequence, deliveries } = delivered;
                let queue = self.queue();
                let subject = format!("$JS.ACK.{queue}.c.{deliveries}.{stream_sequence}.{consumer_sequence}.0.0");
                let word = match how {
                    How::Ack => "+ACK",
                    How::Nak => "-NAK",
                    How::Progress => "+WPI",
                };
                // With a reply, so that it is done when the next step begins.
                self.nats.request(subject, word.into()).await.expect("the broker answers");
                Answer::Settled
            }
            Step::Count => {
                let mut counts = [0; 2];
                for (count, stream) in counts.iter_mut().zip([self.queue(), self.log()]) {
                    let info = self.ask(format!("$JS.API.STREAM.INFO.{stream}"), Value::Null).await;
                    *count = info["state"]["messages"].as_u64().expect("a number");
                }
                Answer::Counts { queue: counts[0], log: counts[1] }
            }
            Step::Restart => {
                self.broker.stop().await;
                self.broker.restart().await;
                let nats = self.nats.clone();
                until("the broker answers again", async || {
                    nats.request("$JS.API.INFO", "".into()).await.map_err(|error| error.to_string())
                })
                .await;
                Answer::Restarted
            }
        }
    }

    /// What a pull brings. If there should be something it waits a little: the server tells its consumer of a new message a
    /// moment after it has acknowledged it.
    async fn next(&self, there_is: bool) -> Option<Delivered> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.c", self.queue());
        let expires = u64::try_from(PATIENCE.as_nanos() / 2).expect("some seconds");
        let body =
            if there_is { json!({ "batch": 1, "expires": expires }) } else { json!({ "batch": 1, "no_wait": true }) };
        let body = body.to_string();
        // Not a request: a delivery comes under its own subject, which the library would not know as an answer.
        let inbox = self.nats.new_inbox();
        let mut answers = self.nats.subscribe(inbox.clone()).await.expect("a subscription");
        self.nats.publish_with_reply(subject, inbox, body.into()).await.expect("a request is sent");
        let answer = timeout(PATIENCE, answers.next()).await.expect("the broker answers").expect("a connection");
        if answer.status.is_some() {
            return None;
        }
        let reply = answer.reply.expect("a delivery has one").to_string();
        let tokens: Vec<u64> = reply.split('.').skip(4).map(|token| token.parse().expect("a number")).collect();
        let [deliveries, stream_sequence, consumer_sequence, ..] = tokens[..] else { panic!("{reply} is short") };
        Some(Delivered { stream_sequence, consumer_sequence, deliveries })
    }
}

fn scripts() -> Vec<Vec<Step>> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let script = prop::collection::vec(step(), STEPS);
    (0..SCRIPTS).map(|_| script.new_tree(&mut runner).expect("a script").current()).collect()
}

/// Plays scripts to both, and says how many answers of each kind were given.
async fn play(scripts: Vec<Vec<Step>>) -> Vec<Answer> {
    let mut broker = Broker::start().await;
    let nats = PlainClient::connect(&broker.url()).await.nats().clone();
    let mut answers = Vec::new();
    for (script, steps) in scripts.into_iter().enumerate() {
        let mut real = Real { broker: &mut broker, nats: nats.clone(), script };
        real.prepare().await;
        let mut model = Modelled::new();
        for (at, step) in steps.iter().enumerate() {
            let told = real.perform(step, &model).await;
            let modelled = model.perform(step);
            assert_eq!(modelled, told, "script {script}, step {at}, {step:?} of {steps:?}");
            answers.push(told);
        }
    }
    answers
}

#[tokio::test]
async fn the_modelled_jetstream_answers_as_the_real_one_does() {
    let answers = play(scripts()).await;
    let count = |of: fn(&Answer) -> bool| answers.iter().filter(|answer| of(answer)).count();
    assert!(count(|answer| matches!(answer, Answer::Stored { duplicate: false, .. })) > 100);
    assert!(count(|answer| matches!(answer, Answer::Stored { duplicate: true, .. })) > 10);
    assert!(count(|answer| *answer == Answer::Refused(10071)) > 10);
    assert!(count(|answer| *answer == Answer::Refused(10077)) > 10);
    assert!(count(|answer| matches!(answer, Answer::Next(Some(next)) if next.deliveries > 1)) > 10);
}

#[tokio::test]
async fn the_modelled_jetstream_remembers_over_a_restart_what_the_real_one_remembers() {
    let mut scripts = scripts();
    scripts.truncate(6);
    for script in &mut scripts {
        script.insert(STEPS / 2, Step::Restart);
    }
    play(scripts).await;
}
