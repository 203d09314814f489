//! The judge: what may happen to a job's log, outcome and delivery, fact by fact, whoever caused it.
//!
//! It knows nothing of cores, only the undisturbed text of each job. [`super::world`] tells it what happened; forged
//! histories prove that it can say no.

use std::collections::BTreeMap;

use halm_protocol::{ErrorCode, FinishReason, JobId, Outcome, Refusal, Reply, Usage};

use super::desk::{digest, job};
use crate::ports::Record;

/// The one text that a job has.
#[derive(Debug, Clone)]
pub(super) struct Truth {
    pub(super) tokens: Vec<u32>,
    pub(super) texts: Vec<String>,
    pub(super) tail: String,
}

impl Truth {
    /// Of a job of this number and length. Every third token holds its text back, as half a character does.
    pub(super) fn of(number: u32, length: u32) -> Self {
        let text = |at: u32| if at % 3 == 1 { String::new() } else { format!("{number}.{at} ") };
        Self {
            tokens: (0..length).map(|at| number * 1000 + at * 7 % 5 * 100 + at).collect(),
            texts: (0..length).map(text).collect(),
            tail: if length.is_multiple_of(2) { String::new() } else { "end".to_owned() },
        }
    }

    pub(super) fn text(&self) -> String {
        self.texts.concat() + &self.tail
    }
}

/// Something that everybody can see.
#[derive(Debug, Clone)]
pub(super) enum Fact {
    /// The server stored a record.
    Landed(Record),
    /// The server forgot its newest records.
    Lost(usize),
    /// The server stored an outcome.
    Stored(Outcome),
    /// The job was taken out of the queue.
    Acked,
    /// A worker was told to go on after these tokens.
    Started(Vec<u32>),
}

/// A promise that was broken: its id, and how.
pub(super) type Verdict = Result<(), (&'static str, String)>;

#[derive(Debug)]
struct Seen {
    truth: Truth,
    records: Vec<Record>,
    finals: Vec<Outcome>,
    outcome: Option<Outcome>,
    acked: bool,
    lost: bool,
}

/// Everything that happened so far.
#[derive(Debug, Default)]
pub(super) struct History {
    jobs: BTreeMap<JobId, Seen>,
}

impl History {
    pub(super) fn expect(&mut self, job: JobId, truth: Truth) {
        let seen = Seen { truth, records: Vec::new(), finals: Vec::new(), outcome: None, acked: false, lost: false };
        self.jobs.insert(job, seen);
    }

    /// Takes a fact.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub(super) fn observe(&mut self, job: &JobId, fact: Fact) -> Verdict {
        let seen = self.jobs.get_mut(job).expect("a job that is expected");
        match fact {
            Fact::Landed(record) => seen.landed(record),
            Fact::Lost(records) => {
                seen.records.truncate(seen.records.len() - records);
                seen.lost |= records > 0;
                Ok(())
            }
            Fact::Stored(outcome) => seen.stored(outcome),
            Fact::Acked if seen.outcome.is_none() => Err(("INV-1", "acknowledged without an outcome".to_owned())),
            Fact::Acked => {
                seen.acked = true;
                Ok(())
            }
            Fact::Started(tokens) if seen.truth.tokens.starts_with(&tokens) => Ok(()),
            Fact::Started(tokens) => Err(("INV-2", format!("a worker goes on after {tokens:?}"))),
        }
    }

    /// Whether everything has come to its end, with the right text or a refusal that is `allowed`.
    ///
    /// # Errors
    /// The job that has not.
    pub(super) fn ended(&self, allowed: impl Fn(&JobId, ErrorCode) -> bool) -> Verdict {
        for (job, seen) in &self.jobs {
            match &seen.outcome {
                None => return Err(("INV-1", format!("{job} has no outcome"))),
                Some(_) if !seen.acked => return Err(("INV-1", format!("{job} is still in the queue"))),
                Some(Outcome::Refusal(refusal)) if !allowed(job, refusal.code) => {
                    return Err(("INV-4", format!("{job} was refused: {refusal}")));
                }
                Some(Outcome::Refusal(_) | Outcome::Reply(_)) => {}
            }
        }
        Ok(())
    }
}

