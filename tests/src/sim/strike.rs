//! Faults as they strike, and how what they broke comes back.

use halm_actors::ingress;
use halm_actors::ports::Record;
use halm_protocol::Outcome;

use super::broker::{Payload, Stalled, Subject, number};
use super::call::{Node, acknowledged};
use super::fault::Fault;
use super::judge::Verdict;
use super::replica::WORKERS;
use super::world::{Happening, World};

/// A replica looks every two seconds whether the queue is the one that it was.
const NOTICED_WITHIN_US: u64 = 2_000_000;
/// Without a connection it looks again after this.
const LOOKED_AGAIN_US: u64 = 300_000;

impl World {
    pub(super) fn disturb(&mut self, node: Node) {
        let now_us = self.now_us;
        self.link(node).disturbed_us = Some(now_us);
    }

    /// A process ends.
    fn end_process(&mut self, at: usize, back_after_us: u64) {
        let replica = &mut self.replicas[at];
        replica.alive = false;
        replica.frozen = false;
        replica.backlog.clear();
        replica.held.clear();
        self.outboxes[at].clear();
        self.disturb(Node::Replica(at));
        self.after(back_after_us, Happening::Boot { replica: at });
    }

    fn die(&mut self, at: usize, back_after_us: u64) {
        self.end_process(at, back_after_us);
        self.cut(Node::Replica(at));
    }

    /// A planned end of a replica: its last words are heard.
    pub(super) fn leave(&mut self, at: usize) {
        self.note(|| format!("replica {at} leaves"));
        self.end_process(at, 100_000);
        let connection = self.links[at].connection;
        self.after(50_000, Happening::Closed { replica: at, connection });
    }

    fn broker_dies(&mut self, log_lost: bool) {
        if !self.broker.up {
            return;
        }
        self.broker.up = false;
        self.broker_disturbed_us.push(self.now_us);
        self.broker.pulls.clear();
        let lost = if log_lost { usize::MAX } else { self.random.index(5) };
        self.note(|| format!("the broker dies and forgets {lost} records"));
        let gone = self.broker.log.crash(lost);
        let mut records = vec![0; self.jobs.len()];
        for message in &gone {
            if let Subject::Fence(job) = message.subject {
                self.seen[job].claims_forgotten();
            }
            if let Payload::Record(record) = &message.payload {
                let job = match &**record {
                    Record::Chunk { chunk, .. } => number(&chunk.job),
                    Record::Final(Outcome::Reply(reply)) => number(&reply.job),
                    Record::Final(Outcome::Refusal(refusal)) => number(refusal.job.as_ref().expect("it is of a job")),
                };
                records[job] += 1;
                self.jobs[job].missed = true;
            }
        }
        for (job, records) in records.into_iter().enumerate() {
            self.seen[job].forgot(records);
        }
        let _ = (self.broker.jobs.crash(0), self.broker.done.crash(0));
        if log_lost {
            self.broker.remake_log(self.now_us);
        }
        for at in 0..self.replicas.len() {
            if self.replicas[at].alive {
                self.cut(Node::Replica(at));
            }
        }
        for job in 0..self.jobs.len() {
            self.cut(Node::Client(job));
        }
        let after_us = self.random.between(50_000, 3_000_000);
        self.after(after_us, Happening::BrokerUp);
    }

    /// Somebody deletes the queue. The first replica that notices makes it anew; each notices by itself, and soon.
    fn lose_queue(&mut self) {
        self.note(|| "the queue is lost".to_owned());
        self.broker_disturbed_us.push(self.now_us);
        self.broker.remake_jobs(self.now_us);
        for job in 0..self.jobs.len() {
            self.jobs[job].disturbed_us = Some(self.now_us);
            if self.seen[job].is_ended() {
                self.seen[job].acked();
            }
            if self.jobs[job].accepted {
                self.jobs[job].lost = Some(None);
            }
        }
        for at in 0..self.replicas.len() {
            let (life, after_us) = (self.replicas[at].life, self.random.between(1, NOTICED_WITHIN_US));
            self.after(after_us, Happening::QueueLost { replica: at, life });
        }
    }

    /// A replica has noticed that the queue is another one.
    pub(super) fn queue_lost(&mut self, at: usize) -> Verdict {
        if !self.links[at].up {
            let life = self.replicas[at].life;
            self.after(LOOKED_AGAIN_US, Happening::QueueLost { replica: at, life });
            return Ok(());
        }
        for job in 0..self.jobs.len() {
            let asked_us = self.jobs[job].asked_us.unwrap_or_default();
            if self.jobs[job].lost == Some(None) && self.was_well(at, asked_us) {
                self.jobs[job].lost = Some(Some((at, self.now_us)));
            }
        }
        self.tell_ingress(at, ingress::Event::QueueLost)
    }

    /// Whether nobody could have remembered a job that the queue has lost, or whoever did was disturbed.
    pub(super) fn may_be_forgotten(&self, job: usize) -> bool {
        self.jobs[job].lost.is_some_and(|remembered| {
            remembered.is_none_or(|(at, since_us)| self.links[at].disturbed_us.is_some_and(|us| us > since_us))
        })
    }

    pub(super) fn broker_up(&mut self) {
        self.note(|| "the broker is up".to_owned());
        self.broker.up = true;
        for sequence in self.broker.consumer.restart(self.now_us, false) {
            // It is nobody's mistake that this one is delivered again.
            if let Some(Payload::Job(job)) = self.broker.jobs.get(sequence).map(|message| &message.payload) {
                self.jobs[*job].disturbed_us = Some(self.now_us);
            }
        }
        for at in 0..self.replicas.len() {
            if self.replicas[at].alive {
                self.reconnect_after(Node::Replica(at), 5_000, 300_000);
            }
        }
        for job in 0..self.jobs.len() {
            self.reconnect_after(Node::Client(job), 5_000, 2_000_000);
        }
    }

