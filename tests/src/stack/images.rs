//! What the stack's images are built upon.

use std::collections::HashMap;
use std::process::Command;

use crate::broker::fetched;
use crate::repository;

/// The names of the base images, and of the one that is built.
#[derive(Debug, Clone)]
pub struct Images {
    variables: Vec<(&'static str, String)>,
    /// Whether halm's own is to be built.
    pub(super) to_build: bool,
}

impl Images {
    /// Those that the stack's own files name, from the registries that they are in.
    #[must_use]
    pub fn published() -> Self {
        Self { variables: vec![("HALM_IMAGE", "halm-test".to_owned())], to_build: true }
    }

    /// Bases that were made on this host, for one without a registry; see `tests/docker/base-images.sh`, which is run.
    ///
    /// # Panics
    /// When one cannot be made.
    #[must_use]
    pub fn local() -> Self {
        let made = Command::new("bash")
            .arg(repository().join("tests/docker/base-images.sh"))
            .env("NATS_SERVER", fetched())
            .status()
            .expect("a shell");
        assert!(made.success(), "base-images.sh: {made}");
        let base = |name: &str| format!("halm-test-base/{name}");
        let mut images = Self::published();
        images.variables.extend([
            ("RUST_IMAGE", base("rust")),
            ("BASE_IMAGE", base("debian")),
            ("NATS_IMAGE", base("nats")),
        ]);
        images
    }

    /// With an image of halm that is there already.
    #[must_use]
    pub fn built(mut self, name: &str) -> Self {
        self.variables.retain(|(variable, _)| *variable != "HALM_IMAGE");
        self.variables.push(("HALM_IMAGE", name.to_owned()));
        Self { to_build: false, ..self }
    }

    /// For Compose.
    pub(super) fn variables(&self) -> HashMap<String, String> {
        self.variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }
}
