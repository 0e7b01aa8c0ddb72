//! Reproducible pseudo-random numbers (xorshift64) for the tests and `benches/fuzz.rs`.

#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn roll(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.roll() as usize % n.max(1)
    }
}
