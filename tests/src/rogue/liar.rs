//! A worker that lies: the real one, with somebody on its pipe who puts another token in the place of a right one.

use halm_protocol::worker::{Event, decode, encode};

use super::pipe;

/// Every answer's token of this index is another.
const LIES_AT: u32 = 6;
/// Which it is instead, and its text.
const LIE: (u32, &str) = (7, "?");

/// Changes what the worker says that is about to run here.
pub(super) fn plant() {
    pipe::between(|_| {}, lie);
}

fn lie(frame: Vec<u8>) -> Vec<u8> {
    let Ok(Event::Tokens { lease, offset, mut pieces }) = decode::<Event>(&frame[4..]) else { return frame };
    let told = LIES_AT.checked_sub(offset).and_then(|at| pieces.get_mut(at as usize));
    let Some(piece) = told else { return frame };
    (piece.token, piece.text) = (LIE.0, LIE.1.to_owned());
    encode(&Event::Tokens { lease, offset, pieces }).expect("a frame as small as it was")
}
