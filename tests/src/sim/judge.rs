//! The judge: what may be seen of each job, fact by fact, whoever caused it. It knows nothing of cores, only the one
//! text of each job.

use halm_actors::ports::Record;
use halm_protocol::{CancelledBy, Chunk, Claim, ErrorCode, Outcome};

use super::text::Text;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its id.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}

pub(super) type Verdict = Result<(), Broken>;

pub(super) fn broken(invariant: &'static str, seen: impl Into<String>) -> Verdict {
    Err(Broken { invariant, seen: seen.into() })
}

/// What a job did to its workers, which decides how it may end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deeds {
    /// Workers that died while they had it.
    pub(super) deaths: u32,
    /// Attempts that failed without a death.
    pub(super) failures: u32,
    /// Its client does not wait for long.
    pub(super) hurried: bool,
    /// Its client cancelled it.
    pub(super) cancelled: bool,
}

/// What everybody saw of one job.
#[derive(Debug)]
pub(super) struct Seen {
    text: Text,
    stored: bool,
    records: Vec<Record>,
    /// Tokens in `records`, and whether they end with the tail.
    logged: (u32, bool),
    finals: Vec<Outcome>,
    outcome: Option<Outcome>,
    acked: bool,
    /// The broker forgot some of its records.
    lost: bool,
    /// Tokens that the client has.
    heard: u32,
    heard_final: Option<Outcome>,
    mark: Mark,
}

/// How far a cancellation is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    /// It stands on the fence.
    Written,
    /// A holder claimed after it, so it knows.
    Known,
}

impl Seen {
    pub(super) fn new(text: Text) -> Self {
        Self {
            text,
            stored: false,
            records: Vec::new(),
            logged: (0, false),
            finals: Vec::new(),
            outcome: None,
            acked: false,
            lost: false,
            heard: 0,
            heard_final: None,
            mark: Mark::None,
        }
    }

    /// Whether its client got anything of it.
    pub(super) fn has_heard(&self) -> bool {
        self.heard > 0 || self.heard_final.is_some()
    }

    pub(super) fn is_stored(&self) -> bool {
        self.stored
    }

    pub(super) fn is_ended(&self) -> bool {
        self.outcome.is_some()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.outcome.is_some() && self.acked
    }

    pub(super) fn has_final(&self) -> bool {
        self.heard_final.is_some()
    }

    /// The queue has it: from now on it must come to its end.
    pub(super) fn stored(&mut self) {
        (self.stored, self.acked) = (true, false);
    }

    /// The log's newest records are gone.
    pub(super) fn forgot(&mut self, records: usize) {
        for _ in 0..records {
            let Some(Record::Chunk { chunk, .. }) = self.records.pop() else { continue };
            if chunk.tokens.is_empty() {
                self.logged.1 = false;
            } else {
                self.logged.0 = chunk.offset;
            }
        }
        self.lost |= records > 0;
    }

    /// The log was purged after the end.
    pub(super) fn purged(&mut self) -> Verdict {
        if self.outcome.is_none() {
            return broken("INV-1", "purged without an outcome");
        }
        self.records.clear();
        self.logged = (0, false);
        Ok(())
    }

    /// The log took a record.
    pub(super) fn landed(&mut self, record: &Record) -> Verdict {
        if self.outcome.is_some() && !self.lost {
            return broken("INV-5", "a record of a job that has its outcome");
        }
        if let Some(Record::Final(_)) = self.records.last() {
            return broken("INV-2", "a record after the final");
        }
        match record {
            Record::Chunk { chunk, .. } => self.chunk(chunk)?,
            Record::Final(Outcome::Reply(reply)) => {
                let told = self.logged.0 == self.text.length && (self.logged.1 || self.text.tail().is_empty());
                // A log that was lost after it had ended gets its end again, which carries everything.
                if !(told || self.lost) || reply.text() != self.text.whole() {
                    return broken("INV-3", format!("a reply {:?} after {} tokens", reply.text(), self.logged.0));
                }
                let resumed = &reply.resumed_at;
                if reply.attempts == 0 || !resumed.is_sorted() || resumed.len() >= reply.attempts as usize {
                    let seen = format!("{} attempts, resumed at {resumed:?}", reply.attempts);
                    return broken("INV-2", seen);
                }
            }
            Record::Final(Outcome::Refusal(_)) => {}
        }
        if let Record::Final(outcome) = record {
            self.finals.push(outcome.clone());
        }
        self.records.push(record.clone());
        Ok(())
    }

    fn chunk(&mut self, chunk: &Chunk) -> Verdict {
        let (length, tail) = self.logged;
        if chunk.offset != length || tail {
            let seen = format!("a record at offset {} after {length} tokens, tail told: {tail}", chunk.offset);
            return broken("INV-2", seen);
        }
        self.is_true(chunk)?;
        match chunk.tokens.len() {
            0 => self.logged.1 = true,
            tokens => self.logged.0 += tokens as u32,
        }
        Ok(())
    }

