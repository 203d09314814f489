//! Somebody on a worker's pipe: between the real worker that is about to run here and its owner.

use std::fs::File;
use std::io::{Read, Write};

use halm_protocol::worker::declared_length;

/// Puts itself between this process's pipes and the worker. Each side's frames go through one of the two.
pub(super) fn between(
    mut to_worker: impl FnMut(&[u8]) + Send + 'static,
    mut to_owner: impl FnMut(Vec<u8>) -> Vec<u8> + Send + 'static,
) {
    let mut from_owner = File::from(rustix::io::dup(rustix::stdio::stdin()).expect("standard input is a pipe"));
    let mut owner = File::from(rustix::io::dup(rustix::stdio::stdout()).expect("standard output is a pipe"));
    let (read, mut worker) = std::io::pipe().expect("a pipe");
    rustix::stdio::dup2_stdin(read).expect("standard input can be replaced");
    let (mut from_worker, write) = std::io::pipe().expect("a pipe");
    rustix::stdio::dup2_stdout(write).expect("standard output can be replaced");
    std::thread::spawn(move || {
        while let Some(frame) = frame(&mut from_owner) {
            to_worker(&frame[4..]);
            worker.write_all(&frame).expect("the worker reads");
        }
    });
    std::thread::spawn(move || {
        while let Some(frame) = frame(&mut from_worker) {
            owner.write_all(&to_owner(frame)).expect("the owner reads");
        }
    });
}

pub(super) fn frame(from: &mut impl Read) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).ok()?;
    let length = declared_length(frame[..4].try_into().expect("four bytes")).expect("a frame of the protocol");
    frame.resize(4 + length, 0);
    from.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}
