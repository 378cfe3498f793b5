//! The real clock and the real dice, the only ones in the server.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hongyan_core::Timestamp;
use hongyan_core::port::{Clock, Dice};
use ring::rand::{SecureRandom as _, SystemRandom};

/// The machine's clock, held back so that it never goes backwards within this process: after a correction to an
/// earlier time it stands still until that time is reached again.
#[derive(Debug, Default)]
pub(crate) struct SystemClock {
    latest: AtomicI64,
}

impl SystemClock {
    fn never_back(&self, millis: i64) -> Timestamp {
        let before = self.latest.fetch_max(millis, Ordering::AcqRel);
        Timestamp(before.max(millis))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.never_back(machine_time().0)
    }
}

/// What the machine says, with all its jumps.
#[allow(
    clippy::disallowed_methods,
    reason = "this is where the port reads the clock"
)]
pub(crate) fn machine_time() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The operating system's random numbers.
#[derive(Debug, Default)]
pub(crate) struct SystemDice {
    source: Source,
}

/// `SystemRandom` has a `Debug` of its own, but no `Default`.
#[derive(Debug)]
struct Source(SystemRandom);

impl Default for Source {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

impl Dice for SystemDice {
    /// Ends the process when the operating system has no random numbers: keys and ids made without them would be
    /// guessable, and nothing else can be done.
    fn fill(&self, buffer: &mut [u8]) {
        if self.source.0.fill(buffer).is_err() {
            tracing::error!("the operating system gives no random numbers; ending the process");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_while_the_machine_goes_back() {
        let clock = SystemClock::default();
        for (machine, told) in [(10, 10), (12, 12), (3, 12), (11, 12), (13, 13)] {
            assert_eq!(clock.never_back(machine), Timestamp(told));
        }
    }

    #[test]
    fn now_is_after_this_was_written_and_never_goes_back() {
        let clock = SystemClock::default();
        let first = clock.now();
        assert!(first.rfc3339().as_str() > "2025-01-01");
        assert!(clock.now() >= first);
    }

    #[test]
    fn throws_differ() {
        let dice = SystemDice::default();
        let (mut a, mut b) = ([0; 32], [0; 32]);
        dice.fill(&mut a);
        dice.fill(&mut b);
        assert_ne!(a, b);
        assert!((0..1_000).all(|_| dice.below(7) < 7));
    }
}
