//! Models compute, actors decide, runtime connects: who may not depend on what.

use std::process::Command;

/// Package, and what must not be among its dependencies, however far down.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("halm-models", &["tokio", "ractor", "async-nats", "halm-actors", "halm-protocol", "halm"]),
    ("halm-actors", &["candle-core", "candle-transformers", "async-nats", "halm-models", "halm"]),
    ("halm-protocol", &["tokio", "async-nats", "ractor", "candle-core", "halm-actors", "halm-models", "halm"]),
    ("halm-client", &["ractor", "candle-core", "halm-actors", "halm-models", "halm"]),
];

fn dependencies(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", package, "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p}", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn no_crate_reaches_above_its_layer() {
    for (package, forbidden) in FORBIDDEN {
        let dependencies = dependencies(package);
        assert!(!dependencies.is_empty(), "{package} has no dependencies at all: the check sees nothing");
        let reached: Vec<_> = forbidden.iter().filter(|name| dependencies.iter().any(|found| found == *name)).collect();
        assert!(reached.is_empty(), "{package} must not depend on {reached:?}");
    }
}
