//! The scheduler over pages of which the contents are known: rule by rule here, and random lives in [`storm`].

mod storm;
mod world;

use std::time::Duration;

use super::{Arrival, Counters, Limits, Priority, Refusal, Scheduler, SequenceId, Terms, pages};
use crate::tokenizer::TokenId;
use world::{Job, World, limits};

const BATCH: Terms = Terms { priority: Priority::Batch, deadline: None };

fn interactive(tokens: usize, answer: usize) -> Job {
    Job { prefix: 0, family: 0, tail: tokens, answer, terms: Terms::default() }
}

/// One that shares its first tokens with the others of its kind.
fn alike(prefix: usize, tail: usize) -> Job {
    Job { prefix, tail, ..interactive(0, 3) }
}

fn due(seconds: u64) -> Terms {
    Terms { deadline: Some(Duration::from_secs(seconds)), ..Terms::default() }
}

/// The rows of a plan, sequence by sequence.
fn rows(world: &mut World) -> Vec<(SequenceId, usize)> {
    let plan = world.step().expect("every invariant holds");
    plan.shares.iter().map(|share| (share.sequence, share.tokens.len())).collect()
}

#[test]
fn a_prompt_is_cut_to_the_step_and_more_finely_beside_others() {
    let mut world = World::new(Limits { rows_alone: 100, rows_beside_others: 20, ..limits(64) });
    let long = world.add(&interactive(150, 9));
    assert_eq!(rows(&mut world), [(long, 100)]);
    let other = world.add(&interactive(30, 9));
    assert_eq!(rows(&mut world), [(long, 20)]);
    assert_eq!(rows(&mut world), [(long, 20)]);
    assert_eq!(rows(&mut world), [(long, 10), (other, 10)]);
    assert_eq!(rows(&mut world), [(long, 1), (other, 19)]);
    assert_eq!(rows(&mut world), [(long, 1), (other, 1)]);
}

#[test]
fn who_only_lacks_a_token_has_a_row_however_long_the_prompts_are() {
    let mut world = World::new(Limits { rows_beside_others: 8, sequences: 8, ..limits(64) });
    let decoding: Vec<_> = (0..3).map(|_| world.add(&Job { terms: BATCH, ..interactive(1, 50) })).collect();
    rows(&mut world);
    let prompts: Vec<_> = (0..3).map(|_| world.add(&interactive(64, 2))).collect();
    for _ in 0..8 {
        let planned = rows(&mut world);
        assert!(decoding.iter().all(|id| planned.contains(&(*id, 1))), "{planned:?}");
        assert_eq!(planned[0], (prompts[0], 5), "what is left is for the first in rank");
    }
}

#[test]
fn interactive_prompts_go_before_batch_and_the_earliest_deadline_before_others() {
    let mut world = World::new(Limits { rows_beside_others: 40, ..limits(64) });
    let batch = world.add(&Job { terms: BATCH, ..interactive(40, 2) });
    let plain = world.add(&interactive(40, 2));
    let late = world.add(&Job { terms: due(90), ..interactive(40, 2) });
    let soon = world.add(&Job { terms: due(60), ..interactive(40, 2) });
    let first: Vec<_> =
        (0..5).flat_map(|_| rows(&mut world)).filter(|(_, rows)| *rows > 20).map(|(id, _)| id).collect();
    assert_eq!(first, [soon, late, plain, batch]);
}

#[test]
fn batch_goes_first_once_it_stood_back_often_enough() {
    let mut world = World::new(Limits { setbacks: 3, rows_beside_others: 8, sequences: 8, ..limits(64) });
    let batch = world.add(&Job { terms: BATCH, ..interactive(16, 1) });
    for step in 1..=5 {
        world.add(&interactive(8, 1));
        assert_eq!(rows(&mut world).iter().any(|(id, _)| *id == batch), step > 3, "step {step}");
    }
}

#[test]
fn a_loss_of_all_pages_is_a_setback() {
    let mut world = World::new(Limits { setbacks: 1, rows_beside_others: 8, sequences: 8, ..limits(4) });
    let batch = world.add(&Job { terms: BATCH, ..interactive(40, 9) });
    rows(&mut world);
    world.add(&interactive(40, 1));
    world.lend(4).expect("every invariant holds");
    assert_eq!(rows(&mut world), [(batch, 8)]);
}

