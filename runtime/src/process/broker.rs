//! A local `nats-server`.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use halm_actors::ports::{BrokerProcess, Exit, PortFuture, StartedBroker};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;

use super::{StderrTail, StopTimes, exit, stop};

/// How long a server may take to listen: it reads its whole store first.
const LISTENING_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A server's first line comes at once, and is not long.
const HELLO_WITHIN: Duration = Duration::from_secs(1);
const HELLO_BYTES_MAX: u64 = 16 * 1024;
/// A server is asked by SIGTERM, at once, and has this long to close its store.
const STOP_TIMES: StopTimes = StopTimes { asked: Duration::ZERO, terminated: Duration::from_secs(3) };
/// How the server calls itself.
const SERVER_NAME: &str = "halm-local";

/// How to start a local broker.
#[derive(Debug, Clone)]
pub struct BrokerProgram {
    /// Our own binary: it starts the server so that both die together.
    pub halm: PathBuf,
    /// The server's binary.
    pub program: PathBuf,
    /// Where it listens; a loopback address.
    pub listen: SocketAddr,
    /// Where it keeps its store.
    pub dir: PathBuf,
}

impl BrokerProgram {
    /// Writes the server's configuration.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn prepare(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        std::fs::write(self.config_path(), self.config())
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("nats-server.conf")
    }

    /// What an acknowledged message is worth is decided here: it is on the disk.
    fn config(&self) -> String {
        format!(
            "# Written by halm at each start.\n\
             server_name: {SERVER_NAME}\n\
             listen: \"{}\"\n\
             max_payload: 8MB\n\
             jetstream {{\n  store_dir: {:?}\n  sync_interval: always\n}}\n",
            self.listen,
            self.dir.join("jetstream"),
        )
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.halm);
        command
            .args(["run-with-parent", "--parent", &std::process::id().to_string(), "--"])
            .arg(&self.program)
            .arg("--config")
            .arg(self.config_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

impl BrokerProcess for BrokerProgram {
    fn start(&self) -> PortFuture<Result<StartedBroker, String>> {
        let program = self.clone();
        Box::pin(async move {
            let mut child =
                program.command().spawn().map_err(|error| format!("{}: {error}", program.program.display()))?;
            let pid = child.id().ok_or("nats-server ended at once")?;
            let stderr = child.stderr.take().ok_or("nats-server has no standard error")?;
            let tail = StderrTail::default();
            let (stop, stopping) = oneshot::channel();
            let mut run: PortFuture<Exit> = Box::pin(run(child, stderr, tail.clone(), pid, stopping));
            tokio::select! {
                exit = &mut run => Err(format!("nats-server: {}{}", exit.end, words(&tail))),
                listening = listening(program.listen) => match listening {
                    Ok(()) => Ok(StartedBroker { pid, stop, run }),
                    Err(()) => Err(format!("nats-server does not listen at {}{}", program.listen, words(&tail))),
                }
            }
        })
    }
}

async fn run(
    mut child: Child,
    stderr: ChildStderr,
    tail: StderrTail,
    pid: u32,
    stopping: oneshot::Receiver<()>,
) -> Exit {
    let log = tail.clone().read(stderr, |line| tracing::debug!(pid, line, "nats-server said"));
    let ((), status) = tokio::join!(log, stop::wait(&mut child, pid, STOP_TIMES, stopping));
    exit(status, tail.lines())
}

fn words(tail: &StderrTail) -> String {
    let fatal = tail.lines().into_iter().rev().find(|line| line.contains("[FTL]") || line.contains("[ERR]"));
    fatal.map(|line| format!("; it said: {line}")).unwrap_or_default()
}

/// What a server says to whoever connects. Ours says its name: another's may have taken the port.
pub(crate) async fn server_hello(address: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect(address).await.ok()?;
    let mut hello = String::new();
    let mut reader = BufReader::new(stream).take(HELLO_BYTES_MAX);
    tokio::time::timeout(HELLO_WITHIN, reader.read_line(&mut hello)).await.ok()?.ok()?;
    Some(hello)
}

async fn listening(address: SocketAddr) -> Result<(), ()> {
    let until = tokio::time::Instant::now() + LISTENING_WITHIN;
    while tokio::time::Instant::now() < until {
        if server_hello(address).await.is_some_and(|hello| hello.contains(SERVER_NAME)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(())
}

/// A port on loopback that nobody uses in this moment.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether nobody listens at an address yet.
///
/// # Errors
/// When somebody does, or the address is not ours.
pub fn check_free(address: SocketAddr) -> std::io::Result<()> {
    TcpListener::bind(address).map(drop)
}
