//! A few threads that take a step together.
//!
//! Owns the threads and the barrier between two parts of a step. It must never decide who computes what: each thread is
//! told its index and how many there are, and takes its share. How many take a step is [`Crew`]'s choice. Waiting threads spin for a moment, because the next part is
//! microseconds away, then give way, because the machine is shared, and sleep between two steps.

mod crew;

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crew::Crew;

/// Rounds that a waiting thread spins before it gives way: a few microseconds, longer than any serial part of a step.
const SPINS_MAX: usize = 2_000;
/// More threads than a pool has.
const SIZES: usize = 1 << 16;
/// Times that it gives way before it sleeps, when no step is under way.
const YIELDS_MAX: usize = 200;

/// The threads.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    crew: Mutex<Crew>,
}

/// One thread's view of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thread<'a> {
    /// From 0.
    pub(crate) index: usize,
    /// How many there are.
    pub(crate) count: usize,
    barrier: &'a Barrier,
}

type Step<'a> = dyn Fn(Thread<'_>) + Sync + 'a;

struct Shared {
    threads: usize,
    /// Steps begun, times [`SIZES`], and how many threads take the last of them: a helper that sees it change and is among
    /// them has work.
    begun: AtomicUsize,
    /// Helpers that have not finished the step.
    busy: AtomicUsize,
    barrier: Barrier,
    step: UnsafeCell<Option<*const Step<'static>>>,
    /// Whether it is over; guards the sleep of idle helpers.
    over: Mutex<bool>,
    wake: Condvar,
}

// The pointer in `step` is written by the thread that runs a step before `begun` tells the helpers, and read by them only
// until `busy` tells that they are done; that thread waits for it.
#[expect(unsafe_code, reason = "see above")]
// SAFETY: what is pointed to is `Sync`, and lives as long as it is pointed to.
unsafe impl Send for Shared {}
#[expect(unsafe_code, reason = "see above")]
// SAFETY: as above.
unsafe impl Sync for Shared {}

#[derive(Debug, Default)]
struct Barrier {
    arrived: AtomicUsize,
    passed: AtomicUsize,
}

impl Pool {
    /// This many threads, the one that runs the steps included.
    pub(crate) fn new(threads: NonZeroUsize) -> Self {
        assert!(threads.get() < SIZES, "a pool has fewer threads than {SIZES}");
        let shared = Arc::new(Shared {
            threads: threads.get(),
            begun: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            barrier: Barrier::default(),
            step: UnsafeCell::new(None),
            over: Mutex::new(false),
            wake: Condvar::new(),
        });
        let helpers = (1..threads.get()).map(|index| help(Arc::clone(&shared), index)).collect();
        Self { shared, helpers, crew: Mutex::new(Crew::new(threads.get())) }
    }