#[test]
fn no_flood_of_prompts_keeps_batch_from_rows_or_pages() {
    for (rows_beside_others, pages) in [(4, 64), (256, 2)] {
        let limits = Limits { sequences: 4, rows_beside_others, setbacks: 2, ..limits(pages) };
        let mut world = World::new(limits);
        let batch = world.add(&Job { terms: BATCH, ..interactive(40, 2) });
        // Ten times what it may take, which the world checks.
        for _ in 0..4300 {
            world.arrive(&interactive(40, 2)).expect("every invariant holds").ok();
            world.step().expect("every invariant holds");
        }
        assert!(world.scheduler.tokens(batch).is_empty(), "it is done");
    }
}

#[test]
fn a_deadline_that_is_past_ends_a_sequence_between_two_steps_and_frees_its_pages() {
    let mut world = World::new(limits(8));
    let id = world.add(&Job { terms: due(10), ..interactive(40, 60) });
    world.now = Duration::from_millis(9_999);
    assert_eq!(rows(&mut world).len(), 1);
    world.now = Duration::from_secs(10);
    let plan = world.step().expect("every invariant holds");
    assert_eq!((plan.shares.len(), plan.ended), (0, vec![id]));
    assert_eq!(world.scheduler.counters().pages_used, 0);
}

#[test]
fn what_would_not_fit_alone_is_refused_and_so_is_one_too_many() {
    let mut scheduler = Scheduler::new(Limits { sequences: 2, ..limits(3) });
    let arrival = |prompt: usize, tokens_max| Arrival {
        tokens: vec![TokenId::from(1); prompt],
        tokens_max,
        terms: Terms::default(),
    };
    let refused = scheduler.add(arrival(90, 97)).expect_err("three pages hold 96");
    assert_eq!(refused, Refusal::NeverFits { tokens: 97, tokens_max: 96 });
    assert_eq!(scheduler.add(arrival(97, 0)), Err(refused), "the prompt alone");
    let first = scheduler.add(arrival(90, 96)).expect("it fits");
    scheduler.add(arrival(90, 96)).expect("each fits alone");
    assert_eq!(scheduler.add(arrival(1, 2)), Err(Refusal::TooManySequences { open: 2 }));
    scheduler.remove(first);
    assert!(scheduler.add(arrival(1, 2)).is_ok());
}

#[test]
fn tokens_that_another_sequence_has_are_not_computed_again_but_for_the_last() {
    let mut world = World::new(limits(16));
    world.add(&alike(64, 10));
    world.drain();
    assert_eq!(world.scheduler.counters().tokens_reused, 0);
    // Two full pages are the same, then a page and a half, then all, of which the last token is computed.
    for (prefix, tail, computed) in [(64, 5, 5), (50, 14, 32), (64, 0, 32)] {
        let id = world.add(&alike(prefix, tail));
        assert_eq!(rows(&mut world), [(id, computed)], "prefix {prefix}");
        world.drain();
    }
    assert_eq!(world.scheduler.counters().tokens_reused, 64 + 32 + 32);
}

#[test]
fn two_prompts_with_one_beginning_share_it_while_they_are_computed() {
    let mut world = World::new(Limits { rows_beside_others: 64, ..limits(16) });
    let first = world.add(&alike(128, 3));
    let second = world.add(&alike(128, 7));
    assert_eq!(rows(&mut world), [(first, 64)]);
    assert_eq!(rows(&mut world), [(first, 64)]);
    // It found four pages; five would be held twice without that.
    assert_eq!(rows(&mut world), [(first, 3), (second, 7)]);
    assert_eq!(world.scheduler.counters().pages_used, 6);
}

#[test]
fn pages_computed_twice_in_one_step_are_held_once() {
    let mut world = World::new(Limits { rows_beside_others: 128, ..limits(16) });
    world.add(&alike(64, 0));
    world.add(&alike(64, 0));
    assert_eq!(rows(&mut world).len(), 2);
    assert_eq!(world.scheduler.counters().pages_used, 2);
}

#[test]
fn the_page_that_was_unused_for_longest_is_the_first_to_go() {
    let mut world = World::new(limits(6));
    for family in 0..3 {
        world.add(&Job { family, answer: 1, ..alike(64, 0) });
        world.drain();
    }
    assert_eq!(world.scheduler.counters().pages_cached, 6);
    // Used again, so that the second one's end is what goes.
    world.add(&Job { family: 0, answer: 1, ..alike(64, 0) });
    world.drain();
    let reused = |world: &mut World, family| {
        let before = world.scheduler.counters().tokens_reused;
        world.add(&Job { family, answer: 1, ..alike(64, 1) });
        world.step().expect("every invariant holds");
        world.scheduler.counters().tokens_reused - before
    };
    assert_eq!(reused(&mut world, 2), 64);
    world.drain();
    assert_eq!(reused(&mut world, 0), 64);
    world.drain();
    assert_eq!(reused(&mut world, 1), 32);
}

