//! Settings of the gateway. Times are in milliseconds and take effect in steps of 100 ms.

use std::time::Duration;

use serde::Deserialize;

use crate::wheel::Tick;

/// Length of a tick of the reactors, in milliseconds.
pub(crate) const TICK_MS: u64 = 100;

/// Settings of the gateway (since 0.1 where nothing else is said).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Reactor threads; 0 means one for each core.
    pub reactors: usize,
    /// Connections at once; more are refused with 503 before the upgrade.
    pub sessions_max: usize,
    /// Connections that did not say who they are yet; more are refused with 503.
    pub half_open_max: usize,
    /// The same for one IP address; more are refused with 429.
    pub half_open_per_ip_max: u32,
    /// Time for `hello` after the upgrade.
    pub hello_timeout_ms: u64,
    /// Silence after which a ping is sent (each connection ±10 %).
    pub heartbeat_ms: u64,
    /// Further silence after which a connection is dead.
    pub heartbeat_grace_ms: u64,
    /// Waits for an acknowledgement before a message is sent again on the same connection.
    pub redeliver_ms: Vec<u64>,
    /// Time for the peer's close frame after ours.
    pub close_wait_ms: u64,
    /// Time without progress after which a slow reader is closed.
    pub slow_timeout_ms: u64,
    /// Bytes that may wait for one connection.
    pub queue_bytes_max: usize,
    /// Messages that may wait for one connection.
    pub queue_len_max: usize,
    /// Longest client message, bytes.
    pub message_bytes_max: usize,
    /// Longest client message before `welcome`, bytes.
    pub hello_bytes_max: usize,
    /// Client messages in a second, in the long run.
    pub messages_per_s: u16,
    /// Client messages at once.
    pub messages_burst: u16,
    /// Unacknowledged messages when the client asks for no number.
    pub inflight: u16,
    /// Requests to the store under way at once, over all reactors.
    pub backend_concurrency: usize,
    /// Who handles the records of TLS 1.3 connections.
    pub tls_records: TlsRecords,
}

/// Who seals and opens the records of TLS 1.3 connections; those of TLS 1.2 are always rustls's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsRecords {
    /// The gateway, on demand, so that an idle connection keeps two secrets and nothing else.
    #[default]
    Own,
    /// rustls, with its whole state for each connection.
    Rustls,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reactors: 0,
            sessions_max: 1_000_000,
            half_open_max: 10_000,
            half_open_per_ip_max: 2_000,
            hello_timeout_ms: 10_000,
            heartbeat_ms: 45_000,
            heartbeat_grace_ms: 20_000,
            redeliver_ms: vec![30_000, 60_000, 120_000],
            close_wait_ms: 3_000,
            slow_timeout_ms: 30_000,
            queue_bytes_max: 1024 * 1024,
            queue_len_max: 512,
            message_bytes_max: 64 * 1024,
            hello_bytes_max: 4 * 1024,
            messages_per_s: 50,
            messages_burst: 200,
            inflight: 32,
            backend_concurrency: 128,
            tls_records: TlsRecords::Own,
        }
    }
}

impl Options {
    /// Everything that is wrong with the settings, each line naming its setting.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut need = |ok: bool, text: &str| {
            if !ok {
                faults.push(text.to_owned());
            }
        };
        need(self.reactors <= 64, "reactors must be at most 64");
        need(
            (1..=16_000_000).contains(&self.sessions_max),
            "sessions_max must be between 1 and 16000000",
        );
        need(self.half_open_max > 0, "half_open_max must be at least 1");
        need(
            self.half_open_per_ip_max > 0,
            "half_open_per_ip_max must be at least 1",
        );
        need(
            self.heartbeat_ms >= TICK_MS,
            "heartbeat_ms must be at least 100",
        );
        need(
            self.redeliver_ms.len() <= 16,
            "redeliver_ms must have at most 16 waits",
        );
        need(
            self.queue_bytes_max >= 64 * 1024,
            "queue_bytes_max must be at least 65536",
        );
        need(self.queue_len_max >= 8, "queue_len_max must be at least 8");
        need(
            (1024..=16 * 1024 * 1024).contains(&self.message_bytes_max),
            "message_bytes_max must be between 1024 and 16777216",
        );
        need(
            self.hello_bytes_max >= 512,
            "hello_bytes_max must be at least 512",
        );
        need(self.messages_per_s > 0, "messages_per_s must be at least 1");
        need(self.messages_burst > 0, "messages_burst must be at least 1");
        need(
            (1..=256).contains(&self.inflight),
            "inflight must be between 1 and 256",
        );
        need(
            self.backend_concurrency > 0,
            "backend_concurrency must be at least 1",
        );
        faults
    }

    pub(crate) fn reactor_count(&self) -> usize {
        match self.reactors {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(64)),
            n => n,
        }
    }

    /// The wait before delivery number `tries + 1` on one connection, if there is one.
    pub(crate) fn redeliver_after(&self, tries: u8) -> Option<Tick> {
        self.redeliver_ms
            .get(usize::from(tries.checked_sub(1)?))
            .map(|ms| ticks(*ms))
    }
}

/// Ticks that cover so many milliseconds, at least one.
pub(crate) fn ticks(ms: u64) -> Tick {
    Tick::try_from(ms.div_ceil(TICK_MS).max(1)).unwrap_or(Tick::MAX / 4)
}

/// Ticks that cover a duration.
pub(crate) fn ticks_of(duration: Duration) -> Tick {
    ticks(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_faults_name_their_setting() {
        assert!(Options::default().faults().is_empty());
        let options = Options {
            inflight: 0,
            queue_len_max: 1,
            ..Options::default()
        };
        let faults = options.faults();
        assert!(faults[0].starts_with("queue_len_max") && faults[1].starts_with("inflight"));
    }

    #[test]
    fn waits_grow_and_end() {
        let options = Options::default();
        let waits: Vec<_> = (1..5).map(|tries| options.redeliver_after(tries)).collect();
        assert_eq!(waits, [Some(300), Some(600), Some(1200), None]);
    }
}
