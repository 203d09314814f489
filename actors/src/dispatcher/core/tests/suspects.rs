//! INV-7: a job that kills workers is found out and ends alone, and the others notice no more than a pause.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use halm_protocol::worker::{Lease, Piece};
use halm_protocol::{ErrorCode, FinishReason, JobId, Outcome};
use proptest::prelude::*;

use super::super::{Core, Settings};
use super::desk::{Desk, at, delivery, fence, has, job, settings, spec, told};
use crate::dispatcher::suspicion::Company;
use crate::dispatcher::{Effect, Event, Op, OpResult, WorkerId};
use crate::ports::{FenceRecord, LogRecord, Offered, Record, Sequence};

/// Rounds in which everything must come to its end: far more than any job needs.
const ROUNDS_MAX: u32 = 4000;

/// One replica whose broker answers everything at once, and whose workers make a token for each of their jobs in each
/// round, except that some jobs kill the worker that makes their token number so and so.
struct Ward {
    core: Core,
    events: VecDeque<Event>,
    logs: BTreeMap<JobId, (Vec<FenceRecord>, Vec<LogRecord>)>,
    outcomes: BTreeMap<JobId, Outcome>,
    workers: BTreeMap<WorkerId, BTreeMap<Lease, (JobId, u32)>>,
    /// When a dead worker is ready again.
    back_at: BTreeMap<WorkerId, u32>,
    /// Length of each job's text, and the token at which it kills.
    jobs: BTreeMap<JobId, (u32, Option<u32>)>,
    waiting: VecDeque<JobId>,
    deaths: u32,
    /// Deaths of workers that had this job, whoever was to blame.
    disturbed: BTreeMap<JobId, u32>,
    sequence: u64,
    round: u32,
}

impl Ward {
    fn new(workers: u32, slots: u32, jobs: &[(u32, Option<u32>)]) -> Self {
        let settings = Settings { workers, slots_per_worker: slots, ..settings("a") };
        let id = |number| job(&format!("j{number}"));
        let jobs: BTreeMap<_, _> = (1..).zip(jobs).map(|(number, job)| (id(number), *job)).collect();
        Self {
            core: Core::new(settings),
            events: (1..=workers).map(|worker| Event::WorkerReady { worker: WorkerId(worker) }).collect(),
            logs: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            workers: (1..=workers).map(|worker| (WorkerId(worker), BTreeMap::new())).collect(),
            back_at: BTreeMap::new(),
            waiting: jobs.keys().cloned().collect(),
            jobs,
            deaths: 0,
            disturbed: BTreeMap::new(),
            sequence: 0,
            round: 0,
        }
    }

    fn handle_all(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let effects = self.core.handle(event, at(u64::from(self.round)));
            effects.into_iter().for_each(|effect| self.perform(effect));
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        match effect {
            Effect::ReadFence { op, job } => {
                let last = self.logs.entry(job).or_default().0.last().cloned();
                self.answer(op, OpResult::FenceRead(Ok(last)));
            }
            Effect::WriteFence { op, job, claim, .. } => {
                self.logs.entry(job).or_default().0.push(FenceRecord { fence: told(sequence), claim });
                self.answer(op, OpResult::FenceWritten(Ok(told(sequence))));
            }
            Effect::ReadOutcome { op, .. } => self.answer(op, OpResult::OutcomeRead(Ok(None))),
            Effect::ReadLog { op, target } => {
                let log = self.logs.entry(target.job).or_default().1.clone();
                self.answer(op, OpResult::LogRead(Ok(log)));
            }
            Effect::Append { op, target, record, .. } => {
                self.logs.entry(target.job).or_default().1.push(LogRecord { sequence, record });
                self.answer(op, OpResult::Appended(Ok(())));
            }
            Effect::Bury { op, .. } => self.answer(op, OpResult::Buried(Ok(()))),
            Effect::StoreOutcome { op, job, outcome } => {
                self.outcomes.insert(job, outcome);
                self.answer(op, OpResult::OutcomeStored(Ok(())));
            }
            Effect::Start { worker, work, .. } => {
                let next = u32::try_from(work.generated.len()).expect("a short text");
                let worker = self.workers.get_mut(&worker).expect("a worker that is ready");
                worker.insert(work.lease, (work.job.clone(), next));
            }
            Effect::Cancel { worker, lease } => {
                self.workers.get_mut(&worker).and_then(|leases| leases.remove(&lease));
            }
            Effect::Offer { op, .. } => self.answer(op, OpResult::Offered(Offered::Heard)),
            Effect::Ack(_)
            | Effect::Progress(_)
            | Effect::Nak(_)
            | Effect::Purge(_)
            | Effect::Hold { .. }
            | Effect::Release(_)
            | Effect::Demand(_)
            | Effect::Pace(_)
            | Effect::Drained => {}
            Effect::Broken { job, invariant, seen } => panic!("{invariant} of {job}: {seen}"),
        }
    }

