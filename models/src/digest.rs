//! The digest of a weights file: its identity.
//!
//! Owns the newtype and the hashing of a file. Two files with one digest are one model. Called by whoever fetches,
//! caches or pins weights.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A SHA-256 in 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a SHA-256 digest; 64 hexadecimal digits are needed")]
pub struct InvalidDigest {
    /// The text.
    pub text: String,
}

impl Digest {
    /// Hashes the file at `path`.
    ///
    /// # Errors
    /// Whatever opening or reading it meets.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                count => hash.update(&chunk[..count]),
            }
        }
        Ok(Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(InvalidDigest { text: text.to_owned() })
    }
}

impl TryFrom<&str> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;
    use std::io::Write;

    #[test]
    fn the_digest_of_abc_is_the_standards_own_example() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(b"abc").expect("three bytes fit");
        let digest = Digest::of_file(file.path()).expect("the file is there");
        let expected = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert_eq!(digest, expected.parse().expect("64 digits"));
    }

    #[test]
    fn a_text_that_is_no_digest_is_named() {
        for text in ["", "abc", &"g".repeat(64), &"ä".repeat(32)] {
            let error = text.parse::<Digest>().expect_err("no digest");
            assert_eq!(error.text, text);
        }
    }
}
