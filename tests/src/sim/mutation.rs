//! Bugs that can be planted, to see whether the simulation finds them. Each is one that somebody could write.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The job is acknowledged before its final record is stored.
    AckBeforeFinal,
    /// The job is acknowledged before its outcome is stored.
    AckBeforeOutcome,
    /// A worker that resumes leaves one token out.
    ResumeLate,
    /// Appends expect nothing of the fence.
    NoFence,
    /// After an append without an answer the log is read and the append tried again under the same fence.
    RetryUnderOldFence,
    /// An append goes out over whatever connection there is, also one that its fence was not acknowledged over.
    AppendOverAnotherConnection,
    /// A holder keeps its fence when the stream was made anew, and sequences begin at 1 again.
    FenceKeptAcrossStreams,
    /// Records of the log have a greatest age.
    AgeLimitOnLog,
    /// Whether a job was settled before is left to the broker's duplicate detection.
    TrustInDedup,
    /// Deliveries are counted as deaths.
    RedeliveriesAreAttempts,
    /// Of a dead peer, one delivery more is given back than it said that it held.
    NakUnannounced,
    /// A final record is offered once.
    FinalOnce,
    /// Appends do not wait for each other.
    PipelinedAppends,
    /// Witnesses store what nobody else stored, whatever is said of it.
    WitnessOverrules,
    /// A job is cancelled as soon as nobody listens for a record of it.
    CancelOnFirst503,
    /// A queue that was made anew begins at sequence 1 again: what acknowledged a job of the one before acknowledges another's.
    QueueBeginsAtOne,
    /// What the queue lost is stored again by nobody.
    QueueNotFilledAgain,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::AckBeforeFinal,
        Self::AckBeforeOutcome,
        Self::ResumeLate,
        Self::NoFence,
        Self::RetryUnderOldFence,
        Self::AppendOverAnotherConnection,
        Self::FenceKeptAcrossStreams,
        Self::AgeLimitOnLog,
        Self::TrustInDedup,
        Self::RedeliveriesAreAttempts,
        Self::NakUnannounced,
        Self::FinalOnce,
        Self::PipelinedAppends,
        Self::WitnessOverrules,
        Self::CancelOnFirst503,
        Self::QueueBeginsAtOne,
        Self::QueueNotFilledAgain,
    ];
}
