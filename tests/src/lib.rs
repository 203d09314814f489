//! What breaks halm: fixtures, faults, and a test per promise.

pub mod weights;
