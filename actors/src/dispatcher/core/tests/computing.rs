//! Workers: what they are given, what their deaths and failures mean, and how many jobs there is room for.

use halm_protocol::ErrorCode;

use super::desk::{Desk, chunk, delivery, end, fence, has, job, refusal, spec};
use crate::dispatcher::{Effect, Event, Room, WorkerId};

#[test]
fn a_resumed_job_starts_its_worker_with_exactly_the_tokens_of_the_log() {
    let mut desk = Desk::with_job();
    desk.claim(Some(fence(5, "b", 1, 0)), vec![chunk(0, &[1, 2], 1), chunk(2, &[3], 1)]);
    assert_eq!(desk.started[0].2, [1, 2, 3]);
    desk.tokens(&[4]);
    desk.appended(Ok(()));
    let Some(halm_protocol::Outcome::Reply(reply)) = end(&desk.done("!")).or_else(|| end(&desk.appended(Ok(()))))
    else {
        panic!("the final follows")
    };
    assert_eq!((reply.attempts, &reply.resumed_at[..], reply.text()), (2, &[3][..], "1 2 3 4 !"));
}

#[test]
fn a_job_with_a_long_history_says_where_each_worker_went_on() {
    let mut desk = Desk::with_job();
    desk.claim(Some(fence(5, "b", 2, 0)), vec![chunk(0, &[1, 2], 1), chunk(2, &[3], 2)]);
    assert_eq!(desk.core.jobs[&job("j")].resumed_at, [2, 3]);
}

#[test]
fn an_attempt_never_has_the_number_of_one_that_is_in_the_log() {
    // A failure without a death is not written to the fence, so the log may know of more attempts.
    let mut desk = Desk::with_job();
    desk.claim(Some(fence(5, "b", 1, 0)), vec![chunk(0, &[1], 1), chunk(1, &[2], 2)]);
    assert_eq!(desk.core.jobs[&job("j")].attempts, 3);
}

#[test]
fn a_workers_death_moves_its_job_to_another_and_is_written_to_the_fence() {
    let mut desk = Desk::running();
    let first = desk.worker();
    let effects = desk.death();
    assert_ne!(desk.worker(), first);
    assert!(has!(effects, Effect::ReadFence { .. }));
    let effects = desk.fence_read(Some(fence(11, "a", 1, 0)));
    assert!(has!(effects, Effect::WriteFence { claim, .. } if (claim.deaths, claim.attempts) == (1, 2)));
}

#[test]
fn a_death_during_an_append_is_written_to_the_fence_after_it() {
    let mut desk = Desk::running();
    desk.tokens(&[1]);
    assert!(!has!(desk.death(), Effect::ReadFence { .. }), "one call at a time");
    assert!(has!(desk.appended(Ok(())), Effect::ReadFence { .. }));
    let effects = desk.fence_read(Some(fence(11, "a", 1, 0)));
    assert!(has!(effects, Effect::WriteFence { claim, .. } if claim.deaths == 1));
}

#[test]
fn a_death_during_a_claim_is_written_to_the_fence_after_it() {
    let mut desk = Desk::running();
    desk.tell(Event::ConnectionRestored);
    desk.fence_read(Some(fence(11, "a", 1, 0)));
    desk.death();
    desk.fence_written();
    desk.outcome_read(None);
    assert!(has!(desk.log_read(Vec::new()), Effect::ReadFence { .. }));
}

#[test]
fn a_worker_that_is_ready_again_without_a_word_has_died_in_between() {
    let mut desk = Desk::running();
    let worker = desk.worker();
    desk.tell(Event::WorkerReady { worker });
    assert_eq!(desk.started.len(), 2, "its job is handed out again");
    assert_eq!(desk.core.jobs[&job("j")].suspicion.deaths(), 1);
    assert_eq!(desk.core.leases.len(), 1);
}

#[test]
fn the_third_death_quarantines_the_job() {
    let mut desk = Desk::running();
    for deaths in 1..=2 {
        desk.death();
        desk.claim_again(Vec::new());
        assert_eq!(desk.core.jobs[&job("j")].suspicion.deaths(), deaths);
        let gone = if desk.worker() == WorkerId(1) { WorkerId(2) } else { WorkerId(1) };
        desk.tell(Event::WorkerReady { worker: gone });
    }
    assert_eq!(refusal(&desk.death()), Some(ErrorCode::Poison));
    assert_eq!(desk.started.len(), 3, "it is not run a fourth time");
}

