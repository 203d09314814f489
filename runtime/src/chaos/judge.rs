//! The judge: what happened goes in, a verdict comes out. Pure.
//!
//! It owns everything that is counted. It has no clock of its own, and knows nothing of how things are broken: only
//! what clients saw, what the broker's log said, and what was still there at the end.

pub(crate) mod availability;
pub(crate) mod log;
pub(crate) mod promises;
pub(crate) mod reading;
mod sentence;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use halm_protocol::JobId;

use super::event::{Asked, End, Happened, Kept, RequestNo, TextNo};
use super::ladder::Rung;
use super::verdict::{Requests, Setting, Tokens};
use availability::ClientSeconds;
use log::{Breach, LogWatch};
use promises::{Broken, Promise};
pub(crate) use reading::Answer;
use reading::Reading;
use timeline::{Mood, Tracks};

/// Codes with which the ingress refuses what was not accepted.
const REFUSALS: [&str; 5] = ["overloaded", "unavailable", "invalid_request", "unknown_model", "context_exceeded"];

/// The judge.
#[derive(Debug)]
pub(crate) struct Judge {
    setting: Setting,
    known: Vec<Answer>,
    bound: Duration,
    began: Began,
    open: BTreeMap<RequestNo, Reading>,
    ended: BTreeSet<RequestNo>,
    requests: Requests,
    tokens: Tokens,
    broken: Broken,
    seconds: ClientSeconds,
    tracks: Tracks,
    log: LogWatch,
    /// What clients were told of jobs.
    told: BTreeMap<JobId, Told>,
    admitted: BTreeSet<JobId>,
    /// Jobs whose outcomes were looked up at the end.
    looked_up: BTreeSet<JobId>,
    /// Jobs that were left in the queue, if anybody looked.
    left: Option<u64>,
    failures: Vec<(Duration, Duration, String)>,
    faults: Vec<Blow>,
    not_done: Vec<(Rung, String)>,
    restarted: Vec<String>,
}

/// When the parts of the run began.
#[derive(Debug, Default)]
struct Began {
    calm: Option<Duration>,
    faults: Option<Duration>,
    end: Option<Duration>,
}

/// A fault.
#[derive(Debug)]
struct Blow {
    rung: Rung,
    what: String,
    at: Duration,
    /// When all was as before; or when that was given up.
    over: Option<(Duration, bool)>,
    /// The longest silence that touches it, of those that are over.
    gap: Option<Duration>,
}

/// What a client was told at the end of a job.
#[derive(Debug)]
enum Told {
    Answer(TextNo),
    Error(String),
}

impl Judge {
    pub(crate) fn new(setting: Setting, known: Vec<Answer>) -> Self {
        let bound = Duration::from_millis(setting.slo.gap_ms);
        Self {
            tracks: Tracks::new(setting.clients),
            seconds: ClientSeconds::new(setting.clients),
            setting,
            known,
            bound,
            began: Began::default(),
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            requests: Requests::default(),
            tokens: Tokens::default(),
            broken: Broken::default(),
            log: LogWatch::default(),
            told: BTreeMap::new(),
            admitted: BTreeSet::new(),
            looked_up: BTreeSet::new(),
            left: None,
            failures: Vec::new(),
            faults: Vec::new(),
            not_done: Vec::new(),
            restarted: Vec::new(),
        }
    }

