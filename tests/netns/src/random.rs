//! Random numbers that a seed repeats.

use std::hash::{BuildHasher as _, RandomState};

/// SplitMix64: small, and the same everywhere for one seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from `POINTSMAN_SEED`, else anew, and says how to repeat the run.
    ///
    /// # Panics
    /// `POINTSMAN_SEED` is not a number.
    #[must_use]
    pub fn new(test: &str) -> Self {
        let seed = match std::env::var("POINTSMAN_SEED") {
            Ok(seed) => seed.parse().expect("POINTSMAN_SEED is a number"),
            Err(_) => RandomState::new().hash_one(()),
        };
        println!("{test}: seed {seed} (again: POINTSMAN_SEED={seed})");
        Self(seed)
    }

    /// Another sequence, for another thread: the same seed repeats it too.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Yes, once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `list`, which is not empty.
    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Whether long tests run (`POINTSMAN_FULL=1`).
#[must_use]
pub fn full() -> bool {
    std::env::var("POINTSMAN_FULL").is_ok_and(|full| full == "1")
}
