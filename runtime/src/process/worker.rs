//! Worker processes: the same binary, as `halm worker`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use halm_actors::ports::{ProcessEvent, ProcessHandle, StartedProcess, WorkerProcess};
use halm_protocol::worker::{Command, Event, FrameError, declared_length, decode, encode};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot, watch};

use super::{StderrTail, StopTimes, exit, signal_group, stop};
use crate::worker::WorkerSpec;

/// Commands that wait for a worker to read them: more than it has slots for cannot be.
const COMMANDS_MAX: usize = 256;
/// A worker looks for commands between two passes, so it ends within one when asked; a pass over a long prompt may take
/// longer than it is waited for.
const STOP_TIMES: StopTimes = StopTimes { asked: Duration::from_secs(2), terminated: Duration::from_secs(1) };
/// A process that ends closes its pipe a moment before it can be reaped. One that closes it and lives has this long.
const CLOSED_GRACE: Duration = Duration::from_millis(500);
/// What a process wrote before it ended is there to be read. Its pipes may be held open by what it had started.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How to start a worker process.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    /// The binary.
    pub program: PathBuf,
    /// What to load.
    pub spec: WorkerSpec,
}

struct Handle {
    pid: u32,
    commands: mpsc::Sender<Command>,
    stop: Option<oneshot::Sender<()>>,
    reaped: watch::Receiver<bool>,
}

impl ProcessHandle for Handle {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn send(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    fn stop(&mut self) {
        self.send(Command::Shutdown);
        if let Some(stop) = self.stop.take() {
            // One that has ended already hears nothing, and needs nothing.
            let _ = stop.send(());
        }
    }

    fn kill(&self) {
        // Once it is reaped the number may be another's.
        if !*self.reaped.borrow() {
            signal_group(self.pid, Signal::KILL);
        }
    }
}

impl WorkerProcess for WorkerProgram {
    fn start(&self, event: Box<dyn Fn(ProcessEvent) + Send + Sync>) -> Result<StartedProcess, String> {
        let mut child = self.command().spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let pid = child.id().ok_or("it ended at once")?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("its pipes are missing".to_owned());
        };
        let (commands, queued) = mpsc::channel(COMMANDS_MAX);
        let (stop, stopping) = oneshot::channel();
        let (tell_reaped, reaped) = watch::channel(false);
        let handle = Handle { pid, commands, stop: Some(stop), reaped: reaped.clone() };
        let tail = StderrTail::default();
        let run = async move {
            let log = async {
                tokio::select! {
                    () = tail.clone().read(stderr, |line| tracing::debug!(pid, line, "worker said")) => {}
                    () = after(reaped.clone(), LAST_WORDS) => {}
                }
            };
            let talk = async {
                tokio::select! {
                    () = write(stdin, queued) => {}
                    () = listen(stdout, event.as_ref(), reaped.clone()) => {}
                    () = after(reaped.clone(), LAST_WORDS) => {}
                }
            };
            let wait = async {
                let status = stop::wait(&mut child, pid, STOP_TIMES, stopping).await;
                tell_reaped.send_replace(true);
                status
            };
            let ((), (), status) = tokio::join!(log, talk, wait);
            event(ProcessEvent::Exited(exit(status, tail.lines())));
        };
        Ok(StartedProcess { handle: Box::new(handle), run: Box::pin(run) })
    }
}

/// A time after something became true.
async fn after(mut flag: watch::Receiver<bool>, time: Duration) {
    // The sender is in the same future, and lives as long.
    let _ = flag.wait_for(|set| *set).await;
    tokio::time::sleep(time).await;
}

impl WorkerProgram {
    fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .arg("worker")
            .arg("--weights")
            .arg(&self.spec.weights)
            .args(["--digest", self.spec.digest.as_str()])
            .args(["--threads", &self.spec.threads.to_string()])
            .args(["--parent", &std::process::id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(tokens) = self.spec.context_tokens_max {
            command.args(["--context-tokens", &tokens.to_string()]);
        }
        if let Some(packed) = &self.spec.packed {
            command.arg("--packed").arg(packed);
        }
        if let Some(bytes) = self.spec.memory_bytes_max {
            command.args(["--memory-bytes", &bytes.to_string()]);
        }
        command
    }
}

/// Writes commands until nobody can send any more, then closes the pipe, which ends the process.
async fn write(mut stdin: ChildStdin, mut commands: mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        let Ok(frame) = encode(&command) else { return };
        if stdin.write_all(&frame).await.is_err() {
            // The process is gone; its exit tells.
            std::future::pending::<()>().await;
        }
    }
}

/// Why nothing more is read.
enum Silence {
    /// What is on the pipe is no event.
    Garbage(String),
    /// The pipe closed between two events.
    Closed,
    /// The pipe closed inside an event.
    HalfAFrame,
}

/// Passes events on until there are no more; says why, if the process lives on all the same. If it does not, that is all.
async fn listen(mut stdout: ChildStdout, event: &(dyn Fn(ProcessEvent) + Send + Sync), reaped: watch::Receiver<bool>) {
    let (grace, told) = match read(&mut stdout, event).await {
        Silence::Garbage(seen) => (Duration::ZERO, ProcessEvent::Garbage(seen)),
        Silence::Closed => (CLOSED_GRACE, ProcessEvent::PipeClosed),
        Silence::HalfAFrame => (CLOSED_GRACE, ProcessEvent::Garbage("half a frame, and the end".to_owned())),
    };
    tokio::select! {
        () = after(reaped, Duration::ZERO) => return,
        () = tokio::time::sleep(grace) => event(told),
    }
    // The owner kills it; until then its other pipe stays open, so that it does not end in its own way first.
    std::future::pending::<()>().await;
}

async fn read(stdout: &mut ChildStdout, event: &(dyn Fn(ProcessEvent) + Send + Sync)) -> Silence {
    loop {
        let mut head = [0; 4];
        match stdout.read(&mut head[..1]).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Silence::Closed,
        }
        if stdout.read_exact(&mut head[1..]).await.is_err() {
            return Silence::HalfAFrame;
        }
        let length = match declared_length(head) {
            Ok(length) => length,
            Err(error) => return Silence::Garbage(error.to_string()),
        };
        let mut body = vec![0; length];
        if stdout.read_exact(&mut body).await.is_err() {
            return Silence::HalfAFrame;
        }
        let said: Result<Event, FrameError> = decode(&body);
        match said {
            Ok(said) => event(ProcessEvent::Said(said)),
            Err(error) => return Silence::Garbage(error.to_string()),
        }
    }
}
