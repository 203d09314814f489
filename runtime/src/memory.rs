//! How much memory there is to share.
//!
//! Owns reading it from the system. It must never limit anybody: a worker limits itself, to what it is told.

use std::path::{Path, PathBuf};

/// Of all memory, the workers may have this much; the rest is for the replica, the broker and the system.
const WORKERS_PERCENT: u64 = 90;

/// What one worker of so many may allocate, in bytes. `None` where the system does not tell how much there is.
pub(crate) fn share_of_worker(workers: u64) -> Option<u64> {
    let machine = rustix::system::sysinfo();
    let machine_bytes = machine.totalram.checked_mul(u64::from(machine.mem_unit))?;
    let all = group_limit().map_or(machine_bytes, |group| group.min(machine_bytes));
    Some(all / 100 * WORKERS_PERCENT / workers.max(1))
}

/// The limit of the control group (v2) that this process is in, or of one around it: what a container may have.
fn group_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let mut folder = PathBuf::from(root).join(group);
    let mut least: Option<u64> = None;
    while folder.starts_with(root) {
        // "max" is no limit; the outermost group has no such file.
        let limit = std::fs::read_to_string(folder.join("memory.max")).ok().and_then(|text| text.trim().parse().ok());
        least = least.into_iter().chain(limit).min();
        if !folder.pop() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_what_there_is_evenly() {
        let (one, four) = (share_of_worker(1), share_of_worker(4));
        let (Some(one), Some(four)) = (one, four) else { panic!("this system tells its memory") };
        assert!(one > 64 * 1024 * 1024, "{one} bytes");
        assert_eq!(one / 4, four);
    }
}
