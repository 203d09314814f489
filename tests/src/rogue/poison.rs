//! A worker that dies of certain jobs: the real one, with somebody on its pipe who looks for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use halm_protocol::Input;
use halm_protocol::worker::{Command, Event, Lease, decode};

use super::pipe;

/// A prompt with this word kills the worker that computes it.
pub const POISON: &str = "cyanide";
/// It dies instead of telling its owner of this token.
const KILLS_AT: usize = 5;

/// Looks for poisonous jobs on the way to the worker that is about to run here.
pub(super) fn plant() {
    let poisonous: Arc<Mutex<BTreeSet<Lease>>> = Arc::default();
    let known = Arc::clone(&poisonous);
    let note = move |command: &[u8]| {
        if let Ok(Command::Start(work)) = decode::<Command>(command)
            && let Input::Prompt(prompt) = &work.input
            && prompt.contains(POISON)
        {
            known.lock().unwrap_or_else(PoisonError::into_inner).insert(work.lease);
        }
    };
    let die = move |frame: Vec<u8>| {
        if let Ok(Event::Tokens { lease, offset, pieces }) = decode::<Event>(&frame[4..])
            && offset as usize + pieces.len() > KILLS_AT
            && poisonous.lock().unwrap_or_else(PoisonError::into_inner).contains(&lease)
        {
            std::process::abort();
        }
        frame
    };
    pipe::between(note, die);
}
