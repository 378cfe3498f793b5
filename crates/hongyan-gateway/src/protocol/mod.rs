//! What sessions speak. Each protocol translates between its own bytes and the one session model
//! of [`crate::session`]; none of them knows an engine.

pub mod websocket;

/// How hongyan's own protocol is written on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `hongyan.v1+json`: one JSON object per text message.
    Json,
    /// `hongyan.v1+cbor`: one CBOR map per binary message.
    Cbor,
}

impl Encoding {
    /// The encoding that a WebSocket subprotocol names, if it is one of ours.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        match name {
            "hongyan.v1+json" => Some(Self::Json),
            "hongyan.v1+cbor" => Some(Self::Cbor),
            _ => None,
        }
    }

    /// The WebSocket subprotocol of this encoding.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "hongyan.v1+json",
            Self::Cbor => "hongyan.v1+cbor",
        }
    }
}