    fn is_true(&self, chunk: &Chunk) -> Verdict {
        let (text, from) = (self.text, chunk.offset);
        let until = from + chunk.tokens.len() as u32;
        if until > text.length || (from..until).map(|at| text.token(at)).ne(chunk.tokens.iter().copied()) {
            return broken("INV-3", format!("other tokens at offset {from}: {:?}", chunk.tokens));
        }
        let right = if from == until {
            from == text.length && chunk.text == text.tail()
        } else {
            chunk.text == text.pieces(from, until)
        };
        if right { Ok(()) } else { broken("INV-3", format!("another text at offset {from}: {:?}", chunk.text)) }
    }

    /// The store of outcomes took one.
    pub(super) fn ended(&mut self, outcome: &Outcome) -> Verdict {
        if self.outcome.is_some() {
            return broken("INV-1", "a second outcome");
        }
        if !self.finals.contains(outcome) {
            return broken("INV-1", "an outcome that no client was told");
        }
        self.outcome = Some(outcome.clone());
        Ok(())
    }

    /// A replica tells the queue to forget it.
    pub(super) fn acking(&self) -> Verdict {
        if self.outcome.is_none() { broken("INV-1", "acknowledged without an outcome") } else { Ok(()) }
    }

    /// The queue has forgotten it.
    pub(super) fn acked(&mut self) {
        self.acked = true;
    }

    /// A claim landed.
    pub(super) fn claimed(&mut self, claim: &Claim) {
        self.mark = match claim.cancelled {
            Some(CancelledBy::Bystander) => Mark::Written,
            Some(CancelledBy::Holder) => Mark::Known,
            None if self.mark == Mark::Written && !self.lost => Mark::Known,
            None => self.mark,
        };
    }

    /// The log's newest claims are gone, and with them that it was cancelled, perhaps.
    pub(super) fn claims_forgotten(&mut self) {
        self.mark = Mark::None;
    }

    /// A worker was told to go on after these tokens.
    pub(super) fn started(&self, generated: &[u32], by_holder: bool) -> Verdict {
        if by_holder && self.mark == Mark::Known && !self.lost {
            return broken("INV-1", format!("it was cancelled and is computed: {}", self.text.whole()));
        }
        let text = self.text;
        let known = generated.len() as u32;
        if known <= text.length && (0..known).map(|at| text.token(at)).eq(generated.iter().copied()) {
            return Ok(());
        }
        broken("INV-2", format!("a worker goes on after {generated:?}"))
    }

    /// The client received a record. `missed`: something on its way may have missed it, or come twice.
    pub(super) fn heard(&mut self, record: &Record, missed: bool) -> Verdict {
        match record {
            Record::Chunk { chunk, .. } => {
                self.is_true(chunk)?;
                if chunk.offset != self.heard && !missed && self.heard_final.is_none() {
                    let seen = format!("the client got offset {} after {} tokens", chunk.offset, self.heard);
                    return broken("INV-2", seen);
                }
                self.heard = chunk.offset + chunk.tokens.len() as u32;
                Ok(())
            }
            Record::Final(outcome) => self.told(outcome),
        }
    }

    /// The client received an end.
    pub(super) fn told(&mut self, outcome: &Outcome) -> Verdict {
        if let Outcome::Reply(reply) = outcome
            && reply.text() != self.text.whole()
        {
            return broken("INV-3", format!("the client got the reply {:?}", reply.text()));
        }
        match &self.heard_final {
            // The log forgot the first, and with it that it was told.
            Some(known) if !same_end(known, outcome) && !self.lost => {
                broken("INV-1", "the client got two different ends")
            }
            Some(_) | None => {
                self.heard_final = Some(outcome.clone());
                Ok(())
            }
        }
    }

    /// All faults are over, and time has passed.
    pub(super) fn at_the_end(&self, deeds: Deeds, deaths_max: u32, failures_max: u32) -> Verdict {
        if !self.stored {
            return Ok(());
        }
        match &self.outcome {
            None => broken("INV-1", "it has no outcome"),
            Some(_) if !self.acked => broken("INV-1", "it is still in the queue"),
            Some(Outcome::Reply(_)) => Ok(()),
            Some(Outcome::Refusal(refusal)) => {
                let deserved = match refusal.code {
                    ErrorCode::DeadlineExceeded => deeds.hurried,
                    ErrorCode::Poison => deeds.deaths >= deaths_max,
                    ErrorCode::Internal => deeds.failures >= failures_max,
                    ErrorCode::Cancelled => deeds.cancelled,
                    ErrorCode::InvalidRequest
                    | ErrorCode::UnknownModel
                    | ErrorCode::ContextExceeded
                    | ErrorCode::Overloaded
                    | ErrorCode::Unavailable => false,
                };
                let invariant = if refusal.code == ErrorCode::Poison { "INV-7" } else { "INV-4" };
                if deserved { Ok(()) } else { broken(invariant, format!("refused: {refusal}")) }
            }
        }
    }
}

/// Two replicas may word one end differently only where neither was stored; of a reply, the counts may differ.
fn same_end(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Outcome::Reply(one), Outcome::Reply(other)) => one.text() == other.text(),
        (Outcome::Refusal(one), Outcome::Refusal(other)) => one.code == other.code,
        (Outcome::Reply(_), Outcome::Refusal(_)) | (Outcome::Refusal(_), Outcome::Reply(_)) => false,
    }
}
