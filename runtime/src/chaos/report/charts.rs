//! The plots: throughput and gaps over time, how long silences were, and each client's seconds.

use std::fmt::Write;

use super::plot::{Plot, Scale, class_of, escaped, spoken, step};
use crate::chaos::verdict::{Fault, Verdict};

/// Widths that each plot is drawn for: a page and a phone.
pub(super) const WIDTHS: [f64; 2] = [992.0, 358.0];
/// The ends of the scale of silences, in milliseconds.
const SILENCE_MS: (f64, f64) = (50.0, 30_000.0);
/// Ends of the histogram's classes, in milliseconds; the last has none.
const CLASSES_MS: [u64; 9] = [100, 200, 300, 500, 1_000, 2_000, 3_000, 5_000, 10_000];
/// Height of a client's strip, and from one to the next.
const STRIP: f64 = 14.0;
const STRIP_STEP: f64 = 20.0;

fn seconds(verdict: &Verdict) -> f64 {
    let time = &verdict.timeline;
    let bins = time.tokens.len().max(time.silence_ms.len()).max(time.clients.iter().map(Vec::len).max().unwrap_or(0));
    bins as f64
}

/// Tokens per second with the faults marked.
pub(super) fn throughput(verdict: &Verdict, width: f64) -> String {
    let bins = &verdict.timeline.tokens;
    let most = bins.iter().copied().max().unwrap_or(0).max(1) as f64;
    let scale = Scale::Linear(step(most, 4.0) * (most / step(most, 4.0)).ceil());
    let mut plot = Plot::new(width, 230.0, seconds(verdict), scale, "tokens per second over time");
    let (begins, top) = (plot.x(verdict.timeline.faults_s[0]), plot.top());
    let (zero, floor) = (plot.x(0.0), plot.bottom());
    plot.put(format_args!(
        "<rect class=\"calm\" x=\"{zero:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
        begins - zero,
        floor - top
    ));
    plot.axes("tokens/s", |tick| format!("{tick:.0}"));
    let mut curve = String::new();
    for (second, tokens) in bins.iter().enumerate() {
        let _ = write!(curve, "{:.1},{:.1} ", plot.x(second as f64 + 0.5), plot.y(*tokens as f64));
    }
    let (first, last) = (plot.x(0.5), plot.x(bins.len() as f64 - 0.5));
    plot.put(format_args!("<polygon class=\"area\" points=\"{:.1},{floor:.1} {curve}{last:.1},{floor:.1}\"/>", first));
    plot.put(format_args!("<polyline class=\"curve\" points=\"{curve}\"/>"));
    marks(&mut plot, &verdict.faults, false);
    plot.finish()
}

/// The longest silence of each second, and each fault's gap.
pub(super) fn gaps(verdict: &Verdict, width: f64) -> String {
    let (low, high) = SILENCE_MS;
    let mut plot = Plot::new(width, 250.0, seconds(verdict), Scale::Log(low, high), "silences over time");
    plot.axes("silence", spoken);
    let (floor, base) = (plot.bottom(), plot.x(0.0));
    let mut curve = String::new();
    for (second, ms) in verdict.timeline.silence_ms.iter().enumerate() {
        let _ = write!(curve, "{:.1},{:.1} ", plot.x(second as f64 + 0.5), plot.y(*ms as f64));
    }
    let last = plot.x(verdict.timeline.silence_ms.len() as f64 - 0.5);
    plot.put(format_args!("<polygon class=\"area\" points=\"{base:.1},{floor:.1} {curve}{last:.1},{floor:.1}\"/>"));
    let bound = verdict.setting.slo.gap_ms as f64;
    let (y, end) = (plot.y(bound), plot.width);
    plot.line("level", (base, y), (end, y));
    plot.put(format_args!("<text x=\"{:.1}\" y=\"{:.1}\">bound {}</text>", base + 4.0, y - 5.0, spoken(bound)));
    marks(&mut plot, &verdict.faults, true);
    plot.finish()
}

