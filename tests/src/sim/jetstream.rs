//! The part of JetStream that halm rests on: streams that compare before they append, and a pull consumer of a work
//! queue. It behaves as the server does, also where that is surprising: an acknowledgement of an earlier delivery
//! settles a message, and a negative one of an earlier delivery has it delivered again.
//!
//! Sans-IO: who asks, and whether the answer arrives, is its caller's.

use std::collections::{BTreeMap, VecDeque};

/// What a stream is set up with.
#[derive(Debug, Clone, Default)]
pub struct StreamConfig {
    /// Most messages on one subject; a publish past it is refused.
    pub per_subject_max: Option<usize>,
    /// How long a message id is remembered, in microseconds.
    pub duplicate_window_us: Option<u64>,
    /// The sequence of the first message.
    pub first_sequence: u64,
    /// Messages older than this are discarded, in microseconds.
    pub max_age_us: Option<u64>,
}

/// A message in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<S, P> {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its subject.
    pub subject: S,
    /// Its content.
    pub payload: P,
    /// When it was stored.
    stored_us: u64,
}

/// What must hold for a publish to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected<S> {
    /// On this subject, which need not be that of the message,
    pub subject: S,
    /// the last message has this sequence; 0 if there must be none.
    pub sequence: u64,
}

/// A publish that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Where the message is.
    pub sequence: u64,
    /// Its id was seen before, and nothing was stored.
    pub duplicate: bool,
}

/// A publish that was refused, as the server's error codes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// 10071.
    WrongLastSequence,
    /// 10077.
    MaximumMessagesPerSubject,
}

/// A stream.
#[derive(Debug, Clone)]
pub struct Stream<S, P> {
    config: StreamConfig,
    last: u64,
    messages: BTreeMap<u64, Message<S, P>>,
    by_subject: BTreeMap<S, Vec<u64>>,
    ids: BTreeMap<String, (u64, u64)>,
}

impl<S: Ord + Clone, P: Clone> Stream<S, P> {
    /// An empty stream.
    #[must_use]
    pub fn new(config: StreamConfig) -> Self {
        let last = config.first_sequence.saturating_sub(1);
        Self { config, last, messages: BTreeMap::new(), by_subject: BTreeMap::new(), ids: BTreeMap::new() }
    }

    /// Stores a message if what is expected holds.
    ///
    /// # Errors
    /// Why the server would refuse it.
    pub fn publish(
        &mut self,
        subject: S,
        payload: P,
        expected: Option<&Expected<S>>,
        id: Option<&str>,
        now_us: u64,
    ) -> Result<Stored, Refused> {
        self.discard_old(now_us);
        if let (Some(window), Some(id)) = (self.config.duplicate_window_us, id) {
            self.ids.retain(|_, (_, at)| *at + window > now_us);
            if let Some((sequence, _)) = self.ids.get(id) {
                return Ok(Stored { sequence: *sequence, duplicate: true });
            }
        }
        if let Some(expected) = expected
            && self.last_of(&expected.subject).map_or(0, |last| last.sequence) != expected.sequence
        {
            return Err(Refused::WrongLastSequence);
        }
        let on_subject = self.by_subject.entry(subject.clone()).or_default();
        if self.config.per_subject_max.is_some_and(|max| on_subject.len() >= max) {
            return Err(Refused::MaximumMessagesPerSubject);
        }
        self.last += 1;
        on_subject.push(self.last);
        if let (Some(_), Some(id)) = (self.config.duplicate_window_us, id) {
            self.ids.insert(id.to_owned(), (self.last, now_us));
        }
        self.messages.insert(self.last, Message { sequence: self.last, subject, payload, stored_us: now_us });
        Ok(Stored { sequence: self.last, duplicate: false })
    }

    fn discard_old(&mut self, now_us: u64) {
        let Some(age) = self.config.max_age_us else { return };
        while let Some((sequence, first)) = self.messages.first_key_value()
            && first.stored_us + age <= now_us
        {
            self.remove(*sequence);
        }
    }

    /// The last message on a subject.
    #[must_use]
    pub fn last_of(&self, subject: &S) -> Option<&Message<S, P>> {
        self.messages.get(self.by_subject.get(subject)?.last()?)
    }

    /// All messages on a subject, in order.
    pub fn of<'a>(&'a self, subject: &S) -> impl Iterator<Item = &'a Message<S, P>> + use<'a, S, P> {
        self.by_subject.get(subject).into_iter().flatten().filter_map(|sequence| self.messages.get(sequence))
    }

    /// A message.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<&Message<S, P>> {
        self.messages.get(&sequence)
    }

    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Removes a message, and says whether it was there.
    pub fn remove(&mut self, sequence: u64) -> bool {
        let Some(message) = self.messages.remove(&sequence) else { return false };
        if let Some(on_subject) = self.by_subject.get_mut(&message.subject) {
            on_subject.retain(|of| *of != sequence);
            if on_subject.is_empty() {
                self.by_subject.remove(&message.subject);
            }
        }
        true
    }

    /// Removes every message on a subject, and says how many there were.
    pub fn purge(&mut self, subject: &S) -> usize {
        let sequences = self.by_subject.remove(subject).unwrap_or_default();
        sequences.iter().filter(|sequence| self.messages.remove(sequence).is_some()).count()
    }

    /// The server is killed with its newest `lost` messages not on disk yet, and started again: they are gone, their
    /// sequences will be given again, and so are the ids of finished messages.
    pub fn crash(&mut self, lost: usize) -> Vec<Message<S, P>> {
        let mut gone = Vec::new();
        for _ in 0..lost {
            let Some((sequence, message)) = self.messages.last_key_value() else { break };
            let (sequence, message) = (*sequence, message.clone());
            self.remove(sequence);
            self.last = sequence - 1;
            gone.push(message);
        }
        let messages = &self.messages;
        self.ids.retain(|_, (sequence, _)| messages.contains_key(sequence));
        gone
    }

    /// The first message at or after a sequence.
    fn first_from(&self, sequence: u64) -> Option<u64> {
        self.messages.range(sequence..).next().map(|(sequence, _)| *sequence)
    }
}

