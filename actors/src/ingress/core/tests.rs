//! One rule each: who takes a request, who lets go of it, and what a client is told.

use halm_protocol::{Digest, ErrorCode, ModelToken, Request};

use super::*;

fn name(text: &str) -> ReplicaName {
    ReplicaName::try_from(text).expect("a plain name")
}

fn life(text: &str) -> Incarnation {
    Incarnation::try_from(text).expect("a plain name")
}

/// These of the three replicas live, in their first life.
fn living(replicas: &[&str]) -> Event {
    Event::Peers(replicas.iter().map(|replica| (name(replica), life(replica))).collect())
}

/// A replica among the other two.
fn among(me: &str) -> Core {
    let mut core = Core::new(name(me), life(me));
    let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|other| *other != me).collect();
    core.handle(living(&others), at(0));
    core
}

fn at(ms: u64) -> Moment {
    Moment::after(Duration::from_millis(ms))
}

fn id() -> JobId {
    JobId::try_from("j").expect("a plain name")
}

fn inbox() -> Inbox {
    Inbox::try_from("_INBOX.j").expect("a plain inbox")
}

fn asked() -> Asked {
    let job = JobSpec {
        id: id(),
        model: ModelToken::try_from("m").expect("a plain name"),
        request: Request::prompt("go on"),
        seed: 7,
        digest: Digest::try_from("0".repeat(64)).expect("64 hexadecimal digits"),
        inbox: inbox(),
        deadline_unix_ms: 0,
        traceparent: None,
    };
    Asked { id: id(), inbox: inbox(), keyed: false, from: 0, within: Duration::from_secs(1), job: Ok(Box::new(job)) }
}

fn says(replica: &str, verdict: Verdict) -> Event {
    Event::Noticed(Notice { job: id(), replica: name(replica), incarnation: life(replica), verdict })
}

fn refusal() -> Refusal {
    Refusal::new(ErrorCode::Overloaded, "full").for_job(id())
}

/// Replica `a`, which knows of `b` and `c`.
fn core() -> Core {
    among("a")
}

/// A witness that heard the request at 1,000 ms.
fn witness() -> Core {
    let mut core = core();
    assert!(core.handle(Event::Witnessed(asked()), at(1000)).is_empty());
    core
}

fn stores(effects: &[Effect]) -> Option<Op> {
    effects.iter().find_map(|effect| if let Effect::Store(op, _) = effect { Some(*op) } else { None })
}

fn verdicts(effects: &[Effect]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for effect in effects {
        if let Effect::Tell(notice) = effect {
            verdicts.push(notice.verdict.clone());
        }
    }
    verdicts
}

fn answers(effects: &[Effect]) -> Vec<Outcome> {
    let mut answers = Vec::new();
    for effect in effects {
        if let Effect::Answer(_, outcome) = effect {
            answers.push(outcome.clone());
        }
    }
    answers
}

/// Ticks when the core wants it, until this time, and gathers what it does.
fn pass(core: &mut Core, until_ms: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    while let Some(due) = core.next_tick().filter(|due| *due <= at(until_ms)) {
        effects.extend(core.handle(Event::Tick, due));
    }
    effects
}

#[test]
fn who_is_picked_says_so_stores_and_says_what_came_of_it() {
    let mut core = core();
    let effects = core.handle(Event::Taken(asked()), at(0));
    assert_eq!(verdicts(&effects), [Verdict::Pending]);
    let op = stores(&effects).expect("it is stored");
    assert!(!core.is_idle());
    let effects = core.handle(Event::Stored(op, Ok(Admitted::Stored)), at(1));
    assert_eq!((verdicts(&effects), answers(&effects)), (vec![Verdict::Admitted], vec![]));
    assert!(core.is_idle() && core.next_tick().is_none());
}

