//! Names of streams and buckets.

/// Accepted jobs, a work queue: a job stays until it is settled.
pub const JOBS: &str = "HALM_JOBS";
/// Fences and token records of unfinished jobs.
pub const LOG: &str = "HALM_LOG";
/// Outcomes: the one truth about how a job ended.
pub const DONE: &str = "HALM_DONE";
/// Quarantined jobs, kept for people to look into.
pub const DEAD: &str = "HALM_DEAD";
