//! A token bucket over a clock that is given: pure.

use std::time::Duration;

use hongyan_core::Timestamp;

/// Allows `rate` per second with a burst of a tenth of a second's worth (at least one).
#[derive(Debug, Clone)]
pub struct Bucket {
    per_s: u32,
    burst: f64,
    level: f64,
    at: Timestamp,
}

impl Bucket {
    /// A full bucket. A rate of 0 counts as 1.
    #[must_use]
    pub fn new(per_s: u32, now: Timestamp) -> Self {
        let per_s = per_s.max(1);
        let burst = (f64::from(per_s) / 10.0).max(1.0);
        Self {
            per_s,
            burst,
            level: burst,
            at: now,
        }
    }

    /// Takes one, or says how long to wait before asking again.
    ///
    /// # Errors
    /// The wait, never zero.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let passed = now.since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed * f64::from(self.per_s)).min(self.burst);
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.level) / f64::from(self.per_s);
        Err(Duration::from_secs_f64(wait).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_above_the_rate(rate in 1u32..500, gaps in prop::collection::vec(0i64..50, 1..400)) {
            let mut bucket = Bucket::new(rate, Timestamp(0));
            let (mut now, mut taken) = (0i64, 0u32);
            for gap in gaps {
                now += gap;
                if bucket.take(Timestamp(now)).is_ok() {
                    taken += 1;
                }
            }
            let allowed = f64::from(rate) / 10.0 + 1.0 + f64::from(rate) * (now as f64) / 1000.0;
            prop_assert!(f64::from(taken) <= allowed + 1e-6);
        }
    }
}
