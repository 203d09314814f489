//! Bytes of tokens to text, a token at a time.
//!
//! Owns the few bytes of a character that is not complete yet. It never emits half a character and never
//! withholds a whole one; what can no longer become a character is U+FFFD at once, and an unfinished one at
//! the end is U+FFFD too, so that the pieces together are exactly `String::from_utf8_lossy` of all bytes.
//! Called by [`crate::Generation`].

/// Turns a stream of bytes, cut anywhere, into a stream of whole characters.
#[derive(Debug, Clone, Default)]
pub struct Detokenizer {
    /// Invariant: a proper prefix of one character's encoding, three bytes at most.
    unfinished: Vec<u8>,
}

impl Detokenizer {
    /// A detokenizer at the start of a text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of the next token and returns what is certain now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.unfinished.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.unfinished);
        let mut rest = pending.as_slice();
        let mut text = String::new();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(length) = error.error_len() else {
                        self.unfinished = broken.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &broken[length..];
                }
            }
        }
    }

    /// Ends the text: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let unfinished = std::mem::take(&mut self.unfinished);
        String::from_utf8_lossy(&unfinished).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Detokenizer;
    use proptest::prelude::*;

    fn whole(chunks: &[Vec<u8>]) -> String {
        let mut detokenizer = Detokenizer::new();
        let mut text: String = chunks.iter().map(|chunk| detokenizer.push(chunk)).collect();
        text.push_str(&detokenizer.finish());
        text
    }

    #[test]
    fn a_character_cut_in_four_is_emitted_once_it_is_whole() {
        let mut detokenizer = Detokenizer::new();
        let crab = "🦀".as_bytes();
        for byte in &crab[..3] {
            assert_eq!(detokenizer.push(&[*byte]), "");
        }
        assert_eq!(detokenizer.push(&crab[3..]), "🦀");
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn an_unfinished_character_at_the_end_is_one_replacement() {
        let mut detokenizer = Detokenizer::new();
        assert_eq!(detokenizer.push(b"a\xf0\x9f\xa6"), "a");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn what_cannot_become_a_character_is_not_withheld() {
        let mut detokenizer = Detokenizer::new();
        assert_eq!(detokenizer.push(b"\xff"), "\u{fffd}");
        assert_eq!(detokenizer.push(b"\xe2\x82"), "");
        assert_eq!(detokenizer.push(b"x"), "\u{fffd}x");
    }

    proptest! {
        #[test]
        fn pieces_together_are_the_lossy_text_of_all_bytes(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..20),
        ) {
            let all = chunks.concat();
            prop_assert_eq!(whole(&chunks), String::from_utf8_lossy(&all));
        }

        #[test]
        fn valid_text_cut_anywhere_never_shows_a_replacement(text in "\\PC{0,20}", cut in 1_usize..5) {
            let mut detokenizer = Detokenizer::new();
            let mut seen = String::new();
            for chunk in text.as_bytes().chunks(cut) {
                seen.push_str(&detokenizer.push(chunk));
                prop_assert!(text.starts_with(&seen), "{:?} is no prefix of {:?}", seen, text);
            }
            prop_assert_eq!(seen, text);
        }
    }
}
