//! What can go wrong, and how often.

use super::random::Random;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A replica's process dies, its workers with it.
    ReplicaDies,
    /// A replica is stopped, and goes on later.
    ReplicaFreezes,
    /// A replica is drained and started again, as in a roll-out.
    ReplicaLeaves,
    /// A connection breaks.
    ConnectionBreaks,
    /// What a node sends and is sent comes late.
    Partition,
    /// One message comes late, and with it all behind it.
    Delay,
    /// One message does not come at all.
    Loss,
    /// A worker's process dies.
    WorkerDies,
    /// A worker hangs until its owner kills it.
    WorkerHangs,
    /// A worker fails at one job.
    WorkerFails,
    /// The broker is killed, and started again without its newest records.
    BrokerDies,
    /// The streams are without a leader for some seconds; what is written meanwhile may land at the end, or not.
    Election,
    /// The log is deleted, and made anew.
    LogLost,
    /// The queue is deleted, and made anew.
    QueueLost,
    /// The broker's disk is full for a while.
    DiskFull,
    /// A job is delivered once more.
    DuplicateDelivery,
    /// A client's connection breaks.
    ClientLeaves,
    /// A client asks for its job once more.
    AskedAgain,
}

impl Fault {
    /// All of them, with how often each is drawn beside the others.
    pub(super) const ALL: [(Self, u64); 18] = [
        (Self::ReplicaDies, 4),
        (Self::ReplicaFreezes, 4),
        (Self::ReplicaLeaves, 1),
        (Self::ConnectionBreaks, 8),
        (Self::Partition, 3),
        (Self::Delay, 20),
        (Self::Loss, 20),
        (Self::WorkerDies, 10),
        (Self::WorkerHangs, 4),
        (Self::WorkerFails, 3),
        (Self::BrokerDies, 3),
        (Self::Election, 3),
        (Self::LogLost, 3),
        (Self::QueueLost, 5),
        (Self::DiskFull, 1),
        (Self::DuplicateDelivery, 4),
        (Self::ClientLeaves, 6),
        (Self::AskedAgain, 6),
    ];
}

/// Which faults one episode has, and how often one happens: each episode draws its own mixture, so that also pairs that
/// would drown in the company of all others come about.
#[derive(Debug, Clone)]
pub(super) struct Mixture {
    /// Chances in a million, at each message.
    pub(super) rate: u64,
    kinds: Vec<(Fault, u64)>,
    total: u64,
}

impl Mixture {
    pub(super) fn draw(random: &mut Random) -> Self {
        // Three servers have elections; one alone is killed and started again.
        let cluster = random.chance(500_000);
        let rate = [500, 2_000, 8_000, 20_000, 40_000][random.index(5)];
        let few = random.chance(500_000);
        let fits = |fault: Fault| match fault {
            Fault::Election => cluster,
            Fault::BrokerDies | Fault::LogLost => !cluster,
            Fault::ReplicaDies
            | Fault::ReplicaFreezes
            | Fault::ReplicaLeaves
            | Fault::ConnectionBreaks
            | Fault::Partition
            | Fault::Delay
            | Fault::Loss
            | Fault::WorkerDies
            | Fault::WorkerHangs
            | Fault::WorkerFails
            | Fault::QueueLost
            | Fault::DiskFull
            | Fault::DuplicateDelivery
            | Fault::ClientLeaves
            | Fault::AskedAgain => true,
        };
        let mut kinds: Vec<(Fault, u64)> = Vec::new();
        for (fault, weight) in Fault::ALL {
            if fits(fault) && (!few || random.chance(300_000)) {
                kinds.push((fault, weight));
            }
        }
        if kinds.is_empty() {
            kinds.push((Fault::Loss, 1));
        }
        let total = kinds.iter().map(|(_, weight)| weight).sum();
        Self { rate, kinds, total }
    }

    pub(super) fn pick(&self, random: &mut Random) -> Fault {
        let mut at = random.below(self.total);
        for (fault, weight) in &self.kinds {
            if at < *weight {
                return *fault;
            }
            at -= weight;
        }
        unreachable!("the total is that of the weights")
    }
}