impl Seen {
    fn landed(&mut self, record: Record) -> Verdict {
        if self.outcome.is_some() && !self.lost {
            return Err(("INV-5", "a record of a job that has its outcome".to_owned()));
        }
        let (mut length, mut tail) = (0, false);
        for record in &self.records {
            match record {
                Record::Chunk { chunk, .. } => {
                    length += chunk.tokens.len();
                    tail |= chunk.tokens.is_empty();
                }
                Record::Final(_) => return Err(("INV-2", "a record after the final".to_owned())),
            }
        }
        match &record {
            Record::Chunk { chunk, .. } => {
                let (at, until) = (chunk.offset as usize, chunk.offset as usize + chunk.tokens.len());
                if at != length || tail {
                    return Err(("INV-2", format!("a record at offset {at} after {length} tokens, tail told: {tail}")));
                }
                if self.truth.tokens.get(at..until) != Some(&chunk.tokens[..]) {
                    return Err(("INV-2", format!("other tokens at offset {at}: {:?}", chunk.tokens)));
                }
                let text = if at == until { self.truth.tail.clone() } else { self.truth.texts[at..until].concat() };
                if chunk.text != text || (at == until && until != self.truth.tokens.len()) {
                    return Err(("INV-2", format!("another text at offset {at}: {:?}", chunk.text)));
                }
            }
            Record::Final(Outcome::Reply(reply)) => {
                let told = length == self.truth.tokens.len() && (tail || self.truth.tail.is_empty());
                if !told || reply.text() != self.truth.text() {
                    return Err(("INV-2", format!("a reply {:?} after {length} tokens", reply.text())));
                }
                if reply.attempts == 0
                    || !reply.resumed_at.is_sorted()
                    || reply.resumed_at.len() >= reply.attempts as usize
                {
                    return Err(("INV-2", format!("{} attempts, resumed at {:?}", reply.attempts, reply.resumed_at)));
                }
            }
            Record::Final(Outcome::Refusal(_)) => {}
        }
        if let Record::Final(outcome) = &record {
            self.finals.push(outcome.clone());
        }
        self.records.push(record);
        Ok(())
    }

    fn stored(&mut self, outcome: Outcome) -> Verdict {
        if self.outcome.is_some() {
            return Err(("INV-1", "a second outcome".to_owned()));
        }
        if !self.finals.contains(&outcome) {
            return Err(("INV-1", "an outcome that no client was told".to_owned()));
        }
        self.outcome = Some(outcome);
        Ok(())
    }
}

fn piece(offset: u32, tokens: &[u32], text: &str) -> Fact {
    let chunk = halm_protocol::Chunk { job: job("j"), offset, tokens: tokens.to_vec(), text: text.to_owned() };
    Fact::Landed(Record::Chunk { chunk, attempt: 1 })
}

fn reply(text: &str) -> Outcome {
    Outcome::Reply(Box::new(Reply {
        job: job("j"),
        model: "m".to_owned(),
        digest: digest('0'),
        text: Some(text.to_owned()),
        message: None,
        finish_reason: FinishReason::Stop,
        usage: Usage { prompt_tokens: 1, completion_tokens: 3 },
        seed: 7,
        attempts: 1,
        resumed_at: Vec::new(),
        is_final: true,
    }))
}

/// The first promise that this history of a job of three tokens breaks.
fn judged(facts: impl IntoIterator<Item = Fact>) -> Option<&'static str> {
    let truth =
        Truth { tokens: vec![1, 2, 3], texts: ["a", "b", "c"].map(str::to_owned).to_vec(), tail: "d".to_owned() };
    let mut history = History::default();
    history.expect(job("j"), truth);
    facts.into_iter().find_map(|fact| history.observe(&job("j"), fact).err()).map(|(invariant, _)| invariant)
}

