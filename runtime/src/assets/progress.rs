//! What a person sees of a download.
//!
//! Owns the bar (on a terminal's stderr) and the plain lines (anywhere else): one when it begins,
//! one when it ends. Must never write to stdout, which belongs to a command's result. Called by
//! `fetch` and, through it, by the sources.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws in a second: smooth to the eye, and nothing beside the download.
const REDRAWS_PER_SECOND: u8 = 10;

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reporting {
    /// A bar on stderr if that is a terminal, else a line at the start and one at the end.
    #[default]
    Auto,
    /// Nowhere.
    Silent,
}

/// One download from one source.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    lines: bool,
    label: String,
    began: Instant,
}

impl Progress {
    /// Begins to show `label` coming from `source`, `total_bytes` in all.
    pub(super) fn begin(reporting: Reporting, label: &str, source: &str, total_bytes: u64) -> Self {
        let shown = reporting == Reporting::Auto;
        let terminal = std::io::stderr().is_terminal();
        let bar = if shown && terminal {
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
            ProgressBar::with_draw_target(Some(total_bytes), target).with_style(style())
        } else {
            ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::hidden())
        };
        bar.set_message(format!("{label} from {source}"));
        let lines = shown && !terminal;
        if lines {
            eprintln!("fetching {label} from {source} ({:.1} MB)", total_bytes as f64 / 1e6);
        }
        Self { bar, lines, label: label.to_owned(), began: Instant::now() }
    }

    /// So many bytes are there, counted from the file's beginning.
    pub(super) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// Everything came; now it is unpacked, to `total_bytes`.
    pub(super) fn unpacking(&self, total_bytes: u64) {
        self.bar.set_message(format!("unpacking {}", self.label));
        self.bar.set_length(total_bytes);
        self.bar.set_position(0);
        self.bar.reset_eta();
    }

    /// The file is whole and in its place.
    pub(super) fn done(self) {
        self.bar.finish_and_clear();
        if self.lines {
            eprintln!("fetched {} in {:.1} s", self.label, self.began.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}

/// Says that another process is at it.
pub(super) fn say_waiting(reporting: Reporting, label: &str) {
    if reporting == Reporting::Auto {
        eprintln!("another halm is fetching {label}, waiting for it");
    }
}

/// Says that a source is passed over, and why.
pub(super) fn say_next(reporting: Reporting, cause: &impl std::fmt::Display) {
    if reporting == Reporting::Auto {
        eprintln!("{cause}; trying the next source");
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
