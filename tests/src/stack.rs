//! The container stack itself: built, started, broken and stopped through Docker and Compose, as its users do.
//!
//! Owns one Compose project with ports and volumes of its own. It must never touch another one's containers. Not a part of
//! `cargo test`: it needs Docker, images to build upon, and some minutes.

mod images;
mod story;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use async_nats::ConnectOptions;
use halm::process::free_port;

use crate::{repository, until};

pub use images::Images;
pub use story::live_through;

/// A Compose project. Dropping it removes its containers, networks and volumes.
#[derive(Debug)]
pub struct Stack {
    /// `docker compose` or `docker-compose`.
    compose: Vec<String>,
    variables: HashMap<String, String>,
    passwords: HashMap<String, String>,
}

/// A container, by the service that it is one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    id: String,
}

impl Stack {
    /// A project of these files, with nothing started yet.
    ///
    /// # Panics
    /// When there is no Docker with Compose.
    #[must_use]
    pub fn of(files: &[&str], images: &Images) -> Self {
        let found = program().expect("`docker compose` or `docker-compose`");
        let mut compose: Vec<String> = found.into_iter().map(str::to_owned).collect();
        for file in files {
            compose.extend(["-f".to_owned(), file.to_string()]);
        }
        let mut variables = images.variables();
        variables.insert("COMPOSE_PROJECT_NAME".to_owned(), format!("halm-test-{}", std::process::id()));
        for port in ["PORT_1", "PORT_2", "PORT_3"] {
            variables.insert(port.to_owned(), free_port().expect("a free port").to_string());
        }
        Self { compose, variables, passwords: HashMap::new() }
    }

    /// Runs Compose and returns what it printed.
    ///
    /// # Panics
    /// When it fails; the message has its words.
    #[track_caller]
    pub fn compose(&self, arguments: &[&str]) -> String {
        let output = self.command(&self.compose[0]).args(&self.compose[1..]).args(arguments).output();
        printed(&format!("compose {}", arguments.join(" ")), output.expect("Compose runs"))
    }

    /// Sets how many replicas there are, whatever there was before.
    pub fn scale(&self, replicas: u32) {
        self.compose(&["up", "-d", "--no-recreate", "--scale", &format!("halm={replicas}")]);
    }

    /// Makes the volume of the weights, and puts those into it that are on this host already.
    ///
    /// # Panics
    /// When the weights are not here, or Docker does not take them.
    pub fn prepare(&self) {
        self.compose(&["up", "--no-start", "weights"]);
        let weights = self.containers("weights").pop().expect("a container for the weights");
        // The folder in which `models/<digest>/<file>` lies, as it is in the volume.
        let models: PathBuf = crate::weights::smollm2().ancestors().nth(2).expect("they lie in a cache").into();
        docker(&["cp", &models.display().to_string(), &format!("{}:/var/lib/halm/", weights.id)]);
    }

    /// The containers of a service, stopped ones included.
    #[must_use]
    pub fn containers(&self, service: &str) -> Vec<Container> {
        let project = &self.variables["COMPOSE_PROJECT_NAME"];
        let labels = [
            format!("label=com.docker.compose.project={project}"),
            format!("label=com.docker.compose.service={service}"),
        ];
        let listed = docker(&["ps", "--all", "--quiet", "--filter", &labels[0], "--filter", &labels[1]]);
        listed.lines().map(|id| Container { id: id.to_owned() }).collect()
    }

    /// Those that run.
    #[must_use]
    pub fn running(&self, service: &str) -> Vec<Container> {
        self.containers(service)
            .into_iter()
            .filter(|container| container.says("{{.State.Running}}") == "true")
            .collect()
    }

    /// Waits until so many containers of a service run and are healthy.
    pub async fn healthy(&self, service: &str, count: usize) {
        until(&format!("{count} containers of {service} are healthy"), async || {
            let running = self.running(service);
            let health: Vec<_> = running.iter().map(|container| container.says("{{.State.Health.Status}}")).collect();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let good = health.len() == count && health.iter().all(|health| health == "healthy");
            if good { Ok(()) } else { Err(health) }
        })
        .await;
    }

