//! Seeded randomness for faults: the same seed injects into the same requests.

use std::sync::atomic::{AtomicU64, Ordering};

/// `SplitMix64`, shared between threads.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True with the given probability; 1.0 is always, 0.0 never.
    pub(crate) fn chance(&self, rate: f64) -> bool {
        if rate >= 1.0 {
            return true;
        }
        // 53 bits fill a double exactly.
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit a double")]
        let roll = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        roll < rate
    }

    pub(crate) fn text(&self, alphabet: &[u8], length: usize) -> String {
        (0..length)
            .map(|_| {
                let at = usize::try_from(self.next() % alphabet.len().max(1) as u64).unwrap_or(0);
                alphabet.get(at).copied().map_or('0', char::from)
            })
            .collect()
    }
}

pub(crate) const HEX: &[u8] = b"0123456789abcdef";
pub(crate) const BASE64URL: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
pub(crate) const BASE64: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
