//! Short-lived child processes that answer on their pipes.
//!
//! Owns running one to its end, with a deadline, its output bounded, and never outliving the
//! call: on a deadline or a panic it is killed and reaped. Must never share our stdin. Called by
//! `pip` and `broker`.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Output kept per pipe, the last of it: more than any message worth showing.
const KEPT_BYTES: usize = 16 * 1024;
/// How often the caller hears that the child still runs: a progress bar's pace.
const TICK: Duration = Duration::from_millis(100);
/// A file that was just written may still be open for writing in a child that another thread is
/// about to start; the kernel then refuses to run it for some microseconds.
const BUSY_ATTEMPTS_MAX: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// Between a child's last word and its end.
const REAP_PAUSE: Duration = Duration::from_millis(1);

/// What a child left behind.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Kills and reaps a child that was not waited for.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

enum Pipe {
    Stdout(String),
    Stderr(String),
}

/// Runs `command` to its end, calling `tick` now and then.
///
/// # Errors
/// It cannot be started, or it still ran after `limit` ([`io::ErrorKind::TimedOut`]).
pub(super) fn run(command: &mut Command, limit: Duration, mut tick: impl FnMut()) -> io::Result<Finished> {
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guard(spawn(command)?);
    let (sender, pipes) = mpsc::channel();
    read_aside(child.0.stdout.take(), sender.clone(), Pipe::Stdout)?;
    read_aside(child.0.stderr.take(), sender, Pipe::Stderr)?;

    let (mut stdout, mut stderr) = (String::new(), String::new());
    loop {
        match pipes.recv_timeout(TICK) {
            Ok(Pipe::Stdout(text)) => stdout = text,
            Ok(Pipe::Stderr(text)) => stderr = text,
            Err(RecvTimeoutError::Timeout) => tick(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        in_time(deadline, limit)?;
    }
    // Both pipes are closed, so the child is at its end, or pretends to be.
    loop {
        if let Some(status) = child.0.try_wait()? {
            return Ok(Finished { status, stdout, stderr });
        }
        in_time(deadline, limit)?;
        thread::sleep(REAP_PAUSE);
    }
}

fn in_time(deadline: Instant, limit: Duration) -> io::Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let text = format!("no end after {} s", limit.as_secs());
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 1..BUSY_ATTEMPTS_MAX {
        match command.spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    command.spawn()
}

#[expect(clippy::disallowed_methods, reason = "whoever waits for its text sees that none comes")]
fn read_aside<R: Read + Send + 'static>(
    pipe: Option<R>,
    sender: Sender<Pipe>,
    wrap: fn(String) -> Pipe,
) -> io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    thread::Builder::new().name("child-output".to_owned()).spawn(move || {
        let text = String::from_utf8_lossy(&last_bytes(pipe)).into_owned();
        // The receiver is gone only after the deadline; then nobody asks.
        let _ = sender.send(wrap(text));
    })?;
    Ok(())
}

/// The last [`KEPT_BYTES`] of what `pipe` gives.
fn last_bytes(mut pipe: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return kept,
            Ok(n) => kept.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
        let excess = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_does_not_end_is_killed_at_the_deadline() {
        let mut command = Command::new("sleep");
        let late = run(command.arg("600"), Duration::from_millis(150), || ());
        assert_eq!(late.map(|f| f.stdout).map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
    }

    #[test]
    fn the_end_of_long_output_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "yes | head -c 100000; echo last; echo oops >&2; exit 3"]);
        let finished = run(&mut command, Duration::from_secs(60), || ()).expect("ran");
        assert!(finished.stdout.len() <= KEPT_BYTES && finished.stdout.ends_with("last\n"));
        assert_eq!((finished.stderr.as_str(), finished.status.code()), ("oops\n", Some(3)));
    }
}
