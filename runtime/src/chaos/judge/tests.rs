//! The judge's teeth: doctored transcripts, each of which must be found, and honest ones, which must not.

use super::promises::Finding;
use super::*;
use crate::chaos::event::{ClientNo, FaultNo, Logged};
use crate::chaos::random::Random;
use crate::chaos::verdict::{Slo, Verdict};

const TEXT: &str = "abcdefgh";
const TOKENS: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// A run, written down event by event.
struct Run {
    judge: Judge,
    now: Duration,
}

fn job(number: u64) -> JobId {
    JobId::try_from(format!("job{number}")).expect("a job id")
}

impl Run {
    fn new() -> Self {
        let setting = Setting {
            version: "0",
            target: "a test".to_owned(),
            seed: 1,
            faults_s: 60.0,
            rate: 1.0,
            clients: 2,
            model: "m".to_owned(),
            slo: Slo { gap_ms: 2_000, availability: 0.9 },
        };
        let known = vec![Answer { tokens: TOKENS.to_vec(), text: TEXT.to_owned() }];
        let mut run = Self { judge: Judge::new(setting, known), now: Duration::ZERO };
        run.say(Happened::FaultsBegan);
        run
    }

    fn say(&mut self, happened: Happened) {
        self.judge.take(self.now, happened);
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now += Duration::from_millis(ms);
        self
    }

    fn ask(&mut self, number: u64) {
        self.ask_as(number, false);
    }

    fn ask_as(&mut self, number: u64, poisoned: bool) {
        let deadline = Duration::from_secs(30);
        let asked = Asked { client: ClientNo(0), text: TextNo(0), streamed: true, deadline, poisoned };
        self.say(Happened::Asked(RequestNo(number), asked));
    }

    fn chunk(&mut self, number: u64, from: usize, to: usize) {
        self.doctored_chunk(number, from, &TOKENS[from..to], &TEXT[from..to]);
    }

    fn doctored_chunk(&mut self, number: u64, offset: usize, tokens: &[u32], text: &str) {
        let (request, job, offset) = (RequestNo(number), job(number), u32::try_from(offset).expect("small"));
        self.say(Happened::Chunk { request, job, offset, tokens: tokens.to_vec(), text: text.to_owned() });
    }

    fn answer(&mut self, number: u64, text: &str) {
        let end = End::Answered { job: job(number), text: text.to_owned(), tokens: 8, attempts: 1 };
        self.say(Happened::Ended(RequestNo(number), end));
    }

    fn refuse(&mut self, number: u64, code: &str) {
        let end = End::Refused { code: code.to_owned(), job: Some(job(number)), message: "because".to_owned() };
        self.say(Happened::Ended(RequestNo(number), end));
    }

    /// A request that is answered as it should be.
    fn good(&mut self, number: u64) {
        self.ask(number);
        self.after(100).chunk(number, 0, 5);
        self.after(100).chunk(number, 5, 8);
        self.answer(number, TEXT);
    }

    fn end(mut self) -> Verdict {
        self.say(Happened::FaultsEnded);
        self.judge.finish(self.now)
    }
}

fn state<'a>(verdict: &'a Verdict, id: &str) -> &'a Finding {
    &verdict.invariants.iter().find(|invariant| invariant.id == id).expect("a promise").finding
}

#[track_caller]
fn assert_broken(verdict: &Verdict, id: &str) {
    assert!(matches!(state(verdict, id), Finding::Broken(_)), "{id}: {:?}", verdict.invariants);
    assert!(!verdict.kept);
    assert!(verdict.line.starts_with("verdict: broken - INV-"), "{}", verdict.line);
}

#[test]
fn an_honest_run_is_kept_and_what_was_not_measured_is_not_judged() {
    let mut run = Run::new();
    (0..20).for_each(|number| run.good(number));
    let verdict = run.end();
    assert!(verdict.kept, "{}", verdict.line);
    assert_eq!((verdict.requests.right, verdict.tokens.delivered), (20, 160));
    for id in ["INV-1", "INV-2", "INV-3", "INV-4"] {
        assert!(matches!(state(&verdict, id), Finding::Kept(_)), "{id}");
    }
    for id in ["INV-5", "INV-6", "INV-7", "INV-8", "INV-9"] {
        assert!(matches!(state(&verdict, id), Finding::NotJudged(_)), "{id}");
    }
}

