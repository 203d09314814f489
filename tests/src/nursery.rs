//! One supervised worker process, real from the supervisor down to the weights, without a broker around it.

use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use halm::process::WorkerProgram;
use halm::worker::WorkerSpec;
use halm_actors::address::Address;
use halm_actors::ports::{ProcessEvent, WorkerProcess};
use halm_actors::supervisor::{Backoff, ChildSpec, ProcessEnd, Root, Strategy, Supervisor, SupervisorSpec};
use halm_actors::worker::{Worker, WorkerMsg, WorkerStart};
use halm_actors::{Clock, dispatcher::WorkerId};
use halm_protocol::worker::{Command, Event, Lease, Work};
use halm_protocol::{Class, CrashRecord, Digest, Input, JobId, Request, WorkerStatus};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::program::binary;
use crate::{Fault, Turn, until, weights};

/// What a worker may allocate here: several times what the model needs, and nothing that hurts the machine.
const MEMORY_BYTES_MAX: u64 = 1_000_000_000;
/// The path of the one child.
const PATH: &str = "root/1";

/// A supervisor with one worker. The worker process dies with it.
#[derive(Debug)]
pub struct Nursery {
    root: Root,
    address: Address<WorkerMsg>,
    _folder: TempDir,
    _turn: Turn,
}

impl Nursery {
    /// Starts a healthy worker and waits until it is ready.
    pub async fn healthy() -> Self {
        let nursery = Self::start(None, Duration::from_secs(60)).await;
        nursery.ready().await;
        nursery
    }

    /// Starts a worker whose first process breaks.
    pub async fn with(fault: Fault) -> Self {
        Self::start(Some(fault), Duration::from_secs(60)).await
    }

    /// The same, and it has less time to get ready.
    pub async fn with_ready_within(fault: Fault, ready_within: Duration) -> Self {
        Self::start(Some(fault), ready_within).await
    }

    async fn start(fault: Option<Fault>, ready_within: Duration) -> Self {
        let turn = Turn::take();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = program(folder.path(), fault);
        let process = Arc::new(WorkerProgram { program, spec: spec() });
        let address = Address::new();
        let (worker, clock) = (WorkerId(1), Clock::start());
        let child = ChildSpec::actor("1", address.clone(), move |context| {
            let start = WorkerStart {
                worker,
                path: context.path(),
                process: Arc::<WorkerProgram>::clone(&process),
                digest: digest(),
                ready_within,
                // Nobody gives it work but the test.
                dispatcher: Address::new(),
                clock,
            };
            (Worker, start)
        });
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .intensity(10, Duration::from_secs(3600))
            .backoff(Backoff::NONE)
            .child(child);
        let root = Supervisor::start_root("root", spec).await.expect("a worker starts before its process does");
        Self { root, address, _folder: folder, _turn: turn }
    }

    /// The tree.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where the worker is to be found.
    #[must_use]
    pub fn address(&self) -> &Address<WorkerMsg> {
        &self.address
    }

    /// Waits until a process has loaded the model; its id.
    pub async fn ready(&self) -> u32 {
        until("a worker is ready", async || {
            let status = self.status().await;
            match &status {
                Some(WorkerStatus { ready: true, pid: Some(pid), .. }) => Ok(*pid),
                _ => Err(status),
            }
        })
        .await
    }

    /// Waits until there is a process, ready or not; its id.
    pub async fn started(&self) -> u32 {
        until("there is a worker process", async || {
            let status = self.status().await;
            status.as_ref().and_then(|status| status.pid).ok_or(status)
        })
        .await
    }

    /// Gives the worker a long text to compute, and waits until it has some tokens of it.
    pub async fn computing(&self, tokens: u32) {
        let work = work(Lease(1), "Once upon a time", 500);
        self.address.send(WorkerMsg::Start { work: Box::new(work), alone: false }).expect("the worker lives");
        until(&format!("it has {tokens} tokens"), async || {
            let status = self.status().await;
            let offset = status.as_ref().and_then(|status| status.jobs.first()).map(|activity| activity.offset);
            if offset >= Some(tokens) { Ok(()) } else { Err(status) }
        })
        .await;
    }

    /// Waits until the first process's end was reported, a healthy one is ready in its place, and nothing is left of
    /// the first one's process group; the report.
    pub async fn survives(&self, first: u32) -> CrashRecord {
        let report = until("the end is reported", async || {
            self.root.crash_reports().first().map(|report| report.record()).ok_or("no report")
        })
        .await;
        let second = self.ready().await;
        assert_ne!(first, second, "{report:?}");
        self.leaves_nothing(first).await;
        let all = self.root.crash_reports();
        assert_eq!(all.len(), 1, "one end is one report, not {all:#?}");
        assert_eq!(report.path, PATH);
        assert_eq!(report.action, "restarted at once", "{report:?}");
        report
    }

