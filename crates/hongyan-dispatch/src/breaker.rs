//! A circuit breaker over a clock that is given: pure.

use std::time::Duration;

use hongyan_core::Timestamp;

/// Consecutive failures that open it: fewer would trip on a single lost connection with many streams.
const FAILURES_MAX: u32 = 10;
/// First time that it stays open; doubles up to [`OPEN_MAX`].
const OPEN_MIN: Duration = Duration::from_millis(500);
/// Longest time that it stays open: recovery is noticed within this.
const OPEN_MAX: Duration = Duration::from_secs(15);

/// Whether calls may be made.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    failures: u32,
    opened: u32,
    until: Option<Timestamp>,
    probing: bool,
}

impl Breaker {
    /// Asks to make a call. After the open time one caller is let through as a probe.
    ///
    /// # Errors
    /// When to ask again.
    pub fn ask(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        match self.until {
            None => Ok(()),
            Some(until) if now < until => Err(until),
            Some(_) if self.probing => Err(now.plus(OPEN_MIN)),
            Some(_) => {
                self.probing = true;
                Ok(())
            }
        }
    }

    /// A call worked.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The call that was let through was not made after all: the next one may probe.
    pub fn not_made(&mut self) {
        self.probing = false;
    }

    /// A call failed on the vendor's side.
    pub fn failed(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        if self.probing || self.failures >= FAILURES_MAX {
            let open = OPEN_MIN
                .saturating_mul(1 << self.opened.min(8))
                .min(OPEN_MAX);
            self.until = Some(now.plus(open));
            self.opened = self.opened.saturating_add(1);
            self.probing = false;
            self.failures = 0;
        }
    }

    /// Whether it keeps calls back now.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_probes_and_closes() {
        let mut b = Breaker::default();
        for _ in 0..FAILURES_MAX {
            assert!(b.ask(Timestamp(0)).is_ok());
            b.failed(Timestamp(0));
        }
        assert_eq!(b.ask(Timestamp(1)), Err(Timestamp(500)));
        assert!(b.ask(Timestamp(500)).is_ok(), "one probe");
        assert!(b.ask(Timestamp(500)).is_err(), "only one");
        b.not_made();
        assert!(b.ask(Timestamp(505)).is_ok(), "another may probe instead");
        b.failed(Timestamp(510));
        assert_eq!(b.ask(Timestamp(511)), Err(Timestamp(1510)), "twice as long");
        assert!(b.ask(Timestamp(1510)).is_ok());
        b.succeeded();
        assert!(b.ask(Timestamp(1511)).is_ok() && b.ask(Timestamp(1511)).is_ok());
    }
}
