//! What the README says in code must be true.

use std::io::Write;

use halm::config::{self, Config};
use halm_tests::{Cluster, Python};

fn block(begins_with: &str) -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).expect("a README");
    let blocks = readme.split("```").skip(1).step_by(2);
    let body = |block: &str| block.split_once('\n').map(|(_, body)| body.to_owned());
    let found = blocks.filter_map(body).find(|body| body.starts_with(begins_with));
    found.unwrap_or_else(|| panic!("the README has no block that begins with {begins_with:?}"))
}

#[test]
fn the_configuration_it_shows_is_the_default() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(block("[replica]").as_bytes()).expect("a write to it");
    assert_eq!(config::load(Some(file.path()), []).expect("a configuration"), Config::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_it_shows_prints_the_text() {
    let cluster = Cluster::start(&["readme"]).await;
    let program = block("import asyncio").replace("nats://127.0.0.1:4222", &cluster.url());
    let printed = Python::ready().await.run(&program).await;
    let request = serde_json::json!({ "prompt": "The sea", "max_tokens": 40, "temperature": 0 });
    assert_eq!(printed, cluster.ask(&request).await.reply().text());
}
