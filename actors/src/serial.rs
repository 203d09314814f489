//! Maps by serial numbers: of children, runs, timers, actors.
//!
//! Owns a hash for keys that this process counts up itself. It must never hash what somebody outside chooses, who could
//! choose collisions. The standard library's hash, which guards against that, was one instruction in thirteen of what
//! starts, restarts and stops cost.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are serial numbers.
pub(crate) type SerialMap<K, V> = HashMap<K, V, BuildHasherDefault<SerialHasher>>;

/// A map with room for so many.
pub(crate) fn with_room<K, V>(count: usize) -> SerialMap<K, V> {
    SerialMap::with_capacity_and_hasher(count, BuildHasherDefault::default())
}

/// Multiplies by 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4), which spreads consecutive numbers.
#[derive(Clone, Copy, Default)]
pub(crate) struct SerialHasher(u64);

impl Hasher for SerialHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The discriminant of an enum.
    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs() as u64);
    }

    /// The map looks at both ends of the hash, and the product is mixed best at its high end.
    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }
}