    /// Waits until no process of this group is left, not even an unreaped one.
    pub async fn leaves_nothing(&self, group: u32) {
        until(&format!("process group {group} is gone"), async || {
            let left = group_of(group);
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    async fn status(&self) -> Option<WorkerStatus> {
        let (reply, answer) = oneshot::channel();
        self.address.send(WorkerMsg::Status(reply.into())).ok()?;
        answer.await.ok()
    }
}

/// Starts a worker process without an actor, waits until it is ready, has it stopped in order, and tells how it ended.
pub async fn how_it_stops(fault: Option<Fault>) -> ProcessEnd {
    let (_turn, folder) = (Turn::take(), tempfile::tempdir().expect("a temporary folder"));
    let process = WorkerProgram { program: program(folder.path(), fault), spec: spec() };
    let (tell, mut events) = mpsc::unbounded_channel();
    let started = process.start(Box::new(move |event| drop(tell.send(event)))).expect("it starts");
    let mut handle = started.handle;
    let running = tokio::spawn(started.run);
    let end = loop {
        match events.recv().await.expect("its exit is the last event") {
            ProcessEvent::Said(Event::Ready { .. }) => handle.stop(),
            ProcessEvent::Said(_) => {}
            ProcessEvent::Exited(exit) => break exit.end,
            event @ (ProcessEvent::Garbage(_) | ProcessEvent::PipeClosed) => panic!("{event:?}"),
        }
    };
    running.await.expect("no panic");
    assert_eq!(group_of(handle.pid()), Vec::<String>::new());
    end
}

/// Starts a worker process without an actor that may have so much memory, and the model's whole context; gives it a job
/// for each prompt, all at once. Returns the tokens that it has room for, and what became of each job, until it ended.
pub async fn crowd(memory_bytes_max: u64, prompts: &[String]) -> (u32, Vec<Event>) {
    let (_turn, folder) = (Turn::take(), tempfile::tempdir().expect("a temporary folder"));
    let spec = WorkerSpec { memory_bytes_max: Some(memory_bytes_max), context_tokens_max: None, ..spec() };
    let process = WorkerProgram { program: program(folder.path(), None), spec };
    let (tell, mut events) = mpsc::unbounded_channel();
    let started = process.start(Box::new(move |event| drop(tell.send(event)))).expect("it starts");
    let mut handle = started.handle;
    let running = tokio::spawn(started.run);
    let (mut room, mut ended) = (0, Vec::new());
    loop {
        match events.recv().await.expect("its exit is the last event") {
            ProcessEvent::Said(Event::Ready { context_tokens, .. }) => {
                room = context_tokens;
                for (lease, prompt) in (0..).map(Lease).zip(prompts) {
                    assert!(handle.send(Command::Start(Box::new(work(lease, prompt, 4)))), "it takes commands");
                }
            }
            ProcessEvent::Said(event @ (Event::Done { .. } | Event::Failed { .. })) => ended.push(event),
            ProcessEvent::Said(_) => {}
            ProcessEvent::Exited(_) => break,
            event @ (ProcessEvent::Garbage(_) | ProcessEvent::PipeClosed) => panic!("{event:?}"),
        }
        if room > 0 && ended.len() == prompts.len() {
            handle.stop();
        }
    }
    running.await.expect("no panic");
    (room, ended)
}

fn work(lease: Lease, prompt: &str, max_tokens: u32) -> Work {
    Work {
        class: Class::default(),
        lease,
        job: JobId::try_from(JOB.to_owned()).expect("a job id"),
        attempt: 2,
        input: Input::Prompt(prompt.to_owned()),
        max_tokens: Some(max_tokens),
        sampling: Request::prompt(prompt).sampling,
        seed: 7,
        stop: Vec::new(),
        generated: Vec::new(),
        traceparent: None,
    }
}

/// The job that a nursery's worker computes.
pub const JOB: &str = "0123456789abcdef0123456789abcdef";

/// Process ids, states and commands of a process group, as the system lists them; `Z` is dead and not reaped.
#[must_use]
pub fn group_of(group: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("a process file system");
    let stat =
        |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok();
    let in_group = |stat: &String| {
        // After the command in parentheses: state, parent, group.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split(' ').nth(2) == Some(&group.to_string())
    };
    entries.filter_map(stat).filter(in_group).collect()
}

fn digest() -> Digest {
    Digest::try_from(weights::SMOLLM2_SHA256.to_owned()).expect("a digest")
}

pub(crate) fn spec() -> WorkerSpec {
    WorkerSpec {
        weights: weights::smollm2(),
        digest: digest(),
        threads: NonZeroUsize::MIN,
        context_tokens_max: Some(1024),
        packed: None,
        memory_bytes_max: Some(MEMORY_BYTES_MAX),
        parent: std::process::id(),
    }
}

/// A program that becomes a worker process; the first to be started has the fault.
fn program(folder: &Path, fault: Option<Fault>) -> PathBuf {
    let (mark, script) = (folder.join("fault"), folder.join("worker"));
    let variable = fault.map_or(String::new(), Fault::variable);
    if fault.is_some() {
        std::fs::write(&mark, &variable).expect("a file in a temporary folder");
    }
    let text = format!(
        "#!/bin/sh\nif rm '{mark}' 2>/dev/null; then export {variable}; fi\nexec '{halm}' \"$@\"\n",
        mark = mark.display(),
        halm = binary().display(),
    );
    std::fs::write(&script, text).expect("a file in a temporary folder");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("its owner may");
    script
}