#[test]
fn a_full_queue_is_said_to_the_others_before_the_client_is_told() {
    let mut core = core();
    let op = stores(&core.handle(Event::Taken(asked()), at(0))).expect("it is stored");
    let effects = core.handle(Event::Stored(op, Err(IntakeFault::Full)), at(1));
    let [Effect::Tell(Notice { verdict: Verdict::Refused { refusal }, .. }), Effect::Answer(_, told)] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((refusal.code, told), (ErrorCode::Overloaded, &Outcome::Refusal(refusal.clone())));
}

#[test]
fn a_broker_that_does_not_answer_is_asked_again_for_a_while() {
    let mut core = core();
    let mut op = stores(&core.handle(Event::Taken(asked()), at(0))).expect("it is stored");
    let mut ms = 0;
    let unavailable = || Err(IntakeFault::Unavailable("away".to_owned()));
    loop {
        ms += 2000;
        let effects = core.handle(Event::Stored(op, unavailable()), at(ms));
        if ms >= 10_000 {
            let [Outcome::Refusal(refusal)] = &answers(&effects)[..] else { panic!("{effects:?}") };
            assert_eq!(refusal.code, ErrorCode::Unavailable);
            break;
        }
        op = stores(&pass(&mut core, ms + 100)).expect("it is tried again");
    }
    assert!(core.is_idle());
}