#[test]
fn a_job_that_killed_enough_workers_elsewhere_is_not_given_another_here() {
    let mut desk = Desk::with_job();
    let effects = desk.claim(Some(fence(5, "b", 3, 3)), vec![chunk(0, &[1], 1)]);
    assert_eq!(refusal(&effects), Some(ErrorCode::Poison));
    assert!(desk.started.is_empty());
}

#[test]
fn a_failed_attempt_is_made_again_up_to_the_limit_and_then_refused() {
    let mut desk = Desk::running();
    desk.failed(true);
    desk.failed(true);
    assert_eq!(desk.started.len(), 3);
    assert_eq!(refusal(&desk.failed(true)), Some(ErrorCode::Internal));
    assert_eq!(desk.started.len(), 3);
}

#[test]
fn a_failure_that_no_other_worker_can_mend_is_refused_at_once() {
    let mut desk = Desk::running();
    assert_eq!(refusal(&desk.failed(false)), Some(ErrorCode::Internal));
}

#[test]
fn demand_keeps_one_workers_slots_free() {
    let mut desk = Desk::new();
    assert_eq!(desk.core.demand().jobs, 2, "two workers with two slots each");
    assert!(has!(desk.receive(spec("j"), 1), Effect::Demand(Room { jobs: 1, .. })));
    assert!(has!(desk.receive(spec("k"), 1), Effect::Demand(Room { jobs: 0, .. })));
    desk.tell(Event::WorkerGone { worker: WorkerId(1) });
    assert_eq!(desk.core.demand().jobs, 0);
}

#[test]
fn without_a_ready_worker_there_is_no_demand() {
    let mut desk = Desk::new();
    desk.tell(Event::WorkerGone { worker: WorkerId(1) });
    assert!(has!(desk.tell(Event::WorkerGone { worker: WorkerId(2) }), Effect::Demand(Room { jobs: 0, .. })));
    assert!(has!(desk.tell(Event::WorkerReady { worker: WorkerId(2) }), Effect::Demand(Room { jobs: 2, .. })));
}

#[test]
fn a_job_without_a_worker_waits_and_runs_on_the_first_that_is_ready() {
    let mut desk = Desk::running();
    desk.tell(Event::WorkerGone { worker: WorkerId(2) });
    desk.death();
    assert_eq!(desk.core.queue.len(), 1);
    desk.tell(Event::WorkerReady { worker: WorkerId(2) });
    assert_eq!((desk.worker(), desk.core.queue.len()), (WorkerId(2), 0));
}

#[test]
fn while_draining_new_deliveries_are_given_back_and_held_jobs_are_finished() {
    let mut desk = Desk::running();
    let effects = desk.tell(Event::Drain);
    assert!(has!(effects, Effect::Demand(Room { jobs: 0, .. })) && !has!(effects, Effect::Drained));
    let effects = desk.receive(spec("k"), 1);
    assert!(has!(effects, Effect::Nak(ack) if *ack == delivery("k", 1).ack));
    assert!(!has!(effects, Effect::Hold { .. }));
    desk.done("");
    desk.appended(Ok(()));
    assert!(!has!(desk.stored(Ok(())), Effect::Drained), "its client may not know yet");
    let effects = desk.offered();
    assert!(has!(effects, Effect::Ack(_)) && has!(effects, Effect::Drained));
}

#[test]
fn an_idle_dispatcher_is_drained_at_once_and_says_so_once() {
    let mut desk = Desk::new();
    assert!(has!(desk.tell(Event::Drain), Effect::Drained));
    assert!(!has!(desk.tell(Event::Drain), Effect::Drained));
}

#[test]
fn a_hand_over_gives_every_delivery_back_and_forgets_it() {
    let mut desk = Desk::running();
    desk.receive(spec("k"), 1);
    let effects = desk.tell(Event::HandOver);
    for name in ["j", "k"] {
        assert!(has!(effects, Effect::Nak(ack) if *ack == delivery(name, 1).ack));
        assert!(has!(effects, Effect::Release(id) if *id == job(name)));
    }
    assert!(has!(effects, Effect::Cancel { .. }) && has!(effects, Effect::Drained));
    assert!(desk.core.ops.is_empty() && desk.core.leases.is_empty() && desk.core.queue.is_empty());
}
