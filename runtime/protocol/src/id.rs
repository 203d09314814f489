//! Names that become part of a subject: jobs, models, replicas and their incarnations.
//!
//! Each is a newtype whose constructor refuses whatever is not one plain subject token, so that no name from outside
//! can add a level, a wildcard or a space to a subject.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Longest name, in bytes: what a person still reads, and far below what a subject may hold.
const NAME_BYTES_MAX: usize = 64;

/// A name that cannot be one token of a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not a name: use 1 to 64 of a-z, A-Z, 0-9, '-' and '_'")]
pub struct InvalidId {
    what: &'static str,
    value: String,
}

fn token(what: &'static str, value: &str) -> Result<String, InvalidId> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if value.is_empty() || value.len() > NAME_BYTES_MAX || !value.chars().all(plain) {
        let value = value.chars().take(NAME_BYTES_MAX).collect();
        return Err(InvalidId { what, value });
    }
    Ok(value.to_owned())
}

macro_rules! token_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The token as it stands in a subject.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(value: String) -> Result<Self, InvalidId> {
                token($what, &value).map(Self)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;

            fn try_from(value: &str) -> Result<Self, InvalidId> {
                token($what, value).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

token_type!(
    /// An accepted request. Also its `Nats-Msg-Id`.
    JobId,
    "job"
);
token_type!(
    /// A model as it stands in a subject: the catalogue name with `:` and `.` as `-`, or its alias.
    ModelToken,
    "model"
);
token_type!(
    /// One replica, by the name that its operator gave it (the host's name by default).
    ReplicaName,
    "replica"
);
token_type!(
    /// One life of a replica: a restarted one has the same name and another incarnation.
    Incarnation,
    "incarnation"
);

impl JobId {
    /// The id of a request: the same request with the same key gets the same id from every replica.
    ///
    /// `model` is the model's token, or what was asked for instead of one; `key` is the client's idempotency key, or else its reply inbox, which no two requests share.
    #[must_use]
    pub fn derive(model: &str, key: &str, payload: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in [model.as_bytes(), key.as_bytes(), payload] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hex(&hash.finalize()[..16]))
    }
}

impl ModelToken {
    /// The token of a catalogue name such as `smollm2:135m`.
    ///
    /// # Errors
    /// If the name holds anything but letters, digits, `-`, `_`, `:` and `.`.
    pub fn of_name(name: &str) -> Result<Self, InvalidId> {
        Self::try_from(name.replace([':', '.'], "-"))
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_change_a_subject_is_refused() {
        for name in ["", "a.b", "a b", "*", ">", "a\n", "ä", &"x".repeat(65)] {
            assert!(JobId::try_from(name).is_err(), "{name:?} was taken");
        }
        assert!(ReplicaName::try_from("halm-1_B").is_ok());
    }

    #[test]
    fn a_job_id_depends_on_model_key_and_payload_and_on_where_each_ends() {
        let model = ModelToken::of_name("smollm2:135m").expect("a catalogue name");
        assert_eq!(model.as_str(), "smollm2-135m");
        let id = JobId::derive(model.as_str(), "_INBOX.a", b"xy");
        assert_eq!(id, JobId::derive(model.as_str(), "_INBOX.a", b"xy"));
        assert_ne!(id, JobId::derive(model.as_str(), "_INBOX.ax", b"y"));
        assert_eq!(id.as_str().len(), 32);
    }
}
