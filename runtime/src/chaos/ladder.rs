//! The ladder: every fault by name, what it does, and what must happen then.

use std::time::Duration;

use serde::Serialize;

use super::target::Place;

/// A fault that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rung {
    WorkerKill,
    WorkerHang,
    WorkerAbort,
    ReplicaKill,
    ReplicaFreeze,
    ReplicaDrain,
    BrokerStop,
    BrokerKill,
    LeaderKill,
    LinkReset,
    LinkDelay,
    LinkStall,
    PartitionOut,
    PartitionIn,
    Partition,
    ClientReset,
    RollingRestart,
    SeveralAtOnce,
    Poison,
    ConsumerDelete,
}

/// What a rung is, for people and for the schedule.
#[derive(Debug)]
pub(crate) struct Step {
    rung: Rung,
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) does: &'static str,
    /// What must happen.
    pub(crate) must: &'static str,
    /// What it is given on the schedule: until all is whole again, on a busy machine, and a moment of calm.
    room_s: u64,
}

/// Faults that are known and cannot be made from outside of a worker process, or of this host.
pub(crate) const NOT_THERE: [(&str, &str); 5] = [
    ("worker-nan", "logits that are no numbers: needs a fault inside the worker"),
    ("worker-garbage", "noise on the worker's pipe: needs a fault inside the worker"),
    ("worker-bomb", "a worker that allocates without end: needs a fault inside the worker"),
    ("broker-partition", "brokers that do not hear each other: needs hosts of their own"),
    ("disk-full", "a store that takes nothing more: needs a disk of its own"),
];

const GOES_ON: &str = "streams pause and go on at another worker, to the same text";
const HANDS_OVER: &str = "a peer takes its jobs over; streams pause and go on to the same text";
const RECONNECTS: &str = "everybody connects to the next broker, fences again, and goes on to the same text";