#[test]
fn a_repeated_request_is_answered_with_its_outcome_or_told_that_it_runs() {
    let outcome = Outcome::Refusal(Refusal::new(ErrorCode::Poison, "stored"));
    let mut core = core();
    let keyed = || Asked { keyed: true, ..asked() };
    let effects = core.handle(Event::Taken(keyed()), at(0));
    let [_, Effect::Look(op, _)] = effects[..] else { panic!("{effects:?}") };
    let effects = core.handle(Event::Looked(op, Ok(Some(outcome.clone()))), at(1));
    assert_eq!((verdicts(&effects), answers(&effects)), (vec![Verdict::Answered], vec![outcome]));

    let effects = core.handle(Event::Taken(keyed()), at(2));
    let [_, Effect::Look(op, _)] = effects[..] else { panic!("{effects:?}") };
    let op = stores(&core.handle(Event::Looked(op, Ok(None)), at(3))).expect("it is stored");
    let effects = core.handle(Event::Stored(op, Ok(Admitted::Duplicate(None))), at(4));
    let [Effect::Look(op, _)] = effects[..] else { panic!("{effects:?}") };
    let effects = core.handle(Event::Looked(op, Ok(None)), at(5));
    let [Outcome::Refusal(refusal)] = &answers(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    assert!(core.is_idle());
}

#[test]
fn a_duplicate_that_is_this_very_request_is_admitted_whoever_stored_it() {
    let mut core = core();
    let effects = core.handle(Event::Taken(Asked { keyed: true, ..asked() }), at(2));
    let [_, Effect::Look(op, _)] = effects[..] else { panic!("{effects:?}") };
    let op = stores(&core.handle(Event::Looked(op, Ok(None)), at(3))).expect("it is stored");
    let effects = core.handle(Event::Stored(op, Ok(Admitted::Duplicate(Some(inbox())))), at(4));
    assert_eq!((verdicts(&effects), answers(&effects)), (vec![Verdict::Admitted], vec![]));
    assert!(core.is_idle());
}

#[test]
fn a_repeated_request_of_another_client_is_told_that_it_is_being_stored() {
    let mut core = core();
    let keyed = || Asked { keyed: true, ..asked() };
    core.handle(Event::Taken(keyed()), at(0));
    assert!(core.handle(Event::Taken(keyed()), at(1)).is_empty(), "the same client");
    let another = Asked { inbox: Inbox::try_from("_INBOX.another").expect("a plain inbox"), ..keyed() };
    assert_eq!(answers(&core.handle(Event::Taken(another), at(2))).len(), 1);
}

#[test]
fn a_replica_does_not_witness_what_it_took_itself() {
    let mut core = core();
    let op = stores(&core.handle(Event::Taken(asked()), at(1000))).expect("it is stored");
    core.handle(Event::Stored(op, Err(IntakeFault::Full)), at(1001));
    core.handle(Event::Witnessed(asked()), at(1002));
    assert!(pass(&mut core, 60_000).is_empty());
}

#[test]
fn a_taker_that_lives_and_never_says_what_came_of_it_is_not_waited_for_without_end() {
    let mut core = witness();
    core.handle(says("b", Verdict::Pending), at(1001));
    assert!(stores(&pass(&mut core, 17_000)).is_some());
}

#[test]
fn a_request_that_nobody_takes_is_taken_by_one_witness_after_the_other() {
    let mut taken_at: Vec<u64> = ["a", "b", "c"]
        .into_iter()
        .map(|me| {
            let mut core = among(me);
            core.handle(Event::Witnessed(asked()), at(1000));
            (1000..2000).find(|ms| stores(&core.handle(Event::Tick, at(*ms))).is_some()).expect("it is taken")
        })
        .collect();
    taken_at.sort_unstable();
    assert_eq!(taken_at, [1150, 1250, 1350]);
}

#[test]
fn a_witness_lets_go_when_the_request_is_admitted_whichever_it_hears_first() {
    let mut core = witness();
    assert!(core.handle(says("b", Verdict::Pending), at(1001)).is_empty());
    assert!(core.handle(says("b", Verdict::Admitted), at(1002)).is_empty());
    assert_eq!(core.next_tick(), None);

    let mut core = self::core();
    core.handle(says("b", Verdict::Admitted), at(999));
    core.handle(Event::Witnessed(asked()), at(1000));
    assert_eq!(core.next_tick(), None);
}

#[test]
fn a_refusal_is_never_overruled() {
    let mut core = witness();
    core.handle(says("b", Verdict::Pending), at(1001));
    core.handle(says("b", Verdict::Refused { refusal: refusal() }), at(1002));
    assert!(pass(&mut core, 60_000).is_empty(), "b told the client");
}

#[test]
fn a_request_that_was_refused_and_is_asked_again_is_witnessed_again() {
    let mut core = witness();
    core.handle(says("b", Verdict::Refused { refusal: refusal() }), at(1002));
    core.handle(Event::Witnessed(asked()), at(2000));
    assert!(stores(&pass(&mut core, 2500)).is_some(), "nobody says that they took it this time");
}

#[test]
fn a_client_is_told_of_a_refusal_though_the_one_that_refused_is_lost() {
    let told: Vec<usize> = ["a", "c"]
        .into_iter()
        .map(|me| {
            let mut core = among(me);
            core.handle(Event::Witnessed(asked()), at(1000));
            core.handle(says("b", Verdict::Refused { refusal: refusal() }), at(1002));
            let survivors: Vec<&str> = ["a", "c"].into_iter().filter(|of| *of != me).collect();
            let effects = core.handle(living(&survivors), at(1300));
            assert_eq!(stores(&effects), None);
            answers(&effects).len()
        })
        .collect();
    assert_eq!(told.iter().sum::<usize>(), 1, "by one of them");
}

#[test]
fn a_request_whose_taker_is_lost_before_its_verdict_is_taken_by_another() {
    let mut core = witness();
    core.handle(says("b", Verdict::Pending), at(1001));
    assert!(pass(&mut core, 5000).is_empty(), "b lives");
    let mut effects = core.handle(living(&["c"]), at(5000));
    effects.extend(pass(&mut core, 5300));
    assert!(stores(&effects).is_some() && verdicts(&effects) == [Verdict::Pending]);
}

#[test]
fn a_taker_that_was_started_again_before_anybody_missed_it_has_lost_the_request() {
    let mut core = witness();
    core.handle(says("b", Verdict::Pending), at(1001));
    let again = [(name("b"), life("b-again")), (name("c"), life("c"))];
    let mut effects = core.handle(Event::Peers(again.into()), at(1200));
    effects.extend(pass(&mut core, 1500));
    assert!(stores(&effects).is_some());
}

#[test]
fn a_witness_that_missed_notices_or_leaves_lets_go_of_what_others_took() {
    for event in [Event::ConnectionRestored, Event::Drain] {
        let mut core = witness();
        core.handle(event, at(1001));
        assert!(pass(&mut core, 60_000).is_empty());
    }
}

#[test]
fn a_witness_that_was_away_reads_what_was_said_before_it_acts() {
    let mut core = witness();
    assert!(core.handle(Event::Tick, at(9000)).is_empty(), "what b said waits to be read");
    core.handle(says("b", Verdict::Admitted), at(9001));
    assert!(pass(&mut core, 60_000).is_empty());
}

#[test]
fn too_many_requests_at_once_are_refused() {
    let mut core = core();
    for number in 0..=ADMITTING_MAX {
        let id = JobId::try_from(format!("j{number}")).expect("a plain name");
        let effects = core.handle(Event::Taken(Asked { id, ..asked() }), at(0));
        assert_eq!(stores(&effects).is_some(), number < ADMITTING_MAX);
        assert_eq!(answers(&effects).len(), usize::from(number == ADMITTING_MAX));
    }
}

/// Four jobs at once, each half a second.
fn paced(core: &mut Core) -> ModelToken {
    let model = ModelToken::try_from("m").expect("a plain name");
    let pace = Pace { slots: 4, job_ms: 500 };
    assert!(core.handle(Event::Paces(BTreeMap::from([(model.clone(), pace)])), at(0)).is_empty());
    model
}

#[test]
fn a_request_that_would_come_too_late_is_refused_at_once_and_told_when_to_ask_again() {
    let mut core = core();
    let model = paced(&mut core);
    let counts = |effects: &[Effect]| effects.contains(&Effect::Count(model.clone()));
    let effects = core.handle(Event::Taken(asked()), at(1_000));
    assert!(counts(&effects), "nothing is known to wait: {effects:?}");
    let first = stores(&effects).expect("it is stored");
    let length = QueueLength { interactive: 40, batch: 0, held: 4 };
    core.handle(Event::Counted(model.clone(), Ok(length)), at(1_001));
    let other = Asked { id: JobId::try_from("k").expect("a plain name"), ..asked() };
    let effects = core.handle(Event::Taken(other.clone()), at(1_002));
    let [Outcome::Refusal(refusal)] = &answers(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(refusal.code, ErrorCode::Overloaded);
    assert_eq!(
        refusal.retry_after_ms,
        Some(6_487),
        "43 at two peers, 5.375 s reckoned as 6.987, and its own 0.5 s, less 1 s"
    );
    assert!(stores(&effects).is_none() && matches!(verdicts(&effects)[..], [Verdict::Refused { .. }]));
    core.handle(Event::Stored(first, Ok(Admitted::Stored)), at(1_002));
    let effects = core.handle(Event::Taken(asked()), at(1_002));
    assert!(stores(&effects).is_some(), "it waits there already, and may be asked for again: {effects:?}");
    // Its outcome may be there: whoever asks again with a key is not refused before that is known.
    let again = Asked { keyed: true, ..other };
    let effects = core.handle(Event::Taken(again), at(1_003));
    let Some(Effect::Look(op, _)) = effects.last() else { panic!("{effects:?}") };
    let effects = core.handle(Event::Looked(*op, Ok(None)), at(1_004));
    assert_eq!(answers(&effects).len(), 1, "{effects:?}");
}

#[test]
fn what_others_store_counts_too() {
    let mut core = core();
    let model = paced(&mut core);
    core.handle(Event::Taken(asked()), at(1_000));
    core.handle(Event::Counted(model, Ok(QueueLength { interactive: 0, batch: 0, held: 4 })), at(1_001));
    for number in 0..20 {
        let id = JobId::try_from(format!("w{number}")).expect("a plain name");
        assert!(core.handle(Event::Witnessed(Asked { id: id.clone(), ..asked() }), at(1_002)).is_empty());
        let notice = Notice { job: id, replica: name("b"), incarnation: life("b"), verdict: Verdict::Admitted };
        core.handle(Event::Noticed(notice), at(1_003));
    }
    let effects = core.handle(Event::Taken(Asked { id: JobId::try_from("k").expect("a name"), ..asked() }), at(1_004));
    assert_eq!(answers(&effects).len(), 1, "{effects:?}");
}

#[test]
fn whoever_asks_again_with_a_key_from_elsewhere_follows_what_runs() {
    let mut core = core();
    let asked = Asked { keyed: true, from: 5, inbox: Inbox::try_from("_INBOX.k").expect("an inbox"), ..asked() };
    let [.., Effect::Look(op, _)] = core.handle(Event::Taken(asked), at(0))[..] else { panic!("it is looked for") };
    let store = stores(&core.handle(Event::Looked(op, Ok(None)), at(1))).expect("it is stored");
    let found = Ok(Admitted::Duplicate(Some(inbox())));
    let [Effect::Look(op, _)] = core.handle(Event::Stored(store, found), at(2))[..] else { panic!("it is looked for") };
    let effects = core.handle(Event::Looked(op, Ok(None)), at(3));
    let Some(Effect::Follow(op, following)) = effects.last() else { panic!("{effects:?}") };
    assert_eq!((&following.target.inbox, following.to.as_str(), following.from), (&inbox(), "_INBOX.k", 5));
    assert_eq!(verdicts(&effects), [Verdict::Answered]);
    assert!(!core.is_idle(), "who leaves waits for those who follow");
    core.handle(Event::Followed(*op), at(4));
    assert!(core.is_idle());
}

#[test]
fn a_broker_that_forgot_its_queue_is_given_the_jobs_again_that_are_not_settled() {
    let mut core = witness();
    let named = |id: &str| Asked { id: JobId::try_from(id).expect("a plain name"), ..asked() };
    core.handle(says("b", Verdict::Admitted), at(1_001));
    let op = stores(&core.handle(Event::Taken(named("own")), at(1_002))).expect("it is stored");
    core.handle(Event::Stored(op, Ok(Admitted::Stored)), at(1_003));
    core.handle(Event::Settled(JobId::try_from("own").expect("a plain name")), at(1_100));
    let effects = core.handle(Event::QueueLost, at(1_200));
    assert_eq!(effects.len(), 1, "what is settled is not: {effects:?}");
    let op = stores(&effects).expect("it is stored again");
    assert!(core.handle(Event::Stored(op, Err(IntakeFault::Full)), at(1_201)).is_empty(), "it is not refused now");
    let op = stores(&pass(&mut core, 1_701)).expect("it is tried again");
    assert!(core.handle(Event::Stored(op, Ok(Admitted::Duplicate(None))), at(1_702)).is_empty());
    assert!(core.next_tick().is_none() && core.is_idle());
}

#[test]
fn who_is_lost_before_its_first_beat_was_heard_is_stood_in_for() {
    let mut core = witness();
    let unknown = Notice { job: id(), replica: name("b"), incarnation: life("next"), verdict: Verdict::Pending };
    core.handle(Event::Noticed(unknown.clone()), at(1_001));
    assert!(stores(&pass(&mut core, 2_400)).is_some(), "nothing was heard of it for a second");
    let mut core = witness();
    core.handle(Event::Noticed(unknown), at(1_001));
    let beats = BTreeMap::from([(name("b"), life("next")), (name("c"), life("c"))]);
    core.handle(Event::Peers(beats), at(1_100));
    assert!(stores(&pass(&mut core, 10_000)).is_none(), "it lives");
}
