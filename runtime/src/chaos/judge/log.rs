//! The token log as the broker stored it: whether anybody wrote who had lost the right to. Pure.
//!
//! A claim's sequence is the fencing token. A record that was stored under an older token than the last claim before
//! it is the deed of an attempt that had lost its lease, and one that begins before the end of what was stored is a
//! fork.

use std::collections::BTreeMap;

use halm_protocol::JobId;

use crate::chaos::event::Logged;

/// What was seen of the log.
#[derive(Debug, Default)]
pub(crate) struct LogWatch {
    jobs: BTreeMap<JobId, Written>,
    /// Records that were looked at.
    pub(crate) records: u64,
    /// Claims that were looked at.
    pub(crate) claims: u64,
}

#[derive(Debug, Default)]
struct Written {
    fence: u64,
    tokens: u32,
    ended: bool,
}

/// What a record broke.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// A superseded attempt wrote it.
    Zombie(String),
    /// It repeats, or follows the end.
    Fork(String),
}

impl LogWatch {
    pub(crate) fn claimed(&mut self, job: JobId, sequence: u64) {
        self.claims += 1;
        let written = self.jobs.entry(job).or_default();
        written.fence = written.fence.max(sequence);
    }

    pub(crate) fn logged(&mut self, record: Logged) -> Option<Breach> {
        self.records += 1;
        let Logged { job, sequence, fence, chunk } = record;
        let written = self.jobs.entry(job.clone()).or_default();
        let fence = fence.unwrap_or_default();
        if fence < written.fence {
            let newest = written.fence;
            return Some(Breach::Zombie(format!(
                "job {job}: the record at {sequence} was stored under the fence {fence}, after the claim at {newest}"
            )));
        }
        written.fence = fence;
        let Some((offset, tokens)) = chunk else {
            written.ended = true;
            return None;
        };
        if written.ended || offset < written.tokens {
            let had = written.tokens;
            return Some(Breach::Fork(format!(
                "job {job}: the record at {sequence} begins at token {offset}, and {had} were stored already"
            )));
        }
        // What lies between may have been purged before it was read; clients see whether it was lost.
        written.tokens = offset.saturating_add(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        JobId::try_from("j1").expect("a job id")
    }

    fn record(sequence: u64, fence: u64, chunk: Option<(u32, Vec<u32>)>) -> Logged {
        Logged { job: job(), sequence, fence: Some(fence), chunk }
    }

    #[test]
    fn a_job_that_changes_hands_is_fine() {
        let mut log = LogWatch::default();
        log.claimed(job(), 10);
        assert_eq!(log.logged(record(11, 10, Some((0, vec![1, 2])))), None);
        log.claimed(job(), 12);
        assert_eq!(log.logged(record(13, 12, Some((2, vec![3])))), None);
        assert_eq!(log.logged(record(14, 12, None)), None);
    }

    #[test]
    fn a_record_of_a_superseded_attempt_is_found_though_its_tokens_are_right() {
        let mut log = LogWatch::default();
        log.claimed(job(), 10);
        log.claimed(job(), 12);
        assert!(matches!(log.logged(record(13, 10, Some((0, vec![1])))), Some(Breach::Zombie(_))));
    }

    #[test]
    fn a_record_that_repeats_or_follows_the_end_is_a_fork() {
        let mut log = LogWatch::default();
        log.claimed(job(), 10);
        assert_eq!(log.logged(record(11, 10, Some((0, vec![1, 2])))), None);
        assert!(matches!(log.logged(record(12, 10, Some((1, vec![2])))), Some(Breach::Fork(_))));
        assert_eq!(log.logged(record(13, 10, None)), None);
        assert!(matches!(log.logged(record(14, 10, Some((2, vec![3])))), Some(Breach::Fork(_))));
    }
}
