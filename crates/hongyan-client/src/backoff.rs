//! What the end of a connection means, and how long to wait after it.

use std::time::Duration;

use crate::options::Timers;

/// What a client does after a connection ended (websocket.md, close codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Reconnect after the jittered wait, but not before `least`.
    Retry {
        /// Least wait.
        least: Duration,
    },
    /// Get a new token, then reconnect.
    Renew,
    /// Register the device again, then reconnect.
    Register,
    /// A newer connection of the same device took over: stop until the user acts.
    TakenOver,
    /// The device is blocked, not of this user, or was sent away: stop.
    Blocked,
    /// The gateway did not understand this client: stop and report.
    NotUnderstood,
}

/// What a close code asks of the client; `None` is an end without a close.
#[must_use]
pub fn after_close(code: Option<u16>, timers: &Timers) -> Next {
    let least = match code {
        Some(4400) => return Next::NotUnderstood,
        Some(4401) => return Next::Renew,
        Some(4403) => return Next::Blocked,
        Some(4409) => return Next::TakenOver,
        Some(4410) => return Next::Register,
        Some(4429) => timers.rate_limited_min,
        Some(1002 | 1003 | 1007 | 1009) => timers.framing_min,
        _ => Duration::ZERO,
    };
    Next::Retry { least }
}

/// What the word of a fatal error asks of the client, where there is no close code; `None` where it may just come back.
#[must_use]
pub fn after_word(word: &str) -> Option<Next> {
    match word {
        "kicked" => Some(Next::Blocked),
        "device_deleted" => Some(Next::Register),
        "unauthorized" => Some(Next::Renew),
        _ => None,
    }
}

/// What a refused upgrade asks of the client.
#[must_use]
pub fn after_status(status: u16, retry_after: Option<Duration>, timers: &Timers) -> Next {
    let least = match status {
        429 => timers.rate_limited_min,
        // The request itself is at fault or nobody speaks the protocol there: no looping.
        400..=499 => timers.framing_min,
        _ => Duration::ZERO,
    };
    // A wait of more than an hour is a mistake of some box on the way.
    let told = retry_after
        .unwrap_or_default()
        .min(Duration::from_secs(3600));
    Next::Retry {
        least: least.max(told),
    }
}

/// Full jitter: random(0, min(max, base × 2^n)).
#[derive(Debug)]
pub struct Backoff {
    attempt: u32,
    base: Duration,
    max: Duration,
    dice: Dice,
}

impl Backoff {
    /// Starts at the first attempt.
    #[must_use]
    pub fn new(timers: &Timers, seed: Option<u64>) -> Self {
        Self {
            attempt: 0,
            base: timers.backoff_base,
            max: timers.backoff_max,
            dice: Dice::new(seed),
        }
    }

    /// How many waits were drawn since the last reset.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The highest wait that the next draw can give.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        self.base
            .saturating_mul(1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX))
            .min(self.max)
    }

    /// Draws the next wait.
    pub fn draw(&mut self) -> Duration {
        let wait = self.dice.upto(self.ceiling());
        self.attempt = self.attempt.saturating_add(1);
        wait
    }

    /// Draws a wait of at most `max` without counting an attempt: for a told drain.
    pub fn draw_upto(&mut self, max: Duration) -> Duration {
        self.dice.upto(max)
    }

    /// Forgets the attempts.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// SplitMix64: jitter needs spread, not secrecy.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().1))
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn upto(&mut self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        Duration::from_micros(self.roll() % micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes() {
        let timers = Timers::default();
        let check = |code: Option<u16>, want: &str| {
            assert_eq!(
                format!("{:?}", after_close(code, &timers)),
                want,
                "{code:?}"
            );
        };
        for code in [
            None,
            Some(1000),
            Some(1001),
            Some(1011),
            Some(1012),
            Some(1013),
            Some(4408),
        ] {
            check(code, "Retry { least: 0ns }");
        }
        for code in [1002, 1003, 1007, 1009] {
            check(Some(code), "Retry { least: 60s }");
        }
        check(Some(4400), "NotUnderstood");
        check(Some(4401), "Renew");
        check(Some(4403), "Blocked");
        check(Some(4409), "TakenOver");
        check(Some(4410), "Register");
        check(Some(4429), "Retry { least: 30s }");
    }

    #[test]
    fn statuses() {
        let timers = Timers::default();
        let least = |status, after: Option<u64>| match after_status(
            status,
            after.map(Duration::from_secs),
            &timers,
        ) {
            Next::Retry { least } => least.as_secs(),
            next => panic!("{next:?}"),
        };
        assert_eq!(least(503, None), 0);
        assert_eq!(least(503, Some(7)), 7);
        assert_eq!(least(429, Some(7)), 30);
        assert_eq!(least(404, None), 60);
        assert_eq!(least(503, Some(1_000_000)), 3600);
    }

    proptest::proptest! {
        #[test]
        fn waits_stay_under_the_ceiling(seed: u64, draws in 1_usize..80) {
            let mut backoff = Backoff::new(&Timers::default(), Some(seed));
            for n in 0..draws {
                let ceiling = Duration::from_secs(60.min(1_u64 << n.min(10)));
                proptest::prop_assert_eq!(backoff.ceiling(), ceiling);
                proptest::prop_assert!(backoff.draw() <= ceiling);
            }
            backoff.reset();
            proptest::prop_assert_eq!(backoff.ceiling(), Duration::from_secs(1));
        }
    }
}
