//! The bounds of a worker's memory, so that a leak is the worker's problem only.
//!
//! Owns two settings of the operating system, and how much they leave. It must never decide: a request for memory
//! beyond the limit is refused by the system, which ends the process, and that is a crash like any other. So that no
//! crowd of jobs brings it about, what grows with jobs, keys and values, is bounded by what is left once the model is
//! loaded.

use anyhow::Context;

/// Out of 1000: when the system itself runs out of memory, it takes a worker before it takes the replica.
#[cfg(target_os = "linux")]
const OOM_SCORE: &str = "500";

/// Kept back from what is left: logits and text of the running jobs, commands on their way in (8 MiB each at most),
/// what an allocator loses between allocations.
const REST_BYTES: u64 = 64 << 20;

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

/// What this process may allocate beside what it has and a rest for everything small; `None` without a limit, and where
/// the system does not tell.
pub(super) fn left(bytes_max: Option<u64>) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(bytes_max?.saturating_sub(data_bytes(&status)?).saturating_sub(REST_BYTES))
}

/// What the limit is compared with, as `/proc/self/status` has it.
fn data_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_from_the_status_of_a_process() {
        let status = "Name:\thalm\nVmPeak:\t  123456 kB\nVmData:\t   20480 kB\nVmStk:\t     132 kB\n";
        assert_eq!(data_bytes(status), Some(20 << 20));
        assert_eq!(data_bytes("Name:\thalm\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_left_is_less_than_the_limit_and_shrinks_with_what_is_taken() {
        const LIMIT: u64 = 1 << 40;
        assert_eq!(left(None), None);
        assert_eq!(left(Some(1)), Some(0));
        let before = left(Some(LIMIT)).expect("Linux tells");
        assert!(before < LIMIT - REST_BYTES, "{before}");
        let taken = vec![0_u8; 256 << 20];
        let after = left(Some(LIMIT)).expect("Linux tells");
        assert!(after < before - (200 << 20), "{before}, then {after}");
        drop(std::hint::black_box(taken));
    }
}
