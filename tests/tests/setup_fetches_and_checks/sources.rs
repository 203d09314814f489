//! Sources under the tests' control: an HTTP server that can misbehave, and wheels for a real pip.
//!
//! Owns both, on this machine only. Must never reach another one. Used by
//! `setup_fetches_and_checks`.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use halm::assets::catalogue::{HubFile, ModelEntry, Piece};
use halm::assets::sha256_hex;

/// What the hub does with one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// Sends what was asked for.
    Whole,
    /// Announces the whole body and closes after so many bytes of it.
    CutAfter(usize),
    /// Sends a body of the right length with every byte changed.
    OtherBytes,
    /// Announces a body one byte longer.
    OtherSize,
    /// Ignores a range and sends everything from the start.
    NoRanges,
    /// Answers with this status and no body.
    Status(u16),
    /// Closes without a word.
    HangUp,
    /// Sends half, says so, and waits to be let go on.
    WaitHalfway,
}

/// What the hub was asked, and how many body bytes it sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) range: Option<String>,
    pub(crate) sent_bytes: usize,
}

/// An HTTP server with one file, which follows a script and then answers honestly.
pub(crate) struct Hub {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Hears when a `WaitHalfway` reached its half.
    pub(crate) halfway: Receiver<()>,
    /// Lets it go on.
    pub(crate) go_on: Sender<()>,
}

impl Hub {
    pub(crate) fn start(body: &[u8], script: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (asked, closing) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (half, halfway) = channel();
        let (go_on, gate) = channel();
        let (body, script) = (body.to_vec(), script.to_vec());
        let (log, closed) = (asked.clone(), closing.clone());
        let thread = thread::spawn(move || {
            let mut script = script.into_iter();
            for stream in listener.incoming().map_while(Result::ok) {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                let reply = script.next().unwrap_or(Reply::Whole);
                if let Some(one) = answer(stream, &body, reply, &half, &gate) {
                    log.lock().expect("not poisoned").push(one);
                }
            }
        });
        Self { address, asked, closing, thread: Some(thread), halfway, go_on }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything asked so far. The server logs a request when it has answered it.
    pub(crate) fn stop_and_tell(mut self) -> Vec<Asked> {
        self.close();
        self.asked.lock().expect("not poisoned").clone()
    }

    fn close(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // A reply that still waits to be let go on must not be waited for.
        self.go_on = channel().0;
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

/// Serves one connection; `None` for one that asked nothing.
fn answer(mut stream: TcpStream, body: &[u8], reply: Reply, half: &Sender<()>, gate: &Receiver<()>) -> Option<Asked> {
    let range = read_head(&stream)?;
    let from = match reply {
        Reply::NoRanges => 0,
        _ => range.as_deref().and_then(start_of).unwrap_or(0),
    };
    let rest = &body[from..];
    let announced = rest.len() + usize::from(matches!(reply, Reply::OtherSize));
    let status = match reply {
        Reply::Status(code) => format!("HTTP/1.1 {code} Told\r\nContent-Length: 0\r\n"),
        Reply::HangUp => {
            return Some(Asked { range, sent_bytes: 0 });
        }
        _ if from > 0 => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {announced}\r\nContent-Range: bytes {from}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        ),
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n"),
    };
    let sent = match reply {
        Reply::CutAfter(n) => rest[..n].to_vec(),
        Reply::OtherBytes => rest.iter().map(|byte| !byte).collect(),
        Reply::Status(_) => Vec::new(),
        _ => rest.to_vec(),
    };
    write!(stream, "{status}Connection: close\r\n\r\n").ok()?;
    let first = if matches!(reply, Reply::WaitHalfway) { sent.len() / 2 } else { sent.len() };
    // A client may hang up once it has seen enough.
    let _ = stream.write_all(&sent[..first]);
    if first < sent.len() {
        half.send(()).ok()?;
        gate.recv().ok()?;
        let _ = stream.write_all(&sent[first..]);
    }
    Some(Asked { range, sent_bytes: sent.len() })
}

/// Reads a request's head and returns its `Range`, or `None` if there was no request.
fn read_head(stream: &TcpStream) -> Option<Option<String>> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.next().filter(|line| line.starts_with("GET "))?;
    let mut range = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("range") {
            range = Some(value.trim().to_owned());
        }
    }
    Some(range)
}

fn start_of(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// An entry of the catalogue for `content`, of which `pieces` says the wheels.
pub(crate) fn entry(content: &[u8], pieces: Vec<Piece>) -> ModelEntry {
    ModelEntry {
        name: "tiny:1k",
        alias: "tiny",
        file: "tiny.gguf",
        bytes: content.len() as u64,
        sha256: leak(sha256_hex(content)),
        hub: Some(HubFile { repository: "someone/tiny", file: "tiny.gguf" }),
        pieces: Box::leak(pieces.into_boxed_slice()),
    }
}

/// Makes a wheel of `package` with that content in `folder`, and says what to look for in it.
pub(crate) fn wheel(folder: &Path, package: &str, content: &[u8]) -> Piece {
    let module = package.replace('-', "_");
    let member = format!("{module}/data.bin");
    let source = folder.join(format!("{module}.bin"));
    fs::write(&source, content).expect("content written");
    let wheel = folder.join(format!("{module}-1.0.0-py3-none-any.whl"));
    let made = Command::new("python3")
        .args(["-c", MAKE_WHEEL])
        .args([&wheel, &source])
        .args([&module, &member])
        .output()
        .expect("python3 is on PATH");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Piece {
        package: leak(package.to_owned()),
        version: "1.0.0",
        member: leak(member),
        wheel_bytes: fs::metadata(&wheel).expect("a wheel").len(),
    }
}

const MAKE_WHEEL: &str = "
import sys, zipfile
wheel, source, module, member = sys.argv[1:]
with zipfile.ZipFile(wheel, 'w', zipfile.ZIP_DEFLATED) as z:
    z.write(source, member)
    info = f'{module}-1.0.0.dist-info'
    z.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\\nName: {module}\\nVersion: 1.0.0\\n')
    z.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    z.writestr(f'{info}/RECORD', '')
";

/// The real pip, with the wheels in `folder` for its only index.
pub(crate) fn pip_with_only(folder: &Path) -> Vec<OsString> {
    let mut words = vec!["env".into(), "PIP_NO_INDEX=1".into()];
    let mut links = OsString::from("PIP_FIND_LINKS=");
    links.push(folder);
    words.push(links);
    words.extend(["python3", "-m", "pip"].map(OsString::from));
    words
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}
