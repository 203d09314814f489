//! Settlement: the final after all tokens, the outcome after the final, the acknowledgement after the outcome.

use halm_protocol::{CancelledBy, ErrorCode, Outcome, Refusal};

use super::desk::{Desk, chunk, chunks, delivery, end, has, refusal, unknown};
use crate::dispatcher::job::LogState;
use crate::dispatcher::{Effect, Event, OpResult};
use crate::ports::{LogRecord, Offered, Record, Sequence, WriteFault};

#[test]
fn a_job_is_settled_in_order_and_each_step_waits_for_the_one_before() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.tokens(&[2]);
    assert!(matches!(desk.done(".")[..], [Effect::Pace(_)]), "an append is in flight");
    assert_eq!(chunks(&desk.appended(Ok(()))), [(1, vec![2], 1)]);
    assert_eq!(chunks(&desk.appended(Ok(()))), [(2, vec![], 1)], "the text held back until now");
    let Some(Outcome::Reply(reply)) = end(&desk.appended(Ok(()))) else { panic!("the final follows") };
    assert_eq!((reply.text(), reply.attempts, reply.usage.completion_tokens), ("1 2 .", 1, 2));
    let effects = desk.appended(Ok(()));
    assert!(has!(effects, Effect::StoreOutcome { .. }) && !has!(effects, Effect::Ack(_)));
    let effects = desk.stored(Ok(()));
    assert!(has!(effects, Effect::Offer { .. }) && !has!(effects, Effect::Ack(_)), "the client may have been away");
    let effects = desk.offered();
    assert!(has!(effects, Effect::Ack(held) if *held == delivery("j", 1)) && has!(effects, Effect::Purge(_)));
    assert!(desk.core.status().is_empty() && desk.core.ops.is_empty());
}

#[test]
fn a_job_on_offer_leaves_its_place_to_others_and_does_not_claim_again() {
    let mut desk = Desk::running();
    let room = desk.core.demand().jobs;
    desk.done("");
    desk.appended(Ok(()));
    desk.stored(Ok(()));
    assert_eq!(desk.core.demand().jobs, room + 1);
    assert!(desk.tell(Event::ConnectionRestored).is_empty(), "its outcome is stored");
    assert!(has!(desk.offered(), Effect::Ack(_)));
}

/// A job whose answer is stored and on offer.
fn on_offer() -> Desk {
    let mut desk = Desk::running();
    desk.done("");
    desk.appended(Ok(()));
    desk.stored(Ok(()));
    desk
}

#[test]
fn a_client_that_is_away_is_offered_its_answer_again_until_it_counts_as_gone() {
    let mut desk = on_offer();
    let mut waits = Vec::new();
    loop {
        let effects = desk.answer(OpResult::Offered(Offered::Unheard));
        if has!(effects, Effect::Ack(_)) {
            break;
        }
        let before = desk.now;
        let due = desk
            .core
            .jobs
            .values()
            .find_map(|job| if let LogState::Offered { again_at, .. } = job.log { Some(again_at) } else { None });
        let due = due.expect("it waits");
        waits.push((due - before).as_millis());
        desk.now = due;
        assert!(has!(desk.tell(Event::Tick), Effect::Offer { .. }));
    }
    assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400]);
}

#[test]
fn whoever_leaves_gives_back_what_its_client_has_not_heard() {
    let mut desk = on_offer();
    desk.answer(OpResult::Offered(Offered::Unheard));
    let effects = desk.tell(Event::Drain);
    assert!(has!(effects, Effect::Nak(_)) && has!(effects, Effect::Drained) && !has!(effects, Effect::Ack(_)));

    let mut desk = on_offer();
    assert!(!has!(desk.tell(Event::Drain), Effect::Drained), "the client may be there");
    assert!(has!(desk.answer(OpResult::Offered(Offered::Unheard)), Effect::Nak(_)));
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
    assert!(has!(effects, Effect::Offer { outcome, .. } if *outcome == first) && !has!(effects, Effect::Ack(_)));
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

fn cancelled(effects: &[Effect]) -> bool {
    refusal(effects) == Some(ErrorCode::Cancelled)
}

/// What one who cancels leaves on the fence.
fn mark(sequence: u64) -> crate::ports::FenceRecord {
    let mut mark = super::desk::fence(sequence, "b", 1, 0);
    mark.claim.cancelled = Some(CancelledBy::Bystander);
    mark
}

#[test]
fn a_holder_that_is_told_ends_its_job_as_cancelled_at_once() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.appended(Ok(()));
    let effects = desk.tell(Event::Cancelled { job: super::desk::job("j") });
    assert!(cancelled(&effects) && has!(effects, Effect::Cancel { .. }));
    assert!(desk.tell(Event::Cancelled { job: super::desk::job("another") }).is_empty());
}

#[test]
fn a_holder_that_was_not_told_finds_the_mark_takes_its_fence_back_and_ends_the_job() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    let effects = desk.appended(Err(WriteFault::Superseded));
    assert!(has!(effects, Effect::ReadFence { .. }));
    let effects = desk.fence_read(Some(mark(50)));
    assert!(has!(effects, Effect::Cancel { .. }), "nothing more is computed");
    assert!(has!(effects, Effect::WriteFence { expected: Some(Sequence(50)), claim, .. }
        if claim.cancelled == Some(CancelledBy::Holder)));
    desk.fence_written();
    desk.outcome_read(None);
    assert_eq!(chunks(&desk.log_read(Vec::new())), [(0, vec![1], 1)], "what was made is told first");
    assert!(cancelled(&desk.appended(Ok(()))));
}

#[test]
fn a_job_that_was_cancelled_while_it_waited_is_not_computed() {
    let mut desk = Desk::with_job();
    assert!(cancelled(&desk.claim(Some(mark(5)), Vec::new())));
    assert!(desk.started.is_empty());
}

#[test]
fn a_cancelled_job_that_another_holder_took_is_that_ones() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.appended(Err(WriteFault::Superseded));
    let mut theirs = mark(50);
    theirs.claim.cancelled = Some(CancelledBy::Holder);
    assert!(has!(desk.fence_read(Some(theirs)), Effect::Release(_)));
}

#[test]
fn an_answer_that_was_complete_is_not_cancelled_any_more() {
    let mut desk = Desk::running();
    desk.done("");
    assert!(desk.tell(Event::Cancelled { job: super::desk::job("j") }).is_empty());
    let effects = desk.appended(Ok(()));
    assert!(has!(effects, Effect::StoreOutcome { outcome: Outcome::Reply(_), .. }));
}

#[test]
fn a_mark_is_kept_though_the_answer_was_complete_for_a_successor_may_not_know_it() {
    let mut desk = Desk::running();
    desk.done("");
    desk.appended(Err(WriteFault::Superseded));
    let effects = desk.fence_read(Some(mark(50)));
    assert!(has!(effects, Effect::WriteFence { claim, .. } if claim.cancelled == Some(CancelledBy::Holder)));
}
