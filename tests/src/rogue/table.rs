//! A worker that computes nothing: it answers with tokens from a table, so that what is measured is the runtime alone.
//!
//! The text of each token is the time at which it was sent, in microseconds since the Unix epoch.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use halm_protocol::worker::{Command, Event, Lease, Piece, decode, encode};
use halm_protocol::{FinishReason, Limits};

use super::pipe::frame;
use super::{beat_event, die_with_parent};

/// Names the time between two steps, in microseconds; 0 or absent: none.
pub const STEP_US: &str = "TEST_STEP_US";
/// As often as the real worker beats.
const BEAT_EVERY: Duration = Duration::from_millis(100);

type Pipe = Arc<Mutex<std::io::Stdout>>;

/// A job, and how far it is.
struct Text {
    made: u32,
    tokens: u32,
}

pub(super) fn run() -> ! {
    die_with_parent();
    let pipe: Pipe = Arc::new(Mutex::new(std::io::stdout()));
    say(&pipe, &beat_event());
    say(&pipe, &Event::Ready { context_tokens: 1 << 20, load_ms: 1 });
    let beats = Arc::clone(&pipe);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(BEAT_EVERY);
            say(&beats, &beat_event());
        }
    });
    let (to, commands) = channel();
    std::thread::spawn(move || {
        let mut from_owner = File::from(rustix::io::dup(rustix::stdio::stdin()).expect("standard input is a pipe"));
        while let Some(frame) = frame(&mut from_owner) {
            let command = decode::<Command>(&frame[4..]).expect("a command of the protocol");
            to.send(command).expect("the table reads");
        }
        std::process::exit(0);
    });
    let step = std::env::var(STEP_US).ok().and_then(|text| text.parse().ok()).map(Duration::from_micros);
    answer(&pipe, &commands, step.unwrap_or_default())
}

fn answer(pipe: &Pipe, commands: &Receiver<Command>, step: Duration) -> ! {
    let mut texts: BTreeMap<Lease, Text> = BTreeMap::new();
    loop {
        let command = if texts.is_empty() { commands.recv().ok() } else { waiting(commands) };
        match command {
            Some(Command::Start(work)) => {
                let made = u32::try_from(work.generated.len()).expect("a short text");
                let tokens = work.max_tokens.unwrap_or(Limits::MAX_TOKENS_DEFAULT);
                texts.insert(work.lease, Text { made, tokens });
                continue;
            }
            Some(Command::Cancel { lease }) => drop(texts.remove(&lease)),
            Some(Command::Shutdown) => std::process::exit(0),
            None => {}
        }
        for (lease, text) in &mut texts {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            let pieces = vec![Piece { token: text.made, text: format!("{now} ") }];
            say(pipe, &Event::Tokens { lease: *lease, offset: text.made, pieces });
            text.made += 1;
            if text.made >= text.tokens {
                let (text, reason) = (String::new(), FinishReason::Length);
                say(pipe, &Event::Done { lease: *lease, text, reason, prompt_tokens: 1 });
            }
        }
        texts.retain(|_, text| text.made < text.tokens);
        if !step.is_zero() {
            std::thread::sleep(step);
        }
    }
}

fn waiting(commands: &Receiver<Command>) -> Option<Command> {
    match commands.try_recv() {
        Ok(command) => Some(command),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => std::process::exit(0),
    }
}

fn say(pipe: &Pipe, event: &Event) {
    let frame = encode(event).expect("a small frame");
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    if pipe.write_all(&frame).and_then(|()| pipe.flush()).is_err() {
        std::process::exit(0);
    }
}
