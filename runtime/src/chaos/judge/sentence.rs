//! From what was counted to the verdict.

use std::time::Duration;

use super::promises::{Finding, Promise};
use super::timeline::millis;
use super::{Blow, Judge};
use crate::chaos::event::FaultNo;
use crate::chaos::ladder::Rung;
use crate::chaos::verdict::{Fault, Goodput, Invariant, Requests, RungFigures, Spread, Timeline, Tokens, Verdict};

impl Judge {
    /// The longest silence that any stream saw while the fault lasted; with those that go on still. `None` if there
    /// was no stream.
    fn gap_of(&self, blow: &Blow, now: Duration) -> Option<Duration> {
        let until = blow.over.map_or(now, |(at, _)| at);
        let streams = self.open.values().filter(|reading| reading.asked.streamed && !reading.asked.poisoned);
        let still = streams.filter(|reading| reading.last_at < until).map(|reading| now - reading.last_at);
        blow.gap.max(still.max())
    }

    /// A fault in one line.
    pub(crate) fn tell(&self, fault: FaultNo, now: Duration) -> String {
        if fault.0 >= self.faults.len() {
            return String::new();
        }
        let Fault { at_s, rung, what, gap_ms, whole_ms } = self.fault(fault.0, now);
        let ms = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        format!("{at_s:>6.1} s  {rung:<16} gap {:>8}, whole after {:>8}  {what}", ms(gap_ms), ms(whole_ms))
    }

    /// The longest silence that goes on at this moment.
    pub(crate) fn silence_now(&self, now: Duration) -> Duration {
        let streams = self.open.values().filter(|reading| reading.asked.streamed && !reading.asked.poisoned);
        streams.map(|reading| now.saturating_sub(reading.last_at)).max().unwrap_or_default()
    }

    /// The run is over: whatever is under way still has no end.
    pub(crate) fn finish(mut self, now: Duration) -> Verdict {
        for request in self.open.keys().copied().collect::<Vec<_>>() {
            self.end(now, request, super::End::Silent { why: "the run is over".to_owned() });
        }
        self.judge_planned_stops(now);
        let faults_began = self.began.faults.unwrap_or(now);
        let invariants: Vec<Invariant> = Promise::ALL
            .into_iter()
            .map(|promise| {
                let finding = self.broken.finding(promise, self.looked_at(promise));
                Invariant { id: promise.id(), says: promise.says(), finding }
            })
            .collect();
        let availability = self.seconds.availability(faults_began, self.began.end.unwrap_or(now), self.setting.seed);
        let faults: Vec<Fault> = (0..self.faults.len()).map(|at| self.fault(at, now)).collect();
        let under_faults = self.tracks.silences_between(faults_began, now);
        let mut verdict = Verdict {
            kept: false,
            line: String::new(),
            rungs: figures(&faults),
            faults,
            invariants,
            availability,
            goodput: self.goodput(now),
            undisturbed_gap_ms: self.undisturbed(),
            gap_ms: Spread::of(under_faults.iter().copied().map(millis).collect()),
            not_done: self.not_done.iter().map(|(rung, why)| (rung.name(), why.clone())).collect(),
            restarted: std::mem::take(&mut self.restarted),
            timeline: self.timeline(now, under_faults),
            setting: self.setting,
            requests: self.requests,
            tokens: self.tokens,
        };
        (verdict.kept, verdict.line) = line(&verdict);
        verdict
    }

    /// A planned stop breaks INV-8 if any request that was alive meanwhile did not end well.
    fn judge_planned_stops(&mut self, now: Duration) {
        for blow in self.faults.iter().filter(|blow| blow.rung.is_planned()) {
            let until = blow.over.map_or(now, |(at, _)| at);
            let during = self.failures.iter().find(|(from, to, _)| *to >= blow.at && *from <= until);
            if let Some((_, _, what)) = during {
                self.broken.note(Promise::PlannedIsInvisible, format!("{}: {what}", blow.rung.name()));
            }
        }
    }

    /// What was looked at to judge a promise; or why it was not.
    fn looked_at(&self, promise: Promise) -> Result<String, String> {
        let struck = |rung: Rung| self.faults.iter().filter(|blow| blow.rung == rung).count();
        let Requests { right, offered, .. } = self.requests;
        if offered == 0 {
            return Err("nothing was asked".to_owned());
        }
        match promise {
            Promise::OneOutcome if self.left.is_some() => {
                Ok(format!("{offered} requests, and the kept outcomes of {} jobs", self.looked_up.len()))
            }
            Promise::OneOutcome => Ok(format!("{offered} requests, as their clients saw them")),
            Promise::OneStream => Ok(format!("{offered} requests, {} records of the log", self.log.records)),
            Promise::SameAnswer => Ok(format!("{right} answers beside the known ones, token by token")),
            Promise::NothingLost if self.left.is_some() => {
                Ok(format!("{} stored jobs, and the queue at the end", self.admitted.len()))
            }
            Promise::NothingLost => Ok(format!("{offered} requests, as their clients saw them")),
            Promise::ZombiesAreHarmless if self.log.records > 0 => {
                Ok(format!("the fence of {} records, {} claims", self.log.records, self.log.claims))
            }
            Promise::ZombiesAreHarmless => Err("the token log was not read".to_owned()),
            Promise::PoisonIsContained if self.requests.quarantined > 0 => {
                Ok(format!("what was made to be quarantined ({}), and its company", self.requests.quarantined))
            }
            Promise::PoisonIsContained => Err("no job was made to be quarantined".to_owned()),
            Promise::PlannedIsInvisible => {
                let stops = struck(Rung::ReplicaDrain) + struck(Rung::RollingRestart);
                let looked_at = || format!("every request alive during {stops} planned stops, and their exit codes");
                if stops > 0 { Ok(looked_at()) } else { Err("no stop was planned".to_owned()) }
            }
            Promise::Bounded => Err("nothing here measures bounds".to_owned()),
            Promise::HealthIsTrue => Err("nothing here asks for health".to_owned()),
        }
    }

