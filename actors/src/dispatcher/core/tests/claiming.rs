//! Claims: the fence is read before it is written, and what another's claim means.

use std::time::Duration;

use halm_protocol::{ErrorCode, Outcome, Refusal};

use super::desk::{Desk, at, chunk, chunks, delivery, digest, fence, has, job, refusal, settings, spec, unknown};
use crate::dispatcher::{Effect, Event, OpResult, Settings};
use crate::ports::{Sequence, WriteFault};

fn a_refusal() -> Outcome {
    Outcome::Refusal(Refusal::new(ErrorCode::Cancelled, "as was decided before"))
}

#[test]
fn the_first_claim_reads_the_fence_before_it_writes_and_starts_nothing() {
    let mut desk = Desk::new();
    let effects = desk.receive(spec("j"), 1);
    assert!(has!(effects, Effect::Hold { .. }));
    assert!(has!(effects, Effect::ReadFence { .. }));
    assert!(!has!(effects, Effect::WriteFence { .. } | Effect::Start { .. } | Effect::Append { .. }));
}

#[test]
fn a_fence_is_written_against_the_sequence_that_was_read() {
    let mut desk = Desk::with_job();
    let effects = desk.fence_read(Some(fence(5, "b", 1, 0)));
    assert!(has!(effects, Effect::WriteFence { expected: Some(Sequence(5)), .. }));
    let mut desk = Desk::with_job();
    assert!(has!(desk.fence_read(None), Effect::WriteFence { expected: None, .. }));
}

#[test]
fn a_claim_counts_on_from_the_attempts_and_deaths_of_the_holder_before() {
    let mut desk = Desk::with_job();
    let effects = desk.fence_read(Some(fence(5, "b", 4, 2)));
    assert!(has!(effects, Effect::WriteFence { claim, .. } if (claim.attempts, claim.deaths) == (5, 2)));
}

#[test]
fn an_outcome_that_is_found_is_delivered_and_acknowledged_and_nothing_is_computed() {
    let mut desk = Desk::with_job();
    desk.fence_read(None);
    desk.fence_written();
    let effects = desk.outcome_read(Some(a_refusal()));
    assert!(has!(effects, Effect::Offer { outcome, .. } if *outcome == a_refusal()) && !has!(effects, Effect::Ack(_)));
    let effects = desk.offered();
    assert!(has!(effects, Effect::Ack(_)) && has!(effects, Effect::Purge(_)) && has!(effects, Effect::Release(_)));
    assert!(desk.started.is_empty() && desk.core.status().is_empty());
}

#[test]
fn a_claim_whose_answer_was_lost_is_known_by_its_nonce_and_not_written_again() {
    let mut desk = Desk::with_job();
    desk.fence_read(None);
    let Effect::WriteFence { claim, .. } = desk.call().clone() else { panic!("{:?}", desk.call()) };
    desk.answer(OpResult::FenceWritten(unknown()));
    desk.tick(30);
    let mut landed = fence(9, "a", 1, 0);
    landed.claim = claim;
    assert!(has!(desk.fence_read(Some(landed)), Effect::ReadOutcome { .. }));
    desk.outcome_read(None);
    desk.log_read(Vec::new());
    desk.tokens(&[1]);
    assert!(matches!(desk.call(), Effect::Append { fence, .. } if fence.sequence == Sequence(9)));
    assert_eq!(desk.core.jobs[&job("j")].attempts, 1, "our own claim is no earlier attempt");
}

#[test]
fn a_claim_with_our_nonce_below_what_we_had_read_is_that_of_an_earlier_dispatcher() {
    // A dispatcher that was started again counts its claims from one, under the same incarnation.
    let mut desk = Desk::with_job();
    desk.fence_read(Some(fence(9, "b", 1, 0)));
    let Effect::WriteFence { claim, .. } = desk.call().clone() else { panic!("{:?}", desk.call()) };
    desk.answer(OpResult::FenceWritten(unknown()));
    desk.tick(30);
    let mut namesake = fence(9, "a", 1, 0);
    namesake.claim = claim;
    assert!(has!(desk.fence_read(Some(namesake)), Effect::WriteFence { expected: Some(Sequence(9)), .. }));
}

#[test]
fn a_claim_that_another_overtook_is_tried_again_for_the_queue_gave_us_the_job() {
    let mut desk = Desk::with_job();
    desk.fence_read(None);
    desk.answer(OpResult::FenceWritten(Err(WriteFault::Superseded)));
    desk.tick(30);
    assert!(has!(desk.fence_read(Some(fence(7, "b", 1, 0))), Effect::WriteFence { expected: Some(Sequence(7)), .. }));
}

