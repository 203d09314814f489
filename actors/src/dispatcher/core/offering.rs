//! The end of a job, offered to its client: nobody tells whether it could hear when the final record was republished.
//!
//! Until the client heard, or counts as gone, the queue keeps the job, so that a successor would go on. It needs no
//! worker meanwhile, and takes nobody's room.

use std::time::Duration;

use halm_protocol::{JobId, Outcome};

use super::super::Effect;
use super::super::job::{Compute, LogState, Offers};
use super::Core;
use crate::moment::Moment;
use crate::ports::Offered;

/// The wait after the first offer that nobody heard; it doubles with each. A client that was cut off waits at most as
/// long again as it was away, and most that do not listen have what they asked for and are gone.
const OFFER_AGAIN: Duration = Duration::from_millis(200);
/// Offers in a row that nobody heard, after which the client is gone: twelve seconds. One that reconnects is back
/// within two.
const UNHEARD_MAX: u32 = 7;
/// Offers in all, those of unknown fate included.
const OFFERS_MAX: u32 = 100;
/// Jobs on offer at once; past it the one that was offered longest counts as told.
const OFFERED_MAX: usize = 1024;

impl Core {
    /// Offers the outcome, which is stored.
    pub(super) fn offer(&mut self, id: &JobId, outcome: Outcome, out: &mut Vec<Effect>) {
        self.stop_computing(id, out);
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.compute = Compute::Complete(outcome);
        let offered = self.jobs.iter().filter_map(|(id, job)| Some((job.offers()?.made, id)));
        if self.jobs.len() > OFFERED_MAX
            && let Some(longest) = offered.max().map(|(_, id)| id.clone())
        {
            self.settle(&longest, out);
        }
        self.offer_once(id, Offers::default(), out);
    }

    fn offer_once(&mut self, id: &JobId, offers: Offers, out: &mut Vec<Effect>) {
        let op = self.op(id);
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Compute::Complete(outcome) = job.compute.clone() else { return };
        job.log = LogState::Offering { op, offers: Offers { made: offers.made + 1, ..offers } };
        out.push(Effect::Offer { op, inbox: job.spec.inbox.clone(), outcome });
    }

    pub(super) fn offered(&mut self, id: &JobId, result: Offered, now: Moment, out: &mut Vec<Effect>) {
        let Some(LogState::Offering { mut offers, .. }) = self.jobs.get(id).map(|job| job.log) else { return };
        offers.unheard = match result {
            Offered::Heard => return self.settle(id, out),
            Offered::Unheard => offers.unheard + 1,
            // Nothing is known of the client.
            Offered::Unknown => 0,
        };
        if offers.unheard >= UNHEARD_MAX || offers.made >= OFFERS_MAX {
            return self.settle(id, out);
        }
        if self.draining {
            return self.give_back(id, out);
        }
        let again_at = now + OFFER_AGAIN * (1 << offers.unheard.saturating_sub(1));
        if let Some(job) = self.jobs.get_mut(id) {
            job.log = LogState::Offered { offers, again_at };
        }
    }

    /// Offers again what is due.
    pub(super) fn offer_again(&mut self, id: &JobId, now: Moment, out: &mut Vec<Effect>) {
        let Some(LogState::Offered { offers, again_at }) = self.jobs.get(id).map(|job| job.log) else { return };
        if now >= again_at {
            self.offer_once(id, offers, out);
        }
    }

    /// Whoever leaves does not wait for clients that are away: a successor finds the outcome, and goes on offering.
    pub(super) fn hand_over_offers(&mut self, out: &mut Vec<Effect>) {
        let waiting = self.jobs.iter().filter(|(_, job)| matches!(job.log, LogState::Offered { .. }));
        for id in waiting.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.give_back(&id, out);
        }
    }

    fn give_back(&mut self, id: &JobId, out: &mut Vec<Effect>) {
        let Some(ack) = self.jobs.get(id).map(|job| job.delivery.ack.clone()) else { return };
        self.lose(id, out);
        out.push(Effect::Nak(ack));
    }
}
