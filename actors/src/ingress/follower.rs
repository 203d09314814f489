//! One client more on a job's stream: `(what was read) -> what to show`, pure.
//!
//! The first client of a job reads what the broker republishes. Whoever asks for the same job later, or comes back to
//! it, is shown the log as it is read, from the token where it wants to go on, and then the outcome.

use halm_protocol::{Chunk, JobId, Outcome};

use crate::ports::{LogRecord, Record};

/// What to send to the client that follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// More of the text.
    Chunk(Chunk),
    /// The end.
    End(Outcome),
}

/// Where a client that follows has got to.
#[derive(Debug)]
pub struct Follower {
    job: JobId,
    /// Whether chunks are wanted, or only the end.
    streamed: bool,
    /// The first token that was not shown.
    next: u32,
    /// Bytes of the text before it; `None` as long as we have not seen what the client had before.
    text: Option<usize>,
    tail_shown: bool,
}

impl Follower {
    /// One that has everything before the token `from`. A record in the middle of which that is, it is shown whole.
    #[must_use]
    pub fn new(job: JobId, streamed: bool, from: u32) -> Self {
        Self { job, streamed, next: from, text: (from == 0).then_some(0), tail_shown: false }
    }

    /// The whole log was read, as far as it goes.
    pub fn read(&mut self, records: Vec<LogRecord>) -> Vec<Shown> {
        let mut shown = Vec::new();
        let mut text = 0;
        for LogRecord { record, .. } in records {
            match record {
                Record::Chunk { chunk, .. } => {
                    text += chunk.text.len();
                    shown.extend(self.chunk(chunk, text).map(Shown::Chunk));
                }
                Record::Final(outcome) => shown.extend(self.end(outcome)),
            }
        }
        shown
    }

    /// A chunk of the log, with which the text is so many bytes long.
    fn chunk(&mut self, chunk: Chunk, text: usize) -> Option<Chunk> {
        let end = chunk.offset.saturating_add(u32::try_from(chunk.tokens.len()).unwrap_or(u32::MAX));
        let tail = chunk.tokens.is_empty();
        let fresh = if tail { !self.tail_shown && chunk.offset >= self.next } else { end > self.next };
        if fresh {
            (self.next, self.tail_shown) = (end.max(self.next), tail);
        }
        if end <= self.next {
            self.text = self.text.max(Some(text));
        }
        (fresh && self.streamed).then_some(chunk)
    }

    /// The outcome is known: what is left of the text, and the end.
    pub fn end(&mut self, outcome: Outcome) -> Vec<Shown> {
        let mut shown = Vec::new();
        if let Outcome::Reply(reply) = &outcome
            && self.streamed
            && let Some(text) = self.text
            && let Some(rest) = reply.text().get(text..).filter(|rest| !rest.is_empty())
        {
            let (job, offset) = (self.job.clone(), self.next);
            shown.push(Shown::Chunk(Chunk { job, offset, tokens: Vec::new(), text: rest.to_owned() }));
        }
        shown.push(Shown::End(outcome));
        shown
    }
}

#[cfg(test)]
mod tests {
    use halm_protocol::{Digest, ErrorCode, FinishReason, Refusal, Reply, Usage};

    use super::*;
    use crate::ports::Sequence;

    fn job() -> JobId {
        JobId::try_from("j").expect("a plain name")
    }

    fn chunk(offset: u32, tokens: &[u32], text: &str) -> Chunk {
        Chunk { job: job(), offset, tokens: tokens.to_vec(), text: text.to_owned() }
    }

    fn log(chunks: &[Chunk]) -> Vec<LogRecord> {
        let record = |chunk: &Chunk| LogRecord {
            sequence: Sequence(u64::from(chunk.offset) + 1),
            record: Record::Chunk { chunk: chunk.clone(), attempt: 1 },
        };
        chunks.iter().map(record).collect()
    }

    fn reply(text: &str) -> Outcome {
        Outcome::Reply(Box::new(Reply {
            job: job(),
            model: "m".to_owned(),
            digest: Digest::try_from("0".repeat(64)).expect("64 hexadecimal digits"),
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

    fn shown(shown: &[Shown]) -> String {
        let text = |shown: &Shown| match shown {
            Shown::Chunk(chunk) => chunk.text.clone(),
            Shown::End(_) => ".".to_owned(),
        };
        shown.iter().map(text).collect()
    }

    #[test]
    fn each_record_is_shown_once_and_what_the_log_lost_by_settling_comes_from_the_reply() {
        let all = [chunk(0, &[1], "a"), chunk(1, &[2, 3], "bc"), chunk(3, &[4], "d")];
        let mut follower = Follower::new(job(), true, 0);
        assert_eq!(shown(&follower.read(log(&all[..1]))), "a");
        assert_eq!(shown(&follower.read(log(&all[..2]))), "bc");
        assert_eq!(shown(&follower.read(log(&all[..2]))), "");
        // The job was settled, and its log is gone.
        assert_eq!(shown(&follower.read(Vec::new())), "");
        assert_eq!(shown(&follower.end(reply("abcde"))), "de.");
    }

    #[test]
    fn who_comes_back_is_shown_the_rest() {
        let all = log(&[chunk(0, &[1], "a"), chunk(1, &[2, 3], "bc"), chunk(3, &[4], "d"), chunk(4, &[], "e")]);
        let mut follower = Follower::new(job(), true, 3);
        assert_eq!(shown(&follower.read(all.clone())), "de");
        assert_eq!(shown(&follower.read(all)), "");
        assert_eq!(shown(&follower.end(reply("abcde"))), ".");
        let mut late = Follower::new(job(), true, 3);
        assert_eq!(shown(&late.end(reply("abcde"))), ".", "nobody knows what it has");
    }

    #[test]
    fn who_wants_no_stream_is_shown_the_end_only() {
        let mut follower = Follower::new(job(), false, 0);
        assert_eq!(follower.read(log(&[chunk(0, &[1], "a")])), []);
        let refusal = Outcome::Refusal(Refusal::new(ErrorCode::Cancelled, "the job was cancelled"));
        assert_eq!(follower.end(refusal.clone()), [Shown::End(refusal)]);
    }
}