    /// Something happened at a moment since the beginning; moments never go back.
    pub(crate) fn take(&mut self, at: Duration, happened: Happened) {
        match happened {
            Happened::CalmBegan => self.began.calm = Some(at),
            Happened::FaultsBegan => self.began.faults = Some(at),
            Happened::FaultsEnded => self.began.end = Some(at),
            Happened::Asked(request, asked) => {
                self.requests.offered += 1;
                self.open.insert(request, Reading::new(asked, at));
            }
            Happened::NotAsked(client) => {
                self.requests.not_sent += 1;
                self.seconds.add(at, at + self.bound);
                self.seconds.spoil(client, at, at + self.bound);
                self.tracks.paint(client, at, at + self.bound, Mood::Bad);
            }
            Happened::Chunk { request, job, offset, tokens, text } => {
                self.chunk(at, request, job, offset, &tokens, &text);
            }
            Happened::Ended(request, end) => self.end(at, request, end),
            Happened::Struck { rung, what } => {
                self.faults.push(Blow { rung, what, at, over: None, gap: None });
            }
            Happened::Whole { fault, whole } => {
                if let Some(blow) = self.faults.get_mut(fault.0) {
                    blow.over = Some((at, whole));
                }
            }
            Happened::NotDone { rung, why } => self.not_done.push((rung, why)),
            Happened::Unmet { rung, why } => {
                let promise =
                    if rung == Rung::Poison { Promise::PoisonIsContained } else { Promise::PlannedIsInvisible };
                self.broken.note(promise, format!("{}: {why}", rung.name()));
            }
            Happened::Restarted(what) => self.restarted.push(what),
            Happened::Admitted(job) => drop(self.admitted.insert(job)),
            Happened::Claimed { job, sequence } => self.log.claimed(job, sequence),
            Happened::Logged(record) => match self.log.logged(record) {
                Some(Breach::Zombie(what)) => self.broken.note(Promise::ZombiesAreHarmless, what),
                Some(Breach::Fork(what)) => self.broken.note(Promise::OneStream, what),
                None => {}
            },
            Happened::Outcomes { job, kept } => self.outcomes(job, &kept),
            Happened::LeftInQueue(count) => {
                self.left = Some(count);
                if count > 0 {
                    self.broken.note(Promise::NothingLost, format!("{count} jobs are still in the queue at the end"));
                }
            }
        }
    }

    fn chunk(&mut self, at: Duration, request: RequestNo, job: JobId, offset: u32, tokens: &[u32], text: &str) {
        let Some(reading) = self.open.get_mut(&request) else {
            return self.broken.note(Promise::OneStream, format!("request {}: a record after its end", request.0));
        };
        let before = reading.flaws();
        let silence = reading.heard(at);
        reading.job = Some(job);
        reading.arrived.push((at, tokens.len() as u64));
        reading.chunk(&self.known[reading.asked.text.0], offset, tokens, text);
        if reading.flaws() != before {
            let (name, flaws) = (name(request, reading), reading.flaws());
            let what = format!("{name}: the record at token {offset} does not follow; so far {flaws:?}");
            if flaws.changed > before.changed {
                self.broken
                    .note(Promise::SameAnswer, format!("{name}: other tokens than known, from token {offset} on"));
            }
            if (flaws.lost, flaws.doubled) != (before.lost, before.doubled) {
                self.broken.note(Promise::OneStream, what);
            }
        }
        self.silence(silence);
    }

    fn end(&mut self, at: Duration, request: RequestNo, end: End) {
        let Some(mut reading) = self.open.remove(&request) else {
            let what = if self.ended.contains(&request) { "a second end" } else { "an end without a beginning" };
            return self.broken.note(Promise::OneOutcome, format!("request {}: {what}: {end:?}", request.0));
        };
        self.ended.insert(request);
        let silence = reading.heard(at);
        self.silence(silence);
        let good = match end {
            End::Answered { job, text, tokens, attempts } => {
                reading.job = Some(job.clone());
                self.told.insert(job, Told::Answer(reading.asked.text));
                self.answered(request, &mut reading, &text, tokens, attempts)
            }
            End::Refused { code, job, message } => {
                reading.job = job.or(reading.job);
                self.refused(at, request, &reading, &code, &message)
            }
            End::Unheard => {
                *self.requests.refused.entry("nobody listens".to_owned()).or_default() += 1;
                self.failures.push((reading.at, at, format!("{}: nobody listens", name(request, &reading))));
                false
            }
            End::Forked => {
                let name = name(request, &reading);
                self.broken.note(Promise::OneStream, format!("{name}: the reply is another text than its stream"));
                self.failed(at, request, &reading, "forked", "the reply is another text than its stream");
                false
            }
            End::Silent { why } => {
                self.silent(at, request, &reading, &why);
                false
            }
        };
        self.account(at, &reading, good);
    }

