//! The Hugging Face hub: one file over HTTP, resumed where it broke off.
//!
//! Owns the `part` file while it grows. A part is only ever a prefix of what the hub sent; it is
//! handed on when it has the right length and digest, and thrown away when it has the right length
//! and another digest. Must never wait long for a hub that cannot be reached: PyPI is next. Called
//! by `fetch`, under the file's lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use ureq::http::StatusCode;

use super::catalogue::HubFile;
use super::error::{Failure, HubError};
use super::progress::Progress;
use super::stamp::{self, BUFFER_BYTES};

/// A hub that is there answers within this, also from far away; one that is not must not delay
/// the next source.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// From the request to the head of the answer, redirects included one by one.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Silence within a body after which the connection counts as cut.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Connections per run. Each after the first goes on where the one before broke off, and only if
/// that one brought something.
const CONNECTIONS_MAX: u32 = 6;

/// What this process learned about the hub: one that could not be reached is not asked again.
#[derive(Debug, Default)]
pub(super) struct HubMemory {
    unreachable: OnceLock<String>,
}

/// One file wanted from the hub.
pub(super) struct Download<'a> {
    pub(super) endpoint: &'a str,
    pub(super) file: &'a HubFile,
    pub(super) bytes: u64,
    pub(super) sha256: &'a str,
    pub(super) part: &'a Path,
    pub(super) memory: &'a HubMemory,
}

/// What one connection came to.
enum Connection {
    Whole,
    Cut(String),
    /// What lies in the part does not fit what the hub has.
    StartAgain,
}

impl Download<'_> {
    /// Fills the part file until it is whole and has the right digest.
    pub(super) fn run(&self, progress: &Progress) -> Result<(), Failure> {
        if let Some(reason) = self.memory.unreachable.get() {
            let reason = format!("{reason} (not asked again in this run)");
            return Err(HubError::Unreachable { endpoint: self.endpoint.to_owned(), reason }.into());
        }
        let mut resumed = self.part_bytes() > 0;
        let mut reason = String::new();
        for connection in 0..CONNECTIONS_MAX {
            let before = self.part_bytes();
            match self.connect(connection == 0, progress)? {
                Connection::Whole => match self.check()? {
                    None => return Ok(()),
                    // The old part may be of another version of the file: once more, from zero.
                    Some(_) if resumed => resumed = false,
                    Some(other) => return Err(other.into()),
                },
                Connection::StartAgain => {
                    self.throw_away()?;
                    resumed = false;
                }
                Connection::Cut(why) => {
                    reason = why;
                    if self.part_bytes() <= before {
                        break;
                    }
                }
            }
        }
        let (url, got, expected) = (self.url(), self.part_bytes(), self.bytes);
        Err(HubError::Cut { url, got, expected, reason }.into())
    }

    /// One request, from where the part ends.
    fn connect(&self, first: bool, progress: &Progress) -> Result<Connection, Failure> {
        let from = self.part_bytes();
        if from >= self.bytes {
            return Ok(if from == self.bytes { Connection::Whole } else { Connection::StartAgain });
        }
        let mut request = agent().get(self.url());
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let answer = match request.call() {
            Ok(answer) => answer,
            Err(error) if first => return Err(self.unreachable(&error).into()),
            Err(error) => return Ok(Connection::Cut(error.to_string())),
        };
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(answer.headers(), from) => from,
            // The hub ignored the range: the whole file comes.
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                return Ok(Connection::StartAgain);
            }
            status => {
                return Err(HubError::Status { url: self.url(), status: status.as_u16() }.into());
            }
        };
        if let Some(length) = answer.body().content_length().filter(|n| from + n != self.bytes) {
            if from > 0 {
                return Ok(Connection::StartAgain);
            }
            return Err(self.other_size(length).into());
        }
        self.append(from, answer.into_body().into_reader(), progress)
    }

    /// Writes the body behind the first `from` bytes of the part.
    fn append(&self, from: u64, mut body: impl Read, progress: &Progress) -> Result<Connection, Failure> {
        let mut part = OpenOptions::new().create(true).append(true).open(self.part)?;
        part.set_len(from)?;
        let mut got = from;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            progress.at(got);
            let n = match body.read(&mut buffer) {
                Ok(0) if got == self.bytes => return Ok(Connection::Whole),
                Ok(0) => return Ok(Connection::Cut("the connection was closed".to_owned())),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Ok(Connection::Cut(e.to_string())),
            };
            got += n as u64;
            if got > self.bytes {
                drop(part);
                self.throw_away()?;
                return Err(self.other_size(got).into());
            }
            part.write_all(&buffer[..n])?;
        }
    }

    /// Hashes a part of full length; one with another digest is thrown away.
    fn check(&self) -> Result<Option<HubError>, Failure> {
        let found = stamp::hash(&mut File::open(self.part)?)?;
        if found == self.sha256 {
            return Ok(None);
        }
        self.throw_away()?;
        Ok(Some(HubError::OtherDigest { url: self.url(), found, expected: self.sha256.to_owned() }))
    }

    fn throw_away(&self) -> io::Result<()> {
        match fs::remove_file(self.part) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> HubError {
        let reason = self.memory.unreachable.get_or_init(|| error.to_string()).clone();
        HubError::Unreachable { endpoint: self.endpoint.to_owned(), reason }
    }

    fn other_size(&self, found: u64) -> HubError {
        HubError::OtherSize { url: self.url(), found, expected: self.bytes }
    }

    fn part_bytes(&self) -> u64 {
        fs::metadata(self.part).map_or(0, |seen| seen.len())
    }

    fn url(&self) -> String {
        format!("{}/{}/resolve/main/{}", self.endpoint, self.file.repository, self.file.file)
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_resolve(Some(CONNECT_MAX))
        .timeout_connect(Some(CONNECT_MAX))
        .timeout_recv_response(Some(ANSWER_MAX))
        .timeout_per_read(Some(SILENCE_MAX))
        .http_status_as_error(false)
        .user_agent(concat!("halm/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// Whether a `Content-Range` says that the body continues at `from`.
fn begins_at(headers: &ureq::http::HeaderMap, from: u64) -> bool {
    let range = headers.get("content-range").and_then(|value| value.to_str().ok());
    let start = range.and_then(|text| text.strip_prefix("bytes ")).and_then(|text| text.split('-').next());
    start.and_then(|text| text.trim().parse().ok()) == Some(from)
}
