//! INV-3 with everything that a scheduler does: whatever the company, the chunks, the losses of pages and the hits in
//! the cache, on any threads and with any instructions, the logits after each token are to the bit those of the
//! sequence alone.

use std::time::Duration;

use proptest::test_runner::TestRunner;

use super::*;
use crate::scheduler::{Arrival, Counters, Limits, Scheduler, SequenceId, Share, Terms};

const CASES: u32 = 48;

/// A text, of which so many tokens are the prompt and the others are said one by one.
#[derive(Debug, Clone)]
struct Text {
    tokens: Vec<TokenId>,
    prompt: usize,
    /// It comes after so many steps.
    comes: usize,
    expected: Vec<Vec<u32>>,
}

/// Computes all texts as the scheduler says, and compares all logits.
fn compute(network: &mut Network, scheduler: &mut Scheduler, texts: &[Text]) -> Result<(), TestCaseError> {
    let mut waiting: Vec<&Text> = texts.iter().collect();
    let mut open: Vec<(SequenceId, &Text)> = Vec::new();
    for step in 0.. {
        waiting.retain(|text| {
            if text.comes <= step {
                let tokens = text.tokens[..text.prompt].to_vec();
                let arrival = Arrival { tokens, tokens_max: text.tokens.len(), terms: Terms::default() };
                open.push((scheduler.add(arrival).expect("there is room"), text));
            }
            text.comes > step
        });
        if waiting.is_empty() && open.is_empty() {
            return Ok(());
        }
        let asked: Vec<_> = open.iter().map(|(id, _)| *id).collect();
        let plan = scheduler.plan(&asked, Duration::ZERO);
        let chunk = |share: &Share| Chunk {
            start: share.tokens.start,
            tokens: &scheduler.tokens(share.sequence)[share.tokens.clone()],
            pages: scheduler.pages(share.sequence),
            wanted: if share.wants_logits { Wanted::Logits(1) } else { Wanted::Nothing },
        };
        let chunks: Vec<_> = plan.shares.iter().map(chunk).collect();
        let lent = if chunks.is_empty() { Vec::new() } else { super::step(network, &chunks).expect("it computes") };
        scheduler.computed(&plan);
        for (chunk, _, logits) in &lent {
            let share = &plan.shares[*chunk];
            let at = open.iter().position(|(id, _)| *id == share.sequence).expect("it is open");
            let (id, text) = open[at];
            let count = share.tokens.end;
            prop_assert!(
                bits(logits) == text.expected[count - 1],
                "after {count} tokens of the text from {}",
                text.comes
            );
            match text.tokens.get(count) {
                Some(token) => scheduler.append(id, *token),
                None => {
                    scheduler.remove(id);
                    open.remove(at);
                }
            }
        }
    }
    Ok(())
}

fn some_limits() -> impl Strategy<Value = Limits> {
    // The longest text has five pages.
    (5..12_usize, 1..70_usize, 4..40_usize, 0..8_usize, 0..5_u32).prop_map(
        |(pages, rows_alone, rows_beside_others, pages_cached, setbacks)| Limits {
            sequences: 16,
            rows_alone,
            rows_beside_others,
            pages,
            pages_cached,
            setbacks,
        },
    )
}

#[test]
fn company_chunks_losses_of_pages_and_hits_change_no_bit() {
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    // Length of what is common with others, of its own, of what is said, and when it comes.
    let text = (0..80_usize, 1..50_usize, 0..20_usize, 0..12_usize);
    let cases = (
        prop::sample::select(Family::ALL.to_vec()),
        prop::sample::select(Isa::available()),
        1..=2_usize,
        some_limits(),
        prop::collection::vec(text, 1..6),
    );
    let done = std::cell::Cell::new(Counters::default());
    let result = runner.run(&cases, |(family, isa, threads, limits, texts)| {
        let mut plain = network(family, 1, Isa::Plain);
        let common = tokens(99, 80);
        let text = |(seed, (prefix, own, said, comes)): (u64, (usize, usize, usize, usize))| {
            let tokens = [&common[..prefix], &tokens(seed, own + said)[..]].concat();
            Text { expected: one_by_one(&mut plain, &tokens), prompt: prefix + own, tokens, comes }
        };
        let texts: Vec<Text> = (0..).zip(texts).map(text).collect();
        let (mut network, mut scheduler) = (network(family, threads, isa), Scheduler::new(limits));
        // The second time with what the first has left in the cache.
        for _ in 0..2 {
            compute(&mut network, &mut scheduler, &texts)?;
        }
        let (counters, mut all) = (scheduler.counters(), done.get());
        prop_assert_eq!((counters.pages_used, counters.sequences), (0, 0));
        all.tokens_reused += counters.tokens_reused;
        all.preemptions += counters.preemptions;
        done.set(all);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    // Otherwise all of that proves little.
    let Counters { tokens_reused, preemptions, .. } = done.get();
    assert!(tokens_reused > 1000 && preemptions > 10, "{tokens_reused} tokens reused, {preemptions} preemptions");
}