    fn answered(&mut self, request: RequestNo, reading: &mut Reading, text: &str, tokens: u32, attempts: u32) -> bool {
        self.requests.accepted += 1;
        let before = reading.flaws();
        let late = reading.complete(&self.known[reading.asked.text.0], text, tokens);
        let flaws = reading.flaws();
        let name = name(request, reading);
        if flaws.changed > before.changed {
            self.broken.note(Promise::SameAnswer, format!("{name}: another text than the known one: {text:?}"));
        }
        if flaws.lost > before.lost {
            self.broken.note(Promise::OneStream, format!("{name}: the text ends early: {text:?}"));
        }
        self.tokens.flaws.add(flaws);
        if !flaws.is_none() {
            self.requests.wrong += 1;
            return false;
        }
        self.tokens.late += late;
        self.tokens.delivered += u64::from(tokens);
        self.requests.right += 1;
        self.requests.resumed += u64::from(attempts > 1);
        let counted: u64 = reading.arrived.iter().map(|(_, tokens)| tokens).sum();
        reading.arrived.push((reading.last_at, u64::from(tokens).saturating_sub(counted)));
        true
    }

    fn refused(&mut self, at: Duration, request: RequestNo, reading: &Reading, code: &str, message: &str) -> bool {
        if let Some(job) = &reading.job {
            self.told.insert(job.clone(), Told::Error(code.to_owned()));
        }
        if reading.asked.poisoned && code == "poison" {
            self.requests.accepted += 1;
            self.requests.quarantined += 1;
            self.tokens.flaws.add(reading.flaws());
            return true;
        }
        let stored = reading.job.as_ref().is_some_and(|job| self.admitted.contains(job));
        if reading.tokens() > 0 || stored || !REFUSALS.contains(&code) {
            self.failed(at, request, reading, code, message);
        } else {
            *self.requests.refused.entry(code.to_owned()).or_default() += 1;
            self.failures.push((reading.at, at, format!("{}: refused: {code}: {message}", name(request, reading))));
        }
        if code == "poison" {
            let name = name(request, reading);
            self.broken.note(Promise::PoisonIsContained, format!("{name}: a harmless job ended as poison"));
        }
        false
    }

    /// An accepted request has no answer, though it did nothing to deserve that.
    fn failed(&mut self, at: Duration, request: RequestNo, reading: &Reading, code: &str, message: &str) {
        self.requests.accepted += 1;
        self.tokens.flaws.add(reading.flaws());
        *self.requests.failed.entry(code.to_owned()).or_default() += 1;
        self.failures.push((reading.at, at, format!("{}: {code}: {message}", name(request, reading))));
    }

    fn silent(&mut self, at: Duration, request: RequestNo, reading: &Reading, why: &str) {
        self.requests.unsettled += 1;
        let begun = reading.tokens() > 0;
        self.requests.accepted += u64::from(begun);
        self.tokens.flaws.add(reading.flaws());
        let what = format!("{}: no end after {:.1} s: {why}", name(request, reading), (at - reading.at).as_secs_f64());
        self.broken.note(if begun { Promise::OneOutcome } else { Promise::NothingLost }, what.clone());
        self.failures.push((reading.at, at, what));
    }

    /// A silence of a stream is over.
    fn silence(&mut self, silence: Option<(Duration, Duration)>) {
        let Some((from, to)) = silence else { return };
        self.tracks.silence(from, to);
        for blow in self.faults.iter_mut().rev() {
            if blow.over.is_some_and(|(over, _)| over <= from) {
                // Those before it were over earlier still.
                return;
            }
            if to > blow.at {
                blow.gap = blow.gap.max(Some(to - from));
            }
        }
    }

