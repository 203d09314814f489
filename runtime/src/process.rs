//! Child processes: how workers and a local broker are started, heard and ended.
//!
//! Each child stands in a process group of its own, so that Ctrl-C in a terminal reaches the replica only, which then
//! ends its children in order. Each dies with its parent, whatever killed that.

mod broker;
mod stop;
mod worker;

pub(crate) use broker::server_hello;
pub use broker::{BrokerProgram, check_free, free_port};
pub use stop::StopTimes;
pub use worker::WorkerProgram;

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use halm_actors::ports::Exit;
use halm_actors::supervisor::ProcessEnd;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Lines of standard error that are kept for the crash report.
const STDERR_LINES_MAX: usize = 20;
/// Bytes of such a line that are kept.
const STDERR_LINE_BYTES_MAX: u64 = 500;

/// The last lines that a process wrote to standard error.
#[derive(Clone, Default)]
struct StderrTail(Arc<Mutex<VecDeque<String>>>);

impl StderrTail {
    /// Reads until the process closes it, keeping the tail and passing each line on.
    async fn read(self, from: impl AsyncRead + Unpin, each: impl Fn(&str)) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            // A line that never ends is cut: it must not grow here.
            let mut rest = (&mut from).take(STDERR_LINE_BYTES_MAX);
            line.clear();
            match rest.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            each(&text);
            self.keep(text);
        }
    }

    fn keep(&self, line: String) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == STDERR_LINES_MAX {
            kept.pop_front();
        }
        kept.push_back(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Asks the system to kill this process with its parent, and checks that the parent still is the one that it was.
///
/// # Errors
/// When it was orphaned before it could ask.
pub fn die_with_parent(parent: u32) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("ask to be killed with the parent")?;
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now != Some(parent) {
        bail!("the parent process {parent} is gone");
    }
    Ok(())
}

fn exit(status: std::io::Result<ExitStatus>, stderr_tail: Vec<String>) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    let end = match status.map(|status| (status.signal(), status.code())) {
        Ok((Some(signal), _)) => ProcessEnd::Signalled { signal },
        Ok((None, Some(code))) => ProcessEnd::Exited { code },
        Ok((None, None)) | Err(_) => ProcessEnd::Unknown,
    };
    Exit { end, stderr_tail }
}

/// Sends a signal to a process group; its leader has the group's number, and is not reaped while this is called.
fn signal_group(leader: u32, signal: rustix::process::Signal) {
    if let Some(group) = i32::try_from(leader).ok().and_then(rustix::process::Pid::from_raw) {
        // A group that is gone needs no signal.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}