/// One delivery of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Which message.
    pub stream_sequence: u64,
    /// The how-manieth delivery of this consumer it is.
    pub consumer_sequence: u64,
    /// How often this message has been delivered, this time included.
    pub deliveries: u64,
}

/// What a consumer knows.
#[derive(Debug, Clone, Default)]
struct State {
    next: u64,
    last: u64,
    /// When each message that waits for an acknowledgement is due again.
    pending: BTreeMap<u64, u64>,
    deliveries: BTreeMap<u64, u64>,
}

/// The server writes a consumer's state to disk at most this often, so that a kill forgets what is newer: a delivery
/// that it forgot is made again, as the first.
const STORED_EVERY_US: u64 = 100_000;

/// A durable pull consumer of a whole work queue, with explicit acknowledgements.
#[derive(Debug, Clone)]
pub struct Consumer {
    ack_wait_us: u64,
    state: State,
    again: VecDeque<u64>,
    /// The state on disk, and when it was written.
    stored: (State, u64),
}

impl Consumer {
    /// A consumer that has delivered nothing.
    #[must_use]
    pub fn new(ack_wait_us: u64) -> Self {
        Self { ack_wait_us, state: State::default(), again: VecDeque::new(), stored: (State::default(), 0) }
    }

    /// Before each change: writes the state as it was, if it is time.
    fn store(&mut self, now_us: u64) {
        if now_us >= self.stored.1 + STORED_EVERY_US {
            self.stored = (self.state.clone(), now_us);
        }
    }

    /// The next delivery for a pull: what is to be delivered again comes first.
    pub fn next<S: Ord + Clone, P: Clone>(&mut self, stream: &Stream<S, P>, now_us: u64) -> Option<Delivered> {
        self.expire(now_us);
        let again = loop {
            let Some(sequence) = self.again.pop_front() else { break None };
            if stream.get(sequence).is_some() && self.state.pending.contains_key(&sequence) {
                break Some(sequence);
            }
        };
        let stream_sequence = match again {
            Some(sequence) => sequence,
            None => stream.first_from(self.state.next)?,
        };
        self.store(now_us);
        let state = &mut self.state;
        state.next = state.next.max(stream_sequence + 1);
        state.last += 1;
        let deliveries = state.deliveries.entry(stream_sequence).or_default();
        *deliveries += 1;
        state.pending.insert(stream_sequence, now_us + self.ack_wait_us);
        Some(Delivered { stream_sequence, consumer_sequence: state.last, deliveries: *deliveries })
    }

    fn expire(&mut self, now_us: u64) {
        for (sequence, due_us) in &self.state.pending {
            if *due_us <= now_us && !self.again.contains(sequence) {
                self.again.push_back(*sequence);
            }
        }
    }

    /// Settles a message, whichever of its deliveries is acknowledged: it leaves the work queue.
    pub fn ack<S: Ord + Clone, P: Clone>(
        &mut self,
        stream: &mut Stream<S, P>,
        stream_sequence: u64,
        now_us: u64,
    ) -> bool {
        self.store(now_us);
        if self.state.pending.remove(&stream_sequence).is_none() {
            return false;
        }
        self.state.deliveries.remove(&stream_sequence);
        stream.remove(stream_sequence)
    }

    /// Has a message delivered again at once, whichever of its deliveries is given back.
    pub fn nak(&mut self, stream_sequence: u64) {
        if self.state.pending.contains_key(&stream_sequence) && !self.again.contains(&stream_sequence) {
            self.again.push_back(stream_sequence);
        }
    }

    /// Prolongs a delivery.
    pub fn progress(&mut self, stream_sequence: u64, now_us: u64) {
        self.store(now_us);
        if let Some(due_us) = self.state.pending.get_mut(&stream_sequence) {
            *due_us = now_us + self.ack_wait_us;
        }
    }

    /// How many messages wait for an acknowledgement.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.state.pending.len()
    }

    /// The server is started again: each pending message keeps its deliveries, and its time begins anew. What was given
    /// back and not delivered yet waits that long too. Unless it was stopped `in_order`, it has forgotten its newest
    /// deliveries; returns the messages of those.
    pub fn restart(&mut self, now_us: u64, in_order: bool) -> Vec<u64> {
        let before = self.state.clone();
        if !in_order {
            self.state = self.stored.0.clone();
        }
        self.again.clear();
        for due_us in self.state.pending.values_mut() {
            *due_us = now_us + self.ack_wait_us;
        }
        self.stored = (self.state.clone(), now_us);
        let known = |sequence: &u64| self.state.deliveries.get(sequence) == before.deliveries.get(sequence);
        before.pending.into_keys().filter(|sequence| !known(sequence)).collect()
    }
}
