//! Ids and paths of children: `root/pools/smollm2@1/workers/2`.
//!
//! Owns what a valid segment is. It must never touch ractor's global registry: a path names a place in a tree, and two
//! trees in one process do not collide.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Longest id of one child, in bytes: ids are log fields and NATS-safe enough to be read at a glance.
pub const CHILD_ID_BYTES_MAX: usize = 128;

/// One segment of a path: printable ASCII without a slash or white space.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(Arc<str>);

/// An id that cannot be a path segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("child id `{0}` is not 1 to {CHILD_ID_BYTES_MAX} printable ASCII characters without `/`: choose another id")]
pub struct InvalidId(pub String);

impl ChildId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the `number`th dynamic child.
    pub(crate) fn numbered(number: u64) -> Self {
        Self(Arc::from(number.to_string()))
    }
}

impl TryFrom<&str> for ChildId {
    type Error = InvalidId;

    fn try_from(text: &str) -> Result<Self, InvalidId> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if text.is_empty() || text.len() > CHILD_ID_BYTES_MAX || !printable {
            return Err(InvalidId(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for ChildId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A place in a supervision tree, segments joined by `/`, the root's id first.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildPath(Arc<str>);

impl ChildPath {
    /// The path of a tree's root.
    pub fn root(id: &ChildId) -> Self {
        Self(Arc::clone(&id.0))
    }

    /// The path of a child of this place.
    pub fn child(&self, id: &ChildId) -> Self {
        Self(Arc::from([&*self.0, "/", id.as_str()].concat()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The segments from the root down.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl TryFrom<&str> for ChildPath {
    type Error = InvalidId;

    fn try_from(text: &str) -> Result<Self, InvalidId> {
        for segment in text.split('/') {
            ChildId::try_from(segment)?;
        }
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for ChildPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for ChildPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_printable_path_segment() {
        for valid in ["workers", "smollm2@1", "2", "a.b-c_d"] {
            assert_eq!(ChildId::try_from(valid).expect("valid").as_str(), valid);
        }
        let too_long = "x".repeat(CHILD_ID_BYTES_MAX + 1);
        for invalid in ["", "a/b", "a b", "tab\t", "é", too_long.as_str()] {
            assert!(ChildId::try_from(invalid).is_err(), "{invalid:?} was accepted");
        }
    }

    #[test]
    fn a_path_grows_by_a_child_and_splits_again() {
        let root = ChildPath::root(&ChildId::try_from("root").expect("valid"));
        let worker = root.child(&ChildId::try_from("pools").expect("valid")).child(&ChildId::numbered(2));
        assert_eq!(worker.as_str(), "root/pools/2");
        assert_eq!(worker.name(), "2");
        assert_eq!(worker.segments().collect::<Vec<_>>(), ["root", "pools", "2"]);
        assert_eq!(ChildPath::try_from("root/pools/2"), Ok(worker));
        assert!(ChildPath::try_from("root//2").is_err());
    }
}
