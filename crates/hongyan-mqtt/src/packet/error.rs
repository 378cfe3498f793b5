//! Why bytes are no packet, and why a packet cannot become bytes.

use super::{ConnAck, Packet, Properties, ReasonCode, Version};

/// The bytes are not a packet that may be taken. The connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct DecodeError {
    /// What a 5.0 peer is told.
    pub reason: ReasonCode,
    /// What is wrong, for logs. A fixed text: it never holds what the peer sent.
    pub what: &'static str,
    /// For CONNECT: the version that it asked for, as far as it got. `None` says that nothing may be
    /// answered.
    pub connect: Option<Version>,
}

impl DecodeError {
    pub(super) const fn new(reason: ReasonCode, what: &'static str) -> Self {
        Self {
            reason,
            what,
            connect: None,
        }
    }

    pub(super) const fn malformed(what: &'static str) -> Self {
        Self::new(ReasonCode::MALFORMED_PACKET, what)
    }

    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::new(ReasonCode::PROTOCOL_ERROR, what)
    }

    pub(super) const fn in_connect(mut self, version: Version) -> Self {
        self.connect = Some(version);
        self
    }

    /// Appends what a server answers to the first packet of a connection before it closes it: a CONNACK
    /// where the standard has one, else nothing. True when something was appended.
    ///
    /// 3.1.1 has no CONNACK for a malformed CONNECT [3.1.1 3.1.4-1], and neither version for a first
    /// packet that is no CONNECT.
    pub fn answer_connect(&self, out: &mut Vec<u8>) -> bool {
        let Some(version) = self.connect else {
            return false;
        };
        if version == Version::V311 && self.reason.return_code().is_none() {
            return false;
        }
        let refusal = ConnAck {
            session_present: false,
            reason: self.reason,
            properties: Properties::NONE,
        };
        Packet::ConnAck(refusal).encode(version, out).is_ok()
    }
}

/// A packet has no form on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary is longer than its length can say.
    #[error("a field has {bytes} bytes, more than 65535")]
    FieldTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The packet is longer than its length can say.
    #[error("a packet has {bytes} bytes, more than 268435455")]
    PacketTooLong {
        /// Its remaining length.
        bytes: usize,
    },
}
