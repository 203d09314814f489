//! What one client saw, record by record, as it came. Nothing is mended.

use std::fmt;
use std::time::{Duration, SystemTime};

use halm_protocol::{Chunk, Refusal, Reply};

/// A record as a client reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A piece of the stream.
    Chunk(Chunk),
    /// The whole answer.
    Reply(Box<Reply>),
    /// A typed error.
    Refusal(Refusal),
    /// Something that the protocol does not know.
    Garbled(String),
}

impl Record {
    /// Reads a payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        if let Some(refusal) = Refusal::from_bytes(payload) {
            return Self::Refusal(refusal);
        }
        if let Ok(chunk) = serde_json::from_slice(payload) {
            return Self::Chunk(chunk);
        }
        match serde_json::from_slice(payload) {
            Ok(reply) => Self::Reply(Box::new(reply)),
            Err(_) => Self::Garbled(String::from_utf8_lossy(payload).into_owned()),
        }
    }

    /// Whether no more records follow.
    #[must_use]
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Chunk(_))
    }
}

/// All records of one request.
#[derive(Clone, Default)]
pub struct Transcript {
    records: Vec<(SystemTime, Record)>,
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, record) in &self.records {
            match record {
                Record::Chunk(chunk) => write!(f, "[{}+{} {:?}] ", chunk.offset, chunk.tokens.len(), chunk.text)?,
                other => write!(f, "{other:?} ")?,
            }
        }
        Ok(())
    }
}

impl Transcript {
    /// Adds a record.
    pub fn push(&mut self, at: SystemTime, record: Record) {
        self.records.push((at, record));
    }

    /// The chunks, as they came.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.records.iter().filter_map(|(_, record)| if let Record::Chunk(chunk) = record { Some(chunk) } else { None })
    }

    /// The texts of the chunks, one after the other.
    #[must_use]
    pub fn text(&self) -> String {
        self.chunks().map(|chunk| chunk.text.as_str()).collect()
    }

    /// The tokens of the chunks, one after the other.
    #[must_use]
    pub fn tokens(&self) -> Vec<u32> {
        self.chunks().flat_map(|chunk| chunk.tokens.iter().copied()).collect()
    }

    /// The answer, which must be the last record.
    #[track_caller]
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match self.records.last() {
            Some((_, Record::Reply(reply))) => reply,
            _ => panic!("no reply at the end of {self:?}"),
        }
    }

    /// The last record.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn last(&self) -> &Record {
        &self.records.last().expect("something came").1
    }

    /// The error, which must be the only record.
    #[track_caller]
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        match self.records.as_slice() {
            [(_, Record::Refusal(refusal))] => refusal,
            _ => panic!("no refusal, but {self:?}"),
        }
    }

    /// The error at the end, after whatever came before it.
    #[track_caller]
    #[must_use]
    pub fn broken_off(&self) -> &Refusal {
        match self.records.last() {
            Some((_, Record::Refusal(refusal))) => refusal,
            _ => panic!("no refusal at the end of {self:?}"),
        }
    }

    /// Asserts the exact stream, once: offsets without a gap or a repetition, and pieces that add up to the reply.
    #[track_caller]
    pub fn assert_exact(&self) {
        let mut next = 0;
        for chunk in self.chunks() {
            assert_eq!(chunk.offset as usize, next, "a record is missing or repeated in {self:?}");
            next += chunk.tokens.len();
        }
        let reply = self.reply();
        assert!(reply.is_final, "the reply does not say that it is the last record: {reply:?}");
        assert_eq!(self.text(), reply.text(), "the pieces do not add up to the reply");
        assert_eq!(
            next, reply.usage.completion_tokens as usize,
            "the pieces' tokens are not as many as the reply says"
        );
        assert_eq!(self.records.iter().filter(|(_, record)| record.is_last()).count(), 1, "more than one end");
    }

    /// Asserts the exact stream, and that it is the same as another, token by token.
    #[track_caller]
    pub fn assert_same_stream(&self, other: &Self) {
        self.assert_exact();
        assert_eq!(self.text(), other.text());
        assert_eq!(self.tokens(), other.tokens());
    }

    /// Asserts what a plain client is promised around a lost connection: a record may be missing or repeated, none
    /// contradicts, and the reply carries everything.
    #[track_caller]
    pub fn assert_no_fork(&self, other: &Self) {
        let expected = other.tokens();
        for chunk in self.chunks() {
            let at = chunk.offset as usize;
            assert_eq!(
                expected.get(at..at + chunk.tokens.len()),
                Some(chunk.tokens.as_slice()),
                "a fork at {at}: {self:?}"
            );
        }
        assert_eq!(self.reply().text(), other.text());
    }

    /// The longest pause between two records of which the second came after `at`.
    #[must_use]
    pub fn longest_silence_after(&self, at: SystemTime) -> Duration {
        let pairs = self.records.windows(2).filter(|pair| pair[1].0 > at);
        let pause = |pair: &[(SystemTime, Record)]| pair[1].0.duration_since(pair[0].0).unwrap_or_default();
        pairs.map(pause).max().unwrap_or_default()
    }
}
