//! Worker processes: the same binary, as `halm worker`.

use std::path::PathBuf;
use std::process::Stdio;

use halm_actors::ports::{ProcessEvent, ProcessHandle, StartedProcess, WorkerProcess};
use halm_protocol::worker::{Command, Event, FrameError, declared_length, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc;

use super::{StderrTail, exit};
use crate::worker::WorkerSpec;

/// Commands that wait for a worker to read them: more than it has slots for cannot be.
const COMMANDS_MAX: usize = 256;

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
}

impl ProcessHandle for Handle {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn send(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    fn kill(&self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw) {
            // One that is gone already needs no killing. It is not reaped before `run` ends, so the pid is still its.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
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
        let tail = StderrTail::default();
        let run = async move {
            let log = tail.clone().read(stderr, |line| tracing::debug!(pid, line, "worker said"));
            let talk = async {
                tokio::select! {
                    () = write(stdin, queued) => {}
                    fault = read(stdout, event.as_ref()) => {
                        if let Some(fault) = fault {
                            event(ProcessEvent::Garbage(fault));
                        }
                    }
                }
            };
            let ((), (), status) = tokio::join!(log, talk, child.wait());
            event(ProcessEvent::Exited(exit(status, tail.lines())));
        };
        Ok(StartedProcess { handle: Box::new(Handle { pid, commands }), run: Box::pin(run) })
    }
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
            .envs(halm_models::thread_environment(self.spec.threads))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(tokens) = self.spec.context_tokens_max {
            command.args(["--context-tokens", &tokens.to_string()]);
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

/// Reads events until the pipe closes, or something on it is no event.
async fn read(mut stdout: ChildStdout, event: &(dyn Fn(ProcessEvent) + Send + Sync)) -> Option<String> {
    loop {
        let mut head = [0; 4];
        if stdout.read_exact(&mut head).await.is_err() {
            return None;
        }
        let length = match declared_length(head) {
            Ok(length) => length,
            Err(error) => return Some(error.to_string()),
        };
        let mut body = vec![0; length];
        if stdout.read_exact(&mut body).await.is_err() {
            // Half a frame: it died while it wrote.
            return None;
        }
        let said: Result<Event, FrameError> = decode(&body);
        match said {
            Ok(said) => event(ProcessEvent::Said(said)),
            Err(error) => return Some(error.to_string()),
        }
    }
}
