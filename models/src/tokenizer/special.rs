//! Tokens that are whole strings: control tokens and what GGUF calls user-defined ones.
//!
//! Owns finding them in a text in one pass, however many there are (Gemma has more than six thousand): from left to
//! right, the longest of those that start at the same place, as Hugging Face's and Google's tokenizers do. It does
//! not decide whether a text may contain control tokens. Called by [`super::Tokenizer`] and by the chat template.

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::{TokenId, TokenizerError};

/// A list of special tokens.
pub(crate) struct SpecialTokens {
    /// None of them empty.
    entries: Vec<(String, TokenId)>,
    /// Finds a text of `entries`, by index.
    matcher: AhoCorasick,
}

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Without any special token; never empty.
    Text(&'a str),
    Special(TokenId),
}

impl SpecialTokens {
    pub(super) fn new(mut entries: Vec<(String, TokenId)>) -> Result<Self, TokenizerError> {
        entries.retain(|(text, _)| !text.is_empty());
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(entries.iter().map(|(text, _)| text))
            .map_err(|error| TokenizerError::SpecialTokens(Box::new(error)))?;
        Ok(Self { entries, matcher })
    }

    /// Cuts `text` at the tokens in it.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut done = 0;
        for found in self.matcher.find_iter(text) {
            parts.extend(Self::text(&text[done..found.start()]));
            parts.push(Part::Special(self.entries[found.pattern().as_usize()].1));
            done = found.end();
        }
        parts.extend(Self::text(&text[done..]));
        parts
    }

    fn text(text: &str) -> Option<Part<'_>> {
        (!text.is_empty()).then_some(Part::Text(text))
    }

    /// Whether one of the tokens' texts is in `text`.
    pub(crate) fn occur_in(&self, text: &str) -> bool {
        self.matcher.is_match(text)
    }

    /// Where the tokens' texts start in `text`, those that overlap included, ascending.
    pub(crate) fn starts(&self, text: &str) -> Vec<usize> {
        let mut starts = Vec::new();
        let mut from = 0;
        while let Some(found) = self.matcher.find(Input::new(text).range(from..)) {
            starts.push(found.start());
            let first = text[found.start()..].chars().next();
            from = found.start() + first.map_or(1, char::len_utf8);
        }
        starts
    }

    /// The text of `token`, if it is one of these.
    pub(super) fn text_of(&self, token: TokenId) -> Option<&str> {
        let entry = self.entries.iter().find(|(_, other)| *other == token);
        entry.map(|(text, _)| text.as_str())
    }

    /// Texts and numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, TokenId)> {
        self.entries.iter().map(|(text, token)| (text.as_str(), *token))
    }
}
