//! What a vendor said lately about its daily limits.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hongyan_core::Timestamp;
use hongyan_core::port::{DailyLimit, LimitOf};

/// Limits that one vendor may name.
const KEPT_MAX: usize = 64;
/// A limit beyond this is none: vendors write very large numbers for "unlimited".
const LIMIT_MAX: u64 = 1 << 50;

/// A bounded memory of limits: the latest word on each part.
#[derive(Debug, Default)]
pub(super) struct Limits(Mutex<Vec<DailyLimit>>);

impl Limits {
    /// The vendor said this. Numbers below zero, and very large ones, mean that there is no limit.
    pub(super) fn hear(
        &self,
        of: LimitOf,
        part: &str,
        limit: i64,
        used: Option<i64>,
        now: Timestamp,
    ) {
        let mut kept = self.lock();
        kept.retain(|known| known.part != part);
        let limit = u64::try_from(limit).ok().filter(|limit| *limit < LIMIT_MAX);
        if let Some(limit) = limit
            && kept.len() < KEPT_MAX
        {
            kept.push(DailyLimit {
                of,
                part: crate::texts::detail(part),
                limit,
                used: used.and_then(|used| u64::try_from(used).ok()),
                at: now,
            });
        }
    }

    /// All that is known, by part.
    pub(super) fn all(&self) -> Vec<DailyLimit> {
        let mut all = self.lock().clone();
        all.sort_by(|a, b| a.part.cmp(&b.part));
        all
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DailyLimit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_word_counts_and_none_is_no_limit() {
        let limits = Limits::default();
        let hear = |part: &str, limit, used| {
            limits.hear(LimitOf::Part, part, limit, Some(used), Timestamp(1));
        };
        hear("b", 10, 1);
        hear("a", 20, 2);
        hear("b", 10, 3);
        let told = |limits: &Limits| {
            let all = limits.all().into_iter();
            all.map(|l| (l.part, l.limit, l.used)).collect::<Vec<_>>()
        };
        let want = [("a".to_owned(), 20, Some(2)), ("b".to_owned(), 10, Some(3))];
        assert_eq!(told(&limits), want);
        hear("a", -1, 0);
        hear("b", i64::MAX, 0);
        assert_eq!(told(&limits), []);
        for n in 0..KEPT_MAX + 5 {
            hear(&n.to_string(), 1, 0);
        }
        assert_eq!(limits.all().len(), KEPT_MAX);
    }
}
