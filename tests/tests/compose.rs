//! The container stack, as far as it can be looked at without containers: what is in its files, and what its brokers let
//! halm and its clients do. `cargo run -p halm-tests --release -- stack` has the containers.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use halm::assets::Assets;
use halm_client::Client;
use halm_protocol::ReplicaStatus;
use halm_tests::stack::compose_accepts;
use halm_tests::{POISON, PlainClient, Python, Replica, ShippedBroker, ShippedFiles, Turn, repository, story, until};
use serde_json::json;

/// What only a replica may say, and what only an operator may do.
const NOT_FOR_CLIENTS: [&str; 14] = [
    "halm.v1.tok.9f86d081884c7d659a2feaa0c55ad015.client.x",
    "halm.v1.log.9f86d081884c7d659a2feaa0c55ad015",
    "halm.v1.fence.9f86d081884c7d659a2feaa0c55ad015",
    "halm.v1.done.9f86d081884c7d659a2feaa0c55ad015",
    "halm.v1.heard.9f86d081884c7d659a2feaa0c55ad015",
    "halm.v1.dead.9f86d081884c7d659a2feaa0c55ad015",
    "halm.v1.job.smollm2-135m.interactive",
    "halm.v1.beat.one",
    "halm.v1.ping.one",
    "halm.v1.status",
    "halm.v1.status.one",
    "_INBOX.client.of-another",
    "$JS.API.STREAM.DELETE.HALM_JOBS",
    "$JS.API.INFO",
];

/// What a client must not listen to: other people's answers, halm's own, and what replicas say.
const NOT_HEARD_BY_CLIENTS: [&str; 8] =
    [">", "_INBOX.>", "_INBOX.*.>", "_INBOX.halm.>", "_INBOX.client2.>", "halm.v1.>", "halm.v1.tok.*.>", "$JS.EVENT.>"];

/// What halm has no business with.
const NOT_FOR_HALM: [&str; 7] = [
    "$JS.API.STREAM.DELETE.HALM_JOBS",
    "$JS.API.STREAM.UPDATE.HALM_LOG",
    "$JS.API.STREAM.CREATE.ORDERS",
    "$JS.API.STREAM.PURGE.HALM_DONE",
    "$JS.API.CONSUMER.DELETE.HALM_JOBS.smollm2-135m",
    "$JS.ACK.ORDERS.c.1.1.1.1.0",
    "orders.new",
];

