//! The core under test: one rule at a time over a [`desk`], and all of them at once in a [`world`] of faults.

mod claiming;
mod classes;
mod computing;
mod desk;
mod history;
mod logging;
mod settling;
mod storm;
mod suspects;
mod world;
