//! The text that is measured on.

use halm_models::{Specials, TokenId, Tokenizer};

/// Jane Austen, *Persuasion* (December 1817, dated 1818), chapters 1 to 4: in the public domain everywhere. The wording is
/// that of Project Gutenberg's etext 105, by way of Debian's `r-cran-janeaustenr` 1.0.0, compared with a second
/// transcription; each paragraph is one line, and of two spaces between sentences one is left.
pub const PERSUASION: &str = include_str!("../../fixtures/persuasion.txt");

/// Cuts a text into windows of `length` tokens, each beginning with the start token if the model wants one. What is left
/// at the end and fills no window is left out.
///
/// # Panics
/// When the text cannot be tokenized.
#[must_use]
pub fn windows(tokenizer: &Tokenizer, text: &str, length: usize) -> Vec<Vec<TokenId>> {
    let tokens = tokenizer.encode(text, Specials::AsText).expect("it is plain text");
    let prompt = tokenizer.encode_prompt(text, Specials::AsText).expect("it is plain text");
    let start = &prompt[..prompt.len() - tokens.len()];
    let pieces = tokens.chunks_exact(length - start.len());
    pieces.map(|piece| start.iter().chain(piece).copied().collect()).collect()
}