async fn ready(client: &Client, replicas: usize) {
    until(&format!("{replicas} replicas are ready"), async || {
        let seen = client.replicas(Duration::from_millis(500)).await.map_err(|error| error.to_string())?.answered;
        let ready = seen.iter().filter(|status| status.workers.iter().all(|worker| worker.ready)).count();
        let met = seen.iter().all(|status| status.peers.len() + 1 == replicas);
        if ready == replicas && met { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

/// The name of the replica that computes something.
async fn holder(client: &Client) -> String {
    until("a job has 20 tokens", async || {
        let seen = client.replicas(Duration::from_millis(500)).await.map_err(|error| error.to_string())?.answered;
        let running = |status: &ReplicaStatus| status.jobs.iter().any(|job| job.tokens >= 20 && job.worker.is_some());
        let holder = seen.iter().find(|status| running(status)).map(|status| status.replica.as_str().to_owned());
        holder.ok_or_else(|| format!("{seen:?}"))
    })
    .await
}

fn replica(broker: &ShippedBroker, name: &str) -> Replica {
    let serve = broker.halm(["serve", "--workers", "2", "--name", name]);
    Replica::of(serve.env("TEST_FAULT", "poison"), name)
}

#[test]
fn a_real_server_takes_the_shipped_configurations() {
    let files = ShippedFiles::lay_out();
    let server = Assets::open(None).and_then(|assets| assets.broker(None)).expect("a nats-server").path;
    for name in ["server.conf", "cluster.conf"] {
        let mut check = std::process::Command::new(&server);
        let checked = check.arg("-t").arg("-c").arg(files.path("etc/nats").join(name)).output().expect("it runs");
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn passwords_are_made_once_are_all_different_and_are_for_their_owners_only() {
    let files = ShippedFiles::lay_out();
    let made = ["halm", "client", "route"].map(|user| files.password(user));
    assert!(made.iter().all(|password| password.len() == 32), "{made:?}");
    assert!(made[0] != made[1] && made[1] != made[2] && made[0] != made[2], "{made:?}");
    let mode = |name: &str| files.path(name).metadata().expect("it is there").permissions().mode() & 0o777;
    for name in ["passwords.conf", "routes.conf", "halm.password", "replica.password", "client.password", "client.env"]
    {
        assert_eq!(mode(&format!("credentials/{name}")), 0o600, "{name}");
    }
    files.make_credentials();
    assert_eq!(["halm", "client", "route"].map(|user| files.password(user)), made);
}

#[test]
fn a_compose_that_is_there_takes_the_shipped_files() {
    for files in
        [&["compose.yaml"][..], &["compose.yaml", "compose.single.yaml"], &["compose.yaml", "compose.observe.yaml"]]
    {
        match compose_accepts(files) {
            Some(accepted) => assert_eq!(accepted, Ok(()), "{files:?}"),
            None => println!("neither `docker compose` nor `docker-compose` is here: {files:?} were not looked at"),
        }
    }
}

#[test]
fn the_image_is_labelled_with_the_version_that_is_in_it() {
    let text = std::fs::read_to_string(repository().join("runtime/Dockerfile")).expect("a file of the stack");
    assert!(text.contains(concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), "\n")), "{text}");
}

#[test]
fn no_file_of_the_stack_has_a_password_in_it() {
    for file in ["compose.yaml", "compose.single.yaml", "compose.observe.yaml", "runtime/docker/nats/users.conf"] {
        let text = std::fs::read_to_string(repository().join(file)).expect("a file of the stack");
        for line in text.lines().filter(|line| line.to_lowercase().contains("password")) {
            let value = line.split_once(':').map_or("", |(_, value)| value.trim());
            let comes_from_elsewhere = value.is_empty() || value.starts_with('$') || value.starts_with("/credentials/");
            assert!(line.trim_start().starts_with('#') || comes_from_elsewhere, "{file}: {line}");
        }
    }
}

/// Everything that halm does to a broker, done by the user that the stack gives it.
async fn the_permissions_are_enough_on(program: Option<std::path::PathBuf>) {
    let _turn = Turn::take();
    let broker = ShippedBroker::start(program).await;
    let mut replicas = ["one", "two"].map(|name| replica(&broker, name));
    let operator = Client::new(broker.connect("halm").await.nats);
    ready(&operator, 2).await;
    let plain = PlainClient::of(broker.connect("client").await.nats);
    let undisturbed = plain.ask("smollm2", story().to_string()).await;

    let (asking, asked) = (plain.clone(), story().to_string());
    let asking = tokio::spawn(async move { asking.ask("smollm2", asked).await });
    let holder = holder(&operator).await;
    let dying = replicas.iter_mut().find(|replica| replica.name() == holder).expect("one of the two");
    dying.kill9().await;
    let seen = asking.await.expect("no panic");
    seen.assert_same_stream(&undisturbed);
    assert_eq!(seen.reply().attempts, 2, "the other one went on with it");
    *dying = replica(&broker, &holder);
    ready(&operator, 2).await;

    let batch = json!({ "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0, "class": "batch" });
    assert!(plain.ask("smollm2", batch.to_string()).await.reply().text().contains("Paris"));

    let poison = json!({ "prompt": format!("A glass of {POISON} is"), "max_tokens": 60, "stream": true });
    let poisoned = plain.ask("smollm2", poison.to_string()).await;
    let job = poisoned.broken_off().job.clone().expect("a refusal of a job names it");
    ready(&operator, 2).await;
    broker.halm(["jobs", "dead", "show", job.as_str()]).run().await.printed();
    broker.halm(["jobs", "dead", "drop", job.as_str()]).run().await.printed();
    broker.halm(["jobs", "cancel", job.as_str()]).run().await.printed();
    broker.halm(["check"]).run().await.printed();
    broker.halm(["check", "--live", "--name", "two"]).run().await.printed();
    broker.halm(["status"]).run().await.printed();
    broker.halm(["ask", "--max-tokens", "4", "hello"]).run().await.printed();
    assert_eq!(broker.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permissions_are_enough_for_all_that_halm_does() {
    the_permissions_are_enough_on(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permissions_are_enough_on_the_oldest_server_that_is_promised() {
    let oldest = Python::ready().await.nats_server("2.11.0").await;
    the_permissions_are_enough_on(Some(oldest)).await;
}

#[tokio::test]
async fn a_client_says_nothing_that_only_replicas_say_and_reads_nobody_elses_answers() {
    let broker = ShippedBroker::start(None).await;
    let mut client = broker.connect("client").await;
    assert_eq!(client.refused_to_publish("halm.v1.generate.smollm2").await, None);
    assert_eq!(client.refused_to_publish("halm.v1.cancel.9f86d081884c7d659a2feaa0c55ad015").await, None);
    assert_eq!(client.refused_to_subscribe("_INBOX.client.mine.*").await, None);
    for subject in NOT_FOR_CLIENTS {
        let refused = client.refused_to_publish(subject).await;
        assert!(refused.is_some_and(|words| words.to_lowercase().contains("publish")), "{subject} was taken");
    }
    for subject in NOT_HEARD_BY_CLIENTS {
        let refused = client.refused_to_subscribe(subject).await;
        assert!(refused.is_some_and(|words| words.to_lowercase().contains("subscription")), "{subject} was given");
    }
    let stranger = async_nats::connect(broker.url()).await;
    assert!(stranger.is_err(), "somebody without a password was let in");
}

#[tokio::test]
async fn halm_touches_no_streams_but_its_own_and_reads_no_inbox_of_a_client() {
    let broker = ShippedBroker::start(None).await;
    let mut halm = broker.connect("halm").await;
    for subject in NOT_FOR_HALM {
        let refused = halm.refused_to_publish(subject).await;
        assert!(refused.is_some_and(|words| words.to_lowercase().contains("publish")), "{subject} was taken");
    }
    for subject in [">", "_INBOX.>", "_INBOX.client.>", "halm.v1.tok.*.>", "$JS.>"] {
        let refused = halm.refused_to_subscribe(subject).await;
        assert!(refused.is_some_and(|words| words.to_lowercase().contains("subscription")), "{subject} was given");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_check_tells_a_replica_that_serves_from_one_that_does_not_within_a_second() {
    let _turn = Turn::take();
    let mut broker = ShippedBroker::start(None).await;
    let mut one = replica(&broker, "one");
    let operator = Client::new(broker.connect("halm").await.nats);
    ready(&operator, 1).await;
    let check = async |broker: &ShippedBroker| {
        let began = std::time::Instant::now();
        let checked = broker.halm(["check", "--live", "--name", "one"]).run().await;
        (checked, began.elapsed())
    };
    let (serves, took) = check(&broker).await;
    assert_eq!(serves.printed(), "ok    live: one, 2 of 2 workers ready\n");
    println!("a live check took {took:?}");

    one.sigstop();
    let (frozen, took) = check(&broker).await;
    frozen.assert_refused(&["WRONG live", "one did not answer within 800 ms"]);
    println!("of a frozen replica: {took:?}");
    one.sigcont();

    one.kill9().await;
    let (dead, _) = check(&broker).await;
    dead.assert_refused(&["WRONG live", "no replica named one is connected"]);
    broker.kill9().await;
    let (cut_off, _) = check(&broker).await;
    cut_off.assert_refused(&["WRONG live", &broker.url()]);
}