    fn answer(&mut self, op: Op, result: OpResult) {
        self.events.push_back(Event::Finished { op, result });
    }

    /// Every worker makes one token for each of its jobs, or dies of one.
    fn step(&mut self, restart_rounds: u32) {
        self.round += 1;
        while self.core.demand().jobs > 0 {
            let Some(id) = self.waiting.pop_front() else { break };
            let (spec, delivery) = (Box::new(spec(id.as_str())), delivery(id.as_str(), 1));
            self.events.push_back(Event::Received { spec, delivery, deadline: at(u64::MAX / 2) });
            self.handle_all();
        }
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            if self.back_at.get(&worker).is_some_and(|back| *back <= self.round) {
                self.back_at.remove(&worker);
                self.events.push_back(Event::WorkerReady { worker });
                self.handle_all();
            }
            self.work(worker, restart_rounds);
            self.handle_all();
        }
    }

    fn work(&mut self, worker: WorkerId, restart_rounds: u32) {
        let leases = self.workers[&worker].clone();
        if leases.values().any(|(id, next)| self.jobs[id].1 == Some(*next)) {
            self.deaths += 1;
            leases.values().for_each(|(id, _)| *self.disturbed.entry(id.clone()).or_default() += 1);
            self.workers.insert(worker, BTreeMap::new());
            self.back_at.insert(worker, self.round + restart_rounds);
            self.events.push_back(Event::WorkerGone { worker });
            return;
        }
        for (lease, (id, next)) in leases {
            let event = if next == self.jobs[&id].0 {
                Event::Done { lease, tail: String::new(), reason: FinishReason::Stop, prompt_tokens: 1 }
            } else {
                let text = format!("{next} ");
                Event::Tokens { lease, offset: next, pieces: vec![Piece { token: next, text }] }
            };
            let of = self.workers.get_mut(&worker).expect("a worker");
            match event {
                Event::Done { .. } => of.remove(&lease),
                _ => of.insert(lease, (id, next + 1)),
            };
            self.events.push_back(event);
        }
    }

    fn poisons(&self) -> BTreeSet<JobId> {
        // One that would kill past its end never does.
        let kills = |(id, (length, kills)): (&JobId, &(u32, Option<u32>))| {
            kills.filter(|kills| kills <= length).map(|_| id.clone())
        };
        self.jobs.iter().filter_map(kills).collect()
    }
}

