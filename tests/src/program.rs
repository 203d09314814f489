//! The program under test, as a user runs it: arguments, environment, exit code, words.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tokio::process::Command;

use crate::Process;

/// A `halm` command line. Nothing of the caller's own settings reaches it but the cache folder.
#[derive(Debug)]
pub struct Halm {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Halm {
    /// `halm` with these arguments.
    #[must_use]
    pub fn new<A: AsRef<str>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        Self { arguments, variables: Vec::new() }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<Path>) -> Self {
        self.arguments.push(argument.as_ref().display().to_string());
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts it.
    #[must_use]
    pub fn spawn(self) -> Process {
        let title = format!("halm {}", self.arguments.join(" "));
        let mut command = dying_with_us(&binary());
        command.args(&self.arguments);
        clean(&mut command);
        command.envs(self.variables);
        Process::spawn(&title, command)
    }

    /// Runs it to its end, and makes sure that it left nothing running.
    pub async fn run(self) -> Finished {
        let mut process = self.spawn();
        let status = process.exit().await;
        process.leaves_nothing().await;
        Finished { status, stdout: process.stdout(), stderr: process.stderr() }
    }
}

impl Finished {
    /// Asserts that it succeeded, and returns what it printed.
    #[track_caller]
    pub fn printed(&self) -> &str {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        &self.stdout
    }

    /// Asserts that it failed as a program should: an exit code, and one message that names the thing.
    #[track_caller]
    pub fn assert_refused(&self, named: &[&str]) {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert!(self.status.code().is_some_and(|code| code != 0), "{}: {said}", self.status);
        assert!(!said.contains("panicked at"), "{said}");
        // The log is JSON, a line each, and no message to a person.
        let messages = self.stderr.lines().filter(|line| !line.starts_with('{')).count();
        assert!(messages <= 1, "more than one message: {}", self.stderr);
        let last = said.trim_end().lines().next_back().unwrap_or_default();
        for name in named {
            assert!(last.contains(name), "the last words do not name {name:?}: {last}\n--- all of it:\n{said}");
        }
    }
}

/// The binary that was built beside this test.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in `deps`");
    let binary = folder.join("halm-under-test");
    assert!(binary.exists(), "{} is missing; build it with the tests (`cargo test -p halm-tests`)", binary.display());
    binary
}

/// A command that is killed when this test process dies, whatever kills it.
pub(crate) fn dying_with_us(program: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["run-with-parent", "--parent", &std::process::id().to_string(), "--"]).arg(program);
    command
}

/// Takes away everything that would set up a program behind the test's back.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let ours = text.starts_with("HALM_") && text != "HALM_CACHE";
        if ours || text.starts_with("NATS_") || text.starts_with("OTEL_") {
            command.env_remove(&name);
        }
    }
}
