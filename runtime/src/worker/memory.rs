//! The bounds of a worker's memory, so that a leak is the worker's problem only.
//!
//! Owns two settings of the operating system. It must never measure or decide: a request for memory beyond the limit is
//! refused by the system, which ends the process, and that is a crash like any other.

use anyhow::Context;

/// Out of 1000: when the system itself runs out of memory, it takes a worker before it takes the replica.
#[cfg(target_os = "linux")]
const OOM_SCORE: &str = "500";

/// Limits what this process may allocate, and offers it first when the system has no more.
///
/// The limit is on data (`RLIMIT_DATA`) rather than on the address space: mapped weights are shared with the other
/// workers and can be dropped by the system at any time, and an allocator reserves more addresses than it uses.
///
/// # Errors
/// When the system refuses the limit.
pub(super) fn limit(bytes_max: Option<u64>) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // Without a process file system there is no score to set.
        let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
        if bytes_max.is_some() {
            let limit = rustix::process::Rlimit { current: bytes_max, maximum: bytes_max };
            rustix::process::setrlimit(rustix::process::Resource::Data, limit).context("limit the memory")?;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = bytes_max;
    Ok(())
}
