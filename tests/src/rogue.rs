//! Worker processes that break: the real one with a fault planted in it, or something that only began as one.
//!
//! Owns the faults. It must never run but in a process that was started to break: [`planted`] says so.

mod liar;
mod pipe;
mod poison;
mod table;

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use halm_protocol::Digest;
use halm_protocol::worker::{Event, StepPulse, encode};

pub use poison::POISON;
pub use table::STEP_US;

/// The variable that names a worker process's fault.
const FAULT: &str = "TEST_FAULT";
/// The real worker has loaded its model and is idle, or computes, before it breaks.
const BREAK_AFTER: Duration = Duration::from_millis(700);
/// What the bomb takes at a time.
const BOMB_BYTES: usize = 16 * 1024 * 1024;

/// What a worker process does instead of its work, or after a while of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes where it must not.
    Segfault,
    /// Calls `abort`.
    Abort,
    /// Exits with status 0.
    Exit0,
    /// Exits with status 1, after words on standard error.
    Exit1,
    /// Allocates without end.
    AllocationBomb,
    /// Prints to the pipe.
    Garbage,
    /// The same, with a process of its own that must not outlive it.
    GarbageFromAParent,
    /// Writes half a frame and exits with status 3.
    HalfAFrameAndExit,
    /// Writes half a frame, closes the pipe and lives on.
    HalfAFrameAndClose,
    /// Closes its end of the pipe and lives on.
    ClosedPipe,
    /// Beats, and never gets ready.
    NeverReady,
    /// Beats and is ready, and does not end when it is asked to.
    Deaf,
    /// The same, and SIGTERM does nothing to it either.
    DeafToSigterm,
    /// Dies of every job whose prompt has the word [`POISON`].
    Poison,
    /// Answers from a table, and computes nothing.
    Table,
    /// Says another token than the one it has computed, once in every answer.
    Liar,
}

/// All of them, by name.
const NAMES: [(&str, Fault); 16] = [
    ("segfault", Fault::Segfault),
    ("abort", Fault::Abort),
    ("exit-0", Fault::Exit0),
    ("exit-1", Fault::Exit1),
    ("allocation-bomb", Fault::AllocationBomb),
    ("garbage", Fault::Garbage),
    ("garbage-from-a-parent", Fault::GarbageFromAParent),
    ("half-a-frame-and-exit", Fault::HalfAFrameAndExit),
    ("half-a-frame-and-close", Fault::HalfAFrameAndClose),
    ("closed-pipe", Fault::ClosedPipe),
    ("never-ready", Fault::NeverReady),
    ("deaf", Fault::Deaf),
    ("deaf-to-sigterm", Fault::DeafToSigterm),
    ("poison", Fault::Poison),
    ("table", Fault::Table),
    ("liar", Fault::Liar),
];

impl Fault {
    /// `TEST_FAULT=…`, for the environment of a worker process.
    #[must_use]
    pub fn variable(self) -> String {
        let name = NAMES.iter().find(|(_, fault)| *fault == self).map_or("", |(name, _)| name);
        format!("{FAULT}={name}")
    }
}

/// The fault that this process was started with.
#[must_use]
pub fn planted() -> Option<Fault> {
    let wanted = std::env::var(FAULT).ok()?;
    NAMES.iter().find(|(name, _)| *name == wanted).map(|(_, fault)| *fault)
}

/// Plants a fault in the real worker that is about to run here, or never returns.
pub fn turn(fault: Fault) {
    match fault {
        Fault::Segfault => later(segfault),
        Fault::Abort => later(|| std::process::abort()),
        Fault::Exit0 => later(|| std::process::exit(0)),
        Fault::Exit1 => later(|| {
            eprintln!("the engine has lost its mind");
            std::process::exit(1);
        }),
        Fault::AllocationBomb => later(|| {
            let mut taken = Vec::new();
            loop {
                taken.push(vec![1_u8; BOMB_BYTES]);
            }
        }),
        Fault::Garbage => later_on_the_pipe(|pipe| pipe.write_all(b"Loading model ...\n")),
        Fault::GarbageFromAParent => {
            let child = Command::new("sleep").arg("1000").spawn();
            assert!(child.is_ok(), "sleep does not start: {child:?}");
            later_on_the_pipe(|pipe| pipe.write_all(b"Loading model ...\n"));
        }
        Fault::HalfAFrameAndExit => later_on_the_pipe(|pipe| {
            pipe.write_all(&half_a_frame())?;
            std::process::exit(3);
        }),
        Fault::HalfAFrameAndClose => {
            let mut pipe = std::io::stdout().lock();
            let _ = pipe.write_all(&half_a_frame()).and_then(|()| pipe.flush());
            close_pipe_and_live();
        }
        Fault::ClosedPipe => close_pipe_and_live(),
        Fault::NeverReady => beat(false),
        Fault::Deaf => beat(true),
        Fault::Poison => poison::plant(),
        Fault::Table => table::run(),
        Fault::Liar => liar::plant(),
        Fault::DeafToSigterm => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _guard = runtime.enter();
            // Whoever listens for a signal is not ended by it.
            let _heard = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a signal");
            beat(true);
        }
    }
}

fn later(fault: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        std::thread::sleep(BREAK_AFTER);
        fault();
    });
}

/// The real worker takes its standard output away for itself; a copy is kept here.
fn later_on_the_pipe(fault: impl FnOnce(&mut std::fs::File) -> std::io::Result<()> + Send + 'static) {
    let pipe = rustix::io::dup(rustix::stdio::stdout()).expect("standard output is a pipe");
    later(move || fault(&mut std::fs::File::from(pipe)).expect("the pipe takes it"));
}

#[expect(unsafe_code, reason = "a segmentation fault is what is wanted")]
fn segfault() {
    // SAFETY: none. The page at 8 is mapped nowhere.
    unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
}

fn half_a_frame() -> Vec<u8> {
    let frame = encode(&beat_event()).expect("a small frame");
    frame[..frame.len() / 2].to_vec()
}

fn close_pipe_and_live() -> ! {
    die_with_parent();
    let nowhere = std::fs::File::options().write(true).open("/dev/null").expect("there is a /dev/null");
    rustix::stdio::dup2_stdout(nowhere).expect("standard output can be replaced");
    live();
}

fn beat(ready: bool) -> ! {
    die_with_parent();
    let mut pipe = std::io::stdout().lock();
    let mut say = |event: &Event| {
        let frame = encode(event).expect("a small frame");
        let _ = pipe.write_all(&frame).and_then(|()| pipe.flush());
    };
    say(&beat_event());
    if ready {
        say(&Event::Ready { context_tokens: 1, load_ms: 1 });
    }
    loop {
        std::thread::sleep(Duration::from_millis(100));
        say(&beat_event());
    }
}

fn beat_event() -> Event {
    let digest = std::env::args().skip_while(|argument| argument != "--digest").nth(1).expect("a worker is told it");
    let pulse = StepPulse { steps: 0, rows: 0, running_us: 0, row_us: 0 };
    let digest = Digest::try_from(digest).expect("a digest");
    Event::Beat { pid: std::process::id(), build: "rogue".to_owned(), digest, pulse }
}

fn die_with_parent() {
    let parent = std::env::args().skip_while(|argument| argument != "--parent").nth(1).expect("a worker is told it");
    halm::process::die_with_parent(parent.parse().expect("a process id")).expect("the parent lives");
}

fn live() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
