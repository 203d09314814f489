//! How much memory there is to share.
//!
//! Owns reading it from the system. It must never limit anybody: a worker limits itself, to what it is told.

use std::path::Path;

/// Of all memory, the workers may have this much; the rest is for the replica, the broker and the system.
const WORKERS_PERCENT: u64 = 90;

/// What one worker of so many may allocate, in bytes. `None` where the system does not tell how much there is.
pub(crate) fn share_of_worker(workers: u64) -> Option<u64> {
    let machine = rustix::system::sysinfo();
    let machine_bytes = machine.totalram.checked_mul(u64::from(machine.mem_unit))?;
    let all = group_limit().map_or(machine_bytes, |group| group.min(machine_bytes));
    Some(all / 100 * WORKERS_PERCENT / workers.max(1))
}

/// The limit of the control group that this process is in, or of one around it: what a container may have.
fn group_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limit = |line: &str| {
        // `0::/group` in the one hierarchy of version 2, `7:memory:/group` in version 1, and some hosts have both.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => least_limit(Path::new("/sys/fs/cgroup"), group, "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                least_limit(Path::new("/sys/fs/cgroup/memory"), group, "memory.limit_in_bytes")
            }
            _ => None,
        }
    };
    own.lines().filter_map(limit).min()
}

/// The least limit of a group and of those around it. Within a container, `root` may be the container's own group, whatever
/// the group is called outside.
fn least_limit(root: &Path, group: &str, file: &str) -> Option<u64> {
    let mut folder = root.join(group);
    let mut least: Option<u64> = None;
    while folder.starts_with(root) {
        // "max" is no limit; the outermost group of version 2 has no such file.
        let limit = std::fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse().ok());
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
    fn the_least_limit_of_all_groups_around_counts() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let inner = root.path().join("outer/inner");
        std::fs::create_dir_all(&inner).expect("a folder in it");
        assert_eq!(least_limit(root.path(), "outer/inner", "memory.max"), None);
        std::fs::write(inner.join("memory.max"), "max\n").expect("a file in it");
        std::fs::write(root.path().join("outer/memory.max"), "4096\n").expect("a file in it");
        assert_eq!(least_limit(root.path(), "outer/inner", "memory.max"), Some(4096));
        std::fs::write(root.path().join("memory.max"), "2048\n").expect("a file in it");
        assert_eq!(least_limit(root.path(), "named/differently/outside", "memory.max"), Some(2048));
    }

    #[test]
    fn workers_share_what_there_is_evenly() {
        let (one, four) = (share_of_worker(1), share_of_worker(4));
        let (Some(one), Some(four)) = (one, four) else { panic!("this system tells its memory") };
        assert!(one > 64 * 1024 * 1024, "{one} bytes");
        assert_eq!(one / 4, four);
    }
}
