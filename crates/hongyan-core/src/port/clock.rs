//! Time and chance.

use crate::Timestamp;

/// The only way to know what time it is.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now; never goes back within one process.
    fn now(&self) -> Timestamp;
}

/// The only source of chance.
pub trait Dice: Send + Sync + std::fmt::Debug {
    /// Fills the buffer with random bytes, fit for secrets in production.
    fn fill(&self, buffer: &mut [u8]);

    /// A number in `0..below`; 0 when `below` is 0.
    fn below(&self, below: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(below).unwrap_or(0)
    }
}
