//! The report on a terminal.

use std::fmt::Write;

use crate::chaos::judge::promises::Finding;
use crate::chaos::verdict::{Requests, Spread, Verdict};

/// All of it but the last line.
pub(crate) fn text(verdict: &Verdict) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = compose(&mut out, verdict);
    out
}

fn compose(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let Verdict { requests, tokens, availability, goodput, setting, .. } = verdict;
    writeln!(out, "\nrequests       {}", requests_line(requests))?;
    let flaws = tokens.flaws;
    writeln!(
        out,
        "tokens         {} delivered, {} lost, {} doubled, {} changed, {} late (with the final record only)",
        tokens.delivered, flaws.lost, flaws.doubled, flaws.changed, tokens.late
    )?;
    let least = if availability.bad_seconds > 0.0 { "" } else { "at least " };
    let nines = availability.nines.map_or_else(String::new, |nines| format!(", {least}{nines:.1} nines"));
    writeln!(
        out,
        "availability   {:.2} % of {:.0} client-seconds{nines}; {:.2} to {:.2} % ({}); bad: \
         silent for over {} ms; {:.2} % of the time in which something was asked",
        100.0 * availability.share,
        availability.client_seconds,
        100.0 * availability.low,
        100.0 * availability.high,
        availability.method,
        setting.slo.gap_ms,
        100.0 * availability.asked_share,
    )?;
    let undisturbed =
        goodput.undisturbed.map_or_else(|| "not measured".to_owned(), |rate| format!("{rate:.0} tokens/s"));
    writeln!(out, "goodput        {:.0} tokens/s under faults, {undisturbed} undisturbed", goodput.under_faults)?;
    writeln!(
        out,
        "silences       p50 {}, p99 {}, longest {} ms under faults; {} / {} / {} undisturbed",
        ms(verdict.gap_ms, |gap| gap.p50),
        ms(verdict.gap_ms, |gap| gap.p99),
        ms(verdict.gap_ms, |gap| gap.max),
        ms(verdict.undisturbed_gap_ms, |gap| gap.p50),
        ms(verdict.undisturbed_gap_ms, |gap| gap.p99),
        ms(verdict.undisturbed_gap_ms, |gap| gap.max),
    )?;
    rungs(out, verdict)?;
    for (rung, why) in &verdict.not_done {
        writeln!(out, "{rung:<18} not done: {why}")?;
    }
    for what in &verdict.restarted {
        writeln!(out, "{what}")?;
    }
    writeln!(out)?;
    for invariant in &verdict.invariants {
        let (state, why) = match &invariant.finding {
            Finding::Kept(looked_at) => ("kept", looked_at),
            Finding::Broken(counterexample) => ("BROKEN", counterexample),
            Finding::NotJudged(why) => ("not judged", why),
        };
        writeln!(out, "{}  {state:<10}  {}: {why}", invariant.id, invariant.says)?;
    }
    Ok(())
}

fn rungs(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    if verdict.rungs.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:<18} {:>5}   {:^23}   {:^23}", "", "", "gap, ms", "whole again, ms")?;
    writeln!(
        out,
        "{:<18} {:>5}   {:>7} {:>7} {:>7}   {:>7} {:>7} {:>7}",
        "", "times", "p50", "p99", "max", "p50", "p99", "max"
    )?;
    for rung in &verdict.rungs {
        let three = |spread: Option<Spread>| {
            let of = |part: fn(Spread) -> u64| ms(spread, part);
            format!("{:>7} {:>7} {:>7}", of(|spread| spread.p50), of(|spread| spread.p99), of(|spread| spread.max))
        };
        writeln!(out, "{:<18} {:>5}   {}   {}", rung.rung, rung.times, three(rung.gap_ms), three(rung.whole_ms))?;
    }
    Ok(())
}

fn ms(spread: Option<Spread>, part: impl Fn(Spread) -> u64) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| part(spread).to_string())
}

/// What became of the requests, in a sentence that leaves out what did not happen.
pub(super) fn requests_line(requests: &Requests) -> String {
    let mut parts = vec![format!("{} offered", requests.offered), format!("{} accepted", requests.accepted)];
    parts.push(format!("{} right ({} resumed)", requests.right, requests.resumed));
    let mut more = |count: u64, what: &str| {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    };
    more(requests.quarantined, "quarantined as they had to be");
    more(requests.wrong, "WRONG");
    requests.failed.iter().for_each(|(code, count)| more(*count, &format!("FAILED ({code})")));
    more(requests.unsettled, "WITHOUT AN END");
    requests.refused.iter().for_each(|(code, count)| more(*count, &format!("refused ({code})")));
    more(requests.not_sent, "not sent, too many were under way");
    parts.join(", ")
}