/// From the bottom up, each at the place of its rung.
static STEPS: [Step; 20] = [
    Step {
        rung: Rung::WorkerKill,
        name: "worker-kill",
        does: "SIGKILL to a worker that computes",
        must: GOES_ON,
        room_s: 5,
    },
    Step {
        rung: Rung::WorkerHang,
        name: "worker-hang",
        does: "SIGSTOP to a worker that computes",
        must: "it is noticed within its time, killed and replaced; streams go on to the same text",
        room_s: 7,
    },
    Step {
        rung: Rung::WorkerAbort,
        name: "worker-abort",
        does: "SIGABRT to a worker that computes",
        must: GOES_ON,
        room_s: 5,
    },
    Step {
        rung: Rung::ReplicaKill,
        name: "replica-kill",
        does: "SIGKILL to a replica with jobs; started again a second later",
        must: HANDS_OVER,
        room_s: 8,
    },
    Step {
        rung: Rung::ReplicaFreeze,
        name: "replica-freeze",
        does: "SIGSTOP to a replica with jobs, SIGCONT once its peers have given it up",
        must: "peers take over; what thaws finds its fences gone and changes nothing that a client sees",
        room_s: 9,
    },
    Step {
        rung: Rung::ReplicaDrain,
        name: "replica-drain",
        does: "SIGTERM to a replica, started again when it has ended",
        must: "it ends with exit code 0, and no request fails",
        room_s: 9,
    },
    Step {
        rung: Rung::BrokerStop,
        name: "broker-stop",
        does: "SIGTERM to a broker, started again a second later",
        must: RECONNECTS,
        room_s: 10,
    },
    Step {
        rung: Rung::BrokerKill,
        name: "broker-kill",
        does: "SIGKILL to a broker, started again a second later",
        must: RECONNECTS,
        room_s: 10,
    },
    Step {
        rung: Rung::LeaderKill,
        name: "leader-kill",
        does: "SIGKILL to the broker that leads the token log, started again a second later",
        must: "the other brokers elect a leader (4 to 8 s); streams wait for it and go on to the same text",
        room_s: 14,
    },
    Step {
        rung: Rung::LinkReset,
        name: "link-reset",
        does: "RST to every connection of one replica to the brokers",
        must: "it connects again, fences again, and goes on to the same text",
        room_s: 5,
    },
    Step {
        rung: Rung::LinkDelay,
        name: "link-delay",
        does: "100 ms each way on one replica's connections, for 3 s",
        must: "chunks get larger, and nothing is given up",
        room_s: 7,
    },
    Step {
        rung: Rung::LinkStall,
        name: "link-stall",
        does: "no byte passes between one replica and the brokers for 2 s, then all of them do",
        must: HANDS_OVER,
        room_s: 7,
    },
    Step {
        rung: Rung::PartitionOut,
        name: "partition-out",
        does: "one replica hears the brokers, and they do not hear it, for 6 s",
        must: HANDS_OVER,
        room_s: 11,
    },
    Step {
        rung: Rung::PartitionIn,
        name: "partition-in",
        does: "the brokers hear one replica, and it does not hear them, for 6 s",
        must: HANDS_OVER,
        room_s: 11,
    },
    Step {
        rung: Rung::Partition,
        name: "partition",
        does: "one replica is cut off from every broker for 6 s",
        must: HANDS_OVER,
        room_s: 11,
    },
    Step {
        rung: Rung::ClientReset,
        name: "client-reset",
        does: "RST to every connection of the clients",
        must: "they connect again; what they missed is in the final record",
        room_s: 5,
    },
    Step {
        rung: Rung::RollingRestart,
        name: "rolling-restart",
        does: "every replica in turn: SIGTERM, started again when it has ended, until it is ready",
        must: "each ends with exit code 0, and no request fails",
        room_s: 15,
    },
    Step {
        rung: Rung::SeveralAtOnce,
        name: "several-at-once",
        does: "SIGKILL to a replica, to a worker of another and to a broker, in the same moment",
        must: "what is left of each takes over; nothing accepted is lost",
        room_s: 14,
    },
    Step {
        rung: Rung::Poison,
        name: "poison",
        does: "SIGKILL to whichever worker computes one certain job, again and again",
        must: "that job ends as poison and is kept for people; no other job notices more than a pause",
        room_s: 12,
    },
    Step {
        rung: Rung::ConsumerDelete,
        name: "consumer-delete",
        does: "deletes the consumer of the job stream",
        must: "replicas make it again; what was delivered comes again, and no job is lost",
        room_s: 5,
    },
];

impl Rung {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        STEPS.iter().map(|step| step.rung)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().find(|rung| rung.step().name == name)
    }

    pub(crate) fn name(self) -> &'static str {
        self.step().name
    }

    /// What it is given on the schedule.
    pub(crate) fn room(self) -> Duration {
        Duration::from_secs(self.step().room_s)
    }

    /// Whether it is a stop that an operator plans, and INV-8 speaks of.
    pub(crate) fn is_planned(self) -> bool {
        matches!(self, Self::ReplicaDrain | Self::RollingRestart)
    }

    pub(crate) fn step(self) -> &'static Step {
        &STEPS[self as usize]
    }
}

/// The ladder as `halm chaos --list` prints it.
pub(crate) fn list(place: Place) -> String {
    let mut text = format!("target: {}\n\n", place.describe());
    for rung in Rung::all() {
        let step = rung.step();
        text.push_str(&format!("{:<16} {}\n{:<16} must: {}\n", step.name, step.does, "", step.must));
        if let Some(why) = place.cannot(rung) {
            text.push_str(&format!("{:<16} not here: {why}\n", ""));
        }
    }
    text.push_str("\nnot there yet:\n");
    for (name, why) in NOT_THERE {
        text.push_str(&format!("{name:<16} {why}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_has_a_name_of_its_own_by_which_it_is_found() {
        for rung in Rung::all() {
            assert_eq!(rung.step().rung, rung, "a step is at another's place");
            assert_eq!(Rung::named(rung.name()), Some(rung));
            assert_eq!(serde_json::to_value(rung).expect("a name"), rung.name());
        }
    }
}
