//! Connections, and what goes over them: from a node to the broker, what the broker does with it, and back.

use std::rc::Rc;

use halm_actors::dispatcher::Effect;
use halm_actors::ports::{AckSubject, Delivery, Record};
use halm_protocol::{CancelledBy, Outcome};

use super::broker::{Landed, PortKind, Pull, Stalled, number};
use super::call::{Call, CallId, Node, Settle, Word, ack_subject};
use super::judge::{Broken, Verdict, broken};
use super::mutation::Mutation;
use super::world::{Happening, World};

/// A job's second attempt is nobody's mistake if its holder was disturbed this lately: the ack wait, and some more.
const DISTURBED_FOR_US: u64 = 25_000_000;
/// How long a message is on its way.
const LATENCY_US: (u64, u64) = (60, 300);

/// A node's connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    pub(super) connection: u64,
    pub(super) up: bool,
    /// Messages of connections below this died with the broker.
    pub(super) floor: u64,
    pub(super) blocked_until_us: u64,
    last_up_us: u64,
    last_down_us: u64,
    pub(super) disturbed_us: Option<u64>,
}

impl Link {
    /// The first connection of a node.
    pub(super) fn first() -> Self {
        Self { connection: 1, up: true, ..Self::default() }
    }
}

impl World {
    /// A node hands a message to its connection.
    pub(super) fn send(&mut self, from: Node, id: CallId, call: Call) {
        if self.strikes(from) {
            self.lost_alone(&call);
            return;
        }
        let index = self.index(from);
        if !self.links[index].up {
            // A port's append is bound to its connection.
            if self.mutation != Some(Mutation::AppendOverAnotherConnection) && is_append(&call) {
                return;
            }
            // As the client library does: it goes out over the next connection.
            self.outboxes[index].push((id, call));
            return;
        }
        let latency_us = self.random.between(LATENCY_US.0, LATENCY_US.1);
        let now_us = self.now_us;
        let link = &mut self.links[index];
        link.last_up_us = (now_us + latency_us).max(link.last_up_us + 1).max(link.blocked_until_us);
        let (at_us, connection) = (link.last_up_us, link.connection);
        self.schedule(at_us, Happening::Up { from, connection, id, call });
    }

    /// The broker hands a message to a connection.
    pub(super) fn answer(&mut self, to: Node, connection: u64, word: Word) {
        if self.strikes(to) {
            self.vanished(to, &word);
            return;
        }
        let latency_us = self.random.between(LATENCY_US.0, LATENCY_US.1);
        let now_us = self.now_us;
        let link = self.link(to);
        if !link.up || link.connection != connection {
            self.vanished(to, &word);
            return;
        }
        link.last_down_us = (now_us + latency_us).max(link.last_down_us + 1).max(link.blocked_until_us);
        let at_us = link.last_down_us;
        self.schedule(at_us, Happening::Down { to, connection, word });
    }

    /// A message was lost, and its connection lives: not so in the field, and nobody would say an answer again.
    fn lost_alone(&mut self, call: &Call) {
        if let Call::Tell { job, .. } = call {
            self.jobs[*job].answered_us = Some(self.now_us);
        }
    }

    /// A message was lost with its connection, when the broker had handed it over: nobody can know of that.
    pub(super) fn vanished(&mut self, to: Node, word: &Word) {
        if let (Node::Client(job), Word::End(_)) = (to, word) {
            self.jobs[job].away = true;
        }
    }

    /// A message reaches the broker.
    pub(super) fn arrive(&mut self, from: Node, connection: u64, id: CallId, call: Call) -> Verdict {
        let link = *self.link(from);
        if !self.broker.up || connection < link.floor {
            return Ok(());
        }
        // Of a connection that broke, what was on its way may have come, or not.
        if connection != link.connection && self.random.chance(500_000) {
            return Ok(());
        }
        if self.strikes(from) {
            self.lost_alone(&call);
            return Ok(());
        }
        if !self.broker.up {
            return Ok(());
        }
        if self.broker.leaderless {
            match &call {
                Call::Port(effect) if PortKind::of(effect).is_some_and(|(_, kind)| kind.writes()) => {
                    self.broker.stalled.push(Stalled { from, connection, id, call });
                    return Ok(());
                }
                Call::Store { .. } => {
                    self.broker.stalled.push(Stalled { from, connection, id, call });
                    return Ok(());
                }
                Call::Port(_) | Call::Settle { .. } | Call::Purge(_) | Call::Pull { .. } => return Ok(()),
                Call::Deliver { .. }
                | Call::Ping { .. }
                | Call::Beat(_)
                | Call::Ask
                | Call::Cancel
                | Call::Tell { .. }
                | Call::Notice(_) => {}
            }
        }
        self.perform_call(from, connection, id, call)
    }

