//! The load: requests at a stated rate, whether or not the last ones are answered.
//!
//! An open loop: who waits for an answer before asking again asks less while something is broken, and sees less of it.
//! Idempotency keys are not used: every request is a job of its own.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use halm_client::{Client, ClientError, Event, TokenStream};
use halm_protocol::Request;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::event::{Asked, ClientNo, End, Happened, RequestNo, Tape, TextNo};
use super::random::Random;
use super::texts::DEADLINE;

/// Of a hundred requests, those that want a stream.
const STREAMED_PERCENT: usize = 80;
/// Requests under way at once. Beyond it the load itself would be the fault; what is not sent is counted as bad.
const UNDER_WAY_MAX: usize = 128;

/// Who asks for what, and how often.
pub(crate) struct Load {
    clients: Vec<Client>,
    model: String,
    /// Those of the load; the one beyond them is for whoever is to be quarantined.
    requests: Vec<Request>,
    poisoned: Request,
    every: Duration,
    seed: u64,
    tape: Tape,
    orders: RefCell<Orders>,
    ordered: Notify,
}

/// What the load is told from outside.
#[derive(Debug, Default)]
struct Orders {
    poison: bool,
    stop: bool,
}

/// One request that is due. Pure: see [`arrival`].
#[derive(Debug, Clone, Copy, PartialEq)]
struct Arrival {
    client: usize,
    text: usize,
    streamed: bool,
    after: Duration,
}

impl Load {
    pub(crate) fn new(
        clients: Vec<Client>,
        model: &str,
        requests: Vec<Request>,
        poisoned: Request,
        rate: f64,
        seed: u64,
        tape: &Tape,
    ) -> Self {
        Self {
            clients,
            model: model.to_owned(),
            requests,
            poisoned,
            every: Duration::from_secs_f64(1.0 / rate),
            seed,
            tape: tape.clone(),
            orders: RefCell::default(),
            ordered: Notify::new(),
        }
    }

    /// Has the request sent that is made to be quarantined.
    pub(crate) fn send_poison(&self) {
        self.orders.borrow_mut().poison = true;
        self.ordered.notify_one();
    }

    /// Has no more sent.
    pub(crate) fn stop(&self) {
        self.orders.borrow_mut().stop = true;
        self.ordered.notify_one();
    }

    /// Asks until it is told to stop, and then until every request has ended.
    pub(crate) async fn run(&self) {
        let mut chance = Random::new(self.seed, "load");
        let mut under_way: FuturesUnordered<LocalBoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut number = 0;
        let mut next = arrival(&mut chance, number, self.clients.len(), self.requests.len(), self.every);
        let mut due = Instant::now() + next.after;
        loop {
            let orders = std::mem::take(&mut *self.orders.borrow_mut());
            if orders.stop {
                break;
            }
            if orders.poison {
                under_way.push(Box::pin(self.ask_poison(RequestNo(number))));
                number += 1;
            }
            tokio::select! {
                () = tokio::time::sleep_until(due) => {
                    if under_way.len() < UNDER_WAY_MAX {
                        under_way.push(Box::pin(self.ask(RequestNo(number), next)));
                    } else {
                        self.tape.say(Happened::NotAsked(ClientNo(next.client)));
                    }
                    number += 1;
                    next = arrival(&mut chance, number, self.clients.len(), self.requests.len(), self.every);
                    due += next.after;
                }
                Some(()) = under_way.next() => {}
                () = self.ordered.notified() => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    async fn ask(&self, number: RequestNo, arrival: Arrival) {
        let request = Request { stream: arrival.streamed, ..self.requests[arrival.text].clone() };
        let asked = Asked {
            client: ClientNo(arrival.client),
            text: TextNo(arrival.text),
            streamed: arrival.streamed,
            deadline: DEADLINE,
            poisoned: false,
        };
        self.perform(number, asked, &request).await;
    }

    async fn ask_poison(&self, number: RequestNo) {
        let text = TextNo(self.requests.len());
        let asked = Asked { client: ClientNo(0), text, streamed: true, deadline: DEADLINE, poisoned: true };
        self.perform(number, asked, &Request { stream: true, ..self.poisoned.clone() }).await;
    }

    async fn perform(&self, number: RequestNo, asked: Asked, request: &Request) {
        let client = &self.clients[asked.client.0];
        self.tape.say(Happened::Asked(number, asked));
        let end = match client.generate(&self.model, request).await {
            Ok(stream) => self.read(number, stream).await,
            Err(error) => end_of(error),
        };
        self.tape.say(Happened::Ended(number, end));
    }

    async fn read(&self, request: RequestNo, mut stream: TokenStream) -> End {
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Chunk(chunk)) => self.tape.say(Happened::Chunk {
                    request,
                    job: chunk.job,
                    offset: chunk.offset,
                    tokens: chunk.tokens,
                    text: chunk.text,
                }),
                Ok(Event::Reply(reply)) => {
                    return End::Answered {
                        text: reply.text().to_owned(),
                        job: reply.job,
                        tokens: reply.usage.completion_tokens,
                        attempts: reply.attempts,
                    };
                }
                Err(error) => return end_of(error),
            }
        }
        End::Silent { why: "the stream ended without a reply".to_owned() }
    }
}

fn end_of(error: ClientError) -> End {
    match error {
        ClientError::Refused(refusal) => {
            End::Refused { code: refusal.code.to_string(), job: refusal.job, message: refusal.message }
        }
        ClientError::NobodyListens => End::Unheard,
        ClientError::Forked(_) => End::Forked,
        other @ (ClientError::Connect(_)
        | ClientError::Send(_)
        | ClientError::Model(_)
        | ClientError::TimedOut(_)
        | ClientError::Garbled(_)
        | ClientError::Closed) => End::Silent { why: other.to_string() },
    }
}

/// The next request. Clients take turns; texts and pauses are drawn, pauses from half to one and a half of the mean.
fn arrival(chance: &mut Random, number: u64, clients: usize, texts: usize, every: Duration) -> Arrival {
    Arrival {
        client: usize::try_from(number).unwrap_or(0) % clients.max(1),
        text: chance.index(texts),
        streamed: chance.index(100) < STREAMED_PERCENT,
        after: every.mul_f64(0.5 + chance.unit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_replays_the_load_at_the_stated_rate() {
        let draw = |seed| {
            let mut chance = Random::new(seed, "load");
            (0..1000).map(|n| arrival(&mut chance, n, 4, 10, Duration::from_millis(250))).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        let took: Duration = draw(3).iter().map(|arrival| arrival.after).sum();
        assert!((240.0..260.0).contains(&took.as_secs_f64()), "{took:?}");
        let streamed = draw(3).iter().filter(|arrival| arrival.streamed).count();
        assert!((750..850).contains(&streamed), "{streamed}");
    }
}
