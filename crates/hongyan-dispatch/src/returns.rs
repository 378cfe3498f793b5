//! When what a lane could not take comes back to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use hongyan_core::Timestamp;

/// Shipments per second that a lane lets come back at most: what it could not take must not keep the router busy.
const COME_BACK_PER_S_MAX: u32 = 2_000;
/// Times for which rows are kept at once.
const ROWS_MAX: usize = 64;
const MINUTE_MS: i64 = 60_000;

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
        self.per_s.store(clamped(per_s), Ordering::Relaxed);
    }

    /// The next time, not before `soonest`.
    pub(crate) fn next(&self, soonest: Timestamp) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        advanced(&mut last, gap_of(&self.per_s), soonest)
    }
}

/// The same for those that wait for a time that a vendor names, or for its next day: a row for each such time, so that nobody
/// waits behind those that wait longer.
#[derive(Debug)]
pub(crate) struct Reopenings {
    per_s: AtomicU32,
    /// The last return of each row, in microseconds since the epoch, by the minute in which its time is.
    rows: Mutex<BTreeMap<i64, i64>>,
}

impl Reopenings {
    pub(crate) fn new() -> Self {
        Self {
            per_s: AtomicU32::new(COME_BACK_PER_S_MAX),
            rows: Mutex::default(),
        }
    }

    /// Sets how many a lane takes per second.
    pub(crate) fn pace(&self, per_s: u64) {
        self.per_s.store(clamped(per_s), Ordering::Relaxed);
    }

    /// The next time, not before `opens_at`; nothing, and no time taken, when that is not before `before`.
    pub(crate) fn next(
        &self,
        opens_at: Timestamp,
        now: Timestamp,
        before: Timestamp,
    ) -> Option<Timestamp> {
        let gap = gap_of(&self.per_s);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|_, last| Timestamp(last.div_euclid(1_000)) >= now);
        let minute = opens_at.millis().div_euclid(MINUTE_MS);
        if rows.len() >= ROWS_MAX && !rows.contains_key(&minute) {
            // More times than anybody names: it comes in its time, and the lane's own row takes care of a crowd.
            return Some(opens_at).filter(|at| *at < before);
        }
        let mut last = rows.get(&minute).copied().unwrap_or(0);
        let at = advanced(&mut last, gap, opens_at);
        if at >= before {
            return None;
        }
        rows.insert(minute, last);
        Some(at)
    }
}

fn clamped(per_s: u64) -> u32 {
    let per_s = u32::try_from(per_s).unwrap_or(u32::MAX);
    per_s.clamp(1, COME_BACK_PER_S_MAX)
}

/// Microseconds between two.
fn gap_of(per_s: &AtomicU32) -> i64 {
    1_000_000 / i64::from(per_s.load(Ordering::Relaxed).max(1))
}

fn advanced(last: &mut i64, gap: i64, soonest: Timestamp) -> Timestamp {
    *last = last
        .saturating_add(gap)
        .max(soonest.millis().saturating_mul(1_000));
    Timestamp(last.div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_behind_those_that_wait_longer() {
        let rows = Reopenings::new();
        let next = |at, now| rows.next(at, now, Timestamp(i64::MAX)).unwrap();
        rows.pace(1);
        let (now, morning, midnight) = (
            Timestamp(0),
            Timestamp(8 * 3_600_000),
            Timestamp(86_400_000),
        );
        assert_eq!(next(midnight, now), midnight);
        assert_eq!(next(midnight, now), Timestamp(midnight.millis() + 1_000));
        assert_eq!(next(morning, now), morning);
        // Times of one answer each differ by moments: one row.
        let moments_later = Timestamp(morning.millis() + 3);
        assert_eq!(
            next(moments_later, now),
            Timestamp(morning.millis() + 1_000)
        );
        // Rows that are over make place; where there is none, each comes in its time.
        for hour in 0..1_000 {
            let at = Timestamp(midnight.millis() + hour * 3_600_000);
            assert!(next(at, now) >= at);
        }
        assert_eq!(rows.rows.lock().unwrap().len(), ROWS_MAX);
        let later = Timestamp(midnight.millis() + 2_000 * 3_600_000);
        assert_eq!(next(later, later), later);
        assert_eq!(rows.rows.lock().unwrap().len(), 1);
    }

    #[test]
    fn who_does_not_wait_takes_no_turn() {
        let rows = Reopenings::new();
        rows.pace(1);
        let (now, midnight) = (Timestamp(0), Timestamp(86_400_000));
        let soon = midnight.plus(std::time::Duration::from_millis(1));
        assert_eq!(rows.next(midnight, now, soon), Some(midnight));
        for _ in 0..100 {
            assert_eq!(rows.next(midnight, now, soon), None);
        }
        let second = midnight.plus(std::time::Duration::from_secs(1));
        let late = Timestamp(i64::MAX);
        assert_eq!(rows.next(midnight, now, late), Some(second));
    }

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
