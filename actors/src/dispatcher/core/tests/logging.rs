//! Appends: one at a time, in order, of one author each, and never twice.

use halm_protocol::{ErrorCode, Outcome, Refusal};

use super::desk::{Desk, chunk, chunks, end, has, job, refusal, spec, unknown};
use crate::dispatcher::{Effect, Event};
use crate::ports::{LogRecord, Record, Sequence, WriteFault};

fn final_record(code: ErrorCode) -> LogRecord {
    LogRecord { sequence: Sequence(900), record: Record::Final(Outcome::Refusal(Refusal::new(code, "the end"))) }
}

#[test]
fn one_append_is_in_flight_and_what_is_made_meanwhile_goes_into_the_next_record() {
    let mut desk = Desk::running();
    assert_eq!(chunks(&desk.tokens(&[1])), [(0, vec![1], 1)]);
    assert_eq!(chunks(&desk.tokens(&[2])), []);
    assert_eq!(chunks(&desk.tokens(&[3, 4])), []);
    assert_eq!(chunks(&desk.appended(Ok(()))), [(1, vec![2, 3, 4], 1)]);
}

#[test]
fn a_slow_broker_gets_records_of_a_bounded_size() {
    let mut desk = Desk::running();
    desk.tokens(&[0]);
    desk.tokens(&[1; 600]);
    let sizes: Vec<_> =
        (0..4).flat_map(|_| chunks(&desk.appended(Ok(())))).map(|(_, tokens, _)| tokens.len()).take(3).collect();
    assert_eq!(sizes, [256, 256, 88]);
}

#[test]
fn a_record_has_one_author() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.tokens(&[2]);
    desk.death();
    desk.tokens(&[3]);
    desk.appended(Ok(()));
    assert_eq!(chunks(&desk.claim_again(vec![chunk(0, &[1], 1)])), [(1, vec![2], 1)]);
    assert_eq!(chunks(&desk.appended(Ok(()))), [(2, vec![3], 2)]);
}

#[test]
fn an_append_that_was_lost_is_made_again_under_a_new_fence_after_reading() {
    let mut desk = Desk::running();
    desk.tokens(&[1, 2]);
    let effects = desk.appended(unknown());
    assert!(has!(effects, Effect::ReadFence { .. }) && !has!(effects, Effect::Append { .. }));
    let effects = desk.claim_again(Vec::new());
    assert_eq!(chunks(&effects), [(0, vec![1, 2], 1)]);
    assert!(has!(effects, Effect::Append { fence, .. } if fence.sequence == Sequence(21)), "{effects:?}");
}

#[test]
fn an_append_that_landed_unheard_is_not_made_again() {
    let mut desk = Desk::running();
    desk.tokens(&[1, 2]);
    desk.tokens(&[3]);
    desk.appended(unknown());
    assert_eq!(chunks(&desk.claim_again(vec![chunk(0, &[1, 2], 1)])), [(2, vec![3], 1)]);
}

#[test]
fn a_refused_append_waits_and_the_wait_grows_although_the_log_can_be_read() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    let mut waits = Vec::new();
    for _ in 0..3 {
        desk.appended(Err(WriteFault::Refused("the stream is full".to_owned())));
        let next = desk.core.next_tick().expect("it waits for a time");
        waits.push((next - desk.now).as_millis());
        desk.tick(u64::try_from(next.since(super::desk::at(0)).as_millis()).expect("a short time"));
        desk.claim_again(Vec::new());
    }
    assert_eq!(waits, [20, 40, 80]);
}

#[test]
fn a_broker_that_calls_a_fresh_fence_superseded_is_not_asked_in_a_tight_loop() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    assert!(has!(desk.appended(Err(WriteFault::Superseded)), Effect::ReadFence { .. }), "at once the first time");
    desk.claim_again(Vec::new());
    assert!(desk.appended(Err(WriteFault::Superseded)).is_empty(), "and then after a wait");
}

#[test]
fn a_gap_in_the_log_is_a_broken_promise_and_ends_in_an_error_not_in_a_second_text() {
    let mut desk = Desk::with_job();
    let effects = desk.claim(None, vec![chunk(0, &[1], 1), chunk(2, &[3], 1)]);
    assert!(has!(effects, Effect::Broken { invariant: "INV-2", .. }));
    assert_eq!(refusal(&effects), Some(ErrorCode::Internal));
    assert!(desk.started.is_empty() && chunks(&effects).is_empty());
}

#[test]
fn a_damaged_log_is_given_nothing_but_its_end_even_while_tokens_wait() {
    let mut desk = Desk::running();
    desk.tokens(&[1, 2]);
    desk.appended(unknown());
    desk.tokens(&[3]);
    let effects = desk.claim_again(vec![chunk(1, &[2], 1)]);
    assert_eq!(chunks(&effects), []);
    assert_eq!(refusal(&effects), Some(ErrorCode::Internal));
    assert!(has!(effects, Effect::Cancel { .. }));
    assert!(has!(desk.appended(Ok(())), Effect::StoreOutcome { .. }));
}

#[test]
fn the_end_of_a_damaged_log_is_not_written_twice() {
    let mut desk = Desk::with_job();
    desk.claim(None, vec![chunk(1, &[2], 1)]);
    desk.appended(unknown());
    let effects = desk.claim_again(vec![chunk(1, &[2], 1), final_record(ErrorCode::Internal)]);
    assert!(has!(effects, Effect::StoreOutcome { .. }) && end(&effects).is_none());
}

#[test]
fn another_token_at_the_same_offset_is_a_fork() {
    let mut desk = Desk::running();
    desk.tokens(&[1, 2]);
    desk.appended(unknown());
    let effects = desk.claim_again(vec![chunk(0, &[1, 9], 1)]);
    assert!(has!(effects, Effect::Broken { invariant: "INV-2", .. }));
    assert_eq!(refusal(&effects), Some(ErrorCode::Internal));
}

#[test]
fn a_worker_that_skips_a_token_is_taken_off_and_nothing_of_it_is_logged() {
    let mut desk = Desk::running();
    let lease = desk.lease();
    let pieces = vec![halm_protocol::worker::Piece { token: 9, text: String::new() }];
    let effects = desk.tell(Event::Tokens { lease, offset: 1, pieces });
    assert!(has!(effects, Effect::Broken { invariant: "INV-2", .. }) && has!(effects, Effect::Cancel { .. }));
    assert_eq!(chunks(&effects), []);
    assert_eq!(desk.started.len(), 2);
}

#[test]
fn a_log_that_went_on_without_us_stops_what_runs_and_is_taken_over() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.appended(unknown());
    let effects = desk.claim_again(vec![chunk(0, &[1], 1), chunk(1, &[2, 3], 2)]);
    assert!(has!(effects, Effect::Cancel { .. }));
    assert_eq!(desk.started.last().map(|(_, _, generated)| generated.clone()), Some(vec![1, 2, 3]));
}

#[test]
fn a_plain_request_keeps_its_chunks_off_the_clients_subject() {
    let mut desk = Desk::new();
    let mut plain = spec("j");
    plain.request.stream = false;
    desk.receive(plain, 1);
    desk.claim(None, Vec::new());
    let effects = desk.tokens(&[1]);
    assert!(has!(effects, Effect::Append { target, .. } if !target.streamed));
    desk.appended(Ok(()));
    let Some(Outcome::Reply(reply)) = end(&desk.done("")) else { panic!("the final follows") };
    assert!(!reply.is_final, "only a stream's last record is marked");
    assert_eq!(desk.core.jobs[&job("j")].appended, 1);
}