/// A line for each fault, numbered as in the table; with its gap, a stem as high as that.
fn marks(plot: &mut Plot, faults: &[Fault], stems: bool) {
    let mut numbered_to = f64::MIN;
    for (at, fault) in faults.iter().enumerate() {
        let (x, top, floor) = (plot.x(fault.at_s), plot.top(), plot.bottom());
        let gap = fault.gap_ms.map_or_else(|| "no stream alive".to_owned(), |gap| format!("gap {gap} ms"));
        let title = escaped(&format!("{}. {} at {:.1} s, {gap}: {}", at + 1, fault.rung, fault.at_s, fault.what));
        plot.put(format_args!("<g><title>{title}</title>"));
        let head = match (stems, fault.gap_ms) {
            (true, Some(gap)) => {
                let y = plot.y(gap as f64);
                plot.line("stem", (x, floor), (x, y));
                plot.put(format_args!("<circle class=\"head\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"));
                y - 8.0
            }
            (true, None) => floor - 4.0,
            (false, _) => {
                plot.line("fault", (x, top), (x, floor));
                top - 6.0
            }
        };
        // Numbers that would lie on each other are left to the tooltip.
        if x - numbered_to > 13.0 || stems && plot.width > 500.0 {
            let number = at + 1;
            plot.put(format_args!(
                "<text class=\"number\" x=\"{x:.1}\" y=\"{head:.1}\" text-anchor=\"middle\">{number}</text>"
            ));
            numbered_to = x;
        }
        plot.put(format_args!("</g>"));
    }
}

/// How many silences were how long.
pub(super) fn histogram(verdict: &Verdict, width: f64) -> String {
    let mut counts = [0_u64; CLASSES_MS.len() + 1];
    for ms in &verdict.timeline.silences_ms {
        counts[CLASSES_MS.iter().position(|end| ms < end).unwrap_or(CLASSES_MS.len())] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let (height, floor, top) = (190.0, 150.0, 24.0);
    let slot = width / counts.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" class=\"{}\" role=\"img\" aria-label=\"silences by length\">",
        class_of(width)
    );
    for (at, count) in counts.iter().enumerate() {
        // The square root, so that one among hundreds can be seen; the numbers are above.
        let tall = (floor - top) * (*count as f64 / most).sqrt();
        let (x, middle) = (at as f64 * slot, (at as f64 + 0.5) * slot);
        let unit = if width < 500.0 { "" } else { " s" };
        let end = match CLASSES_MS.get(at) {
            Some(end) => format!("&lt; {}{unit}", seconds_of(*end)),
            None => format!("≥ {}{unit}", seconds_of(CLASSES_MS[at - 1])),
        };
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" rx=\"1.5\"/>\
             <text class=\"value\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{count}</text>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{end}</text>",
            x + 0.12 * slot,
            floor - tall,
            0.76 * slot,
            floor - tall - 6.0,
            floor + 18.0,
        );
    }
    let _ = write!(svg, "<line class=\"grid\" x1=\"0\" y1=\"{floor}\" x2=\"{width}\" y2=\"{floor}\"/></svg>");
    svg
}

fn seconds_of(ms: u64) -> String {
    if ms < 1_000 { format!(".{}", ms / 100) } else { (ms / 1_000).to_string() }
}

/// A strip for each client: its seconds by how they were.
pub(super) fn clients(verdict: &Verdict, width: f64) -> String {
    let clients = &verdict.timeline.clients;
    let height = clients.len() as f64 * STRIP_STEP + 48.0;
    let mut plot = Plot::new(width, height, seconds(verdict), Scale::Linear(1.0), "each client's seconds");
    for (number, bins) in clients.iter().enumerate() {
        let y = plot.top() + number as f64 * STRIP_STEP - 10.0;
        plot.put(format_args!("<text x=\"0\" y=\"{:.1}\">{}</text>", y + 11.0, number + 1));
        let mut begin = 0;
        while begin < bins.len() {
            let run = bins[begin..].iter().take_while(|mood| **mood == bins[begin]).count();
            let (from, to) = (plot.x(begin as f64), plot.x((begin + run) as f64));
            let class = ["idle", "served", "pause", "bad"].get(usize::from(bins[begin])).copied().unwrap_or("idle");
            plot.put(format_args!(
                "<rect class=\"{class}\" x=\"{from:.2}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{STRIP}\"/>",
                to - from
            ));
            begin += run;
        }
    }
    plot.seconds_below();
    plot.finish()
}
