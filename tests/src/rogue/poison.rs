//! A worker that dies of certain jobs: the real one, with somebody on its pipe who looks for them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use halm_protocol::Input;
use halm_protocol::worker::{Command, Event, Lease, declared_length, decode};

/// A prompt with this word kills the worker that computes it.
pub const POISON: &str = "cyanide";
/// It dies instead of telling its owner of this token.
const KILLS_AT: usize = 5;

/// Puts itself between this process's pipes and the worker that is about to run here.
pub(super) fn plant() {
    let mut from_owner = File::from(rustix::io::dup(rustix::stdio::stdin()).expect("standard input is a pipe"));
    let mut to_owner = File::from(rustix::io::dup(rustix::stdio::stdout()).expect("standard output is a pipe"));
    let (read, mut to_worker) = std::io::pipe().expect("a pipe");
    rustix::stdio::dup2_stdin(read).expect("standard input can be replaced");
    let (mut from_worker, write) = std::io::pipe().expect("a pipe");
    rustix::stdio::dup2_stdout(write).expect("standard output can be replaced");
    let poisonous: Arc<Mutex<BTreeSet<Lease>>> = Arc::default();
    let known = Arc::clone(&poisonous);
    std::thread::spawn(move || {
        while let Some(frame) = frame(&mut from_owner) {
            if let Ok(Command::Start(work)) = decode::<Command>(&frame[4..])
                && let Input::Prompt(prompt) = &work.input
                && prompt.contains(POISON)
            {
                known.lock().unwrap_or_else(PoisonError::into_inner).insert(work.lease);
            }
            to_worker.write_all(&frame).expect("the worker reads");
        }
    });
    std::thread::spawn(move || {
        while let Some(frame) = frame(&mut from_worker) {
            if let Ok(Event::Tokens { lease, offset, pieces }) = decode::<Event>(&frame[4..])
                && offset as usize + pieces.len() > KILLS_AT
                && poisonous.lock().unwrap_or_else(PoisonError::into_inner).contains(&lease)
            {
                std::process::abort();
            }
            to_owner.write_all(&frame).expect("the owner reads");
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
