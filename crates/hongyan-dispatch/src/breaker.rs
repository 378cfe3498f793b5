//! A circuit breaker over a clock that is given: pure.

use std::time::Duration;

use hongyan_core::Timestamp;

/// Consecutive failures that open it: fewer would trip on a single lost connection with many streams.
const FAILURES_MAX: u32 = 10;
/// First time that it stays open; doubles up to [`OPEN_MAX`].
const OPEN_MIN: Duration = Duration::from_millis(500);
/// Longest time that it stays open: recovery is noticed within this.
const OPEN_MAX: Duration = Duration::from_secs(15);

/// A call that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// One of many.
    Call,
    /// The one that tells whether an open breaker may close, by its number.
    Probe(u64),
}

/// Whether calls may be made.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    failures: u32,
    opened: u32,
    until: Option<Timestamp>,
    probing: Option<u64>,
    probes: u64,
}

impl Breaker {
    /// Asks to make a call. After the open time one caller is let through as a probe. What became of the call is told with the
    /// turn that it had.
    ///
    /// # Errors
    /// When to ask again.
    pub fn ask(&mut self, now: Timestamp) -> Result<Turn, Timestamp> {
        match self.until {
            None => Ok(Turn::Call),
            Some(until) if now < until => Err(until),
            Some(_) if self.probing.is_some() => Err(now.plus(OPEN_MIN)),
            Some(_) => {
                self.probes += 1;
                self.probing = Some(self.probes);
                Ok(Turn::Probe(self.probes))
            }
        }
    }

    /// A call worked, whenever it was made: the vendor is there.
    pub fn succeeded(&mut self) {
        *self = Self {
            probes: self.probes,
            ..Self::default()
        };
    }

    /// A call was not made after all: when it was the probe, the next one may be.
    pub fn not_made(&mut self, turn: Turn) {
        if self.is_probe(turn) {
            self.probing = None;
        }
    }

    /// A call failed on the vendor's side. Those that were under way when it opened fail for the same cause, and say nothing new.
    pub fn failed(&mut self, turn: Turn, now: Timestamp) {
        let is_probe = self.is_probe(turn);
        if self.until.is_some() && !is_probe {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if is_probe || self.failures >= FAILURES_MAX {
            let open = OPEN_MIN
                .saturating_mul(1 << self.opened.min(8))
                .min(OPEN_MAX);
            self.until = Some(now.plus(open));
            self.opened = self.opened.saturating_add(1);
            self.probing = None;
            self.failures = 0;
        }
    }

    fn is_probe(&self, turn: Turn) -> bool {
        matches!(turn, Turn::Probe(number) if self.probing == Some(number))
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
            let turn = b.ask(Timestamp(0)).unwrap();
            b.failed(turn, Timestamp(0));
        }
        assert_eq!(b.ask(Timestamp(1)), Err(Timestamp(500)));
        let first = b.ask(Timestamp(500)).expect("one probe");
        assert!(b.ask(Timestamp(500)).is_err(), "only one");
        b.not_made(first);
        let second = b.ask(Timestamp(505)).expect("another may probe instead");
        b.failed(second, Timestamp(510));
        assert_eq!(b.ask(Timestamp(511)), Err(Timestamp(1510)), "twice as long");
        assert!(b.ask(Timestamp(1510)).is_ok());
        b.succeeded();
        assert_eq!(b.ask(Timestamp(1511)), Ok(Turn::Call));
        assert_eq!(b.ask(Timestamp(1511)), Ok(Turn::Call));
    }

    #[test]
    fn a_lost_connection_with_many_calls_opens_it_once() {
        let mut b = Breaker::default();
        for _ in 0..128 {
            b.failed(Turn::Call, Timestamp(0));
        }
        assert_eq!(b.ask(Timestamp(1)), Err(Timestamp(500)));
    }

    #[test]
    fn only_the_probe_speaks_for_itself() {
        let mut b = Breaker::default();
        for _ in 0..FAILURES_MAX {
            b.failed(Turn::Call, Timestamp(0));
        }
        let probe = b.ask(Timestamp(500)).unwrap();
        // Calls of before, and a probe of long ago.
        for turn in [Turn::Call, Turn::Probe(0)] {
            b.failed(turn, Timestamp(501));
            b.not_made(turn);
        }
        assert!(b.ask(Timestamp(501)).is_err(), "the probe is under way");
        b.failed(probe, Timestamp(502));
        assert_eq!(b.ask(Timestamp(503)), Err(Timestamp(1502)));
        b.succeeded();
        assert_eq!(b.ask(Timestamp(504)), Ok(Turn::Call), "one that worked");
    }
}