#[test]
fn a_token_that_is_lost_breaks_inv_2() {
    let mut run = Run::new();
    run.ask(0);
    run.chunk(0, 0, 3);
    run.chunk(0, 4, 8);
    run.answer(0, "abcefgh");
    let verdict = run.end();
    assert_broken(&verdict, "INV-2");
    assert_eq!(verdict.tokens.flaws.lost, 1);
}

#[test]
fn an_answer_that_ends_early_breaks_inv_2() {
    let mut run = Run::new();
    run.ask(0);
    run.chunk(0, 0, 5);
    run.answer(0, "abcde");
    let verdict = run.end();
    assert_broken(&verdict, "INV-2");
    assert_eq!(verdict.tokens.flaws.lost, 3);
}

#[test]
fn a_token_that_comes_twice_breaks_inv_2() {
    let mut run = Run::new();
    run.ask(0);
    run.chunk(0, 0, 5);
    run.chunk(0, 4, 8);
    run.answer(0, TEXT);
    let verdict = run.end();
    assert_broken(&verdict, "INV-2");
    assert_eq!(verdict.tokens.flaws.doubled, 1);
}

#[test]
fn a_token_that_is_another_breaks_inv_3() {
    let mut run = Run::new();
    run.ask(0);
    run.doctored_chunk(0, 0, &[1, 2, 99], "abX");
    run.chunk(0, 3, 8);
    run.answer(0, "abXdefgh");
    let verdict = run.end();
    assert_broken(&verdict, "INV-3");
    assert!(verdict.tokens.flaws.changed >= 1);
}

#[test]
fn a_reply_that_contradicts_its_stream_breaks_inv_2() {
    let mut run = Run::new();
    run.ask(0);
    run.chunk(0, 0, 8);
    run.say(Happened::Ended(RequestNo(0), End::Forked));
    assert_broken(&run.end(), "INV-2");
}

#[test]
fn a_job_that_never_ends_breaks_inv_1_and_a_request_that_nobody_answers_inv_4() {
    let mut run = Run::new();
    run.ask(0);
    run.chunk(0, 0, 3);
    run.after(60_000);
    let verdict = run.end();
    assert_broken(&verdict, "INV-1");
    assert_eq!(verdict.requests.unsettled, 1);

    let mut run = Run::new();
    run.ask(0);
    run.after(60_000).say(Happened::Ended(RequestNo(0), End::Silent { why: "nothing came".to_owned() }));
    assert_broken(&run.end(), "INV-4");
}

#[test]
fn two_ends_or_two_outcomes_or_another_outcome_than_was_told_break_inv_1() {
    let mut run = Run::new();
    run.good(0);
    run.refuse(0, "internal");
    assert_broken(&run.end(), "INV-1");

    for kept in [
        vec![Kept::Answer(TEXT.to_owned()), Kept::Answer(TEXT.to_owned())],
        vec![Kept::Error("internal".to_owned())],
        vec![Kept::Answer("another".to_owned())],
    ] {
        let mut run = Run::new();
        run.good(0);
        run.say(Happened::Outcomes { job: job(0), kept });
        assert_broken(&run.end(), "INV-1");
    }
}

#[test]
fn a_stored_job_without_an_outcome_and_one_that_stays_in_the_queue_break_inv_4() {
    let mut run = Run::new();
    run.good(0);
    run.say(Happened::Admitted(job(9)));
    run.say(Happened::Outcomes { job: job(9), kept: Vec::new() });
    assert_broken(&run.end(), "INV-4");

    let mut run = Run::new();
    run.good(0);
    run.say(Happened::LeftInQueue(1));
    assert_broken(&run.end(), "INV-4");
}

#[test]
fn a_record_of_a_superseded_attempt_breaks_inv_5() {
    let mut run = Run::new();
    run.good(0);
    for sequence in [10, 11] {
        run.say(Happened::Claimed { job: job(0), sequence });
    }
    run.say(Happened::Logged(Logged { job: job(0), sequence: 12, fence: Some(10), chunk: Some((0, vec![1])) }));
    assert_broken(&run.end(), "INV-5");
}

#[test]
fn an_accepted_request_that_fails_is_a_failure_and_a_refusal_is_none() {
    let mut run = Run::new();
    (0..50).for_each(|number| run.good(number));
    run.ask(50);
    run.chunk(50, 0, 3);
    run.refuse(50, "internal");
    let verdict = run.end();
    assert!(!verdict.kept && verdict.line.contains("accepted requests failed"), "{}", verdict.line);

    let mut run = Run::new();
    (0..50).for_each(|number| run.good(number));
    run.ask(50);
    run.refuse(50, "overloaded");
    let verdict = run.end();
    assert_eq!(verdict.requests.refused.get("overloaded"), Some(&1));
    assert!(verdict.availability.bad_seconds > 0.0, "a refusal costs availability: {:?}", verdict.availability);
}

