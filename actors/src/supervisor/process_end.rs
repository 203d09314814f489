//! How an OS process that was a child, or a child's, ended.
//!
//! Owns the vocabulary of such ends. It must never hold a process: ends are plain values, like every reason.

use std::fmt;
use std::time::Duration;

/// The end of an OS process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It could not be started.
    NotStarted {
        /// Why.
        message: String,
    },
    /// It exited by itself.
    Exited {
        /// Its exit status.
        code: i32,
    },
    /// A signal ended it that its owner did not send.
    Signalled {
        /// Which.
        signal: i32,
    },
    /// It was killed because it hung.
    Hung {
        /// What was seen, as "no beat for 1001 ms".
        seen: String,
    },
    /// It was killed because it was not ready in time.
    NotReady {
        /// The time that it had.
        within: Duration,
    },
    /// It was killed because what it said was not of the protocol.
    Garbage {
        /// What was wrong with it.
        seen: String,
    },
    /// It was killed because it closed its pipe and lived on.
    PipeClosed,
    /// The operating system did not tell how it ended.
    Unknown,
}

impl ProcessEnd {
    /// Its name in counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotStarted { .. } => "process_not_started",
            Self::Exited { .. } => "process_exited",
            Self::Signalled { .. } => "process_signalled",
            Self::Hung { .. } => "process_hung",
            Self::NotReady { .. } => "process_not_ready",
            Self::Garbage { .. } => "process_garbage",
            Self::PipeClosed => "process_pipe_closed",
            Self::Unknown => "process_unknown",
        }
    }
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted { message } => write!(f, "process did not start: {message}"),
            Self::Exited { code } => write!(f, "process exited with status {code}"),
            Self::Signalled { signal } => match signal_name(*signal) {
                Some(name) => write!(f, "process killed by {name}"),
                None => write!(f, "process killed by signal {signal}"),
            },
            Self::Hung { seen } => write!(f, "process hung ({seen}) and was killed"),
            Self::NotReady { within } => write!(f, "process was not ready within {within:?} and was killed"),
            Self::Garbage { seen } => write!(f, "process sent garbage ({seen}) and was killed"),
            Self::PipeClosed => f.write_str("process closed its pipe, lived on, and was killed"),
            Self::Unknown => f.write_str("process ended"),
        }
    }
}

/// The names of the signals that end processes, by their numbers on Linux and macOS where those agree.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        #[cfg(target_os = "linux")]
        7 => "SIGBUS",
        #[cfg(target_os = "linux")]
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_called_by_its_name() {
        let words = |signal| ProcessEnd::Signalled { signal }.to_string();
        assert_eq!(words(9), "process killed by SIGKILL");
        assert_eq!(words(11), "process killed by SIGSEGV");
        assert_eq!(words(40), "process killed by signal 40");
    }
}
