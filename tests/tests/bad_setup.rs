//! What is wrong with a set-up is said once, by name, before anything runs; nothing is left behind.

use std::net::TcpListener;
use std::path::PathBuf;

use halm::process::free_port;
use halm_models::gguf::{GgufWriter, Value};
use halm_models::tiny::{tiny_llama, tiny_llama_writer};
use halm_tests::{Broker, BrokerOptions, Cluster, Finished, Halm, Python, Turn, question, until};
use rustix::process::Signal;
use tempfile::TempDir;

/// A file in a folder that goes with the test.
fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("a file in a temporary folder");
    (folder, path)
}

/// `halm serve` of these weights; the broker is never got to.
async fn serve_weights(content: impl AsRef<[u8]>) -> Finished {
    let (_folder, path) = file("model.gguf", content);
    Halm::new(["serve", "--nats", "nats://127.0.0.1:1", "--weights"]).arg(path).run().await
}

async fn serve_at(url: &str) -> Finished {
    Halm::new(["serve", "--nats", url, "--name", "one"]).run().await
}

#[tokio::test]
async fn a_file_that_is_no_model_is_refused_by_its_path() {
    serve_weights("hello, I am a text").await.assert_refused(&["model.gguf", "GGUF"]);
    serve_weights("").await.assert_refused(&["model.gguf", "GGUF"]);
}

#[tokio::test]
async fn a_truncated_model_is_refused() {
    let whole = tiny_llama(1);
    serve_weights(&whole[..whole.len() / 2]).await.assert_refused(&["model.gguf", "truncated"]);
    serve_weights(&whole[..40]).await.assert_refused(&["model.gguf", "damaged"]);
}

#[tokio::test]
async fn a_model_whose_tensor_lies_about_its_place_is_refused() {
    let lying = tiny_llama_writer(1).raw_tensor("extra.weight", &[32], 0, Some(1 << 40), vec![0; 128]).encode();
    serve_weights(lying).await.assert_refused(&["model.gguf", "extra.weight"]);
}

#[tokio::test]
async fn a_model_that_declares_more_than_it_can_hold_is_refused() {
    let mut boasting = tiny_llama(1);
    boasting[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    serve_weights(boasting).await.assert_refused(&["model.gguf", "18446744073709551615"]);
}

#[tokio::test]
async fn a_model_of_an_unknown_architecture_is_refused_by_its_name() {
    let foreign = GgufWriter::new().key("general.architecture", Value::String("mamba".to_owned())).encode();
    serve_weights(foreign).await.assert_refused(&["model.gguf", "mamba"]);
}

#[tokio::test]
async fn a_model_that_is_not_in_the_catalogue_is_refused_and_told_what_there_is() {
    let serve = Halm::new(["serve", "--nats", "nats://127.0.0.1:1", "--model", "smollm3"]);
    serve.run().await.assert_refused(&["smollm3", "smollm2:135m"]);
}

#[tokio::test]
async fn check_finds_bad_weights_without_a_replica() {
    let (_weights, path) = file("model.gguf", &tiny_llama(1)[..4000]);
    let (_config, config) = file("halm.toml", format!("[[models]]\nname = \"mine\"\npath = {path:?}\n"));
    let broker = Broker::start().await;
    let checked = Halm::new(["check", "--nats", &broker.url(), "--config"]).arg(config).run().await;
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let wrong: Vec<&str> = checked.stdout.lines().filter(|line| line.starts_with("WRONG")).collect();
    assert_eq!(wrong.len(), 1, "{checked:?}");
    assert!(wrong[0].contains("model mine") && wrong[0].contains("damaged"), "{checked:?}");
}

#[tokio::test]
async fn a_broker_that_refuses_the_connection_is_named() {
    let url = format!("nats://127.0.0.1:{}", free_port().expect("a free port"));
    serve_at(&url).await.assert_refused(&[&url, "NATS_URL"]);
    let ask = Halm::new(["ask", "--nats", &url, "hello"]).run().await;
    ask.assert_refused(&[&url]);
}

#[tokio::test]
async fn a_server_that_accepts_and_never_speaks_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    serve_at(&url).await.assert_refused(&[&url, "did not answer"]);
}

