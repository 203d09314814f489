//! INV-6 where jobs meet memory: keys and values have the room that the model leaves of a worker's limit, and no crowd
//! of jobs takes more. Real processes, real weights, the system's own limit.

use halm_protocol::ErrorCode;
use halm_protocol::worker::Event;
use halm_tests::crowd;

const MB: u64 = 1_000_000;
/// The worker is given room for so many tokens.
const ROOM_TOKENS: u64 = 512;

/// A text of so many words, a token each, that begins like no other.
fn text(at: usize, words: usize) -> String {
    format!("{at}{}", " word".repeat(words))
}

#[tokio::test]
async fn a_crowd_that_needs_many_times_the_memory_is_computed_and_what_never_fits_is_refused() {
    // What a token takes and what the rest takes, measured rather than known.
    let [(less, _), (more, _)] = [crowd(300 * MB, &[]).await, crowd(350 * MB, &[]).await];
    assert!(ROOM_TOKENS < u64::from(less) && less < more && more < 8192, "{less}, {more}");
    let token_bytes = 50 * MB / u64::from(more - less);
    let limit = 300 * MB - (u64::from(less) - ROOM_TOKENS) * token_bytes;

    // Together they would take more than the rest that a worker keeps, too.
    let mut prompts: Vec<String> = (0..9).map(|at| text(at, 450)).collect();
    prompts.push(text(9, 600));
    let (room, ended) = crowd(limit, &prompts).await;
    assert!((300..700).contains(&room), "room for {room} tokens");
    let [refused, done @ ..] = ended.as_slice() else { panic!("it died: {ended:?}") };
    assert!(matches!(refused, Event::Failed { code: ErrorCode::ContextExceeded, retry: false, .. }), "{refused:?}");
    assert_eq!(done.len(), 9, "{done:?}");
    assert!(done.iter().all(|event| matches!(event, Event::Done { prompt_tokens, .. } if *prompt_tokens > 450)));
}
