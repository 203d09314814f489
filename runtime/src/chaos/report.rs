//! What is written down: text for the terminal, JSON for programs, one page for people.

mod charts;
mod html;
mod plot;
mod text;

use std::path::Path;

use anyhow::Context;

use super::verdict::Verdict;
pub(crate) use text::text;

/// Writes `report.json` and `report.html` into a folder that is there.
///
/// # Errors
/// If the folder cannot be written to.
pub(crate) fn write(verdict: &Verdict, dir: &Path) -> anyhow::Result<()> {
    let put = |name: &str, bytes: String| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
    };
    put("report.html", html::html(verdict))?;
    put("report.json", serde_json::to_string_pretty(verdict)? + "\n")
}
