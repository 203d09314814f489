//! A job of the simulation, and what its client asks for.

use halm_actors::ports::JobSpec;
use halm_protocol::subject::Inbox;
use halm_protocol::{JobId, ModelToken, Request};

use super::random::Random;
use super::replica::digest;
use super::text::Text;

/// A job, as it was asked for.
pub(super) struct Job {
    pub(super) spec: JobSpec,
    pub(super) text: Text,
    /// On the shell's clocks, which all began together.
    pub(super) deadline_us: u64,
    /// It kills a worker at this token.
    pub(super) kills_at: Option<u32>,
    /// Whose claim is the last.
    pub(super) holder: Option<(usize, u32)>,
    /// Something befell its delivery.
    pub(super) disturbed_us: Option<u64>,
    /// A record may have passed the client by.
    pub(super) missed: bool,
    /// The client was away while the end was offered.
    pub(super) away: bool,
    /// It was stored.
    pub(super) accepted: bool,
    /// The queue was lost with it; and who was well all the time and remembers it, since when.
    pub(super) lost: Option<Option<(usize, u64)>>,
    /// Its request has an idempotency key.
    pub(super) keyed: bool,
    /// How often it was asked for, and when last.
    pub(super) asks: u32,
    pub(super) asked_us: Option<u64>,
    /// When its client was last refused.
    pub(super) answered_us: Option<u64>,
    /// The how-manieth request was refused for want of room.
    pub(super) refused_at: Option<u32>,
}

/// The job whose client listens there.
pub(super) fn of_inbox(inbox: &Inbox) -> usize {
    let id = inbox.as_str().rsplit('.').next().and_then(|id| id[1..].parse().ok());
    id.expect("an inbox of the simulation")
}

impl Job {
    /// What the client of this number asks for; with little time only if that ends before `hurry_us`.
    pub(super) fn draw(number: usize, hurry_us: u64, random: &mut Random) -> Self {
        let id = JobId::try_from(format!("j{number}")).expect("a plain name");
        let mut request = Request::prompt("go on");
        request.stream = random.chance(700_000);
        let text = Text::new(number as u32 + 1, random.below(30) as u32);
        let hurried = random.chance(100_000);
        let deadline_us = if hurried { random.between(500_000, hurry_us - 1) } else { 4_000_000_000 };
        let kills_at = random.chance(60_000).then(|| random.below(1 + u64::from(text.length)) as u32);
        let spec = JobSpec {
            model: ModelToken::try_from("m").expect("a plain name"),
            request,
            seed: 7,
            digest: digest(),
            inbox: Inbox::try_from(format!("_INBOX.{id}").as_str()).expect("a plain inbox"),
            deadline_unix_ms: 0,
            traceparent: None,
            id,
        };
        Self {
            spec,
            text,
            deadline_us,
            kills_at,
            holder: None,
            disturbed_us: None,
            missed: false,
            away: false,
            accepted: false,
            lost: None,
            keyed: random.chance(300_000),
            asks: 0,
            asked_us: None,
            answered_us: None,
            refused_at: None,
        }
    }
}
