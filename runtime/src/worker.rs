//! The worker process: the other end of the pipe.
//!
//! Three threads. One reads commands from standard input and ends the process when that closes. One beats, whatever the
//! computing one does. The main one computes: a step that the model's scheduler plans, then commands that came
//! meanwhile, then the next step. Standard output is the protocol's alone; whatever a library prints goes to standard
//! error.
//!
//! It never decides: what its failures mean is decided by those who read them.

mod jobs;
mod memory;
mod output;
mod pulse;

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Context;
use halm_models::{LoadOptions, Model};
use halm_protocol::Digest;
use halm_protocol::worker::{Command, Event, declared_length, decode};

use crate::process;
use jobs::Jobs;
use output::Output;
use pulse::Pulse;

/// Between two beats. A worker counts as hung after a second at least, so a few may be late.
const BEAT_EVERY: Duration = Duration::from_millis(200);
/// Below the runtime, so that compute never starves a heartbeat.
const NICENESS: i32 = 5;

/// What a worker process is started with.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// The weights.
    pub weights: PathBuf,
    /// What they should be.
    pub digest: Digest,
    /// Threads to compute with.
    pub threads: NonZeroUsize,
    /// Most tokens of prompt and answer; `None` for as many as the model can.
    pub context_tokens_max: Option<usize>,
    /// Where packed weights are kept.
    pub packed: Option<PathBuf>,
    /// Most bytes of memory of its own; what it asks for beyond is refused, which ends it.
    pub memory_bytes_max: Option<u64>,
    /// Who started it; a worker whose parent is another has been orphaned already.
    pub parent: u32,
}

/// Runs a worker until it is told to stop, or its parent is gone.
///
/// # Errors
/// When the model cannot be loaded, or an engine must not be trusted any more.
pub fn run(spec: &WorkerSpec) -> anyhow::Result<()> {
    process::die_with_parent(spec.parent)?;
    let _ = rustix::process::nice(NICENESS);
    memory::limit(spec.memory_bytes_max)?;
    let output = Arc::new(Output::take_stdout().context("take standard output for the protocol")?);
    let pulse = Arc::new(Pulse::new());
    beat(Arc::clone(&output), Arc::clone(&pulse), spec.digest.clone());
    let commands = read_commands();
    let began = Instant::now();
    let options = LoadOptions {
        threads: spec.threads,
        context_tokens_max: spec.context_tokens_max,
        packed: spec.packed.clone(),
        ..LoadOptions::default()
    };
    let mut model = Model::load(&spec.weights, &options)?;
    limit_pages(&mut model, spec.memory_bytes_max)?;
    output.send(&Event::Ready {
        context_tokens: u32::try_from(model.tokens_max()).unwrap_or(u32::MAX),
        load_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })?;
    serve(&commands, Jobs::new(model, output, pulse))
}

/// What the loaded model left of the memory is for keys and values.
fn limit_pages(model: &mut Model, bytes_max: Option<u64>) -> anyhow::Result<()> {
    let Some(bytes) = memory::left(bytes_max) else { return Ok(()) };
    model.limit_pages_to(bytes);
    anyhow::ensure!(
        model.tokens_max() > 0,
        "a memory of {} bytes has no room for a single page of keys and values; give workers more (memory_mb)",
        bytes_max.unwrap_or_default(),
    );
    Ok(())
}

fn serve(commands: &Receiver<Command>, mut jobs: Jobs) -> anyhow::Result<()> {
    loop {
        // With nothing to compute, wait; otherwise take what is there and go on.
        let command = if jobs.is_empty() {
            commands.recv().map_err(|_| true)
        } else {
            commands.try_recv().map_err(|error| error == TryRecvError::Disconnected)
        };
        match command {
            Ok(Command::Start(work)) => jobs.start(*work)?,
            Ok(Command::Cancel { lease }) => jobs.cancel(lease),
            Ok(Command::Shutdown) | Err(true) => return Ok(()),
            Err(false) => jobs.advance()?,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "its silence is a hang, which the owner of the process sees")]
fn beat(output: Arc<Output>, pulse: Arc<Pulse>, digest: Digest) {
    std::thread::spawn(move || {
        loop {
            let event = Event::Beat {
                pid: std::process::id(),
                build: env!("CARGO_PKG_VERSION").to_owned(),
                digest: digest.clone(),
                pulse: pulse.read(),
            };
            if output.send(&event).is_err() {
                // The other end is gone, and so are we.
                std::process::exit(0);
            }
            std::thread::sleep(BEAT_EVERY);
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "when it is gone so is its channel, and the process ends")]
fn read_commands() -> Receiver<Command> {
    let (to, commands) = mpsc::channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            match read_command(&mut stdin) {
                Ok(Some(command)) => {
                    if to.send(command).is_err() {
                        return;
                    }
                }
                // Nobody is left to compute for. At once: a forward pass may take long.
                Ok(None) => std::process::exit(0),
                Err(error) => {
                    eprintln!("halm worker: a command cannot be read: {error:#}");
                    std::process::exit(1);
                }
            }
        }
    });
    commands
}

/// The next command; `None` when the pipe is closed, also in the middle of one.
fn read_command(from: &mut impl Read) -> anyhow::Result<Option<Command>> {
    let mut head = [0; 4];
    if from.read_exact(&mut head).is_err() {
        return Ok(None);
    }
    let mut body = vec![0; declared_length(head)?];
    if from.read_exact(&mut body).is_err() {
        return Ok(None);
    }
    Ok(Some(decode(&body)?))
}
