//! Stop strings that span tokens.
//!
//! Owns the text that is held back because it may turn out to be the start of a stop string. It never emits
//! a character that a stop string could still claim, and never holds back more than that. The match that
//! is complete first wins; of two complete at the same character, the longer one. So the outcome depends on the
//! text alone, not on how tokens cut it. Called by [`crate::Generation`].

/// Watches a stream of text for stop strings.
#[derive(Debug, Clone)]
pub(crate) struct StopWatch {
    /// Invariant: none is empty.
    stops: Vec<String>,
    /// Invariant: while nothing matched, a proper prefix of some stop string or empty.
    held: String,
    matched: bool,
}

impl StopWatch {
    /// Watches for `stops`; empty ones must have been refused before.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        debug_assert!(stops.iter().all(|stop| !stop.is_empty()), "checked when a request is opened");
        Self { stops, held: String::new(), matched: false }
    }

    /// Whether a stop string has been seen.
    pub(crate) fn matched(&self) -> bool {
        self.matched
    }

    /// Takes the next text and returns what is safe to show. After a match, nothing ever is.
    pub(crate) fn push(&mut self, text: &str) -> String {
        if self.matched {
            return String::new();
        }
        let checked = self.held.len();
        self.held.push_str(text);
        if let Some(start) = self.first_match(checked) {
            self.matched = true;
            let mut shown = std::mem::take(&mut self.held);
            shown.truncate(start);
            return shown;
        }
        let keep = self.longest_possible_start();
        let held = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, held)
    }

    /// Ends the text: what was held is no stop string after all.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the match starts whose end comes first, looking at ends beyond `checked` bytes.
    fn first_match(&self, checked: usize) -> Option<usize> {
        self.stops
            .iter()
            .filter_map(|stop| {
                // A match that ends at or before `checked` would have been found earlier, so looking may
                // start where one would end just beyond it.
                let from = (checked + 1).saturating_sub(stop.len());
                let from = self.held.ceil_char_boundary(from);
                let start = from + self.held[from..].find(stop.as_str())?;
                Some((start + stop.len(), start))
            })
            .min()
            .map(|(_, start)| start)
    }

    /// Bytes at the end of what is held that are a proper prefix of a stop string, as many as possible.
    fn longest_possible_start(&self) -> usize {
        let prefix_length = |stop: &String| {
            let mut ends = stop.char_indices().rev().map(|(index, _)| index);
            ends.find(|end| self.held.ends_with(&stop[..*end])).unwrap_or(0)
        };
        self.stops.iter().map(prefix_length).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::StopWatch;
    use proptest::prelude::*;

    /// What a stream shows, and whether it stopped.
    fn run(stops: &[&str], chunks: &[&str]) -> (String, bool) {
        let mut watch = StopWatch::new(stops.iter().map(ToString::to_string).collect());
        let mut shown: String = chunks.iter().map(|chunk| watch.push(chunk)).collect();
        if !watch.matched() {
            shown.push_str(&watch.finish());
        }
        (shown, watch.matched())
    }

    #[test]
    fn a_stop_string_over_three_tokens_is_found_and_hidden() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), ("a ".into(), true));
    }

    #[test]
    fn a_start_that_leads_nowhere_is_shown_after_all() {
        assert_eq!(run(&["END"], &["a EN", "E"]), ("a ENE".into(), false));
        assert_eq!(run(&["END"], &["a EN"]), ("a EN".into(), false));
    }

    #[test]
    fn a_repeated_start_is_still_found() {
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
    }

    #[test]
    fn only_a_possible_start_is_held_back() {
        let mut watch = StopWatch::new(vec!["\n\nUser:".into()]);
        assert_eq!(watch.push("hello\n"), "hello");
        assert_eq!(watch.push("x"), "\nx");
    }

    #[test]
    fn the_match_that_is_complete_first_wins() {
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), ("a".into(), true));
        assert_eq!(run(&["bc", "abc"], &["xabc"]), ("x".into(), true));
    }

    /// Character by character, the plain way.
    fn reference(stops: &[String], text: &str) -> (String, bool) {
        let mut seen = String::new();
        for character in text.chars() {
            seen.push(character);
            let longest = stops.iter().filter(|stop| seen.ends_with(stop.as_str())).max_by_key(|stop| stop.len());
            if let Some(stop) = longest {
                seen.truncate(seen.len() - stop.len());
                return (seen, true);
            }
        }
        (seen, false)
    }

    proptest! {
        #[test]
        fn how_the_text_is_cut_does_not_matter(
            chunks in prop::collection::vec("[abü]{0,4}", 0..12),
            stops in prop::collection::vec("[abü]{1,4}", 0..4),
        ) {
            let whole = chunks.concat();
            let stop_refs: Vec<_> = stops.iter().map(String::as_str).collect();
            let chunk_refs: Vec<_> = chunks.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stop_refs, &chunk_refs), reference(&stops, &whole));
        }
    }
}
