//! Which way the client takes to the gateway, and when it tries a better one again.
//!
//! Pure: the driver says how attempts went and what time it is.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row of one way, before any connection over it, until the next one is tried.
const FAILURES_MAX: u32 = 2;

/// A way to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `/v1/connect`: one connection for both directions.
    WebSocket,
    /// `GET /v1/stream`, server-sent events; what the client says goes by calls of its own.
    Sse,
    /// `GET /v1/poll`, long polling: passes wherever plain HTTP does.
    Poll,
}

impl Transport {
    /// All, the best first.
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::Sse, Self::Poll];

    /// Its place in [`Transport::ALL`], from 1.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::WebSocket => 1,
            Self::Sse => 2,
            Self::Poll => 3,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|transport| transport.number() == number)
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "WebSocket",
            Self::Sse => "SSE",
            Self::Poll => "long polling",
        })
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is no other way: wait as long as such a failure asks for.
    Alone,
    /// Wait as after any failure.
    Waits,
    /// A better way was only being tried: go on with the next one now.
    AtOnce,
}

/// The choice among the ways of [`crate::Options::transports`].
#[derive(Debug)]
pub(crate) struct Choice {
    list: Vec<Transport>,
    /// The best way that is known to work, or is being found out.
    home: usize,
    /// The way of the next attempt; better than `home` while a better one is tried.
    now: usize,
    failures: u32,
    tried: bool,
    wait: Duration,
    wait_first: Duration,
    wait_max: Duration,
    climb_at: Option<Instant>,
}

impl Choice {
    pub(crate) fn new(list: &[Transport], wait_first: Duration, wait_max: Duration) -> Self {
        let mut ways: Vec<Transport> = Vec::new();
        for way in list {
            if !ways.contains(way) {
                ways.push(*way);
            }
        }
        if ways.is_empty() {
            ways.extend(Transport::ALL);
        }
        Self {
            list: ways,
            home: 0,
            now: 0,
            failures: 0,
            tried: false,
            wait: wait_first,
            wait_first,
            wait_max,
            climb_at: None,
        }
    }

    /// The way of the next attempt.
    pub(crate) fn way(&self) -> Transport {
        self.list
            .get(self.now)
            .copied()
            .unwrap_or(Transport::WebSocket)
    }

    /// An attempt ended before the welcome. `of_the_way` is whether another way may do better.
    pub(crate) fn failed(&mut self, of_the_way: bool) -> Step {
        if self.now < self.home {
            self.now += 1;
            return if of_the_way {
                Step::AtOnce
            } else {
                Step::Waits
            };
        }
        if self.list.len() == 1 {
            return Step::Alone;
        }
        if of_the_way {
            self.failures += 1;
            if self.failures >= FAILURES_MAX {
                // After the last one comes the first: then it is more likely the server than the way.
                self.failures = 0;
                self.now = (self.now + 1) % self.list.len();
                self.home = self.now;
            }
        }
        Step::Waits
    }

    /// The gateway welcomed the client.
    pub(crate) fn welcomed(&mut self, now: Instant) {
        self.failures = 0;
        if self.now < self.home || self.now == 0 {
            self.wait = self.wait_first;
        } else if self.tried {
            self.wait = self.wait.saturating_mul(2).min(self.wait_max);
        }
        self.tried = false;
        self.home = self.now;
        self.climb_at = (self.home > 0).then(|| now + self.wait);
    }

    /// When the connection is left for a better one.
    pub(crate) fn climb_at(&self) -> Option<Instant> {
        self.climb_at
    }

    /// The next attempts begin with the best way: a connection ended, or the network changed.
    pub(crate) fn climb(&mut self) {
        self.climb_at = None;
        if self.home > 0 {
            self.failures = 0;
            self.now = 0;
            self.tried = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps: `f` fails for a reason of the way, `b` for another one, `w` welcome, `c` climb.
    fn check(list: &[Transport], steps: &str, want: &str) {
        let minute = Duration::from_secs(60);
        let mut choice = Choice::new(list, 5 * minute, 60 * minute);
        let now = Instant::now();
        let mut said = Vec::new();
        for step in steps.chars() {
            match step {
                'f' => said.push(format!("{:?}", choice.failed(true))),
                'b' => said.push(format!("{:?}", choice.failed(false))),
                'w' => {
                    choice.welcomed(now);
                    let wait = choice.climb_at().map(|at| (at - now).as_secs() / 60);
                    said.push(wait.map_or("stays".to_owned(), |wait| format!("{wait}min")));
                }
                _ => choice.climb(),
            }
            said.push(format!("{:?}", choice.way()));
        }
        assert_eq!(said.join(" "), want, "{steps}");
    }

    #[tokio::test]
    async fn two_failures_in_a_row_move_down() {
        let all = &Transport::ALL;
        check(all, "w", "stays WebSocket");
        check(
            all,
            "ffffw",
            "Waits WebSocket Waits Sse Waits Sse Waits Poll 5min Poll",
        );
        // What is not of the way changes nothing, and a welcome forgets failures.
        check(
            all,
            "fbwcf",
            "Waits WebSocket Waits WebSocket stays WebSocket WebSocket Waits WebSocket",
        );
        check(
            all,
            "ffffff",
            "Waits WebSocket Waits Sse Waits Sse Waits Poll Waits Poll Waits WebSocket",
        );
        check(
            &[Transport::WebSocket],
            "ff",
            "Alone WebSocket Alone WebSocket",
        );
        check(&[], "w", "stays WebSocket");
        check(
            &[Transport::Poll, Transport::Poll],
            "ff",
            "Alone Poll Alone Poll",
        );
    }

    #[tokio::test]
    async fn better_ways_are_tried_once_each_and_ever_more_rarely() {
        let all = &Transport::ALL;
        check(
            all,
            "ffwcfwcbw",
            "Waits WebSocket Waits Sse 5min Sse WebSocket AtOnce Sse 10min Sse WebSocket Waits Sse 20min Sse",
        );
        check(
            all,
            "ffffwcfw",
            "Waits WebSocket Waits Sse Waits Sse Waits Poll 5min Poll WebSocket AtOnce Sse 5min Sse",
        );
        check(
            all,
            "ffwcfwcw",
            "Waits WebSocket Waits Sse 5min Sse WebSocket AtOnce Sse 10min Sse WebSocket stays WebSocket",
        );
        check(
            &[Transport::WebSocket, Transport::Poll],
            "ffwcfwcfwcfwcfwcfw",
            "Waits WebSocket Waits Poll 5min Poll WebSocket AtOnce Poll 10min Poll WebSocket AtOnce Poll 20min Poll \
             WebSocket AtOnce Poll 40min Poll WebSocket AtOnce Poll 60min Poll WebSocket AtOnce Poll 60min Poll",
        );
    }
}