    /// Runs a step of so many rows on as many threads as are fastest now, and returns when all have finished it.
    pub(crate) fn run_step(&self, rows: usize, step: &(dyn Fn(Thread<'_>) + Sync)) {
        let size = self.crew.lock().unwrap_or_else(PoisonError::into_inner).size(rows);
        let began = Instant::now();
        self.run_on(size, step);
        self.crew.lock().unwrap_or_else(PoisonError::into_inner).took(rows, began.elapsed());
    }

    /// Runs `step` on every thread and returns when all have finished it.
    pub(crate) fn run(&self, step: &(dyn Fn(Thread<'_>) + Sync)) {
        self.run_on(self.shared.threads, step);
    }

    /// Runs `step` on the first `threads` of them and returns when all those have finished it. The others are left asleep.
    #[expect(unsafe_code, reason = "the step outlives its use, because this waits")]
    pub(crate) fn run_on(&self, threads: usize, step: &(dyn Fn(Thread<'_>) + Sync)) {
        let shared = &*self.shared;
        let threads = threads.clamp(1, shared.threads);
        if threads > 1 {
            // SAFETY: no helper reads `step` now: the last step was waited for. The lifetime is erased, and no helper uses
            // the pointer after this function has returned.
            unsafe {
                *shared.step.get() = Some(std::mem::transmute::<*const Step<'_>, *const Step<'static>>(step));
            }
            shared.busy.store(threads - 1, Relaxed);
            let _over = shared.over.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = shared.begun.load(Relaxed) / SIZES;
            shared.begun.store(begun.wrapping_add(1).wrapping_mul(SIZES).wrapping_add(threads), Release);
            shared.wake.notify_all();
        }
        step(Thread { index: 0, count: threads, barrier: &shared.barrier });
        let mut spins = 0;
        while shared.busy.load(Acquire) > 0 {
            pause(&mut spins);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        *self.shared.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            // It does not panic: that would have ended the process.
            let _ = helper.join();
        }
    }
}

impl Thread<'_> {
    /// Waits until every thread has come here. What was written before is seen by all after.
    pub(crate) fn barrier(&self) {
        if self.count > 1 {
            self.barrier.wait(self.count);
        }
    }

    /// This thread's part of so many equal pieces: neighbours stay together.
    pub(crate) fn share(&self, pieces: usize) -> std::ops::Range<usize> {
        let bound = |index: usize| pieces * index / self.count;
        bound(self.index)..bound(self.index + 1)
    }
}

impl Barrier {
    fn wait(&self, count: usize) {
        let passed = self.passed.load(Relaxed);
        if self.arrived.fetch_add(1, AcqRel) + 1 == count {
            self.arrived.store(0, Relaxed);
            self.passed.store(passed.wrapping_add(1), Release);
            return;
        }
        let mut spins = 0;
        while self.passed.load(Acquire) == passed {
            pause(&mut spins);
        }
    }
}

fn pause(spins: &mut usize) {
    if *spins < SPINS_MAX {
        spin_loop();
    } else {
        std::thread::yield_now();
    }
    *spins += 1;
}

#[expect(clippy::disallowed_methods, reason = "its panic ends the process, see `Shared::take_part`")]
fn help(shared: Arc<Shared>, index: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut seen = 0;
        while let Some(threads) = shared.next(&mut seen, index) {
            shared.take_part(index, threads);
        }
    })
}

impl Shared {
    /// Waits for the next step that this helper takes part in, and says with how many; nothing when there will be none.
    fn next(&self, seen: &mut usize, index: usize) -> Option<usize> {
        let mut spins = 0;
        while spins < SPINS_MAX + YIELDS_MAX {
            if let Some(threads) = self.news(seen, index) {
                return Some(threads);
            }
            pause(&mut spins);
        }
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(threads) = self.news(seen, index) {
                return Some(threads);
            }
            if *over {
                return None;
            }
            over = self.wake.wait(over).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A step with work for a helper, if one began. A step that it has no part in may be over long since.
    fn news(&self, seen: &mut usize, index: usize) -> Option<usize> {
        let begun = self.begun.load(Acquire);
        if begun == *seen {
            return None;
        }
        *seen = begun;
        Some(begun % SIZES).filter(|threads| index < *threads)
    }

    #[expect(unsafe_code, reason = "the step is there until `busy` is counted down")]
    fn take_part(&self, index: usize, threads: usize) {
        // SAFETY: `begun` was seen to grow after the pointer was written, and `run` waits for `busy`.
        let step = unsafe { (*self.step.get()).map(|step| &*step) };
        let thread = Thread { index, count: threads, barrier: &self.barrier };
        let part = std::panic::AssertUnwindSafe(|| step.into_iter().for_each(|step| step(thread)));
        if std::panic::catch_unwind(part).is_err() {
            // The others would wait for it at a barrier for ever. The process ends, which its owner sees.
            eprintln!("a compute thread panicked");
            std::process::abort();
        }
        self.busy.fetch_sub(1, Release);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("threads", &self.threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn every_thread_takes_part_and_barriers_order_what_they_do() {
        for threads in 1..=4 {
            let pool = Pool::new(NonZeroUsize::new(threads).expect("above zero"));
            let counters: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(0)).collect();
            for step in 1..=200_u64 {
                pool.run(&|thread| {
                    counters[thread.index].fetch_add(1, Relaxed);
                    thread.barrier();
                    let seen: Vec<u64> = counters.iter().map(|counter| counter.load(Relaxed)).collect();
                    assert_eq!(seen, vec![step; threads]);
                    thread.barrier();
                });
            }
        }
    }

    #[test]
    fn steps_of_fewer_threads_are_taken_by_those_alone() {
        let pool = Pool::new(NonZeroUsize::new(4).expect("above zero"));
        let taken = Mutex::new(Vec::new());
        for round in 0..500 {
            let threads = [4, 1, 2, 3, 1, 4, 2][round % 7];
            taken.lock().expect("nobody panics").clear();
            pool.run_on(threads, &|thread| {
                assert_eq!(thread.count, threads);
                taken.lock().expect("nobody panics").push(thread.index);
                thread.barrier();
                assert_eq!(taken.lock().expect("nobody panics").len(), threads);
                thread.barrier();
            });
            let mut indices = taken.lock().expect("nobody panics").clone();
            indices.sort_unstable();
            assert_eq!(indices, (0..threads).collect::<Vec<_>>());
        }
    }

    #[test]
    fn shares_cover_everything_once() {
        let barrier = Barrier::default();
        for count in 1..6 {
            for pieces in 0..40 {
                let share = |index| Thread { index, count, barrier: &barrier }.share(pieces);
                let all: Vec<usize> = (0..count).flat_map(share).collect();
                assert_eq!(all, (0..pieces).collect::<Vec<_>>());
            }
        }
    }
}
