//! Replicas as text.
//!
//! Owns how a tree, a job and a crash report look. It must never ask anybody: it draws what it is given.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use halm_client::Replicas;
use halm_protocol::{ActorStatus, CrashRecord, ReplicaStatus, StatusQuestion};

/// Where the states stand: wide enough for the deepest actor of a tree.
const STATE_COLUMN: usize = 34;

/// All of them, and who did not answer.
pub(super) fn replicas(replicas: &Replicas, question: &StatusQuestion) -> String {
    let mut out = String::new();
    if replicas.answered.is_empty() {
        out.push_str("no replica answered\n");
    }
    for status in &replicas.answered {
        replica(status, question, &mut out);
    }
    for name in &replicas.silent {
        let _ = writeln!(out, "{name}  did not answer");
    }
    out
}

fn replica(replica: &ReplicaStatus, question: &StatusQuestion, out: &mut String) {
    let draining = if replica.draining { ", draining" } else { "" };
    let up = span(replica.uptime_ms);
    let crashes = match replica.crashes.reports {
        0 => String::new(),
        reports => format!(", {}", counted(reports, "crash report")),
    };
    let _ =
        writeln!(out, "{}  halm {}, pid {}, up {up}{crashes}{draining}", replica.replica, replica.version, replica.pid);
    let top = replica.tree.first().map_or(0, |actor| depth(&actor.path));
    for status in &replica.tree {
        let first = status.path == question.path.as_deref().unwrap_or_default();
        let name = if first { &status.path } else { status.path.rsplit('/').next().unwrap_or_default() };
        actor(status, name, depth(&status.path) - top, replica, out);
    }
    for job in &replica.jobs {
        let worker = job.worker.map(|worker| format!(" on {}/workers/{worker}", job.pool)).unwrap_or_default();
        let _ =
            writeln!(out, "  job {}  {}{worker}, {} tokens, attempt {}", job.job, job.phase, job.tokens, job.attempts);
    }
    if question.path.is_some() {
        let _ = writeln!(out, "  {} to show", counted(replica.crash_reports.len() as u64, "crash report"));
    }
    for report in &replica.crash_reports {
        crash_report(report, out);
    }
}

fn actor(actor: &ActorStatus, name: &str, depth: usize, replica: &ReplicaStatus, out: &mut String) {
    let mut line = format!("  {}{name}", "  ".repeat(depth));
    let _ = write!(line, "{:width$}{}", "", actor.state, width = STATE_COLUMN.saturating_sub(line.len()).max(1));
    if actor.state == "running" {
        let _ = write!(line, ", up {}", span(actor.uptime_ms));
    }
    if actor.restarts > 0 {
        let _ = write!(line, ", {}", counted(actor.restarts, "restart"));
    }
    if let Some(waiting) = actor.mailbox.filter(|waiting| *waiting > 0) {
        let _ = write!(line, ", {waiting} in its mailbox");
    }
    if let Some(worker) = replica.workers.iter().find(|worker| worker.path == actor.path) {
        let pid = worker.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let ready = if worker.ready { "" } else { ", loading" };
        let _ = write!(line, "{pid}{ready}");
        for activity in &worker.jobs {
            let _ = write!(line, ", {activity}");
        }
    }
    if let Some(exit) = &actor.last_exit {
        let _ = write!(line, "; last: {exit}");
    }
    out.push_str(&line);
    out.push('\n');
}

fn crash_report(report: &CrashRecord, out: &mut String) {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let ago = span(u64::try_from(now_ms).unwrap_or(u64::MAX).saturating_sub(report.at_ms));
    let ran = report.uptime_ms.map_or("it never ran".to_owned(), |ms| format!("it had run {}", span(ms)));
    let _ = writeln!(out, "  {ago} ago  {}  {}", report.path, report.reason);
    let _ = writeln!(
        out,
        "      {ran}, incarnation {}, {} before; {}",
        report.incarnation,
        counted(report.restarts, "restart"),
        report.action
    );
    for activity in &report.doing {
        let _ = writeln!(out, "      doing: {activity}");
    }
    if let Some(location) = &report.location {
        let _ = writeln!(out, "      at {location}");
    }
    for frame in &report.backtrace {
        let _ = writeln!(out, "      frame: {frame}");
    }
    for line in &report.stderr_tail {
        let _ = writeln!(out, "      stderr: {line}");
    }
}

fn depth(path: &str) -> usize {
    path.matches('/').count()
}

fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s}.{}s", ms % 1000 / 100),
        s @ 60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}
