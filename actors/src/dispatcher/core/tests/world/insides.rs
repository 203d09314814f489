//! What must hold within a core after every event: its tables agree, and nothing in them is without its job.

use std::collections::BTreeSet;

use super::super::super::Core;
use super::super::history::Verdict;
use crate::dispatcher::job::{Compute, LogState};
use crate::dispatcher::suspicion::Company;

/// Looks whether it does.
pub(super) fn look_into(core: &Core) -> Verdict {
    let broken = |what: String| Err(("INV-6", what));
    // One worker's slots stay free.
    let room = (core.settings.slots_per_worker * (core.settings.workers - 1)) as usize;
    if core.jobs.values().filter(|job| !job.is_offered()).count() > room {
        return broken(format!("{} jobs where there is room for {room}", core.jobs.len()));
    }
    if core.workers.values().any(|leases| leases.len() > core.settings.slots_per_worker as usize) {
        return broken("a worker has more leases than slots".to_owned());
    }
    for leases in core.workers.values() {
        let company = |lease| core.jobs[&core.leases[lease]].suspicion.company();
        let alone = leases.iter().any(|lease| company(lease) == Company::Alone);
        let on_trial = leases.iter().filter(|lease| company(lease) == Company::OnTrial).count();
        if (alone && leases.len() > 1) || on_trial > 1 {
            return Err(("INV-7", "a suspect has company that it must not have".to_owned()));
        }
    }
    let mut calls = 0;
    let mut leases = 0;
    for (id, job) in &core.jobs {
        let waits = core.ops.values().filter(|of| *of == id).count();
        let expected = match job.log {
            LogState::Waiting { .. } | LogState::Offered { .. } | LogState::Open { in_flight: None, .. } => 0,
            LogState::ReadingFence { .. }
            | LogState::WritingFence { .. }
            | LogState::ReadingOutcome { .. }
            | LogState::ReadingLog { .. }
            | LogState::Open { in_flight: Some(_), .. }
            | LogState::Burying { .. }
            | LogState::Storing { .. }
            | LogState::Offering { .. } => 1,
        };
        let queued = core.queue.iter().filter(|of| *of == id).count();
        let in_table = match job.compute {
            Compute::Running { worker, lease } => {
                leases += 1;
                core.leases.get(&lease) == Some(id) && core.workers.get(&worker).is_some_and(|of| of.contains(&lease))
            }
            Compute::Unread | Compute::Queued | Compute::Complete(_) => true,
        };
        let is_queued = usize::from(matches!(job.compute, Compute::Queued));
        if waits != expected || queued != is_queued || !in_table || job.appended > job.made.len() {
            return broken(format!("{id}: {waits} calls of {expected}, queued {queued} of {is_queued}, {job:?}"));
        }
        calls += waits;
    }
    let on_workers: usize = core.workers.values().map(BTreeSet::len).sum();
    if core.ops.len() != calls
        || core.queue.len() > core.jobs.len()
        || core.leases.len() != leases
        || on_workers != leases
    {
        return broken("calls, leases or places in the queue without a job".to_owned());
    }
    Ok(())
}
