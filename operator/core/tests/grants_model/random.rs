//! Chance, from a seed.

/// A sequence that only depends on its seed (`SplitMix64`).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(((self.next() >> 32) * bound as u64) >> 32).expect("less than the bound")
    }

    /// The same for small numbers.
    pub fn small(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(bound as usize)).expect("less than the bound")
    }

    /// True in so many of 100.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}
