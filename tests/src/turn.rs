//! One heavy test at a time: four model processes and a broker are enough for a small machine.

use std::fs::File;

/// The right to start replicas. Held by one test of all test processes on this machine; ends with the value, or with
/// the process.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for its turn. Blocks the thread, which is the test's own.
    ///
    /// # Panics
    /// When the lock file cannot be made.
    #[must_use]
    pub fn take() -> Self {
        let path = std::env::temp_dir().join("halm-tests.lock");
        let lock = File::options().create(true).append(true).open(path).expect("a lock file in the temporary folder");
        lock.lock().expect("a file lock");
        Self { _lock: lock }
    }
}
