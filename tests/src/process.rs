//! A child process with its output in files: it can be signalled, waited for, and asked what it left behind.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::until;

/// Lines of standard error that are shown when a test fails.
const TAIL_LINES: usize = 40;
/// The variable by which a process and all that descend from it are found, orphans included.
const MARK: &str = "TEST_MARK";

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    title: String,
    child: Child,
    pid: u32,
    mark: String,
    output: TempDir,
}

impl Process {
    /// Starts a command, its output in files.
    ///
    /// # Panics
    /// When it does not start.
    pub(crate) fn spawn(title: &str, mut command: Command) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let output = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| File::create(output.path().join(name)).expect("a file in a temporary folder");
        let child = command
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .env(MARK, &mark)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{title} does not start: {error}"));
        let pid = child.id().expect("it was not waited for");
        Self { title: title.to_owned(), child, pid, mark, output }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.output.path().join("stdout"))
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.output.path().join("stderr"))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Sends a signal, if there is still somebody to take it.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill(self.pid, signal);
        }
    }

    /// Waits until it ends by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let title = self.title.clone();
        until(&format!("{title} ends"), async || self.ended().ok_or_else(|| self.tail())).await
    }

    /// Kills it and waits until it is gone.
    pub async fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.exit().await;
    }

    /// Waits until neither it nor anything that it started, however indirectly, is running.
    pub async fn leaves_nothing(&self) {
        until(&format!("{} and all it started are gone", self.title), async || {
            let left = self.descendants();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    /// Process id and command line of everything that descends from it and of itself, while it runs.
    #[must_use]
    pub fn descendants(&self) -> Vec<(u32, String)> {
        let mark = format!("{MARK}={}", self.mark);
        let entries = std::fs::read_dir("/proc").expect("a process file system");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let marked = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        pids.filter(marked).map(|pid| (pid, command_line(pid))).collect()
    }

    fn tail(&self) -> String {
        let text = self.stderr();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if std::thread::panicking() {
            eprintln!("--- the last words of {} (pid {}):\n{}", self.title, self.pid, self.tail());
        }
    }
}

/// Sends a signal to a process that may be gone.
///
/// # Panics
/// When the number cannot be one of a process.
pub fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    // One that is gone needs no signal.
    let _ = kill_process(pid, signal);
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn command_line(pid: u32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned()
}
