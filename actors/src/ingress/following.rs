//! Shows a job that runs to one client more: reads, and sends what [`Follower`] makes of it.

use std::time::Duration;

use halm_protocol::subject::Inbox;
use halm_protocol::{ErrorCode, Outcome, Refusal};
use tokio::time::{Instant, sleep};

use super::core::Following;
use super::follower::{Follower, Shown};
use crate::ports::{Inboxes, Offered, OutcomeStore, TokenLog};

/// Between two looks at the log.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The wait after the first offer of the end that nobody heard; it doubles with each.
const OFFER_AGAIN: Duration = Duration::from_millis(200);
/// Offers of the end: as many as whoever asked first gets.
const OFFERS_MAX: u32 = 7;

/// Ends when the client was told the end, or when its time is over.
///
/// # Cancel safety
/// Dropped, it leaves the client with what it has: it can ask again.
pub(super) async fn follow(
    following: Following,
    log: &dyn TokenLog,
    outcomes: &dyn OutcomeStore,
    inboxes: &dyn Inboxes,
) {
    let Following { target, to, from, within } = following;
    let until = Instant::now() + within;
    let mut follower = Follower::new(target.job.clone(), target.streamed, from);
    loop {
        // A broker that is away is asked again.
        let mut shown = log.read(&target).await.map_or_else(|_| Vec::new(), |records| follower.read(records));
        if !shown.iter().any(|shown| matches!(shown, Shown::End(_)))
            && let Ok(Some(outcome)) = outcomes.read(&target.job).await
        {
            shown.extend(follower.end(outcome));
        }
        for shown in shown {
            match shown {
                Shown::Chunk(chunk) => inboxes.show(&to, &chunk).await,
                Shown::End(outcome) => return offer(&to, &outcome, inboxes).await,
            }
        }
        if Instant::now() >= until {
            let refusal =
                Refusal::new(ErrorCode::DeadlineExceeded, "the deadline passed before the answer was complete");
            return offer(&to, &Outcome::Refusal(refusal.for_job(target.job)), inboxes).await;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn offer(to: &Inbox, outcome: &Outcome, inboxes: &dyn Inboxes) {
    for made in 0..OFFERS_MAX {
        match inboxes.offer(to, outcome).await {
            Offered::Heard => return,
            Offered::Unheard | Offered::Unknown => sleep(OFFER_AGAIN * (1 << made)).await,
        }
    }
}
