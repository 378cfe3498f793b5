//! The one place where the sandbox reads the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall clock of the sandbox: the machine's, moved by what a test or an operator added.
///
/// Moving it lets quotas turn over, tokens expire and stored pushes die without waiting.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ahead_ms: AtomicI64,
}

impl Clock {
    /// Milliseconds since the UNIX epoch.
    #[allow(clippy::disallowed_methods, reason = "this is the sandbox's clock")]
    pub(crate) fn now_ms(&self) -> i64 {
        let machine = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(machine.as_millis())
            .unwrap_or(i64::MAX)
            .saturating_add(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Seconds since the UNIX epoch.
    pub(crate) fn now_s(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    /// Moves the clock forward for good.
    pub(crate) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let _ = self
            .ahead_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ahead| {
                Some(ahead.saturating_add(by))
            });
    }
}

/// RFC 3339 text in UTC with milliseconds.
pub(crate) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default()
}

/// Number of the Beijing day; vendor quotas in China turn over at 00:00 UTC+8.
pub(crate) fn beijing_day(ms: i64) -> i64 {
    ms.saturating_add(8 * 3_600_000).div_euclid(86_400_000)
}