    fn fault(&self, at: usize, now: Duration) -> Fault {
        let blow = &self.faults[at];
        let whole = blow.over.filter(|(_, whole)| *whole);
        Fault {
            at_s: blow.at.as_secs_f64(),
            rung: blow.rung.name(),
            what: blow.what.clone(),
            gap_ms: self.gap_of(blow, now).map(millis),
            whole_ms: whole.map(|(over, _)| millis(over - blow.at)),
        }
    }

    fn undisturbed(&self) -> Option<Spread> {
        let (Some(from), Some(to)) = (self.began.calm, self.began.faults) else { return None };
        let silences = self.tracks.silences_between(from, to);
        Spread::of(silences.into_iter().map(millis).collect())
    }

    fn goodput(&self, now: Duration) -> Goodput {
        let bins = self.tracks.token_bins();
        let rate = |from: Duration, to: Duration| {
            let (from, to) = (from.as_secs() as usize, to.as_secs() as usize);
            let tokens: u64 = bins.iter().take(to).skip(from).sum();
            if to > from { tokens as f64 / (to - from) as f64 } else { 0.0 }
        };
        let faults = self.began.faults.unwrap_or(now);
        Goodput {
            undisturbed: self.began.calm.map(|calm| rate(calm, faults)),
            under_faults: rate(faults, self.began.end.unwrap_or(now)),
        }
    }

    fn timeline(&self, now: Duration, silences: Vec<Duration>) -> Timeline {
        let (from, to) = (self.began.faults.unwrap_or(now), self.began.end.unwrap_or(now));
        Timeline {
            faults_s: [from.as_secs_f64(), to.as_secs_f64()],
            tokens: self.tracks.token_bins(),
            silence_ms: self.tracks.silence_bins(),
            silences_ms: silences.into_iter().map(millis).collect(),
            clients: self.tracks.client_bins(),
        }
    }
}

fn figures(faults: &[Fault]) -> Vec<RungFigures> {
    let of = |rung: Rung| {
        let these: Vec<&Fault> = faults.iter().filter(|fault| fault.rung == rung.name()).collect();
        (!these.is_empty()).then(|| RungFigures {
            rung: rung.name(),
            times: these.len(),
            gap_ms: Spread::of(these.iter().filter_map(|fault| fault.gap_ms).collect()),
            whole_ms: Spread::of(these.iter().filter_map(|fault| fault.whole_ms).collect()),
        })
    };
    Rung::all().filter_map(of).collect()
}

/// Whether all is well, and the last line, which says so.
fn line(verdict: &Verdict) -> (bool, String) {
    let Verdict { requests, tokens, availability, setting, .. } = verdict;
    let seed = setting.seed;
    let broken = verdict.invariants.iter().find_map(|invariant| match &invariant.finding {
        Finding::Broken(what) => Some(format!("{} {what}", invariant.id)),
        Finding::Kept(_) | Finding::NotJudged(_) => None,
    });
    if let Some(broken) = broken.or_else(|| failed(requests, tokens)) {
        return (false, format!("verdict: broken - {broken}; seed {seed}"));
    }
    let share = 100.0 * availability.share;
    if availability.share < setting.slo.availability {
        let wanted = 100.0 * setting.slo.availability;
        let gap = setting.slo.gap_ms;
        let what =
            format!("SLO: {share:.2} % of client-seconds without a silence over {gap} ms, {wanted} % are wanted");
        let hint = overload(verdict).unwrap_or_default();
        return (false, format!("verdict: broken - {what}{hint}; seed {seed}"));
    }
    if let Some(fault) = verdict.faults.iter().find(|fault| fault.whole_ms.is_none()) {
        return (
            false,
            format!("verdict: broken - not whole again after {} ({}); seed {seed}", fault.rung, fault.what),
        );
    }
    let kept = verdict.invariants.iter().filter(|invariant| matches!(invariant.finding, Finding::Kept(_)));
    let ids: Vec<_> = kept.map(|invariant| invariant.id).collect();
    let gap = verdict
        .faults
        .iter()
        .filter_map(|fault| fault.gap_ms)
        .max()
        .map_or_else(String::new, |gap| format!("longest gap {gap} ms, "));
    let line = format!(
        "verdict: kept - {} faults, {} of {} requests right, 0 lost, 0 doubled, 0 changed, 0 failed, \
         {gap}availability {share:.2} %; {}",
        verdict.faults.len(),
        requests.right + requests.quarantined,
        requests.offered,
        ids.join(" "),
    );
    (true, line)
}

/// What to do if the host could not bear the load even before anything was broken.
fn overload(verdict: &Verdict) -> Option<String> {
    let longest = verdict.undisturbed_gap_ms?.max;
    let rate = verdict.setting.rate;
    let overloaded = longest > verdict.setting.slo.gap_ms;
    overloaded.then(|| format!("; silences of {longest} ms before anything was broken: lower --rate {rate}"))
}

/// What is a failure whatever the objectives are.
fn failed(requests: &Requests, tokens: &Tokens) -> Option<String> {
    let failed: u64 = requests.failed.values().sum();
    if !tokens.flaws.is_none() {
        let super::reading::Flaws { lost, doubled, changed } = tokens.flaws;
        return Some(format!("{lost} tokens lost, {doubled} doubled, {changed} changed"));
    }
    if failed > 0 {
        return Some(format!("{failed} accepted requests failed: {:?}", requests.failed));
    }
    (requests.right == 0).then(|| "no request was answered".to_owned())
}
