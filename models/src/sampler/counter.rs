//! Random numbers that are a function of where they are used.
//!
//! Owns Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
//! as easy as 1, 2, 3" (SC 2011). There is no state to lose, so there is none to restore after a crash. Called
//! by the sampler.

/// Multipliers and key increments (golden ratio, square root of 3 less 1), from the paper.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Philox4x32-10 under one key.
#[derive(Debug, Clone, Copy)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The generator with this key.
    pub const fn new(key: [u32; 2]) -> Self {
        Self { key }
    }

    /// The block of 128 random bits at `counter`.
    pub const fn block(self, counter: [u32; 4]) -> [u32; 4] {
        let mut key = self.key;
        let mut block = counter;
        let mut round = 0;
        while round < ROUNDS {
            let (high0, low0) = multiply(MULTIPLIERS[0], block[0]);
            let (high1, low1) = multiply(MULTIPLIERS[1], block[2]);
            block = [high1 ^ block[1] ^ key[0], low1, high0 ^ block[3] ^ key[1], low0];
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
            round += 1;
        }
        block
    }
}

/// The high and the low half of a product.
const fn multiply(a: u32, b: u32) -> (u32, u32) {
    let product = a as u64 * b as u64;
    ((product >> 32) as u32, product as u32)
}

/// The random number, from 0 up to but without 1, for the token at `position` of answer `choice` under
/// `seed`. The same three always give the same number.
pub const fn uniform(seed: u64, choice: u32, position: u64) -> f64 {
    let philox = Philox::new([seed as u32, (seed >> 32) as u32]);
    let block = philox.block([position as u32, (position >> 32) as u32, choice, 0]);
    let bits = ((block[0] as u64) << 32) | block[1] as u64;
    // 53 bits are what an f64 between 0 and 1 holds.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::{Philox, uniform};
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// From `kat_vectors` of the authors' Random123 library.
    #[test]
    fn known_answers_of_the_authors_come_out() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(Philox::new(key).block(counter), expected);
        }
    }

    #[test]
    fn seed_choice_and_position_each_change_the_number() {
        let mut seen = HashSet::new();
        for seed in 0..10 {
            for choice in 0..10 {
                for position in 0..10 {
                    seen.insert(uniform(seed, choice, position).to_bits());
                }
            }
        }
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn numbers_are_spread_evenly() {
        const DRAWS: u64 = 20_000;
        let mut buckets = [0_i64; 10];
        for position in 0..DRAWS {
            buckets[(uniform(7, 0, position) * 10.0) as usize] += 1;
        }
        // Standard deviation of a bucket is 42; six of them.
        let expected = (DRAWS / 10) as i64;
        for count in buckets {
            assert!((count - expected).abs() < 252, "{buckets:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_is_at_least_zero_and_below_one(seed: u64, choice: u32, position: u64) {
            let number = uniform(seed, choice, position);
            prop_assert!((0.0..1.0).contains(&number));
            prop_assert_eq!(number.to_bits(), uniform(seed, choice, position).to_bits());
        }
    }
}
