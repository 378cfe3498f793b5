//! Token buckets per key and per address: bounded in number, exact in time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::Timestamp;

/// How much one caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second in the long run; 0 means no limit.
    pub per_s: u32,
    /// Requests at once after a pause.
    pub burst: u32,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of a request that are left.
    level: u64,
    at: Timestamp,
}

/// Buckets of one kind of caller.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    rate: Rate,
    len_max: usize,
    buckets: Mutex<HashMap<K, Bucket>>,
}

impl<K: Hash + Eq> Limiter<K> {
    pub(crate) fn new(rate: Rate, len_max: usize) -> Self {
        Self {
            rate,
            len_max,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one request's worth, or answers how long to wait for it.
    pub(crate) fn take(&self, key: K, now: Timestamp) -> Result<(), Duration> {
        let Rate { per_s, burst } = self.rate;
        if per_s == 0 {
            return Ok(());
        }
        let full = u64::from(burst.max(1)) * 1000;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= self.len_max && !buckets.contains_key(&key) {
            // A full bucket remembers nothing. If all are in use, forgetting them is kinder than refusing strangers.
            buckets.retain(|_, bucket| self.refilled(*bucket, now) < full);
            if buckets.len() >= self.len_max {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket {
            level: full,
            at: now,
        });
        bucket.level = self.refilled(*bucket, now);
        bucket.at = now;
        if bucket.level >= 1000 {
            bucket.level -= 1000;
            return Ok(());
        }
        let missing = 1000 - bucket.level;
        Err(Duration::from_millis(missing.div_ceil(u64::from(per_s))))
    }

    fn refilled(&self, bucket: Bucket, now: Timestamp) -> u64 {
        let full = u64::from(self.rate.burst.max(1)) * 1000;
        let ms = u64::try_from(now.since(bucket.at).as_millis()).unwrap_or(u64::MAX);
        // One request per second is one thousandth of a request per millisecond.
        bucket
            .level
            .saturating_add(ms.saturating_mul(u64::from(self.rate.per_s)))
            .min(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        let limiter = Limiter::new(Rate { per_s: 2, burst: 3 }, 10);
        let t = |ms: i64| Timestamp(1_000_000 + ms);
        for _ in 0..3 {
            assert_eq!(limiter.take(1, t(0)), Ok(()));
        }
        assert_eq!(limiter.take(1, t(0)), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take(2, t(0)), Ok(()), "others are not affected");
        assert_eq!(limiter.take(1, t(499)), Err(Duration::from_millis(1)));
        assert_eq!(limiter.take(1, t(500)), Ok(()));
        assert!(limiter.take(1, t(600)).is_err());
    }

    #[test]
    fn no_rate_is_no_limit_and_the_number_of_buckets_is_bounded() {
        let free = Limiter::new(Rate { per_s: 0, burst: 0 }, 1);
        assert!((0..100).all(|i| free.take(i, Timestamp(0)).is_ok()));
        let small = Limiter::new(Rate { per_s: 1, burst: 2 }, 4);
        for i in 0..100 {
            assert_eq!(small.take(i, Timestamp(0)), Ok(()));
        }
        assert!(small.buckets.lock().unwrap().len() <= 4);
    }
}
