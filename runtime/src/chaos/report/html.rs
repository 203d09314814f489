//! The report as one page that needs nothing else: no script, no font, no picture from anywhere.

use std::fmt::Write;

use super::charts::{self, WIDTHS};
use super::plot::{escaped, spoken};
use super::text::requests_line;
use crate::chaos::judge::promises::Finding;
use crate::chaos::verdict::{Spread, Verdict};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn html(verdict: &Verdict) -> String {
    let mut page = String::with_capacity(128 * 1024);
    // Writing to a string does not fail.
    let _ = compose(&mut page, verdict);
    page
}

fn compose(page: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let word = if verdict.kept { "kept" } else { "broken" };
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>halm chaos: {word}</title><style>{STYLE}</style></head><body><main>"
    )?;
    head(page, verdict, word)?;
    tiles(page, verdict)?;
    section(
        page,
        "Throughput",
        "Tokens of right answers that reached clients in each second. Numbers are faults, \
         as in the table below; the shaded part is the undisturbed baseline.",
    )?;
    plots(page, |width| charts::throughput(verdict, width))?;
    section(
        page,
        "Gaps",
        "The longest silence that any stream saw, second by second, and while each fault lasted. The scale is \
         logarithmic.",
    )?;
    plots(page, |width| charts::gaps(verdict, width))?;
    section(
        page,
        "Silences by length",
        "Pauses of at least 50 ms between two records of a stream, or before its first, under faults; in seconds.",
    )?;
    plots(page, |width| charts::histogram(verdict, width))?;
    section(page, "Clients", "What each client's seconds were like; the worst of a second counts.")?;
    plots(page, |width| charts::clients(verdict, width))?;
    let bound = spoken(verdict.setting.slo.gap_ms as f64);
    write!(
        page,
        "<ul class=\"legend\">{}{}{}{}</ul>",
        legend("accent-soft", "served"),
        legend("pause", &format!("a silence of 300 ms to {bound}")),
        legend("bad", &format!("silent for over {bound}, refused or failed")),
        legend("panel", "nothing asked"),
    )?;
    invariants(page, verdict)?;
    rungs(page, verdict)?;
    faults(page, verdict)?;
    foot(page, verdict)
}

fn head(page: &mut String, verdict: &Verdict, word: &str) -> std::fmt::Result {
    let setting = &verdict.setting;
    let line = verdict.line.strip_prefix("verdict: ").unwrap_or(&verdict.line);
    let sentence = if verdict.kept { "Every judged promise was kept" } else { "A promise was broken" };
    let sentence = if line.starts_with("broken - SLO") { "An objective was missed" } else { sentence };
    write!(
        page,
        "<header><p class=\"brand\">halm {} chaos</p><h1><span class=\"{word}\">{sentence}</span></h1>\
         <p class=\"why\">{}</p></header>",
        setting.version,
        escaped(line.split_once(" - ").map_or(line, |(_, rest)| rest)),
    )
}

fn tiles(page: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let Verdict { availability, tokens, requests, goodput, .. } = verdict;
    let flaws = tokens.flaws;
    let longest = verdict.faults.iter().filter_map(|fault| fault.gap_ms).max();
    let longest = longest.or(verdict.gap_ms.map(|gap| gap.max)).map_or_else(|| "-".to_owned(), |ms| spoken(ms as f64));
    let usual = verdict.gap_ms.map_or_else(String::new, |gap| format!("p99 of silences {}", spoken(gap.p99 as f64)));
    let goods = match goodput.undisturbed {
        Some(rate) => format!("{rate:.0} undisturbed"),
        None => "no baseline".to_owned(),
    };
    page.push_str("<dl class=\"tiles\">");
    let mut tile = |name: &str, value: &str, unit: &str, below: &str| {
        write!(page, "<div><dt>{name}</dt><dd>{value} <small>{unit}</small></dd><p>{below}</p></div>")
    };
    let right = requests.right + requests.quarantined;
    tile(
        "Requests right",
        &format!("{right}"),
        &format!("of {}", requests.offered),
        &format!("{} took more than one attempt", requests.resumed),
    )?;
    tile(
        "Lost, doubled, changed",
        &format!("{}, {}, {}", flaws.lost, flaws.doubled, flaws.changed),
        "",
        &format!("of {} tokens", tokens.delivered),
    )?;
    tile("Longest gap", &longest, "", &usual)?;
    let sure = format!("{:.2} to {:.2} %", 100.0 * availability.low, 100.0 * availability.high);
    tile("Availability", &format!("{:.2}", 100.0 * availability.share), "%", &sure)?;
    tile("Goodput", &format!("{:.0}", goodput.under_faults), "tokens/s", &goods)?;
    page.push_str("</dl>");
    Ok(())
}

fn section(page: &mut String, title: &str, note: &str) -> std::fmt::Result {
    write!(page, "<h2>{title}</h2><p class=\"note\">{note}</p>")
}

fn plots(page: &mut String, plot: impl Fn(f64) -> String) -> std::fmt::Result {
    WIDTHS.into_iter().try_for_each(|width| page.write_str(&plot(width)))
}

fn legend(color: &str, words: &str) -> String {
    format!("<li><i style=\"background:var(--{color})\"></i>{words}</li>")
}