    pub(super) fn election_ends(&mut self) -> Verdict {
        self.note(|| "the streams have a leader".to_owned());
        self.broker.leaderless = false;
        let mut stalled = std::mem::take(&mut self.broker.stalled);
        while !stalled.is_empty() {
            let Stalled { from, connection, id, call } = stalled.remove(self.random.index(stalled.len()));
            if self.random.chance(600_000) {
                self.perform_call(from, connection, id, call)?;
            }
        }
        Ok(())
    }

    /// At each message, something may go wrong. True if this message is lost.
    pub(super) fn strikes(&mut self, node: Node) -> bool {
        if self.calm || !self.random.chance(self.mixture.rate) {
            return false;
        }
        let fault = self.mixture.pick(&mut self.random);
        self.faults += 1;
        self.note(|| format!("{fault:?} at {node:?}"));
        // Clients send and are sent much less than replicas, and what goes wrong is mostly a replica's.
        let at = match node {
            Node::Replica(at) => at,
            Node::Client(_) => self.random.index(self.replicas.len()),
        };
        match fault {
            Fault::ReplicaDies
            | Fault::ReplicaFreezes
            | Fault::ReplicaLeaves
            | Fault::WorkerDies
            | Fault::WorkerHangs
            | Fault::WorkerFails => self.strike_process(fault, at),
            Fault::ConnectionBreaks | Fault::Partition | Fault::Delay => self.strike_connection(fault, at),
            Fault::Loss => {
                if let Node::Client(_) = node {
                    // A client's message is lost with its connection only.
                    self.cut(node);
                    self.reconnect_after(node, 5_000, 2_000_000);
                }
                self.disturb(node);
                return true;
            }
            Fault::BrokerDies | Fault::LogLost | Fault::QueueLost | Fault::Election | Fault::DiskFull => {
                self.strike_broker(fault);
            }
            Fault::DuplicateDelivery | Fault::ClientLeaves | Fault::AskedAgain => self.strike_job(fault),
        }
        false
    }

    fn strike_process(&mut self, fault: Fault, at: usize) {
        let (alive, frozen, life) = (self.replicas[at].alive, self.replicas[at].frozen, self.replicas[at].life);
        let worker = self.random.index(WORKERS as usize);
        if !alive {
            return;
        }
        match fault {
            Fault::ReplicaDies => {
                let back_us = self.random.between(100_000, 2_000_000);
                self.die(at, back_us);
            }
            Fault::ReplicaFreezes if !frozen => {
                self.replicas[at].frozen = true;
                self.disturb(Node::Replica(at));
                let for_us = [300_000, 1_800_000, 6_000_000, 18_000_000][self.random.index(4)];
                self.after(for_us, Happening::Thaw { replica: at, life });
            }
            Fault::ReplicaLeaves if !frozen => {
                self.disturb(Node::Replica(at));
                self.after(1, Happening::DrainDue { replica: at, life });
            }
            Fault::WorkerDies => self.kill_worker(at, worker, 80),
            Fault::WorkerHangs => self.kill_worker(at, worker, 1_000_000),
            Fault::WorkerFails => self.fail_lease(at, worker),
            _ => {}
        }
    }

    fn strike_connection(&mut self, fault: Fault, at: usize) {
        let now_us = self.now_us;
        let for_us = match fault {
            Fault::Partition => self.random.between(300_000, 6_000_000),
            Fault::Delay => self.random.between(1_000, 2_500_000),
            _ => {
                if self.replicas[at].alive && self.links[at].up {
                    self.cut(Node::Replica(at));
                    self.disturb(Node::Replica(at));
                    self.reconnect_after(Node::Replica(at), 5_000, 2_000_000);
                }
                return;
            }
        };
        self.disturb(Node::Replica(at));
        self.links[at].blocked_until_us = now_us + for_us;
    }

    fn strike_broker(&mut self, fault: Fault) {
        match fault {
            Fault::BrokerDies => self.broker_dies(false),
            Fault::LogLost => self.broker_dies(true),
            Fault::QueueLost if self.broker.up && !self.broker.leaderless => self.lose_queue(),
            Fault::Election if !self.broker.leaderless => {
                self.broker.leaderless = true;
                self.broker_disturbed_us.push(self.now_us);
                let for_us = self.random.between(4_000_000, 8_000_000);
                self.after(for_us, Happening::ElectionEnds);
            }
            Fault::DiskFull if !self.broker.full => {
                self.broker.full = true;
                let for_us = self.random.between(200_000, 3_000_000);
                self.after(for_us, Happening::DiskFree);
            }
            _ => {}
        }
    }

    fn strike_job(&mut self, fault: Fault) {
        let job = self.random.index(self.jobs.len());
        match fault {
            Fault::DuplicateDelivery => {
                self.jobs[job].disturbed_us = Some(self.now_us);
                let acks = self.replicas.iter().flat_map(|replica| replica.held.values());
                let mut deliveries = acks.map(|ack| acknowledged(ack.as_str())).filter(|(of, _)| *of == job);
                if let Some((_, delivered)) = deliveries.next() {
                    self.broker.consumer.nak(delivered);
                }
            }
            Fault::ClientLeaves if self.link(Node::Client(job)).up => {
                self.cut(Node::Client(job));
                let gone = self.random.chance(100_000);
                self.jobs[job].away |= gone;
                let for_us = if gone { 30_000_000 } else { 2_000_000 };
                self.reconnect_after(Node::Client(job), 5_000, for_us);
            }
            Fault::AskedAgain if self.jobs[job].accepted => self.after(1, Happening::AskDue { job, again: true }),
            _ => {}
        }
    }
}