#[tokio::test]
async fn a_start_that_hangs_can_be_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let mut serve = Halm::new(["serve", "--nats", &url]).spawn();
    let accepting = tokio::task::spawn_blocking(move || listener.accept());
    let _silence = accepting.await.expect("no panic").expect("it connects");
    serve.signal(Signal::TERM);
    serve.exit().await;
    assert!(!serve.stderr().contains("did not answer"), "it waited for the server: {}", serve.stderr());
    serve.leaves_nothing().await;
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_right_ones_are_taken() {
    let options = BrokerOptions { user: Some(("halm", "secret")), ..BrokerOptions::default() };
    let broker = Broker::with(options).await;
    let check = |password: &str| {
        Halm::new(["check", "--nats", &broker.url()]).env("NATS_USER", "halm").env("NATS_PASSWORD", password)
    };
    let serve = Halm::new(["serve", "--nats", &broker.url()]).env("NATS_USER", "halm").env("NATS_PASSWORD", "wrong");
    serve.run().await.assert_refused(&[&broker.url(), "NATS_USER", "NATS_CREDS"]);
    serve_at(&broker.url()).await.assert_refused(&[&broker.url(), "NATS_USER"]);
    check("wrong").run().await.assert_refused(&["WRONG broker", "credentials"]);
    check("secret").run().await.printed();
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused() {
    let broker = Broker::with(BrokerOptions { jetstream: false, ..BrokerOptions::default() }).await;
    serve_at(&broker.url()).await.assert_refused(&[&broker.url(), "JetStream", "-js"]);
    let check = Halm::new(["check", "--nats", &broker.url()]).run().await;
    check.assert_refused(&["WRONG broker", "JetStream"]);
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_by_its_version() {
    let program = Python::ready().await.nats_server("2.10.26").await;
    let broker = Broker::with(BrokerOptions { program: Some(program.clone()), ..BrokerOptions::default() }).await;
    serve_at(&broker.url()).await.assert_refused(&[&broker.url(), "2.10.26", "2.11.0"]);
    let listen = format!("127.0.0.1:{}", free_port().expect("a free port"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let local = Halm::new(["serve", "--data-dir"]).arg(folder.path());
    let local = local.env("HALM_BROKER_PROGRAM", program.display()).env("HALM_BROKER_LISTEN", listen);
    local.run().await.assert_refused(&["nats-server", "2.10.26", "2.11.0"]);
}

#[tokio::test]
async fn the_oldest_server_that_is_promised_works() {
    let program = Some(Python::ready().await.nats_server("2.11.0").await);
    let cluster = Cluster::with(BrokerOptions { program, ..BrokerOptions::default() }, &["one", "two"]).await;
    let mut streamed = question();
    streamed["stream"] = true.into();
    cluster.ask(&streamed).await.assert_exact();
    assert!(cluster.ask(&question()).await.reply().text().contains("Paris"));
}

#[tokio::test]
async fn an_address_in_use_is_named_together_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let serve = Halm::new(["serve", "--data-dir"]).arg(folder.path()).env("HALM_BROKER_LISTEN", &listen);
    serve.run().await.assert_refused(&[&listen, "in use", "broker.listen"]);
    let check = Halm::new(["check"]).env("HALM_BROKER_LISTEN", &listen).run().await;
    check.assert_refused(&["WRONG broker", &listen, "broker.listen"]);
}

#[tokio::test]
async fn a_data_folder_in_use_is_named() {
    let _turn = Turn::take();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let serve = || {
        let listen = format!("127.0.0.1:{}", free_port().expect("a free port"));
        let serve = Halm::new(["serve", "--workers", "1", "--data-dir"]).arg(folder.path());
        serve.env("HALM_BROKER_LISTEN", listen)
    };
    let first = serve().spawn();
    until("the first replica runs", async || {
        let log = first.stderr();
        if log.contains("replica started") { Ok(()) } else { Err(log) }
    })
    .await;
    serve().run().await.assert_refused(&[&folder.path().display().to_string(), "--data-dir"]);
}

#[tokio::test]
async fn a_typo_in_the_configuration_is_told_the_nearest_key() {
    let (_folder, config) = file("halm.toml", "[[models]]\nwokers = 3\n");
    for command in ["serve", "check"] {
        let run = Halm::new([command, "--config"]).arg(&config).run().await;
        run.assert_refused(&["wokers", "halm.toml", "did you mean `models.workers`?"]);
    }
    let missing = Halm::new(["check", "--config", "/nowhere/halm.toml"]).run().await;
    missing.assert_refused(&["/nowhere/halm.toml"]);
}

#[tokio::test]
async fn an_unknown_variable_is_told_the_nearest_one() {
    for command in ["serve", "check"] {
        let run = Halm::new([command]).env("HALM_REPLICA_NAM", "one").run().await;
        run.assert_refused(&["HALM_REPLICA_NAM", "did you mean `HALM_REPLICA_NAME`?"]);
    }
    let run = Halm::new(["check"]).env("HALM_LIMITS_DEADLINE_S", "soon").run().await;
    run.assert_refused(&["HALM_LIMITS_DEADLINE_S", "integer"]);
}
