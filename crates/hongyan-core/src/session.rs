//! What a live connection reports.

use crate::{AppId, DeviceId, MessageId, SessionId, Stage, Timestamp, UserId};

/// Whether the app is in front.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, Default,
)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// The person sees the app.
    #[default]
    Foreground,
    /// The app runs behind others.
    Background,
}

/// Something that a device said or that happened to its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEvent {
    /// The app.
    pub app: AppId,
    /// The device.
    pub device: DeviceId,
    /// The user that it was bound to.
    pub user: Option<UserId>,
    /// What.
    pub what: SessionSaid,
}

/// See [`SessionEvent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionSaid {
    /// The device is connected.
    Up(SessionId),
    /// The connection ended.
    Down(SessionId),
    /// These messages went onto the wire of this session for the first time.
    Sent(SessionId, Vec<MessageId>),
    /// The device has these messages (newly acked, by id or cumulatively).
    Acked(Vec<MessageId>),
    /// The device could not use the message; counted as an ack with a status.
    Rejected(MessageId),
    /// What the device tells its app, at most [`crate::limits::SAID_BYTES_MAX`] bytes.
    Said(String),
    /// What the person did: [`Stage::Displayed`], `Clicked`, `Opened` or `Dismissed`.
    Client {
        /// The message.
        message: MessageId,
        /// What.
        stage: Stage,
        /// When, by the client's clock, clamped to the server's past.
        at: Timestamp,
    },
}
