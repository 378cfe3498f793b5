//! hongyan's own protocol over WebSocket: frames, messages from clients, messages to clients.

pub mod frame;
pub mod incoming;
pub mod outgoing;
mod utf8;

/// Close codes of RFC 6455 and of hongyan (4400-4499), as sent by the gateway.
pub mod close {
    /// Normal end.
    pub const NORMAL: u16 = 1000;
    /// The node goes away.
    pub const GOING_AWAY: u16 = 1001;
    /// A binary message where only text is spoken, or the other way round.
    pub const UNSUPPORTED: u16 = 1003;
    /// The gateway's fault.
    pub const INTERNAL: u16 = 1011;
    /// The service restarts, or the session must begin anew.
    pub const RESTART: u16 = 1012;
    /// Something that the gateway needs is away or full.
    pub const TRY_AGAIN: u16 = 1013;
    /// Bad message order or schema.
    pub const BAD_MESSAGE: u16 = 4400;
    /// Token or ticket missing, bad or expired.
    pub const UNAUTHORIZED: u16 = 4401;
    /// The device may not connect from there.
    pub const FORBIDDEN: u16 = 4403;
    /// Too slow: no hello in time, or the send queue stayed full.
    pub const TOO_SLOW: u16 = 4408;
    /// A newer connection of the same device took over.
    pub const TAKEN_OVER: u16 = 4409;
    /// The device was deleted or its token revoked.
    pub const DEVICE_GONE: u16 = 4410;
    /// Too many messages.
    pub const RATE_LIMITED: u16 = 4429;
}
