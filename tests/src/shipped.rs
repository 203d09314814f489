//! The broker of the container stack, without the containers: its configuration, its users and its script for their
//! passwords are the shipped ones, laid out in a temporary folder as they are in a container.

use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::{ConnectOptions, Event};
use halm::process::free_port;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::broker::fetched;
use crate::program::dying_with_us;
use crate::until::PATIENCE;
use crate::{Halm, Process, until};

/// What no user of the stack may publish.
const NEVER_ALLOWED: &str = "nobody.may.say.this";

/// Where the repository is.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Configuration and passwords, as the containers of brokers see them.
#[derive(Debug)]
pub struct ShippedFiles {
    folder: TempDir,
}

/// A running broker with them.
#[derive(Debug)]
pub struct ShippedBroker {
    files: ShippedFiles,
    port: u16,
    process: Process,
}

/// A connection, and what the server refused it.
#[derive(Debug)]
pub struct Watched {
    /// The connection.
    pub nats: async_nats::Client,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl ShippedFiles {
    /// Copies the configuration and makes the passwords.
    ///
    /// # Panics
    /// When the script fails.
    #[must_use]
    pub fn lay_out() -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let nats = files.path("etc/nats");
        std::fs::create_dir_all(&nats).expect("a folder in a temporary folder");
        std::fs::create_dir_all(files.path("credentials")).expect("a folder in a temporary folder");
        for entry in std::fs::read_dir(repository().join("runtime/docker/nats")).expect("the shipped configuration") {
            let entry = entry.expect("a file of it");
            let text = std::fs::read_to_string(entry.path()).expect("a configuration is text");
            // The one thing that is elsewhere.
            let text = text.replace("\"/data\"", &format!("{:?}", files.path("data")));
            std::fs::write(nats.join(entry.file_name()), text).expect("a copy in a temporary folder");
        }
        files.make_credentials();
        files
    }

    /// Runs the script that makes the passwords, as each start of the stack does.
    ///
    /// # Panics
    /// When it fails.
    pub fn make_credentials(&self) {
        let made = Command::new("sh")
            .arg(repository().join("runtime/docker/credentials.sh"))
            .env("CREDENTIALS", self.path("credentials"))
            .env("HALM_UID", rustix::process::getuid().as_raw().to_string())
            .env("CLIENT_URL", "nats://127.0.0.1:4222")
            .output()
            .expect("a shell");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Where something of it is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A user's password.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn password(&self, user: &str) -> String {
        let file = self.path("credentials").join(format!("{user}.password"));
        std::fs::read_to_string(file).expect("the script made it").trim_end().to_owned()
    }
}

impl ShippedBroker {
    /// Starts one by itself, on a free port; nothing else is different from a container's.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(program: Option<PathBuf>) -> Self {
        let program = match program {
            Some(program) => program,
            None => tokio::task::spawn_blocking(fetched).await.expect("no panic"),
        };
        let files = ShippedFiles::lay_out();
        let (port, monitor) = (free_port().expect("a free port"), free_port().expect("a free port"));
        let mut command = dying_with_us(&program);
        command.arg("--config").arg(files.path("etc/nats/server.conf"));
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--http_port", &monitor.to_string()]);
        let mut process = Process::spawn("nats-server", command);
        until("the broker listens", async || {
            assert!(process.ended().is_none(), "nats-server ended: {}", process.stderr());
            TcpStream::connect(("127.0.0.1", port)).await.map(drop)
        })
        .await;
        Self { files, port, process }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// `halm` with these arguments, as the user `halm`, as a replica's container has it.
    #[must_use]
    pub fn halm<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Halm {
        let password = self.files.path("credentials/replica.password");
        let halm = Halm::new(arguments).env("NATS_URL", self.url()).env("NATS_USER", "halm");
        halm.env("HALM_NATS_PASSWORD_FILE", password.display())
    }

    /// Connects as one of its users, with inboxes where that user's are.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn connect(&self, user: &str) -> Watched {
        let (refused, refusals) = mpsc::unbounded_channel();
        let nats = ConnectOptions::with_user_and_password(user.to_owned(), self.files.password(user))
            .custom_inbox_prefix(format!("_INBOX.{user}"))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    // Whoever does not ask any more need not hear.
                    let _ = refused.send(error.to_string());
                }
                async {}
            })
            .connect(self.url())
            .await
            .expect("the broker lets its users in");
        Watched { nats, refusals }
    }

    /// Kills it.
    pub async fn kill9(&mut self) {
        self.process.kill9().await;
    }

    /// What its log says that it refused to anybody so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.process.stderr().lines().filter(|line| line.contains("iolation")).map(str::to_owned).collect()
    }
}

impl Watched {
    /// Publishes something, and says what the server refused, if it did.
    ///
    /// # Panics
    /// When the connection is lost.
    pub async fn refused_to_publish(&mut self, subject: &str) -> Option<String> {
        self.nats.publish(subject.to_owned(), "{}".into()).await.expect("a connection");
        self.refusal().await
    }

    /// Subscribes to something, and says what the server refused, if it did.
    ///
    /// # Panics
    /// When the connection is lost.
    pub async fn refused_to_subscribe(&mut self, subject: &str) -> Option<String> {
        let _subscription = self.nats.subscribe(subject.to_owned()).await.expect("a connection");
        self.refusal().await
    }

    /// Errors come in the order of what they are about, so what was refused has come when the error of what was sent behind
    /// comes.
    async fn refusal(&mut self) -> Option<String> {
        self.nats.publish(NEVER_ALLOWED, "".into()).await.expect("a connection");
        let mut refused = None;
        loop {
            let next = timeout(PATIENCE, self.refusals.recv()).await.expect("the server refuses what nobody may say");
            let words = next.expect("the connection lives");
            if words.contains(NEVER_ALLOWED) {
                return refused;
            }
            refused = Some(words);
        }
    }
}
