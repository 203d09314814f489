//! Where a panic happened: what unwinding forgets and a panic hook sees.
//!
//! Owns one process-wide panic hook, put before the one that was there, which still runs. It must never print. The hook
//! leaves what it saw with the thread; whoever catches the panic, on the same thread and right after, takes it.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::fmt;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Once, OnceLock};

use super::Evidence;

/// Frames of our own that a report shows.
const FRAMES_MAX: usize = 16;

thread_local! {
    static SEEN: Cell<Option<Evidence>> = const { Cell::new(None) };
}

/// The frames of a panic, given names when somebody reads them: that takes milliseconds, and most are never read.
pub(crate) struct Trace {
    raw: Backtrace,
    lines: OnceLock<Vec<String>>,
}

/// Has panics leave their place. Done once for the process, by the first tree that starts.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            SEEN.set(Some(see(info)));
            before(info);
        }));
    });
}

/// What the panic left that was caught just now on this thread.
pub(crate) fn take() -> Evidence {
    SEEN.take().unwrap_or_default()
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

fn see(info: &PanicHookInfo<'_>) -> Evidence {
    let trace = Trace { raw: Backtrace::force_capture(), lines: OnceLock::new() };
    Evidence {
        location: info.location().map(|location| Arc::from(location.to_string())),
        trace: Some(Arc::new(trace)),
        ..Evidence::default()
    }
}

impl Trace {
    /// The frames that are in code of this project, the innermost first, as `function at file:line:column`.
    pub(crate) fn lines(&self) -> &[String] {
        self.lines.get_or_init(|| own_frames(&self.raw.to_string()))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

/// Picks from a printed backtrace what is neither the standard library's nor a dependency's. Frames without a line are
/// of code that was built without them, which ours is not.
fn own_frames(printed: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut function = "";
    for line in printed.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            let foreign =
                ["/rustc/", "/registry/src/", "/crash_report/panics.rs", "/supervisor/watched.rs", "/tasks.rs"];
            if !function.is_empty() && !foreign.iter().any(|part| place.contains(part)) {
                lines.push(format!("{function} at {place}"));
            }
            function = "";
        } else if let Some((_, name)) = line.split_once(": ") {
            function = name;
        }
    }
    lines.truncate(FRAMES_MAX);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_shows_our_own_frames_only() {
        let printed = "   0: std::panicking::begin_panic_handler\n             at /rustc/abc/library/std/src/panicking.rs:689:5\n\
             1: halm_actors::worker::load\n             at ./actors/src/worker.rs:12:9\n   2: tokio::runtime::poll\n\
             3: ractor::actor::run\n             at /home/me/.cargo/registry/src/index/ractor-0.16.5/src/actor.rs:5:1\n";
        assert_eq!(own_frames(printed), ["halm_actors::worker::load at ./actors/src/worker.rs:12:9"]);
    }

    #[test]
    fn what_a_caught_panic_left_tells_its_place_and_is_taken_once() {
        watch();
        let caught = std::panic::catch_unwind(|| panic!("boom {}", 7)).expect_err("it panics");
        let evidence = take();
        assert_eq!(message(caught.as_ref()), "boom 7");
        let location = evidence.location.expect("a panic has a place");
        assert!(location.contains("panics.rs:"), "{location}");
        assert!(evidence.trace.is_some());
        assert!(take().location.is_none());
    }
}
