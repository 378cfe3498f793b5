//! What a broker takes and keeps.

use std::time::Duration;

use super::Access;
use crate::packet::Limits;

/// Bounds of a broker. The defaults suit some thousand clients on one machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who may connect.
    pub access: Access,
    /// What packets may hold. Its packet size is what clients are told as maximum packet size.
    pub limits: Limits,
    /// Connections at once.
    pub connections_max: usize,
    /// Sessions, connected or not; a further client is refused with 0x97.
    pub sessions_max: usize,
    /// Longest time that a session outlives its connection; a client that asks for more is told this.
    pub session_expiry_max: Duration,
    /// Time for the first packet.
    pub connect_timeout: Duration,
    /// Keep alive of 5.0 clients that ask for none or for more.
    pub keep_alive_max: Duration,
    /// Silence after which a 3.1.1 client without keep alive is closed.
    pub silence_max: Duration,
    /// QoS 1 and 2 messages that a client may have under way to the server (5.0 receive maximum).
    pub receive_max: u16,
    /// QoS 1 and 2 messages under way to a client, whatever it allows.
    pub inflight_max: u16,
    /// Topic aliases of each direction of a connection.
    pub topic_alias_max: u16,
    /// Subscriptions of a session; further ones get 0x97.
    pub subscriptions_max: usize,
    /// Subscriptions of all sessions.
    pub subscriptions_total_max: usize,
    /// Messages that wait in a session.
    pub queue_messages_max: usize,
    /// Bytes of messages that wait in a session.
    pub queue_bytes_max: usize,
    /// Bytes of messages that wait in all sessions.
    pub queue_bytes_total_max: usize,
    /// Retained messages; a message that would be one more is refused with 0x97.
    pub retained_max: usize,
    /// Bytes of all retained messages.
    pub retained_bytes_max: usize,
    /// Bytes that wait to be written to a connection before it is held back.
    pub output_bytes: usize,
    /// Packets of a connection in a second, in the long run; more is answered with 0x96.
    pub packets_per_s: u32,
    /// Packets of a connection at once.
    pub packets_burst: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: Access::Anyone,
            limits: Limits::DEFAULT,
            connections_max: 10_000,
            sessions_max: 20_000,
            session_expiry_max: Duration::from_secs(7 * 86_400),
            connect_timeout: Duration::from_secs(10),
            keep_alive_max: Duration::from_secs(1_200),
            silence_max: Duration::from_secs(30 * 60),
            receive_max: 100,
            inflight_max: 100,
            topic_alias_max: 10,
            subscriptions_max: 100,
            subscriptions_total_max: 100_000,
            queue_messages_max: 4_000,
            queue_bytes_max: 4 * 1024 * 1024,
            queue_bytes_total_max: 256 * 1024 * 1024,
            retained_max: 4_000,
            retained_bytes_max: 64 * 1024 * 1024,
            output_bytes: 64 * 1024,
            packets_per_s: 10_000,
            packets_burst: 20_000,
        }
    }
}
