//! What every plot needs: scales, ticks, and a frame with axes. Coordinates are in units of the SVG's own width.

use std::fmt::Write;

/// Room around the drawing, for labels.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 6.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 24.0;

/// How values become heights.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// Powers of ten, from the first to the second.
    Log(f64, f64),
}

impl Scale {
    /// From 0 to 1.
    pub(super) fn share(self, value: f64) -> f64 {
        match self {
            Self::Linear(max) => (value / max).clamp(0.0, 1.0),
            Self::Log(low, high) => ((value.max(low) / low).ln() / (high / low).ln()).clamp(0.0, 1.0),
        }
    }

    /// Values worth a line.
    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(max) => {
                let step = step(max, 4.0);
                (0..=(max / step) as usize).map(|at| at as f64 * step).collect()
            }
            Self::Log(low, high) => {
                let decades = (0..8).map(|power| 10_f64.powi(power));
                decades.flat_map(|decade| [decade, 3.0 * decade]).filter(|tick| *tick >= low && *tick <= high).collect()
            }
        }
    }
}

/// A round number of which about `wanted` fit into `max`.
pub(super) fn step(max: f64, wanted: f64) -> f64 {
    let raw = (max / wanted).max(f64::MIN_POSITIVE);
    let decade = 10_f64.powf(raw.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| round * decade >= raw).unwrap_or(10.0);
    round * decade
}

/// A plot being drawn.
pub(super) struct Plot {
    pub(super) width: f64,
    pub(super) height: f64,
    seconds: f64,
    scale: Scale,
    svg: String,
}

impl Plot {
    /// Time goes from 0 to `seconds`, to the right.
    pub(super) fn new(width: f64, height: f64, seconds: f64, scale: Scale, label: &str) -> Self {
        let svg = format!(
            "<svg viewBox=\"0 0 {width} {height}\" class=\"{}\" role=\"img\" aria-label=\"{label}\">",
            class_of(width)
        );
        Self { width, height, seconds: seconds.max(1.0), scale, svg }
    }

    pub(super) fn x(&self, second: f64) -> f64 {
        LEFT + (self.width - LEFT - RIGHT) * (second / self.seconds).clamp(0.0, 1.0)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        let bottom = self.bottom();
        bottom - (bottom - TOP) * self.scale.share(value)
    }

    pub(super) fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }

    pub(super) fn top(&self) -> f64 {
        TOP
    }

    /// Adds an element.
    pub(super) fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.svg.write_fmt(element);
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(format_args!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
    }

    /// Lines across with their values, and seconds below.
    pub(super) fn axes(&mut self, unit: &str, tell: impl Fn(f64) -> String) {
        for tick in self.scale.ticks() {
            let y = self.y(tick);
            self.line("grid", (LEFT, y), (self.width - RIGHT, y));
            self.put(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                tell(tick)
            ));
        }
        self.put(format_args!("<text x=\"0\" y=\"10\">{unit}</text>"));
        self.seconds_below();
    }

    pub(super) fn seconds_below(&mut self) {
        let step = step(self.seconds, if self.width < 500.0 { 4.0 } else { 9.0 });
        for at in 0..=(self.seconds / step) as usize {
            let second = at as f64 * step;
            let (x, y) = (self.x(second), self.height - 6.0);
            let anchor = if at == 0 { "start" } else { "middle" };
            self.put(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{second:.0} s</text>"));
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

/// Each plot is drawn twice: a wide page and a phone want different ones.
pub(super) fn class_of(width: f64) -> &'static str {
    if width < 500.0 { "narrow" } else { "wide" }
}

/// Text that stands in a page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Milliseconds as people say them.
pub(super) fn spoken(ms: f64) -> String {
    match ms {
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms % 1_000.0 == 0.0 => format!("{:.0} s", ms / 1_000.0),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_about_as_many_as_wanted() {
        for (max, expected) in [(200.0, 50.0), (7.0, 2.0), (183.0, 50.0), (1.0, 0.5), (4_000.0, 1_000.0)] {
            assert!((step(max, 4.0) - expected).abs() < 1e-9, "{max}: {}", step(max, 4.0));
        }
    }

    #[test]
    fn scales_place_their_ends_at_the_ends() {
        assert_eq!((Scale::Linear(10.0).share(0.0), Scale::Linear(10.0).share(10.0)), (0.0, 1.0));
        let log = Scale::Log(10.0, 1_000.0);
        assert_eq!((log.share(1.0), log.share(1_000.0)), (0.0, 1.0));
        assert!((log.share(100.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_stands_in_a_page_cannot_end_it() {
        assert_eq!(escaped("<b> & \"x\""), "&lt;b&gt; &amp; &quot;x&quot;");
    }
}