#[test]
fn no_more_pages_are_kept_unused_than_are_wanted() {
    let mut world = World::new(Limits { pages_cached: 3, ..limits(16) });
    world.add(&alike(160, 1));
    world.drain();
    assert_eq!(world.scheduler.counters().pages_cached, 3);
    world.add(&alike(160, 1));
    world.drain();
    assert_eq!(world.scheduler.counters().tokens_reused, 96, "the first ones were kept");
}

#[test]
fn when_pages_run_out_the_youngest_of_the_lowest_priority_gives_way() {
    let mut world = World::new(limits(6));
    let old = world.add(&interactive(33, 60));
    let batch = world.add(&Job { terms: BATCH, ..interactive(33, 60) });
    let young = world.add(&interactive(33, 60));
    assert_eq!(rows(&mut world).len(), 3);
    assert_eq!(world.scheduler.counters(), Counters { pages_used: 6, sequences: 3, ..Counters::default() });
    while world.scheduler.counters().preemptions == 0 {
        world.step().expect("every invariant holds");
    }
    assert_eq!(world.scheduler.computed_tokens(batch), 0);
    assert!([old, young].iter().all(|id| world.scheduler.computed_tokens(*id) > 33));
    assert_eq!(world.scheduler.counters().preemptions, 1, "one page was needed, and another was left");
    world.drain();
}

#[test]
fn who_is_not_asked_for_gives_way_first_and_of_those_the_last_in_rank() {
    let mut world = World::new(limits(6));
    let [old, middle, batch] =
        [Terms::default(), Terms::default(), BATCH].map(|terms| world.add(&Job { terms, ..interactive(40, 50) }));
    rows(&mut world);
    let young = world.add(&interactive(40, 5));
    let plan = world.step_of(&[middle, young]).expect("every invariant holds");
    assert_eq!(plan.rows(), 1 + 40);
    let computed = |id| world.scheduler.computed_tokens(id);
    assert_eq!([computed(old), computed(middle), computed(batch)], [40, 41, 0]);
}

#[test]
fn a_hash_that_two_texts_share_brings_no_page_of_the_other() {
    let reused = |chain: fn(u64, &[TokenId]) -> u64| {
        let mut world = World::with_chain(limits(16), chain);
        for family in [0, 0, 1, 1] {
            world.add(&Job { family, ..alike(100, 1) });
            world.drain();
        }
        world.scheduler.counters().tokens_reused
    };
    assert_eq!(reused(pages::chain), 2 * 96);
    assert_eq!(reused(|_, _| 0), 32, "the first page of all has the hash");
    assert_eq!(reused(|_, tokens| pages::chain(0, tokens)), 96 + 32, "the same text stands behind another");
}

#[test]
fn who_finds_no_page_keeps_what_it_has() {
    let mut world = World::new(limits(4));
    let old = world.add(&interactive(33, 31));
    let young = world.add(&interactive(60, 36));
    while rows(&mut world).len() == 2 {}
    assert_eq!(world.scheduler.counters().pages_used, 4);
    assert_eq!(rows(&mut world).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [old]);
    assert_eq!(world.scheduler.computed_tokens(young), 64);
    world.drain();
    assert_eq!(world.scheduler.counters().preemptions, 0);
}

#[test]
fn lent_pages_come_out_of_the_cache_and_from_sequences_and_are_not_found_again() {
    let mut world = World::new(limits(8));
    world.add(&alike(96, 1));
    world.drain();
    let id = world.add(&interactive(70, 9));
    rows(&mut world);
    assert_eq!(world.scheduler.lend(9), None);
    let lent = world.scheduler.lend(8).expect("all there are");
    assert_eq!(world.scheduler.counters().pages_used, 8);
    assert_eq!(world.scheduler.computed_tokens(id), 0);
    world.scribble(&lent);
    world.scheduler.give_back(lent);
    world.add(&alike(96, 1));
    world.drain();
    assert_eq!(world.scheduler.counters().tokens_reused, 0);
}

#[test]
fn a_removed_sequence_is_asked_for_in_vain() {
    let mut world = World::new(limits(8));
    let id = world.add(&interactive(40, 9));
    rows(&mut world);
    world.cancel(id);
    assert_eq!(world.scheduler.plan(&[id], Duration::ZERO).rows(), 0);
    assert_eq!(world.scheduler.counters().pages_used, 0);
}
