//! When what a lane could not take comes back to it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use hongyan_core::Timestamp;

/// Shipments per second that a lane lets come back at most: what it could not take must not keep the router busy.
const COME_BACK_PER_S_MAX: u32 = 2_000;
/// When what a lane could not take may come back: one after the other, as fast as the lane could take it. Without it a
/// backlog of any size would be planned anew and refused anew all the time.
#[derive(Debug)]
pub(crate) struct Returns {
    per_s: AtomicU32,
    /// Microseconds since the epoch of the last return that was given out.
    last: Mutex<i64>,
}

impl Returns {
    pub(crate) fn new() -> Self {
        Self {
            per_s: AtomicU32::new(COME_BACK_PER_S_MAX),
            last: Mutex::new(0),
        }
    }

    /// Sets how many a lane takes per second.
    pub(crate) fn pace(&self, per_s: u64) {
        let per_s = u32::try_from(per_s).unwrap_or(u32::MAX);
        self.per_s
            .store(per_s.clamp(1, COME_BACK_PER_S_MAX), Ordering::Relaxed);
    }

    /// The next time, not before `soonest`.
    pub(crate) fn next(&self, soonest: Timestamp) -> Timestamp {
        let gap = 1_000_000 / i64::from(self.per_s.load(Ordering::Relaxed).max(1));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last
            .saturating_add(gap)
            .max(soonest.millis().saturating_mul(1_000));
        Timestamp(last.div_euclid(1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_comes_back_as_fast_as_the_lane_takes_it() {
        let returns = Returns::new();
        returns.pace(100);
        let times: Vec<_> = (0..1_000).map(|_| returns.next(Timestamp(5_000))).collect();
        assert_eq!(times.first(), Some(&Timestamp(5_000)));
        assert!(times.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(times.last(), Some(&Timestamp(5_000 + 999 * 10)));
        // Long after, the next one is soon again.
        assert_eq!(returns.next(Timestamp(60_000)), Timestamp(60_000));
        // However fast the vendor is, the router is asked for so many at most.
        returns.pace(u64::MAX);
        let begin = returns.next(Timestamp(100_000));
        for _ in 0..COME_BACK_PER_S_MAX {
            returns.next(begin);
        }
        assert_eq!(returns.next(begin).since(begin).as_millis(), 1_000);
    }
}
