//! What it costs to have halm between a client and a model.
//!
//! First with a worker that answers from a table, so that the runtime alone is measured, broker and client on the same
//! cores; then with the real model, in turns with the same model in this process and nothing around it.
//!
//! Prints figures, judges nothing: `cargo bench -p halm-tests --bench cost`.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use halm::assets::Assets;
use halm_client::{Client, Event};
use halm_models::{GenerationSpec, Input, LoadOptions, Model, Progress, SamplingSpec};
use halm_protocol::Request;
use halm_tests::{BrokerOptions, Cluster, Halm, Replica, weights};

/// Clients at once, and how many jobs each asks for, one after the other.
const CLIENTS: usize = 32;
const JOBS_EACH: usize = 100;
/// Streams at once: as many as one replica's slots.
const STREAMS: u32 = 4;
const STREAM_TOKENS: u32 = 2_000;
/// A token every four milliseconds: as fast as a small model on a good processor.
const PACED_US: &str = "4000";
const PACED_TOKENS: u32 = 1_000;
const ROUNDS: usize = 7;
const REAL_TOKENS: u32 = 128;
const THREADS: usize = 2;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        by_table("0").await;
        by_table(PACED_US).await;
        by_model().await;
    });
}

async fn by_table(step_us: &'static str) {
    let variables = [("TEST_FAULT", "table"), (halm_tests::STEP_US, step_us)];
    let cluster = Cluster::configured(BrokerOptions::default(), &["one"], &variables).await;
    let client = cluster.client();
    if step_us == "0" {
        jobs(client).await;
        let (tokens, took, _) = streams(client, STREAM_TOKENS).await;
        println!("{STREAMS} streams at once: {:.0} tokens/s", f64::from(tokens) / took.as_secs_f64());
    } else {
        let (_, _, mut delays) = streams(client, PACED_TOKENS).await;
        let (half, high) = ranks(&mut delays);
        println!("a token each {step_us} µs in {STREAMS} streams: from worker to client p50 {half} µs, p99 {high} µs");
    }
}

async fn jobs(client: &Client) {
    let began = Instant::now();
    let each = |number: usize| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            for job in 0..JOBS_EACH {
                let mut request = Request::prompt(format!("{number} {job}"));
                request.max_tokens = Some(1);
                let began = Instant::now();
                client.ask("smollm2", &request).await.expect("an answer");
                times.push(u64::try_from(began.elapsed().as_micros()).expect("a short time"));
            }
            times
        })
    };
    let seen = join_all((0..CLIENTS).map(each)).await;
    let took = began.elapsed().as_secs_f64();
    let mut times: Vec<u64> = seen.into_iter().flat_map(|times| times.expect("no panic")).collect();
    let count = times.len();
    let (half, high) = ranks(&mut times);
    println!(
        "{CLIENTS} clients, one token a job: {:.0} jobs/s, each p50 {half} µs, p99 {high} µs",
        count as f64 / took
    );
}

/// Tokens that came, in what time, and the delay of each in microseconds, from what the table says.
async fn streams(client: &Client, tokens: u32) -> (u32, Duration, Vec<u64>) {
    let began = Instant::now();
    let each = |number: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut request = Request::prompt(format!("stream {number}"));
            (request.max_tokens, request.stream) = (Some(tokens), true);
            let mut stream = client.generate("smollm2", &request).await.expect("somebody hears it");
            let mut delays = Vec::new();
            while let Some(event) = stream.next().await {
                let Event::Chunk(chunk) = event.expect("no error") else { continue };
                let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros());
                let now = now.expect("a time of this age");
                let sent = chunk.text.split_whitespace().filter_map(|time| time.parse::<u64>().ok());
                delays.extend(sent.map(|sent| now.saturating_sub(sent)));
            }
            delays
        })
    };
    let seen = join_all((0..STREAMS).map(each)).await;
    let took = began.elapsed();
    let delays: Vec<u64> = seen.into_iter().flat_map(|delays| delays.expect("no panic")).collect();
    (tokens * STREAMS, took, delays)
}

/// Median and 99th percentile, by nearest rank.
fn ranks(values: &mut [u64]) -> (u64, u64) {
    values.sort_unstable();
    let rank = |percent: usize| values[(values.len() * percent).div_ceil(100) - 1];
    (rank(50), rank(99))
}

/// The prompt of each of those that are computed together.
fn prompt(number: u32) -> String {
    format!("The {number}. letter from the sea said:")
}

async fn by_model() {
    let mut cluster = Cluster::start(&["one"]).await;
    cluster.replica("one").kill9().await;
    let serve = ["serve", "--nats", &cluster.url(), "--name", "alone", "--workers", "1"];
    let _replica = Replica::of(Halm::new(serve), "alone");
    let mut model = model();
    let client = cluster.client().clone();
    around(&client).await;
    inside(&mut model);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(inside(&mut model));
        with.push(around(&client).await);
    }
    let mut shares: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with / without).collect();
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{STREAMS} texts of {REAL_TOKENS} tokens together, {THREADS} threads: {:.0} tokens/s by the model alone, {:.0} with halm \
         around it, {:.1} % (medians of {ROUNDS} rounds in turns)",
        median(&mut without),
        median(&mut with),
        100.0 * median(&mut shares)
    );
}

fn model() -> Model {
    let path = weights::smollm2();
    let packed = Assets::open(None).expect("a cache folder").dir().join("packed");
    let digest = halm_models::Digest::of_file(&path).expect("weights");
    let threads = NonZeroUsize::new(THREADS).expect("more than none");
    let options = LoadOptions { threads, packed: Some(packed.join(digest.to_string())), ..LoadOptions::default() };
    Model::load(&path, &options).expect("the model loads")
}

/// Tokens a second of the model alone.
fn inside(model: &mut Model) -> f64 {
    let began = Instant::now();
    let open = |number: u32| GenerationSpec {
        input: Input::Prompt(prompt(number)),
        max_tokens: Some(REAL_TOKENS),
        sampling: SamplingSpec::GREEDY,
        stop: Vec::new(),
    };
    let mut running: Vec<_> = (0..STREAMS).map(|number| model.open(&open(number), &[]).expect("it fits")).collect();
    let mut tokens = 0;
    while !running.is_empty() {
        let step = model.plan(running.iter_mut(), began.elapsed());
        let progress = model.perform(step).expect("a step");
        for (generation, progress) in std::mem::take(&mut running).into_iter().zip(progress) {
            match progress.expect("no error") {
                Progress::Finished { .. } => model.close(generation),
                Progress::Generated { .. } => {
                    tokens += 1;
                    running.push(generation);
                }
                Progress::Prefilling { .. } | Progress::Replayed { .. } => running.push(generation),
            }
        }
    }
    f64::from(tokens) / began.elapsed().as_secs_f64()
}

/// The same through halm.
async fn around(client: &Client) -> f64 {
    let began = Instant::now();
    let each = |number: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut request = Request::prompt(prompt(number));
            (request.max_tokens, request.stream, request.sampling.temperature) = (Some(REAL_TOKENS), true, 0.0);
            client.ask("smollm2", &request).await.expect("an answer").usage.completion_tokens
        })
    };
    let tokens: u32 = join_all((0..STREAMS).map(each)).await.into_iter().map(|tokens| tokens.expect("no panic")).sum();
    f64::from(tokens) / began.elapsed().as_secs_f64()
}
