//! Settlement: the final after all tokens, the outcome after the final, the acknowledgement after the outcome.

use halm_protocol::{ErrorCode, Outcome, Refusal};

use super::desk::{Desk, chunk, chunks, delivery, end, has, refusal, unknown};
use crate::dispatcher::{Effect, Event};
use crate::ports::{LogRecord, Record, Sequence, WriteFault};

#[test]
fn a_job_is_settled_in_order_and_each_step_waits_for_the_one_before() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.tokens(&[2]);
    assert!(desk.done(".").is_empty(), "an append is in flight");
    assert_eq!(chunks(&desk.appended(Ok(()))), [(1, vec![2], 1)]);
    assert_eq!(chunks(&desk.appended(Ok(()))), [(2, vec![], 1)], "the text held back until now");
    let Some(Outcome::Reply(reply)) = end(&desk.appended(Ok(()))) else { panic!("the final follows") };
    assert_eq!((reply.text(), reply.attempts, reply.usage.completion_tokens), ("1 2 .", 1, 2));
    let effects = desk.appended(Ok(()));
    assert!(has!(effects, Effect::StoreOutcome { .. }) && !has!(effects, Effect::Ack(_)));
    let effects = desk.stored(Ok(()));
    assert!(has!(effects, Effect::Deliver { .. }) && !has!(effects, Effect::Ack(_)), "the client may have been away");
    let effects = desk.offered();
    assert!(has!(effects, Effect::Ack(held) if *held == delivery("j", 1)) && has!(effects, Effect::Purge(_)));
    assert!(desk.core.status().is_empty() && desk.core.ops.is_empty());
}

#[test]
fn a_job_on_offer_leaves_its_place_to_others_and_does_not_claim_again() {
    let mut desk = Desk::running();
    let room = desk.core.demand();
    desk.done("");
    desk.appended(Ok(()));
    desk.stored(Ok(()));
    assert_eq!(desk.core.demand(), room + 1);
    assert!(desk.tell(Event::ConnectionRestored).is_empty(), "its outcome is stored");
    assert!(has!(desk.offered(), Effect::Ack(_)));
}

#[test]
fn a_final_that_another_wrote_is_stored_as_it_stands_and_nothing_is_computed() {
    let told = Outcome::Refusal(Refusal::new(ErrorCode::Cancelled, "as the client was told"));
    let last = LogRecord { sequence: Sequence(120), record: Record::Final(told.clone()) };
    let mut desk = Desk::with_job();
    let effects = desk.claim(None, vec![chunk(0, &[1], 1), last]);
    assert!(has!(effects, Effect::StoreOutcome { outcome, .. } if *outcome == told));
    assert!(desk.started.is_empty());
}

#[test]
fn a_tail_that_is_in_the_log_already_is_not_written_again() {
    let mut desk = Desk::with_job();
    let mut tail = chunk(1, &[], 1);
    if let Record::Chunk { chunk, .. } = &mut tail.record {
        chunk.text = ".".to_owned();
    }
    desk.claim(None, vec![chunk(0, &[1], 1), tail]);
    let effects = desk.done(".");
    let Some(Outcome::Reply(reply)) = end(&effects) else { panic!("the final follows") };
    assert_eq!((reply.text(), chunks(&effects)), ("1 .", vec![]));
}

#[test]
fn an_outcome_that_another_stored_first_is_the_one_that_is_delivered() {
    let first = Outcome::Refusal(Refusal::new(ErrorCode::Cancelled, "stored first"));
    let mut desk = Desk::running();
    desk.done("");
    desk.appended(Ok(()));
    let effects = desk.stored(Err(WriteFault::Superseded));
    assert!(has!(effects, Effect::ReadFence { .. }) && !has!(effects, Effect::Ack(_)));
    desk.fence_read(Some(super::desk::fence(11, "a", 1, 0)));
    desk.fence_written();
    let effects = desk.outcome_read(Some(first.clone()));
    assert!(has!(effects, Effect::Deliver { outcome, .. } if *outcome == first) && !has!(effects, Effect::Ack(_)));
    assert!(has!(desk.offered(), Effect::Ack(_)));
}

#[test]
fn an_outcome_whose_storing_is_unknown_is_looked_for_before_anything_else() {
    let mut desk = Desk::running();
    desk.done("");
    desk.appended(Ok(()));
    assert!(!has!(desk.stored(unknown()), Effect::Ack(_)));
    assert!(has!(desk.tick(30), Effect::ReadFence { .. }));
}

#[test]
fn a_deadline_ends_a_job_with_a_refusal_that_a_late_worker_cannot_change() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.appended(Ok(()));
    let effects = desk.tick(60_000);
    assert!(has!(effects, Effect::Cancel { .. }));
    assert_eq!(refusal(&effects), Some(ErrorCode::DeadlineExceeded));
    assert!(desk.done("late").is_empty() && desk.tokens(&[2]).is_empty());
    assert!(has!(desk.appended(Ok(())), Effect::StoreOutcome { outcome: Outcome::Refusal(_), .. }));
}

#[test]
fn a_deadline_that_passes_while_the_broker_is_away_is_told_when_it_is_back() {
    let mut desk = Desk::with_job();
    desk.read_fault();
    let effects = desk.tick(60_000);
    assert!(has!(effects, Effect::ReadFence { .. }) && desk.core.next_tick() > Some(desk.now));
    assert_eq!(refusal(&desk.claim(None, Vec::new())), Some(ErrorCode::DeadlineExceeded));
    assert!(desk.started.is_empty());
}

#[test]
fn a_held_delivery_is_prolonged_each_second_also_while_it_settles() {
    let mut desk = Desk::running();
    desk.done("");
    for second in 1..=3 {
        assert!(has!(desk.tick(second * 1000), Effect::Progress(_)));
        assert!(!has!(desk.tick(second * 1000 + 500), Effect::Progress(_)));
    }
    desk.tell(Event::ConnectionRestored);
    assert!(has!(desk.tick(4000), Effect::Progress(_)));
}