#[test]
fn a_broker_that_faults_again_and_again_is_asked_less_and_less_often() {
    let mut desk = Desk::with(Settings { progress_every: Duration::from_secs(3600), ..settings("a") });
    desk.receive(spec("j"), 1);
    let mut waits = Vec::new();
    for _ in 0..8 {
        desk.read_fault();
        let next = desk.core.next_tick().expect("it waits for a time");
        waits.push((next - desk.now).as_millis());
        let ms = u64::try_from(next.since(at(0)).as_millis()).expect("a short time");
        desk.tick(ms);
    }
    assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1000, 1000]);
}

#[test]
fn a_job_that_another_claimed_is_let_go_without_ack_or_nak() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.appended(Err(WriteFault::Superseded));
    let effects = desk.fence_read(Some(fence(50, "b", 2, 0)));
    assert!(has!(effects, Effect::Cancel { .. }) && has!(effects, Effect::Release(_)));
    assert!(!has!(effects, Effect::Ack(_) | Effect::Nak(_) | Effect::Purge(_) | Effect::WriteFence { .. }));
    assert!(desk.core.status().is_empty() && desk.core.ops.is_empty() && desk.core.leases.is_empty());
}

#[test]
fn a_log_that_was_made_anew_is_claimed_again_and_given_what_is_missing() {
    let mut desk = Desk::running();
    desk.tokens(&[1, 2]);
    desk.appended(Ok(()));
    desk.tokens(&[3]);
    desk.appended(Err(WriteFault::Superseded));
    assert_eq!(chunks(&desk.claim(None, Vec::new())), [(0, vec![1, 2, 3], 1)]);
    assert_eq!(desk.started.len(), 1, "the worker goes on");
}

#[test]
fn a_log_that_lost_its_tail_is_given_the_tail_again() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    desk.appended(Ok(()));
    desk.tokens(&[2]);
    desk.appended(Ok(()));
    desk.tell(Event::ConnectionRestored);
    assert_eq!(chunks(&desk.claim_again(vec![chunk(0, &[1], 1)])), [(1, vec![2], 1)]);
}

#[test]
fn a_claim_older_than_ours_is_a_stream_that_was_rolled_back_and_not_another_holder() {
    let mut desk = Desk::with_job();
    desk.claim(Some(fence(5, "b", 1, 0)), Vec::new());
    desk.tell(Event::ConnectionRestored);
    let effects = desk.fence_read(Some(fence(5, "b", 1, 0)));
    assert!(has!(effects, Effect::WriteFence { expected: Some(Sequence(5)), .. }));
}

#[test]
fn a_job_delivered_again_while_it_runs_adopts_the_new_delivery_and_is_not_fenced_again() {
    let mut desk = Desk::running();
    let effects = desk.receive(spec("j"), 2);
    assert!(has!(effects, Effect::Hold { ack, .. } if *ack == delivery("j", 2).ack));
    assert!(!has!(effects, Effect::ReadFence { .. } | Effect::Nak(_) | Effect::Cancel { .. }));
    assert!(has!(desk.tick(1000), Effect::Progress(held) if *held == delivery("j", 2)));
}

#[test]
fn after_a_restored_connection_every_job_claims_again() {
    let mut desk = Desk::running();
    desk.receive(spec("k"), 1);
    let effects = desk.tell(Event::ConnectionRestored);
    let claimed: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::ReadFence { .. })).collect();
    assert_eq!(claimed.len(), 2);
    assert!(!has!(effects, Effect::Cancel { .. }), "workers go on meanwhile");
    assert_eq!(desk.core.ops.len(), 2, "what was asked before does not count any more");
}

#[test]
fn the_answer_to_a_call_from_before_the_last_claim_is_ignored() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    let (stale, _) = desk.calls.pop().expect("an append is under way");
    desk.tell(Event::ConnectionRestored);
    let late = Event::Finished { op: stale, result: OpResult::Appended(Ok(())) };
    assert!(desk.tell(late).is_empty());
    assert_eq!(desk.core.jobs[&job("j")].appended, 0);
}

#[test]
fn a_job_pinned_to_other_weights_is_refused_and_not_run() {
    let mut desk = Desk::new();
    let mut other = spec("j");
    other.digest = digest('1');
    desk.receive(other, 1);
    let effects = desk.claim(None, vec![chunk(0, &[1], 1)]);
    assert_eq!(refusal(&effects), Some(ErrorCode::Unavailable));
    assert!(desk.started.is_empty());
}
