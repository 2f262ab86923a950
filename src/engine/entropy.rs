//! Randomness as plain data: 32 fresh bytes come with each event and are stretched here by BLAKE3's
//! extendable output, so the engine never asks the operating system and a simulated run can be replayed.

use std::fmt;

/// A stretchable seed. Two with the same seed yield the same bytes.
pub struct Entropy(blake3::OutputReader);

impl Entropy {
    /// Starts from 32 bytes that were never used before (in the product: from the operating system).
    pub fn new(seed: [u8; 32]) -> Self {
        Self(
            blake3::Hasher::new_keyed(&seed)
                .update(b"collab-p2p entropy v1")
                .finalize_xof(),
        )
    }

    /// Fills `buffer` with the next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A number below `bound` (0 if `bound` is 0), for jitter; its bias is below one in 2³².
    pub fn below(&mut self, bound: u32) -> u32 {
        let drawn = u64::from_le_bytes(self.bytes());
        u32::try_from(drawn.checked_rem(u64::from(bound)).unwrap_or(0)).unwrap_or(0)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(..)")
    }
}
