//! The WebSocket transport (RFC 6455): frames, and the close codes that all protocols share.

pub mod frame;
mod utf8;

/// Why connections are closed: codes of RFC 6455 and of hongyan (4400-4499). They are the gateway's one vocabulary for
/// this; a protocol that is not spoken over WebSocket translates them into its own.
pub mod close {
    /// Normal end.
    pub const NORMAL: u16 = 1000;
    /// The node goes away.
    pub const GOING_AWAY: u16 = 1001;
    /// A rule of the protocol was broken.
    pub const PROTOCOL: u16 = 1002;
    /// A binary message where only text is spoken, or the other way round.
    pub const UNSUPPORTED: u16 = 1003;
    /// Longer than allowed.
    pub const TOO_BIG: u16 = 1009;
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
    /// The device may not connect, or not from there: the word says which.
    pub const FORBIDDEN: u16 = 4403;
    /// The word of a [`FORBIDDEN`] by which the app's server ends a session.
    pub const KICKED: &str = "kicked";
    /// Too slow: no hello in time, or the send queue stayed full.
    pub const TOO_SLOW: u16 = 4408;
    /// A newer connection of the same device took over.
    pub const TAKEN_OVER: u16 = 4409;
    /// The device was deleted or its token revoked.
    pub const DEVICE_GONE: u16 = 4410;
    /// Too many messages.
    pub const RATE_LIMITED: u16 = 4429;
}