    /// Connects through the host's ports as a user of the stack, with the password that the stack made.
    ///
    /// # Errors
    /// While nobody answers.
    pub async fn connect(&mut self, user: &str) -> Result<async_nats::Client, String> {
        if !self.passwords.contains_key(user) {
            let path = format!("/credentials/{user}.password");
            let read = self.command("docker").args(["exec", &self.broker()?.id, "cat", &path]).output();
            let read = read.map_err(|error| error.to_string())?;
            if !read.status.success() {
                return Err(String::from_utf8_lossy(&read.stderr).into_owned());
            }
            let password = String::from_utf8_lossy(&read.stdout).trim_end().to_owned();
            self.passwords.insert(user.to_owned(), password);
        }
        let options = ConnectOptions::with_user_and_password(user.to_owned(), self.passwords[user].clone());
        let options = options.custom_inbox_prefix(format!("_INBOX.{user}"));
        options.connect(self.addresses()).await.map_err(|error| error.to_string())
    }

    fn broker(&self) -> Result<Container, String> {
        let brokers = ["nats-1", "nats-2", "nats-3"];
        brokers.iter().find_map(|name| self.running(name).pop()).ok_or_else(|| "no broker runs".to_owned())
    }

    fn addresses(&self) -> Vec<String> {
        ["PORT_1", "PORT_2", "PORT_3"].map(|port| format!("nats://127.0.0.1:{}", self.variables[port])).to_vec()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(repository()).envs(&self.variables).stdin(Stdio::null());
        command
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mut down = self.command(&self.compose[0]);
        down.args(&self.compose[1..]).args(["down", "--volumes", "--remove-orphans", "--timeout", "1"]);
        if !down.output().is_ok_and(|output| output.status.success()) {
            eprintln!("{} was not taken down", self.variables["COMPOSE_PROJECT_NAME"]);
        }
    }
}

impl Container {
    /// Kills it, as `docker kill` does: Docker takes that for the user's wish and does not start it again.
    pub fn kill(&self) {
        docker(&["kill", &self.id]);
    }

    /// Starts it again.
    pub fn start(&self) {
        docker(&["start", &self.id]);
    }

    /// Stops it in order, and removes it.
    pub fn remove(&self, grace: Duration) {
        docker(&["stop", "--time", &grace.as_secs().to_string(), &self.id]);
        assert_eq!(self.says("{{.State.ExitCode}}"), "0", "it ended by itself");
        docker(&["rm", &self.id]);
    }

    /// The name of its host, which is the name of its replica.
    #[must_use]
    pub fn host(&self) -> String {
        self.says("{{.Config.Hostname}}")
    }

    /// Its first process, as this host numbers it.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.says("{{.State.Pid}}").parse().expect("a number")
    }

    /// What `docker inspect` says to a template.
    #[must_use]
    pub fn says(&self, template: &str) -> String {
        docker(&["inspect", "--format", template, &self.id]).trim_end().to_owned()
    }
}

/// The Compose that there is, as words of a command line.
fn program() -> Option<Vec<&'static str>> {
    let runs = |words: &[&str]| {
        let probe = Command::new(words[0]).args(&words[1..]).arg("version").output();
        probe.is_ok_and(|output| output.status.success())
    };
    [vec!["docker", "compose"], vec!["docker-compose"]].into_iter().find(|words| runs(words))
}

/// Whether Compose takes these files, one over the other; `None` if there is no Compose.
///
/// # Panics
/// When it does not run.
#[must_use]
pub fn compose_accepts(files: &[&str]) -> Option<Result<(), String>> {
    let words = program()?;
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(repository());
    for file in files {
        command.args(["-f", file]);
    }
    let checked = command.args(["config", "--quiet"]).output().expect("it ran a moment ago");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    Some(if checked.status.success() { Ok(()) } else { Err(said) })
}

#[track_caller]
fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output();
    printed(&format!("docker {}", arguments.join(" ")), output.expect("Docker runs"))
}

#[track_caller]
fn printed(what: &str, output: Output) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
