//! The real clock and the real dice, the only ones in the server.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hongyan_core::Timestamp;
use hongyan_core::port::{Clock, Dice};
use ring::rand::{SecureRandom as _, SystemRandom};

/// The machine's clock, which never goes backwards within this process: after a correction to an earlier time it goes at half
/// speed until the machine has caught up. It does not stand still, as deadlines and heartbeats would with it.
#[derive(Debug)]
pub(crate) struct SystemClock {
    start: Instant,
    /// The least time that was told at the start, milliseconds, from all that was told since: a line that rises at half speed.
    line: AtomicI64,
}

impl Default for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is where the port reads the clock"
    )]
    fn default() -> Self {
        Self {
            start: Instant::now(),
            line: AtomicI64::new(i64::MIN),
        }
    }
}

impl SystemClock {
    /// `elapsed`: milliseconds of the clock that nobody sets.
    fn never_back(&self, machine: Timestamp, elapsed: i64) -> Timestamp {
        let risen = elapsed / 2;
        let line = machine.0.saturating_sub(risen);
        let highest = self.line.fetch_max(line, Ordering::AcqRel).max(line);
        Timestamp(highest.saturating_add(risen))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // The machine's first: a pause between the two then makes the line too low, which does no harm.
        let machine = machine_time();
        let elapsed = self.start.elapsed().as_millis();
        self.never_back(machine, i64::try_from(elapsed).unwrap_or(i64::MAX))
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
    fn time_goes_slowly_while_the_machine_is_behind() {
        let clock = SystemClock::default();
        let rows = [
            (0, 1_000, 1_000),
            (10, 1_010, 1_010),
            // Set back by ten seconds: half speed, for twice as long.
            (20, -8_980, 1_015),
            (10_020, 1_020, 6_015),
            (20_012, 11_012, 11_012),
            (20_030, 11_030, 11_030),
            // And on by a minute.
            (20_040, 71_040, 71_040),
        ];
        for (elapsed, machine, told) in rows {
            let now = clock.never_back(Timestamp(machine), elapsed);
            assert_eq!(now, Timestamp(told), "after {elapsed} ms");
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