fn jobs() -> impl Strategy<Value = Vec<(u32, Option<u32>)>> {
    let kills = prop_oneof![4 => Just(None), 1 => (0..30_u32).prop_map(Some)];
    prop::collection::vec((0..60_u32, kills), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_poisonous_job_is_quarantined_and_no_other_is_though_they_share_workers(
        workers in 1..4_u32, slots in 1..6_u32, restart in 1..40_u32, jobs in jobs(),
    ) {
        let mut ward = Ward::new(workers, slots, &jobs);
        ward.handle_all();
        while ward.outcomes.len() < jobs.len() && ward.round < ROUNDS_MAX {
            ward.step(restart);
        }
        let poisons = ward.poisons();
        for id in ward.jobs.keys() {
            match ward.outcomes.get(id) {
                Some(Outcome::Reply(_)) => prop_assert!(!poisons.contains(id), "{} ended well", id),
                Some(Outcome::Refusal(refusal)) => {
                    prop_assert_eq!(refusal.code, ErrorCode::Poison);
                    prop_assert!(poisons.contains(id), "{} is innocent", id);
                }
                None => prop_assert!(false, "{} has no outcome after {} rounds", id, ward.round),
            }
        }
        // Once in company, and three times attributed to it. Where there are several, one may kill while another job is
        // on trial, which takes the blame and is cleared when it runs alone.
        let poisons_many = u32::try_from(poisons.len()).expect("a few");
        let each = if poisons.len() == 1 { 4 } else { 4 + slots };
        prop_assert!(ward.deaths <= each * poisons_many, "{} deaths by {} jobs", ward.deaths, poisons_many);
        let bystanders = ward.disturbed.iter().filter(|(id, _)| !poisons.contains(*id));
        let most = bystanders.map(|(_, disturbed)| *disturbed).max().unwrap_or(0);
        // The death in company, and that of the trial.
        prop_assert!(most <= 2 * poisons_many + u32::from(poisons_many > 1) * slots, "a bystander saw {} deaths", most);
    }
}

/// A desk with `j` and `k` running on worker 1.
fn two_together() -> Desk {
    let mut desk = Desk::new();
    desk.tell(Event::WorkerGone { worker: WorkerId(2) });
    for name in ["j", "k"] {
        desk.receive(spec(name), 1);
        desk.claim(None, Vec::new());
    }
    assert_eq!(desk.started.len(), 2);
    desk
}

#[test]
fn jobs_whose_worker_died_of_one_of_them_are_tried_one_at_a_time_and_none_is_blamed() {
    let mut desk = two_together();
    desk.death();
    for name in ["j", "k"] {
        let suspicion = desk.core.jobs[&job(name)].suspicion;
        assert_eq!((suspicion.company(), suspicion.deaths()), (Company::OnTrial, 0));
    }
    desk.tell(Event::WorkerReady { worker: WorkerId(1) });
    assert_eq!(desk.started.len(), 3, "one is on trial, the other waits");
    desk.tokens(&[1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(desk.started.len(), 3);
    desk.tokens(&[8]);
    assert_eq!(desk.started.len(), 4, "the first is cleared, and the other on trial beside it");
}

#[test]
fn suspects_take_the_empty_worker() {
    let mut desk = two_together();
    desk.tell(Event::WorkerReady { worker: WorkerId(2) });
    desk.tell(Event::WorkerGone { worker: WorkerId(1) });
    let workers: Vec<_> = desk.started[2..].iter().map(|(worker, ..)| *worker).collect();
    assert_eq!(workers, [WorkerId(2)]);
    desk.tell(Event::WorkerReady { worker: WorkerId(1) });
    assert_eq!(desk.worker(), WorkerId(1));
}

#[test]
fn a_death_during_a_trial_is_the_suspects_and_its_company_stays_clear() {
    let mut desk = two_together();
    desk.death();
    desk.tell(Event::WorkerReady { worker: WorkerId(1) });
    desk.tokens(&[1, 2, 3, 4, 5, 6, 7, 8]);
    desk.tell(Event::WorkerGone { worker: WorkerId(1) });
    let of = |name| desk.core.jobs[&job(name)].suspicion;
    let (first, second) = if of("j").deaths() == 1 { ("j", "k") } else { ("k", "j") };
    assert_eq!((of(first).company(), of(second).company()), (Company::Alone, Company::Any));
}

#[test]
fn a_job_that_must_be_alone_gets_an_empty_worker_and_nobody_joins_it() {
    let mut desk = Desk::running();
    desk.death();
    desk.claim_again(Vec::new());
    desk.receive(spec("k"), 1);
    desk.claim(None, Vec::new());
    assert_eq!(desk.started.len(), 2, "k waits for a worker of its own");
    desk.tell(Event::WorkerReady { worker: WorkerId(1) });
    assert_eq!(desk.started.len(), 3);
    assert_ne!(desk.started[1].0, desk.started[2].0);
}

#[test]
fn what_is_known_against_a_job_outlives_its_replica() {
    let mut desk = Desk::with_job();
    let mut last = fence(5, "b", 1, 1);
    last.claim.trial_until = Some(12);
    desk.claim(Some(last.clone()), Vec::new());
    assert_eq!(desk.core.jobs[&job("j")].suspicion.company(), Company::Alone);
    let mut desk = Desk::with_job();
    let tokens: Vec<u32> = (0..12).collect();
    desk.claim(Some(last), vec![super::desk::chunk(0, &tokens, 1)]);
    assert_eq!(desk.core.jobs[&job("j")].suspicion.company(), Company::Any, "the log shows that it came further");
}

#[test]
fn a_suspicion_is_written_to_the_fence_before_the_next_token() {
    let mut desk = two_together();
    let effects = desk.death();
    assert!(has!(effects, Effect::ReadFence { .. }) && !has!(effects, Effect::Append { .. }));
    desk.fence_read(Some(fence(31, "a", 1, 0)));
    let told = |claim: &halm_protocol::Claim| (claim.deaths, claim.strikes, claim.trial_until);
    let written = desk.calls.iter().find_map(|(_, call)| match call {
        Effect::WriteFence { claim, .. } => Some(told(claim)),
        _ => None,
    });
    assert_eq!(written, Some((0, 0, Some(8))));
}

#[test]
fn a_quarantined_job_is_buried_before_its_outcome_is_stored() {
    let mut desk = Desk::with_job();
    let effects = desk.claim(Some(fence(5, "b", 3, 3)), Vec::new());
    assert!(has!(effects, Effect::Append { record: Record::Final(_), .. }));
    let effects = desk.appended(Ok(()));
    assert!(has!(effects, Effect::Bury { .. }) && !has!(effects, Effect::StoreOutcome { .. }));
    let effects = desk.answer(OpResult::Buried(Ok(())));
    assert!(has!(effects, Effect::StoreOutcome { .. }));
    desk.stored(Ok(()));
    assert!(has!(desk.offered(), Effect::Ack(_)));
}
