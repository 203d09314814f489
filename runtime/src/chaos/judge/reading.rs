//! One request's answer beside the known one: `record -> what is wrong with it`. Pure.

use std::time::Duration;

use halm_protocol::JobId;
use serde::Serialize;

use crate::chaos::event::Asked;

/// The right answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
}

/// Tokens that are not as they should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Flaws {
    /// Never came.
    pub(crate) lost: u64,
    /// Came more than once.
    pub(crate) doubled: u64,
    /// Are others than the known ones.
    pub(crate) changed: u64,
}

impl Flaws {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.changed += other.changed;
    }
}

/// How far one request is.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) asked: Asked,
    pub(crate) at: Duration,
    /// When something came last, or it was sent.
    pub(crate) last_at: Duration,
    pub(crate) job: Option<JobId>,
    /// Tokens with the moments at which they came.
    pub(crate) arrived: Vec<(Duration, u64)>,
    pub(crate) silences: Vec<(Duration, Duration)>,
    /// The index of the next token.
    next: usize,
    text: String,
    flaws: Flaws,
}

impl Reading {
    pub(crate) fn new(asked: Asked, at: Duration) -> Self {
        Self {
            asked,
            at,
            last_at: at,
            job: None,
            arrived: Vec::new(),
            silences: Vec::new(),
            next: 0,
            text: String::new(),
            flaws: Flaws::default(),
        }
    }

    /// Something came: the silence before it is over. `None` where silence says nothing: a plain request has one record
    /// only, and whoever is to be quarantined is made silent.
    pub(crate) fn heard(&mut self, at: Duration) -> Option<(Duration, Duration)> {
        let silence = (self.last_at, at);
        self.last_at = at;
        let tells = self.asked.streamed && !self.asked.poisoned;
        tells.then(|| {
            self.silences.push(silence);
            silence
        })
    }

    /// Tokens seen.
    pub(crate) fn tokens(&self) -> usize {
        self.next
    }

    /// What is wrong so far.
    pub(crate) fn flaws(&self) -> Flaws {
        self.flaws
    }

    /// A piece of the stream, placed by the offset that it states itself.
    pub(crate) fn chunk(&mut self, known: &Answer, offset: u32, tokens: &[u32], text: &str) {
        let (begin, end) = (offset as usize, offset as usize + tokens.len());
        self.text.push_str(text);
        if tokens.is_empty() {
            return;
        }
        self.flaws.lost += begin.saturating_sub(self.next) as u64;
        self.flaws.doubled += self.next.min(end).saturating_sub(begin) as u64;
        let right = |at: usize, token: u32| known.tokens.get(at) == Some(&token);
        self.flaws.changed += (begin..).zip(tokens).filter(|(at, token)| !right(*at, **token)).count() as u64;
        self.next = self.next.max(end);
    }

    /// The answer is complete. What the final record had to fill in is in the text, and comes back as tokens that came
    /// late.
    pub(crate) fn complete(&mut self, known: &Answer, text: &str, tokens: u32) -> u64 {
        let missing = known.tokens.len().saturating_sub(self.next) as u64;
        let same = text == known.text && tokens as usize == known.tokens.len();
        if self.asked.streamed && self.text != text || !same {
            if known.text.starts_with(text) && text.len() < known.text.len() {
                self.flaws.lost += missing.max(1);
            } else if self.flaws.is_none() {
                self.flaws.changed += 1;
            }
            return 0;
        }
        if self.asked.streamed { missing } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::event::{ClientNo, TextNo};

    fn known() -> Answer {
        Answer { tokens: vec![10, 11, 12, 13], text: "abcd".to_owned() }
    }

    fn reading(streamed: bool) -> Reading {
        let deadline = Duration::from_secs(1);
        let asked = Asked { client: ClientNo(0), text: TextNo(0), streamed, deadline, poisoned: false };
        Reading::new(asked, Duration::ZERO)
    }

    fn flaws(chunks: &[(u32, &[u32], &str)], text: &str, tokens: u32) -> (Flaws, u64) {
        let mut reading = reading(true);
        for (offset, tokens, text) in chunks {
            reading.chunk(&known(), *offset, tokens, text);
        }
        let late = reading.complete(&known(), text, tokens);
        (reading.flaws(), late)
    }

    #[test]
    fn the_known_answer_has_no_flaws_however_it_is_cut() {
        assert_eq!(flaws(&[(0, &[10, 11], "ab"), (2, &[12, 13], "cd")], "abcd", 4), (Flaws::default(), 0));
        assert_eq!(flaws(&[(0, &[10, 11, 12, 13], "abcd")], "abcd", 4), (Flaws::default(), 0));
        let mut whole = reading(false);
        assert_eq!(whole.complete(&known(), "abcd", 4), 0);
        assert!(whole.flaws().is_none());
    }

    #[test]
    fn what_the_final_record_filled_in_is_late_and_not_lost() {
        assert_eq!(flaws(&[(0, &[10], "a"), (1, &[], "bcd")], "abcd", 4), (Flaws::default(), 3));
    }

    #[test]
    fn every_flaw_is_found_and_named() {
        let (lost, doubled, changed) = (|n| Flaws { lost: n, ..Flaws::default() }, 1, 1);
        assert_eq!(flaws(&[(0, &[10], "a"), (2, &[12, 13], "cd")], "acd", 3).0.lost, 1, "a hole");
        assert_eq!(flaws(&[(0, &[10, 11], "ab")], "ab", 2).0, lost(2), "an end that is missing");
        assert_eq!(flaws(&[(0, &[10, 11], "ab"), (1, &[11, 12, 13], "bcd")], "abcd", 4).0.doubled, doubled);
        assert_eq!(flaws(&[(0, &[10, 99], "aX"), (2, &[12, 13], "cd")], "aXcd", 4).0.changed, changed);
        assert_eq!(flaws(&[(0, &[10, 11, 12, 13, 14], "abcde")], "abcde", 5).0.changed, changed, "too long");
        assert_eq!(
            flaws(&[(0, &[10, 11, 12, 13], "abcd")], "abXd", 4).0.changed,
            changed,
            "another end than its stream"
        );
        let mut whole = reading(false);
        whole.complete(&known(), "abXd", 4);
        assert_eq!(whole.flaws().changed, 1);
    }
}