#[test]
fn a_harmless_job_that_is_quarantined_breaks_inv_7_and_the_right_one_keeps_it() {
    let mut run = Run::new();
    run.good(0);
    run.ask_as(1, true);
    run.refuse(1, "poison");
    let verdict = run.end();
    assert!(matches!(state(&verdict, "INV-7"), Finding::Kept(_)), "{}", verdict.line);

    let mut run = Run::new();
    run.ask(0);
    run.refuse(0, "poison");
    assert_broken(&run.end(), "INV-7");
}

#[test]
fn a_request_that_fails_during_a_planned_stop_breaks_inv_8_and_one_before_it_does_not() {
    for (during, broken) in [(true, true), (false, false)] {
        let mut run = Run::new();
        run.good(0);
        if !during {
            run.ask(1);
            run.refuse(1, "overloaded");
            run.after(5_000);
        }
        let what = "SIGTERM".to_owned();
        run.say(Happened::Struck { rung: Rung::ReplicaDrain, what });
        if during {
            run.ask(1);
            run.after(10).refuse(1, "unavailable");
        }
        run.after(3_000).say(Happened::Whole { fault: FaultNo(0), whole: true });
        let verdict = run.end();
        assert_eq!(matches!(state(&verdict, "INV-8"), Finding::Broken(_)), broken, "{:?}", verdict.invariants);
    }
}

#[test]
fn the_gap_of_a_fault_is_the_longest_silence_that_touches_it() {
    let mut run = Run::new();
    run.ask(0);
    run.after(10).chunk(0, 0, 2);
    run.after(90).say(Happened::Struck { rung: Rung::WorkerKill, what: "a blow".to_owned() });
    run.after(300).say(Happened::Whole { fault: FaultNo(0), whole: true });
    run.after(110).chunk(0, 2, 8);
    run.answer(0, TEXT);
    run.after(50).ask(1);
    run.after(900).chunk(1, 0, 8);
    run.answer(1, TEXT);
    let verdict = run.end();
    let fault = &verdict.faults[0];
    assert_eq!((fault.gap_ms, fault.whole_ms), (Some(500), Some(300)), "the 900 ms came later");
    assert_eq!(verdict.rungs[0].gap_ms.expect("a gap").max, 500);
}

#[test]
fn objectives_that_are_missed_are_told_though_every_promise_is_kept() {
    let mut run = Run::new();
    run.ask(0);
    run.after(9_000).chunk(0, 0, 8);
    run.answer(0, TEXT);
    let verdict = run.end();
    assert!(verdict.line.starts_with("verdict: broken - SLO"), "{}", verdict.line);
    assert!(verdict.invariants.iter().all(|invariant| !matches!(invariant.finding, Finding::Broken(_))));
}

/// Whatever is cut out of, repeated in or changed in a right transcript is found; and a right one never is.
#[test]
fn every_random_damage_to_a_transcript_is_found() {
    for seed in 0..2_000 {
        let mut chance = Random::new(seed, "damage");
        let mut cuts: Vec<usize> = (0..3).map(|_| chance.index(9)).chain([0, 8]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut chunks: Vec<(usize, Vec<u32>, String)> = cuts
            .windows(2)
            .map(|cut| (cut[0], TOKENS[cut[0]..cut[1]].to_vec(), TEXT[cut[0]..cut[1]].to_owned()))
            .collect();
        let damage = chance.index(4);
        let at = chance.index(chunks.len());
        match damage {
            0 => drop(chunks.remove(at)),
            1 => chunks.insert(at, chunks[at].clone()),
            2 => chunks[at].1[0] += 100,
            _ => {}
        }
        let mut run = Run::new();
        run.ask(0);
        run.after(10);
        for (offset, tokens, text) in &chunks {
            run.doctored_chunk(0, *offset, tokens, text);
        }
        let text: String = chunks.iter().map(|(_, _, text)| text.as_str()).collect();
        run.answer(0, &text);
        let verdict = run.end();
        assert_eq!(verdict.kept, damage == 3, "seed {seed}: {chunks:?}: {}", verdict.line);
    }
}