    /// Books a request's time, which is over.
    fn account(&mut self, at: Duration, reading: &Reading, good: bool) {
        let Reading { asked: Asked { client, deadline, streamed, .. }, at: began, .. } = *reading;
        if !good {
            let until = at.max(began + self.bound);
            self.seconds.add(began, until);
            self.seconds.spoil(client, began, until);
            self.tracks.paint(client, began, until, Mood::Bad);
            return;
        }
        self.seconds.add(began, at);
        self.tracks.paint(client, began, at, Mood::Good);
        let due = began + deadline;
        for (from, to) in reading.silences.iter().copied().filter(|_| streamed) {
            let long = to - from > self.bound;
            self.tracks.paint_silence(client, from, to, long);
            if long {
                self.seconds.spoil(client, from, to.min(due));
            }
        }
        if at > due {
            self.seconds.spoil(client, due, at);
            self.tracks.paint(client, due, at, Mood::Bad);
        }
        for (at, tokens) in &reading.arrived {
            self.tracks.tokens(*at, *tokens);
        }
    }

    fn outcomes(&mut self, job: JobId, kept: &[Kept]) {
        match (kept, self.told.get(&job)) {
            ([], _) => {}
            ([_, _, ..], _) => {
                let many = kept.len();
                self.broken.note(Promise::OneOutcome, format!("job {job} has {many} outcomes: {kept:?}"));
            }
            ([one], Some(told)) => {
                let same = match (one, told) {
                    (Kept::Answer(text), Told::Answer(of)) => *text == self.known[of.0].text,
                    (Kept::Error(code), Told::Error(told)) => code == told,
                    (Kept::Answer(_), Told::Error(_)) | (Kept::Error(_), Told::Answer(_)) => false,
                };
                if !same {
                    let what = format!("job {job}: the client was told {told:?}, and {one:?} is kept");
                    self.broken.note(Promise::OneOutcome, what);
                }
            }
            ([_], None) => {}
        }
        if kept.is_empty() && (self.admitted.contains(&job) || self.told.contains_key(&job)) {
            self.broken.note(Promise::NothingLost, format!("job {job} was accepted and has no outcome"));
        }
        self.looked_up.insert(job);
    }

    /// Jobs whose outcomes are to be looked up.
    pub(crate) fn jobs(&self) -> BTreeSet<JobId> {
        self.admitted.iter().chain(self.told.keys()).cloned().collect()
    }

    /// The job that is made to be quarantined, once it has begun, while it has no end.
    pub(crate) fn poisoned_job(&self) -> Option<JobId> {
        self.open.values().find(|reading| reading.asked.poisoned)?.job.clone()
    }

    /// Whether no such job is under way.
    pub(crate) fn poisoned_is_over(&self) -> bool {
        !self.open.values().any(|reading| reading.asked.poisoned)
    }

    /// Jobs that were quarantined, as they had to be.
    pub(crate) fn quarantined(&self) -> u64 {
        self.requests.quarantined
    }

    /// Jobs whose streams have begun and have no end.
    pub(crate) fn streams(&self) -> BTreeSet<JobId> {
        let streams = self.open.values().filter(|reading| reading.asked.streamed && !reading.asked.poisoned);
        streams.filter_map(|reading| reading.job.clone()).collect()
    }

    /// Requests that were sent, and those that have an end.
    pub(crate) fn asked_and_ended(&self) -> (u64, usize) {
        (self.requests.offered, self.ended.len())
    }
}

fn name(request: RequestNo, reading: &Reading) -> String {
    let job = reading.job.as_ref().map_or_else(|| "no job yet".to_owned(), |job| format!("job {job}"));
    format!("request {} ({job}) of client {}", request.0, reading.asked.client.0)
}
