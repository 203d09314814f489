//! Three texts growing side by side: redrawn in place on a terminal, in a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::client::Stream;

const TITLES: [&str; 3] = ["undisturbed", "worker killed", "replica killed"];
/// Columns of each text.
const WIDTH: usize = 36;
/// Lines of each text that are shown: its end.
const HEIGHT: usize = 12;
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Where the demo is watched.
pub(super) struct Screen {
    terminal: bool,
    drawn: usize,
    notes: Vec<String>,
    shown_at: Instant,
}

impl Screen {
    pub(super) fn open() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), drawn: 0, notes: Vec::new(), shown_at: Instant::now() }
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, note: &str) {
        if self.terminal {
            self.notes.push(note.to_owned());
        } else {
            println!("{note}");
        }
    }

    /// Shows how far the texts are.
    pub(super) fn show(&mut self, streams: &[Stream]) {
        if self.terminal {
            self.draw(streams);
        } else if self.shown_at.elapsed() >= LINE_EVERY {
            self.shown_at = Instant::now();
            let column =
                |(title, stream): (&&str, &Stream)| format!("{title} {:>3} tokens{}", stream.tokens(), mark(stream));
            println!("{}", TITLES.iter().zip(streams).map(column).collect::<Vec<_>>().join(" | "));
        }
    }

    /// Shows the texts as they ended.
    pub(super) fn finish(&mut self, streams: &[Stream]) {
        if self.terminal {
            self.draw(streams);
            return;
        }
        let columns: Vec<Vec<String>> = streams.iter().map(|stream| wrap(&stream.text())).collect();
        println!("\n{}", row(&TITLES.map(str::to_owned)));
        for line in 0..columns.iter().map(Vec::len).max().unwrap_or(0) {
            let cells: Vec<_> = columns.iter().map(|column| column.get(line).cloned().unwrap_or_default()).collect();
            println!("{}", row(&cells));
        }
    }

    fn draw(&mut self, streams: &[Stream]) {
        let mut lines = self.notes.clone();
        lines.push(String::new());
        let head = |(title, stream): (&&str, &Stream)| format!("{title}, {} tokens{}", stream.tokens(), mark(stream));
        lines.push(row(&TITLES.iter().zip(streams).map(head).collect::<Vec<_>>()));
        lines.push(row(&[(); 3].map(|()| "-".repeat(WIDTH))));
        let columns: Vec<Vec<String>> = streams.iter().map(|stream| wrap(&stream.text())).collect();
        let longest = columns.iter().map(Vec::len).max().unwrap_or(0);
        let from = longest.saturating_sub(HEIGHT);
        for line in from..from + HEIGHT {
            lines.push(row(&columns.iter().map(|c| c.get(line).cloned().unwrap_or_default()).collect::<Vec<_>>()));
        }
        let mut out = std::io::stdout().lock();
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        let body: String = lines.iter().map(|line| format!("\x1b[2K{line}\n")).collect();
        self.drawn = lines.len();
        // A terminal that went away is no reason to stop.
        let _ = write!(out, "{up}{body}").and_then(|()| out.flush());
    }
}

fn mark(stream: &Stream) -> String {
    match stream.gap() {
        _ if stream.is_in_gap() => " (killed)".to_owned(),
        Some(gap) => format!(" (gap {} ms)", gap.as_millis()),
        None => String::new(),
    }
}

fn row(cells: &[String]) -> String {
    let cell = |cell: &String| {
        let shown: String = cell.chars().take(WIDTH).collect();
        format!("{shown:<WIDTH$}")
    };
    cells.iter().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_wrapped_at_words_and_keeps_its_paragraphs() {
        let lines = wrap(&format!("{} end\n\nnext", "word ".repeat(10).trim_end()));
        assert_eq!(lines, ["word word word word word word word", "word word word end", "", "next"]);
    }
}