/// The history that every job should have.
fn good() -> Vec<Fact> {
    let end = || reply("abcd");
    vec![
        piece(0, &[1], "a"),
        piece(1, &[2, 3], "bc"),
        piece(3, &[], "d"),
        Fact::Landed(Record::Final(end())),
        Fact::Stored(end()),
        Fact::Acked,
    ]
}

/// The good history with something else instead of the fact at `at`.
fn forged(at: usize, facts: Vec<Fact>) -> Vec<Fact> {
    let mut history = good();
    history.splice(at..=at, facts);
    history
}

#[test]
fn the_judge_passes_a_good_history_also_with_a_lost_tail_written_again() {
    assert_eq!(judged(good()), None);
    assert_eq!(judged(forged(1, vec![piece(1, &[2], "b"), Fact::Lost(1), piece(1, &[2, 3], "bc")])), None);
}

#[test]
fn the_judge_rejects_a_token_that_is_doubled_missing_or_another() {
    assert_eq!(judged(forged(0, vec![piece(0, &[1], "a"), piece(0, &[1], "a")])), Some("INV-2"), "doubled");
    assert_eq!(judged(forged(0, vec![])), Some("INV-2"), "a gap");
    assert_eq!(judged(forged(1, vec![piece(1, &[2, 9], "bc")])), Some("INV-2"), "a fork");
    assert_eq!(judged(forged(1, vec![piece(1, &[2, 3], "b?")])), Some("INV-2"), "another text");
    assert_eq!(judged(forged(2, vec![])), Some("INV-2"), "the tail is missing");
    assert_eq!(judged(forged(2, vec![piece(3, &[], "d"), piece(3, &[], "d")])), Some("INV-2"), "the tail is doubled");
    assert_eq!(judged([Fact::Started(vec![1, 3])]), Some("INV-2"), "a worker is told a gap");
}

#[test]
fn the_judge_rejects_an_end_that_is_early_doubled_or_another() {
    let end = |text| Fact::Landed(Record::Final(reply(text)));
    assert_eq!(judged([piece(0, &[1], "a"), end("abcd")]), Some("INV-2"), "early");
    assert_eq!(judged(forged(3, vec![end("abcd"), end("abcd")])), Some("INV-2"), "doubled");
    assert_eq!(judged(forged(3, vec![end("abce")])), Some("INV-2"), "another");
}

#[test]
fn the_judge_rejects_two_outcomes_one_that_nobody_was_told_and_an_early_acknowledgement() {
    let other = || Outcome::Refusal(Refusal::new(ErrorCode::Internal, "another"));
    assert_eq!(judged(forged(5, vec![Fact::Stored(other())])), Some("INV-1"), "two outcomes");
    assert_eq!(judged(forged(4, vec![Fact::Stored(other())])), Some("INV-1"), "not told");
    assert_eq!(judged(forged(4, vec![])), Some("INV-1"), "acknowledged before the outcome");
}

#[test]
fn the_judge_rejects_a_zombie_that_writes_after_the_outcome() {
    let fact = Fact::Landed(Record::Final(reply("abcd")));
    assert_eq!(judged(good().into_iter().chain([fact])), Some("INV-5"));
}

#[test]
fn the_judge_rejects_silence_and_a_refusal_without_a_reason() {
    let mut history = History::default();
    history.expect(job("j"), Truth::of(1, 0));
    assert_eq!(history.ended(|_, _| true).map_err(|(invariant, _)| invariant), Err("INV-1"));
    let refusal = Outcome::Refusal(Refusal::new(ErrorCode::Internal, "for no reason"));
    for fact in [Fact::Landed(Record::Final(refusal.clone())), Fact::Stored(refusal), Fact::Acked] {
        history.observe(&job("j"), fact).expect("a settlement in order");
    }
    assert_eq!(history.ended(|_, _| true), Ok(()));
    assert_eq!(history.ended(|_, _| false).map_err(|(invariant, _)| invariant), Err("INV-4"));
}
