//! Which queued job goes to which worker: the least loaded one that may have it.
//!
//! Streams that were interrupted come before jobs that did not begin, the interactive before the batch class, and of
//! those the suspects first, for they need an empty worker most and hold it for the shortest time.

use std::collections::BTreeSet;

use halm_protocol::worker::Lease;
use halm_protocol::{Class, JobId};

use super::super::job::Compute;
use super::super::suspicion::Company;
use super::super::{Effect, WorkerId};
use super::Core;
use super::computing::work;

/// A ready worker, as a queued job sees it.
#[derive(Debug)]
struct Seat {
    worker: WorkerId,
    jobs: usize,
    /// It has a job that must be alone.
    taken: bool,
    /// It has a job on trial.
    on_trial: bool,
    /// A job that must be alone waits for it to become empty.
    reserved: bool,
}

impl Core {
    /// Puts a job into the queue, behind all that come before it or are as urgent.
    pub(super) fn enqueue(&mut self, id: &JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.compute = Compute::Queued;
        self.queue.retain(|queued| queued != id);
        let urgency = self.urgency(id);
        let behind = self.queue.iter().position(|queued| self.urgency(queued) > urgency);
        self.queue.insert(behind.unwrap_or(self.queue.len()), id.clone());
    }

    /// Smaller is sooner.
    fn urgency(&self, id: &JobId) -> Option<(bool, Class, Company)> {
        self.jobs.get(id).map(|job| (job.attempts == 0, job.spec.request.class, job.suspicion.company()))
    }

    /// Hands queued jobs to workers until none of them can be placed.
    pub(super) fn schedule(&mut self, out: &mut Vec<Effect>) {
        if self.queue.is_empty() {
            return;
        }
        let mut seats = self.seats();
        let mut at = 0;
        while let Some(id) = self.queue.get(at).cloned() {
            let Some(job) = self.jobs.get(&id) else {
                self.queue.remove(at);
                continue;
            };
            let company = job.suspicion.company();
            let Some(seat) = place(company, &mut seats, self.settings.slots_per_worker as usize) else {
                at += 1;
                continue;
            };
            seat.jobs += 1;
            seat.taken |= company == Company::Alone;
            seat.on_trial |= company == Company::OnTrial;
            let worker = seat.worker;
            self.queue.remove(at);
            self.start(&id, worker, out);
        }
    }

    fn start(&mut self, id: &JobId, worker: WorkerId, out: &mut Vec<Effect>) {
        let lease = Lease(self.number());
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Some(leases) = self.workers.get_mut(&worker) else { return };
        if job.attempts > 0 {
            job.resumed_at.push(job.offset());
        }
        job.attempts += 1;
        job.started_at.get_or_insert(self.now);
        job.compute = Compute::Running { worker, lease };
        leases.insert(lease);
        let alone = job.suspicion.company() == Company::Alone;
        let work = work(job, lease);
        self.leases.insert(lease, id.clone());
        out.push(Effect::Start { worker, work: Box::new(work), alone });
    }

    fn seats(&self) -> Vec<Seat> {
        let seat = |(worker, leases): (&WorkerId, &BTreeSet<Lease>)| {
            let jobs = || leases.iter().filter_map(|lease| self.jobs.get(self.leases.get(lease)?));
            let has = |company| jobs().any(|job| job.suspicion.company() == company);
            Seat {
                worker: *worker,
                jobs: leases.len(),
                taken: has(Company::Alone),
                on_trial: has(Company::OnTrial),
                reserved: false,
            }
        };
        self.workers.iter().map(seat).collect()
    }

    /// Jobs that there is room for: one worker's slots stay free, so that the others can take over everything it held
    /// at once, and a worker with a job that must be alone has room for that one.
    pub(super) fn capacity(&self) -> usize {
        let slots = self.settings.slots_per_worker as usize;
        let spare = self.settings.workers.saturating_sub(1).max(1) as usize;
        let room: usize = self.seats().iter().map(|seat| if seat.taken { 1 } else { slots }).sum();
        room.min(spare * slots)
    }
}

/// The seat for a job, if there is one. For a job that must be alone and finds no empty worker, one is reserved: it
/// takes nothing more until it is empty.
fn place(company: Company, seats: &mut [Seat], slots: usize) -> Option<&mut Seat> {
    let open = |seat: &&mut Seat| !seat.taken && !seat.reserved && seat.jobs < slots;
    match company {
        Company::Alone => {
            let least = seats.iter_mut().filter(|seat| !seat.taken && !seat.reserved).min_by_key(|seat| seat.jobs)?;
            least.reserved = least.jobs > 0;
            (!least.reserved).then_some(least)
        }
        Company::OnTrial => seats.iter_mut().filter(open).filter(|seat| !seat.on_trial).min_by_key(|seat| seat.jobs),
        Company::Any => seats.iter_mut().filter(open).min_by_key(|seat| (seat.on_trial, seat.jobs)),
    }
}
