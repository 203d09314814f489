//! What goes over the wire between a node and the broker.

use std::rc::Rc;

use halm_actors::dispatcher::{Effect, OpResult};
use halm_actors::ports::{Admitted, Delivery, IntakeFault, LogTarget, Record};
use halm_protocol::{Beat, Notice, Outcome};

use super::jetstream::Delivered;

/// Who is connected to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Replica(usize),
    /// The client of a job.
    Client(usize),
}

/// Tells the answers to one node's calls apart; never used twice.
pub(super) type CallId = u64;

/// What a replica does with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    Ack,
    Nak,
    Progress,
}

/// From a node to the broker.
#[derive(Debug, Clone)]
pub(super) enum Call {
    /// A call of the dispatcher's core.
    Port(Box<Effect>),
    /// An end, offered to a client directly.
    Deliver {
        job: usize,
        outcome: Rc<Outcome>,
    },
    /// Is this replica connected?
    Ping {
        replica: usize,
    },
    /// Jobs, please.
    Pull {
        jobs: usize,
    },
    Settle {
        settle: Settle,
        delivered: u64,
        job: usize,
    },
    Purge(Box<LogTarget>),
    Beat(Rc<Beat>),
    /// A client asks for its job.
    Ask,
    /// A client does not want its job any more.
    Cancel,
    /// A job for the queue.
    Store {
        job: usize,
    },
    /// An answer to a client, whether it listens or not.
    Tell {
        job: usize,
        outcome: Rc<Outcome>,
    },
    /// What a replica says of a request.
    Notice(Rc<Notice>),
}

/// From the broker to a node.
#[derive(Debug, Clone)]
pub(super) enum Word {
    Result(CallId, OpResult),
    /// Whether somebody listened.
    Listened(CallId, bool),
    /// A delivery for a pull.
    Job(usize, Delivery),
    Beat(Rc<Beat>),
    /// A request, as a witness or as the one who was picked.
    Request {
        job: usize,
        taken: bool,
    },
    Notice(Rc<Notice>),
    /// A cancellation.
    Cancel {
        job: usize,
    },
    /// An outcome was stored.
    Settled {
        job: usize,
    },
    /// Whether a job was stored.
    Stored(CallId, Result<Admitted, IntakeFault>),
    /// To a client: a record of its job.
    Record(Rc<Record>),
    /// To a client: the end of its job, directly.
    End(Rc<Outcome>),
}

/// The sequence in the subject on which a delivery of a job is acknowledged.
pub(super) fn ack_subject(job: usize, delivered: Delivered) -> String {
    let Delivered { stream_sequence, consumer_sequence, deliveries } = delivered;
    format!("$JS.ACK.HALM_JOBS.m.{deliveries}.{stream_sequence}.{consumer_sequence}.0.j{job}")
}

/// The job and the stream sequence that a subject acknowledges.
pub(super) fn acknowledged(subject: &str) -> (usize, u64) {
    let mut tokens = subject.rsplit('.');
    let job = tokens.next().and_then(|token| token.strip_prefix('j')?.parse().ok());
    let sequence = tokens.nth(2).and_then(|token| token.parse().ok());
    job.zip(sequence).expect("a subject of ours")
}