fn invariants(page: &mut String, verdict: &Verdict) -> std::fmt::Result {
    section(
        page,
        "Promises",
        "Judged by what clients saw, by the token log as the brokers stored it, and by the outcomes and the \
         queue at the end. What was not measured is not judged.",
    )?;
    page.push_str(
        "<div class=\"scroll\"><table><tr><th>id</th><th>found</th><th>promise, and what was looked at</th></tr>",
    );
    for invariant in &verdict.invariants {
        let (state, word, why) = match &invariant.finding {
            Finding::Kept(looked_at) => ("kept", "kept", looked_at),
            Finding::Broken(counterexample) => ("broken", "broken", counterexample),
            Finding::NotJudged(why) => ("not_judged", "not judged", why),
        };
        write!(
            page,
            "<tr><td class=\"name\">{}</td><td class=\"name\"><span class=\"state-{state}\">{word}</span></td>\
             <td class=\"wordy\">{}<span>{}</span></td></tr>",
            invariant.id,
            invariant.says,
            escaped(why)
        )?;
    }
    page.write_str("</table></div>")
}

fn rungs(page: &mut String, verdict: &Verdict) -> std::fmt::Result {
    if verdict.rungs.is_empty() {
        return Ok(());
    }
    section(
        page,
        "By kind of fault",
        "The gap is the longest silence that any stream alive meanwhile saw; whole again is when every \
         broker, replica and worker was as before. Milliseconds.",
    )?;
    page.push_str(
        "<div class=\"scroll\"><table><tr class=\"group\"><th></th><th></th><th class=\"n\" colspan=\"3\">gap</th>\
         <th class=\"n\" colspan=\"3\">whole again</th></tr><tr><th>rung</th><th class=\"n\">times</th>",
    );
    page.push_str(&"<th class=\"n\">p50</th><th class=\"n\">p99</th><th class=\"n\">max</th>".repeat(2));
    page.push_str("</tr>");
    for rung in &verdict.rungs {
        write!(page, "<tr><td class=\"name\">{}</td><td class=\"n\">{}</td>", rung.rung, rung.times)?;
        for spread in [rung.gap_ms, rung.whole_ms] {
            for part in [|spread: Spread| spread.p50, |spread: Spread| spread.p99, |spread: Spread| spread.max] {
                write!(page, "<td class=\"n\">{}</td>", cell(spread.map(part)))?;
            }
        }
        page.push_str("</tr>");
    }
    page.write_str("</table></div>")
}

fn faults(page: &mut String, verdict: &Verdict) -> std::fmt::Result {
    if verdict.faults.is_empty() && verdict.not_done.is_empty() {
        return Ok(());
    }
    section(page, "Faults", "In the order in which they were made. Milliseconds, and seconds since the load began.")?;
    page.push_str(
        "<div class=\"scroll\"><table><tr><th class=\"n\">no.</th><th class=\"n\">at</th><th>rung</th>\
         <th class=\"n\">gap</th><th class=\"n\">whole again</th><th>what was done</th></tr>",
    );
    for (at, fault) in verdict.faults.iter().enumerate() {
        write!(
            page,
            "<tr><td class=\"n\">{}</td><td class=\"n\">{:.1} s</td><td class=\"name\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"wordy\">{}</td></tr>",
            at + 1,
            fault.at_s,
            fault.rung,
            cell(fault.gap_ms),
            fault.whole_ms.map_or_else(|| "never".to_owned(), |ms| cell(Some(ms))),
            escaped(&fault.what)
        )?;
    }
    for (rung, why) in &verdict.not_done {
        let why = escaped(why);
        write!(
            page,
            "<tr><td class=\"n\">-</td><td class=\"n\">-</td><td class=\"name\">{rung}</td>\
             <td class=\"n\">-</td><td class=\"n\">-</td><td class=\"wordy\">not done: {why}</td></tr>"
        )?;
    }
    page.push_str("</table></div>");
    for what in &verdict.restarted {
        write!(page, "<p class=\"note\">{}.</p>", escaped(what))?;
    }
    Ok(())
}

/// Thousands are set apart.
fn cell(ms: Option<u64>) -> String {
    let Some(ms) = ms else { return "-".to_owned() };
    if ms < 1_000 { ms.to_string() } else { format!("{},{:03}", ms / 1_000, ms % 1_000) }
}

fn foot(page: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let setting = &verdict.setting;
    writeln!(
        page,
        "<footer><p>{}.</p><p>{}. {} clients send {} requests a second to {}, whether or not the last \
         ones are answered; faults for {:.0} s. Availability: the share of all clients' seconds without a silence over \
         {} ms, a failure or a refusal; the interval is by {}. Of the time in which something was asked it is {:.2} %. \
         Objective: {} %.</p><p>The same schedule and load: halm chaos --seed {} --minutes {} --rate {}</p>\
         </footer></main></body></html>",
        escaped(&requests_line(&verdict.requests)),
        escaped(&setting.target),
        setting.clients,
        setting.rate,
        escaped(&setting.model),
        setting.faults_s,
        setting.slo.gap_ms,
        verdict.availability.method,
        100.0 * verdict.availability.asked_share,
        100.0 * setting.slo.availability,
        setting.seed,
        setting.faults_s / 60.0,
        setting.rate,
    )
}