    pub(super) fn perform_call(&mut self, from: Node, connection: u64, id: CallId, call: Call) -> Verdict {
        match call {
            Call::Port(effect) => {
                let (result, landed) = self.broker.perform(&effect, self.now_us);
                if let Some(landed) = landed {
                    self.landed(from, landed)?;
                }
                self.answer(from, connection, Word::Result(id, result));
            }
            Call::Deliver { job, outcome } => {
                let client = Node::Client(job);
                let to = *self.link(client);
                if to.up {
                    self.answer(client, to.connection, Word::End(outcome));
                }
                self.answer(from, connection, Word::Listened(id, to.up));
            }
            Call::Ping { replica } => {
                let connected = self.link(Node::Replica(replica)).up;
                self.answer(from, connection, Word::Listened(id, connected));
            }
            Call::Pull { jobs } => {
                if let Node::Replica(replica) = from
                    && self.link(from).connection == connection
                {
                    let until_us = self.now_us + 3_000_000;
                    self.broker.pulls.push_back(Pull { replica, connection, left: jobs, until_us });
                }
            }
            Call::Settle { settle, delivered, job } => match settle {
                Settle::Ack => {
                    if self.broker.consumer.ack(&mut self.broker.jobs, delivered, self.now_us) {
                        self.seen[job].acked();
                    }
                }
                Settle::Nak => self.broker.consumer.nak(delivered),
                Settle::Progress => self.broker.consumer.progress(delivered, self.now_us),
            },
            Call::Purge(target) => {
                if self.broker.purge(&target) > 0 {
                    self.seen[number(&target.job)].purged()?;
                }
            }
            Call::Beat(beat) => {
                for at in 0..self.replicas.len() {
                    let to = *self.link(Node::Replica(at));
                    if to.up {
                        self.answer(Node::Replica(at), to.connection, Word::Beat(Rc::clone(&beat)));
                    }
                }
            }
            Call::Cancel => {
                if let Node::Client(job) = from {
                    self.spread_cancel(job);
                }
            }
            Call::Ask => {
                if let Node::Client(job) = from {
                    self.spread(job);
                }
            }
            Call::Store { job } => {
                let result = self.store_job(job)?;
                self.answer(from, connection, Word::Stored(id, result));
            }
            Call::Tell { job, outcome } => {
                let client = Node::Client(job);
                let to = *self.link(client);
                if to.up {
                    self.answer(client, to.connection, Word::End(outcome));
                }
            }
            Call::Notice(notice) => {
                for at in 0..self.replicas.len() {
                    let to = *self.link(Node::Replica(at));
                    if to.up {
                        self.answer(Node::Replica(at), to.connection, Word::Notice(Rc::clone(&notice)));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn landed(&mut self, from: Node, landed: Landed) -> Verdict {
        match landed {
            Landed::Claim { job, claim } => {
                self.note(|| format!("claim of job {job} by {}, cancelled: {:?}", claim.incarnation, claim.cancelled));
                let Node::Replica(at) = from else { return Ok(()) };
                self.seen[job].claimed(&claim);
                if claim.cancelled == Some(CancelledBy::Bystander) {
                    return Ok(());
                }
                let life = self.replicas[at].life;
                let before = self.jobs[job].holder.replace((at, life));
                self.is_fair(job, before, (at, life))
            }
            Landed::Record { job, record, streamed } => {
                self.note(|| format!("record of job {job}: {}", brief(&record)));
                let of_job = |broken: Broken| Broken { seen: format!("job {job}: {}", broken.seen), ..broken };
                self.seen[job].landed(&record).map_err(of_job)?;
                if streamed {
                    let client = Node::Client(job);
                    let to = *self.link(client);
                    if to.up {
                        self.answer(client, to.connection, Word::Record(Rc::clone(&record)));
                    } else if self.mutation == Some(Mutation::CancelOnFirst503)
                        && let Node::Replica(at) = from
                    {
                        self.answer(from, self.links[at].connection, Word::Cancel { job });
                    }
                }
                Ok(())
            }
            Landed::Outcome { job, outcome } => {
                self.note(|| format!("outcome of job {job}"));
                for at in 0..self.replicas.len() {
                    self.answer(Node::Replica(at), self.links[at].connection, Word::Settled { job });
                }
                let of_job = |broken: Broken| Broken { seen: format!("job {job}: {}", broken.seen), ..broken };
                self.seen[job].ended(&outcome).map_err(of_job)?;
                if !self.broker.has(job) {
                    // The queue was lost, and nobody has put it there again: now nobody needs to.
                    self.seen[job].acked();
                }
                Ok(())
            }
        }
    }

    /// No second attempt begins while the first is in good health.
    pub(super) fn is_fair(&self, job: usize, before: Option<(usize, u32)>, after: (usize, u32)) -> Verdict {
        let Some((at, life)) = before.filter(|before| *before != after) else { return Ok(()) };
        let lately = |disturbed: Option<u64>| disturbed.is_some_and(|us| us + DISTURBED_FOR_US > self.now_us);
        let replica = &self.replicas[at];
        let holds = replica.alive && replica.life == life && replica.held.keys().any(|held| number(held) == job);
        let disturbed = lately(self.links[at].disturbed_us)
            || lately(self.links[after.0].disturbed_us)
            || lately(self.jobs[job].disturbed_us);
        let broker = self.broker_disturbed_us.iter().filter(|us| **us + DISTURBED_FOR_US > self.now_us).count();
        if !holds || disturbed || broker > 1 || self.seen[job].is_ended() {
            return Ok(());
        }
        broken("INV-5", format!("job {job} was claimed by replica {} while {at} ran it in good health", after.0))
    }

    /// A peer gives a job back. If its holder was disturbed, two peers may do so, and two replicas have it in turn.
    pub(super) fn given_back(&mut self, job: usize) {
        let Some((holder, _)) = self.jobs[job].holder else { return };
        let disturbed = self.links[holder].disturbed_us.max(self.jobs[job].disturbed_us);
        self.jobs[job].disturbed_us = disturbed;
    }

    pub(super) fn serve_pulls(&mut self) {
        if !self.broker.up {
            return;
        }
        while let Some((pull, job, delivered)) = self.broker.serve(self.now_us) {
            self.note(|| format!("job {job} is delivered to {}, delivery {}", pull.replica, delivered.deliveries));
            let ack = AckSubject::parse(&ack_subject(job, delivered)).expect("a subject of the job stream");
            let delivery = Delivery { ack, deliveries: delivered.deliveries };
            self.answer(Node::Replica(pull.replica), pull.connection, Word::Job(job, delivery));
        }
    }

    /// A message of the broker reaches a node.
    pub(super) fn reach(&mut self, to: Node, connection: u64, word: Word) -> Verdict {
        let link = *self.link(to);
        if !link.up || link.connection != connection {
            self.vanished(to, &word);
            return Ok(());
        }
        match to {
            Node::Replica(at) if self.replicas[at].alive => self.hear(at, word),
            Node::Replica(_) => Ok(()),
            Node::Client(job) => {
                let missed = self.jobs[job].missed;
                let of_job = |broken: Broken| Broken { seen: format!("job {job}: {}", broken.seen), ..broken };
                match word {
                    Word::Record(record) => {
                        self.jobs[job].missed = false;
                        self.seen[job].heard(&record, missed).map_err(of_job)
                    }
                    Word::End(outcome) => self.client_told(job, &outcome).map_err(of_job),
                    Word::Result(..)
                    | Word::Listened(..)
                    | Word::Job(..)
                    | Word::Beat(_)
                    | Word::Request { .. }
                    | Word::Notice(_)
                    | Word::Cancel { .. }
                    | Word::Settled { .. }
                    | Word::Stored(..) => Ok(()),
                }
            }
        }
    }

    pub(super) fn reconnect(&mut self, node: Node, connection: u64) -> Verdict {
        let link = *self.link(node);
        if link.up || link.connection != connection {
            return Ok(());
        }
        if !self.broker.up {
            self.after(100_000, Happening::Reconnect { node, connection });
            return Ok(());
        }
        let link = self.link(node);
        link.up = true;
        link.last_up_us = 0;
        link.last_down_us = 0;
        let index = self.index(node);
        for (id, call) in std::mem::take(&mut self.outboxes[index]) {
            self.send(node, id, call);
        }
        if let Node::Replica(replica) = node {
            let life = self.replicas[replica].life;
            self.after(1, Happening::Restored { replica, life });
        }
        Ok(())
    }

    /// Drops a node's connection. What was on its way may have come, or not.
    pub(super) fn cut(&mut self, node: Node) {
        let broker_up = self.broker.up;
        let link = self.link(node);
        link.up = false;
        link.connection += 1;
        if !broker_up {
            link.floor = link.connection;
        }
        link.blocked_until_us = 0;
        match node {
            Node::Replica(at) => self.broker.pulls.retain(|pull| pull.replica != at),
            Node::Client(job) => self.jobs[job].missed = true,
        }
    }

    pub(super) fn reconnect_after(&mut self, node: Node, low_us: u64, high_us: u64) {
        let connection = self.link(node).connection;
        let after_us = self.random.between(low_us, high_us);
        self.after(after_us, Happening::Reconnect { node, connection });
    }
}

fn is_append(call: &Call) -> bool {
    matches!(call, Call::Port(effect) if matches!(**effect, Effect::Append { .. }))
}

fn brief(record: &Record) -> String {
    match record {
        Record::Chunk { chunk, attempt } => {
            format!("{} tokens at {}, attempt {attempt}", chunk.tokens.len(), chunk.offset)
        }
        Record::Final(Outcome::Reply(_)) => "the reply".to_owned(),
        Record::Final(Outcome::Refusal(refusal)) => format!("refused: {refusal}"),
    }
}
