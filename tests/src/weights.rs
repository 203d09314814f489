//! Real weights for tests: the program's own set-up fetches them.

use std::path::PathBuf;

use halm::assets::Assets;

/// SHA-256 of the weights of [`smollm2`].
pub const SMOLLM2_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// SmolLM2-135M-Instruct in Q4_1, fetched if it is not in the cache yet.
///
/// # Panics
/// When it cannot be had; the message says what to do.
#[must_use]
pub fn smollm2() -> PathBuf {
    weights("smollm2:135m")
}

/// Gemma 3 270M, a base model without a chat template, in Q4_K_M, fetched if it is not in the cache yet.
///
/// # Panics
/// When it cannot be had; the message says what to do.
#[must_use]
pub fn gemma3() -> PathBuf {
    weights("gemma3:270m")
}

fn weights(model: &str) -> PathBuf {
    let stored = Assets::open(None).and_then(|assets| assets.model(model, None));
    stored.unwrap_or_else(|error| panic!("no weights: {error}")).path
}
