//! Puts the records of a stream in order: `record -> what is new in it`. Pure.

use halm_protocol::{Chunk, Reply};

/// The reply contradicts the stream before it. It never happens unless halm broke its promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reply is another text than the stream before it")]
pub struct Forked;

/// What has been handed out so far.
#[derive(Debug, Default)]
pub struct Reassembly {
    tokens: u32,
    text: String,
    /// Where records began, as (tokens, bytes of text) before them: a repeated record can be cut only there.
    boundaries: Vec<(u32, usize)>,
}

impl Reassembly {
    /// What is new in a chunk; `None` if nothing is, or if something before it is missing.
    pub fn chunk(&mut self, chunk: Chunk) -> Option<Chunk> {
        let end = chunk.offset.saturating_add(u32::try_from(chunk.tokens.len()).unwrap_or(u32::MAX));
        let fresh = if chunk.offset == self.tokens {
            // A chunk without tokens is the tail; the second of its kind is a repetition.
            let repeated = chunk.tokens.is_empty() && self.boundaries.last() == Some(&(u32::MAX, 0));
            (!repeated).then_some(chunk)?
        } else if chunk.offset < self.tokens && end > self.tokens {
            let (_, began) = *self.boundaries.iter().find(|(tokens, _)| *tokens == chunk.offset)?;
            let known = self.text.len() - began;
            let new_tokens = (self.tokens - chunk.offset) as usize;
            Chunk {
                offset: self.tokens,
                tokens: chunk.tokens.get(new_tokens..)?.to_vec(),
                text: chunk.text.get(known..)?.to_owned(),
                job: chunk.job,
            }
        } else {
            return None;
        };
        self.boundaries.push((self.tokens, self.text.len()));
        self.tokens = end.max(self.tokens);
        self.text.push_str(&fresh.text);
        if fresh.tokens.is_empty() {
            self.boundaries.push((u32::MAX, 0));
        }
        Some(fresh)
    }

    /// What the reply's text has beyond what was handed out, as a chunk without tokens.
    ///
    /// # Errors
    /// If the reply is not what was handed out, and more: the stream forked.
    pub fn rest(&mut self, reply: &Reply) -> Result<Option<Chunk>, Forked> {
        let rest = reply.text().strip_prefix(self.text.as_str()).ok_or(Forked)?.to_owned();
        let offset = self.tokens;
        self.text.push_str(&rest);
        Ok((!rest.is_empty()).then(|| Chunk { job: reply.job.clone(), offset, tokens: Vec::new(), text: rest }))
    }
}

#[cfg(test)]
mod tests {
    use halm_protocol::JobId;

    use super::*;

    fn chunk(offset: u32, tokens: &[u32], text: &str) -> Chunk {
        Chunk { job: JobId::try_from("j").expect("a name"), offset, tokens: tokens.to_vec(), text: text.to_owned() }
    }

    #[test]
    fn repeated_records_are_dropped_and_overlapping_ones_are_cut() {
        let mut stream = Reassembly::default();
        assert!(stream.chunk(chunk(0, &[1], "a")).is_some());
        assert!(stream.chunk(chunk(1, &[2, 3], "bc")).is_some());
        assert_eq!(stream.chunk(chunk(1, &[2, 3], "bc")), None);
        assert_eq!(stream.chunk(chunk(1, &[2, 3, 4], "bcd")), Some(chunk(3, &[4], "d")));
        assert_eq!(stream.chunk(chunk(6, &[7], "g")), None, "something before it is missing");
        assert_eq!(stream.chunk(chunk(4, &[], "é")), Some(chunk(4, &[], "é")));
        assert_eq!(stream.chunk(chunk(4, &[], "é")), None, "the tail comes once");
    }
}
