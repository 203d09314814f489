//! Interactive and batch jobs, and how long they take.

use std::time::Duration;

use halm_protocol::{Class, JobId, Pace};

use super::desk::{Desk, has, settings, spec};
use crate::dispatcher::{Effect, Event, Room, Settings, WorkerId};
use crate::ports::JobSpec;

fn batch(name: &str) -> JobSpec {
    let mut spec = spec(name);
    spec.request.class = Class::Batch;
    spec
}

#[test]
fn a_quarter_of_the_room_is_kept_from_batch_jobs() {
    let mut desk = Desk::with(Settings { slots_per_worker: 8, ..settings("a") });
    assert_eq!(desk.core.demand(), Room { jobs: 8, batch: 6 });
    desk.receive(batch("j"), 1);
    assert_eq!(desk.core.demand(), Room { jobs: 7, batch: 5 });
    desk.receive(spec("k"), 1);
    assert_eq!(desk.core.demand(), Room { jobs: 6, batch: 5 });
    let one = Desk::with(Settings { slots_per_worker: 1, ..settings("a") });
    assert_eq!(one.core.demand(), Room { jobs: 1, batch: 1 }, "where there is one place, it is for all");
}

#[test]
fn an_interactive_job_passes_a_batch_job_that_has_not_begun_and_no_interrupted_one() {
    let mut desk = Desk::running();
    desk.tell(Event::WorkerGone { worker: WorkerId(1) });
    desk.tell(Event::WorkerGone { worker: WorkerId(2) });
    for spec in [batch("batch"), spec("interactive")] {
        desk.receive(spec, 1);
        desk.claim(None, Vec::new());
    }
    let waiting: Vec<&str> = desk.core.queue.iter().map(JobId::as_str).collect();
    assert_eq!(waiting, ["j", "interactive", "batch"]);
}

#[test]
fn the_pace_is_told_when_a_job_is_done_and_follows_what_jobs_take() {
    let mut desk = Desk::running();
    desk.now = desk.now + Duration::from_millis(400);
    assert!(has!(desk.done(""), Effect::Pace(pace) if *pace == Pace { slots: 2, job_ms: 400 }));
}
