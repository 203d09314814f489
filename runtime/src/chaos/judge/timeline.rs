//! What was when: tokens, silences and each client's moods, second by second.

use std::time::Duration;

use crate::chaos::event::ClientNo;

/// Shorter silences are the pace of a busy machine.
const SILENCE_MIN: Duration = Duration::from_millis(50);
/// A pause that a person notices.
const PAUSE_MIN: Duration = Duration::from_millis(300);

/// How a client's second was; the worse one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mood {
    Idle,
    Good,
    Pause,
    Bad,
}

/// Everything by the second.
#[derive(Debug)]
pub(super) struct Tracks {
    tokens: Vec<u64>,
    clients: Vec<Vec<Mood>>,
    /// Silences of streams that are over, from and to.
    silences: Vec<(Duration, Duration)>,
}

impl Tracks {
    pub(super) fn new(clients: usize) -> Self {
        Self { tokens: Vec::new(), clients: vec![Vec::new(); clients], silences: Vec::new() }
    }

    pub(super) fn tokens(&mut self, at: Duration, tokens: u64) {
        *bin(&mut self.tokens, at.as_secs(), 0) += tokens;
    }

    pub(super) fn silence(&mut self, from: Duration, to: Duration) {
        if to - from >= SILENCE_MIN {
            self.silences.push((from, to));
        }
    }

    pub(super) fn paint_silence(&mut self, client: ClientNo, from: Duration, to: Duration, long: bool) {
        if to - from >= PAUSE_MIN {
            self.paint(client, from, to, if long { Mood::Bad } else { Mood::Pause });
        }
    }

    pub(super) fn paint(&mut self, client: ClientNo, from: Duration, to: Duration, mood: Mood) {
        let Some(client) = self.clients.get_mut(client.0) else { return };
        for second in from.as_secs()..=to.as_secs() {
            let bin = bin(client, second, Mood::Idle);
            *bin = mood.max(*bin);
        }
    }

    /// Silences that lie, in part at least, between two moments.
    pub(super) fn silences_between(&self, from: Duration, to: Duration) -> Vec<Duration> {
        let touches = |(began, ended): &&(Duration, Duration)| *ended > from && *began < to;
        self.silences.iter().filter(touches).map(|(began, ended)| *ended - *began).collect()
    }

    pub(super) fn token_bins(&self) -> Vec<u64> {
        self.tokens.clone()
    }

    /// The longest silence that touches each second.
    pub(super) fn silence_bins(&self) -> Vec<u64> {
        let mut bins = Vec::new();
        for (from, to) in &self.silences {
            let ms = millis(*to - *from);
            for second in from.as_secs()..=to.as_secs() {
                let bin = bin(&mut bins, second, 0);
                *bin = ms.max(*bin);
            }
        }
        bins
    }

    pub(super) fn client_bins(&self) -> Vec<Vec<u8>> {
        self.clients.iter().map(|client| client.iter().map(|mood| *mood as u8).collect()).collect()
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn bin<T: Clone>(bins: &mut Vec<T>, second: u64, empty: T) -> &mut T {
    let at = usize::try_from(second).unwrap_or(0);
    if bins.len() <= at {
        bins.resize(at + 1, empty);
    }
    &mut bins[at]
}
