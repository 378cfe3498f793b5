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

    /// Changes the rate; what has been saved up stays, as far as the new burst allows. A debt takes no longer to be paid back
    /// at a lower rate: it was made at the higher one.
    pub fn set_rate(&mut self, per_s: u32) {
        let per_s = per_s.max(1);
        if self.level < 0.0 {
            let share = f64::from(per_s) / f64::from(self.per_s);
            self.level *= share.min(1.0);
        }
        self.per_s = per_s;
        self.burst = (f64::from(self.per_s) / 10.0).max(1.0);
        self.level = self.level.min(self.burst);
    }

    /// Puts back what was taken and not used in the end.
    pub fn give_back(&mut self, count: u32) {
        self.level = (self.level + f64::from(count)).min(self.burst);
    }

    /// Takes so many, or says how long to wait before asking again. More than the burst is taken from a full bucket, and paid
    /// back before anything else is.
    ///
    /// # Errors
    /// The wait, never zero.
    pub fn take(&mut self, count: u32, now: Timestamp) -> Result<(), Duration> {
        let passed = now.since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed * f64::from(self.per_s)).min(self.burst);
        let count = f64::from(count.max(1));
        let needed = count.min(self.burst);
        if self.level >= needed {
            self.level -= count;
            return Ok(());
        }
        let wait = (needed - self.level) / f64::from(self.per_s);
        Err(Duration::from_secs_f64(wait).max(Duration::from_millis(1)))
    }
}

/// How much of its rate a lane uses: halved whenever the vendor asks to slow down, back to all of it within a minute in
/// which it does not.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    share: f64,
    at: Timestamp,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            share: 1.0,
            at: Timestamp(0),
        }
    }
}

impl Pace {
    /// The least that is used.
    const LEAST: f64 = 1.0 / 64.0;
    /// What is added each second.
    const BACK_PER_S: f64 = 1.0 / 60.0;
    /// Answers to calls that were under way together count once.
    const TOGETHER: Duration = Duration::from_millis(500);

    /// The vendor asked to slow down.
    pub fn slow_down(&mut self, now: Timestamp) {
        if self.share < 1.0 && now.since(self.at) < Self::TOGETHER {
            return;
        }
        self.share = (self.share(now) / 2.0).max(Self::LEAST);
        self.at = now;
    }

    /// The share to use now.
    #[must_use]
    pub fn share(&self, now: Timestamp) -> f64 {
        let passed = now.since(self.at).as_secs_f64();
        (self.share + passed * Self::BACK_PER_S).min(1.0)
    }

    /// A rate as it is to be used now, at least 1.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the rate"
    )]
    pub fn of(&self, per_s: u32, now: Timestamp) -> u32 {
        ((f64::from(per_s) * self.share(now)) as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lane_slows_down_at_once_and_comes_back_slowly() {
        let at = |s: i64| Timestamp(1_000_000 + s * 1000);
        let mut pace = Pace::default();
        assert_eq!(pace.of(400, at(0)), 400);
        pace.slow_down(at(0));
        pace.slow_down(Timestamp(at(0).millis() + 100));
        assert_eq!(pace.of(400, at(0)), 200, "one answer of several at once");
        pace.slow_down(at(1));
        assert_eq!(pace.of(400, at(1)), 103);
        assert!((190..=310).contains(&pace.of(400, at(20))));
        assert_eq!(pace.of(400, at(60)), 400);
        for second in 100..200 {
            pace.slow_down(at(second));
        }
        assert!((6..=20).contains(&pace.of(400, at(199))), "never stops");
        assert_eq!(pace.of(2, at(199)), 1);
    }

    #[test]
    fn a_batch_counts_as_many_as_it_has() {
        let at = |ms: i64| Timestamp(ms);
        let mut bucket = Bucket::new(4_000, at(0));
        assert!(bucket.take(1_000, at(0)).is_ok());
        // A quarter of a second's worth went, of which a tenth was saved up.
        let wait = Duration::from_millis(250);
        assert_eq!(bucket.take(1_000, at(0)), Err(wait));
        assert_eq!(bucket.take(1_000, at(249)), Err(Duration::from_millis(1)));
        assert!(bucket.take(1_000, at(250)).is_ok());
        assert!(bucket.take(1, at(250)).is_err(), "the debt comes first");
        let mut sent = 0;
        for ms in 250..=10_250 {
            if bucket.take(1_000, at(ms)).is_ok() {
                sent += 1_000;
            }
        }
        assert_eq!(sent, 40_000, "ten seconds of it");
    }

    #[test]
    fn what_was_not_used_is_there_again() {
        let mut bucket = Bucket::new(8, Timestamp(0));
        assert!(bucket.take(1_000, Timestamp(0)).is_ok());
        bucket.give_back(990);
        assert_eq!(
            bucket.take(1, Timestamp(0)),
            Err(Duration::from_millis(1_250))
        );
        bucket.give_back(1_000_000);
        assert!(bucket.take(1, Timestamp(0)).is_ok());
        assert!(
            bucket.take(1, Timestamp(0)).is_err(),
            "no more than the burst"
        );
    }

    #[test]
    fn a_debt_of_the_full_rate_is_not_paid_back_at_a_slower_one() {
        let mut bucket = Bucket::new(4_000, Timestamp(0));
        assert!(bucket.take(4_000, Timestamp(0)).is_ok());
        bucket.set_rate(50);
        let wait = bucket.take(1, Timestamp(0)).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        bucket.set_rate(4_000);
        assert!(bucket.take(1, Timestamp(0)).is_err());
    }

    proptest! {
        #[test]
        fn never_above_the_rate_whatever_is_taken_at_once(
            rate in 1u32..500, takes in prop::collection::vec((0i64..50, 1u32..100), 1..400)
        ) {
            let mut bucket = Bucket::new(rate, Timestamp(0));
            let (mut now, mut taken, mut most) = (0i64, 0u32, 0u32);
            for (gap, count) in takes {
                now += gap;
                if bucket.take(count, Timestamp(now)).is_ok() {
                    taken += count;
                    most = most.max(count);
                }
            }
            let allowed = f64::from(rate) / 10.0 + 1.0 + f64::from(rate) * (now as f64) / 1000.0;
            prop_assert!(f64::from(taken) <= allowed + f64::from(most) + 1e-6);
        }

        #[test]
        fn never_above_the_rate(rate in 1u32..500, gaps in prop::collection::vec(0i64..50, 1..400)) {
            let mut bucket = Bucket::new(rate, Timestamp(0));
            let (mut now, mut taken) = (0i64, 0u32);
            for gap in gaps {
                now += gap;
                if bucket.take(1, Timestamp(now)).is_ok() {
                    taken += 1;
                }
            }
            let allowed = f64::from(rate) / 10.0 + 1.0 + f64::from(rate) * (now as f64) / 1000.0;
            prop_assert!(f64::from(taken) <= allowed + 1e-6);
        }
    }
}
