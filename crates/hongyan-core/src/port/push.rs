//! Web push endpoints: opened by devices, posted to by whoever was given their address.

use async_trait::async_trait;
use bytes::Bytes;

use crate::push::{PushEncoding, Urgency};
use crate::{
    AppId, DeviceId, MessageId, PushChannel, PushEndpoint, Secret, StoreError, Timestamp, UserId,
};

/// What a device wants an endpoint for.
#[derive(Debug, Clone)]
pub struct NewChannel {
    /// The app.
    pub app: AppId,
    /// The device.
    pub device: DeviceId,
    /// The channel, when the device names it itself; else it is found by `label`, or made.
    pub channel: Option<PushChannel>,
    /// What the device knows the channel by.
    pub label: Option<String>,
    /// The one VAPID key that may post: an uncompressed P-256 point in base64url; padding and the standard alphabet are
    /// taken too.
    pub vapid: Option<String>,
    /// Text for people.
    pub description: Option<String>,
}

/// An endpoint that takes messages, and the token of its address.
#[derive(Debug, Clone)]
pub struct OpenChannel {
    /// The record.
    pub endpoint: PushEndpoint,
    /// The token: whoever has it may post.
    pub token: Secret,
}

/// No endpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device has as many as it may.
    #[error(
        "the device has {} channels, as many as it may; remove one first",
        crate::push::CHANNELS_PER_DEVICE_MAX
    )]
    TooMany,
    /// The server is set to endpoints that are bound to a key.
    #[error("this server takes only channels that are bound to a VAPID key; give `vapid`")]
    VapidRequired,
    /// Not a VAPID key.
    #[error("the VAPID key is not a point of P-256: 65 bytes in base64url, uncompressed")]
    BadKey,
    /// The token cannot be sealed or opened: the master key is not the one it was sealed with.
    #[error("the token of the endpoint cannot be sealed or opened")]
    Seal(#[source] crate::error::BoxError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a sender posts.
#[derive(Debug, Clone)]
pub struct Post {
    /// Seconds that it is worth delivering; 0 is now or never.
    pub ttl_s: u32,
    /// How soon the person should hear of it.
    pub urgency: Urgency,
    /// What it replaces while that is undelivered.
    pub topic: Option<String>,
    /// How the body is encrypted.
    pub encoding: PushEncoding,
    /// The body.
    pub body: Bytes,
}

/// What became of a message that came over an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushState {
    /// Still under way.
    Open,
    /// The device acknowledged it.
    Acked,
    /// It ended unacknowledged, or is not known any more.
    Lost,
}

/// A text that makes browsers devices of a user.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The text.
    pub text: Secret,
    /// Until when it does.
    pub expires_at: Timestamp,
}

/// What a text is an enrolment for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The app.
    pub app: AppId,
    /// The user.
    pub user: UserId,
    /// When it was made.
    pub made_at: Timestamp,
    /// Whether it makes devices still: its time is not over, and its user is known since before it and may have one more.
    pub open: bool,
}

/// Web push endpoints.
///
/// Promises:
/// - the same device, channel (or label) and key get the same endpoint again;
/// - when [`Pushes::post`] returns, the message is durable; one with TTL 0 is never stored, and given only to a connection
///   that is open now;
/// - a message replaces undelivered ones of the same channel and topic, body and all.
#[async_trait]
pub trait Pushes: Send + Sync + std::fmt::Debug {
    /// Origin and path before `/wpush/…`, as senders reach this server.
    fn root(&self) -> &str;

    /// A text for an address that makes whoever connects with it a device of this user, who is known from then on.
    async fn enrolment(&self, app: &AppId, user: &UserId) -> Result<Enrolment, StoreError>;

    /// What a text is an enrolment for, if it is one.
    async fn enrolled(&self, text: &Secret) -> Result<Option<Enrolled>, StoreError>;

    /// Makes a device that never was anybody's one of the enrolment's user; answers whether it is. A logout is not undone by
    /// it, and no other device logged out.
    async fn enrol(&self, device: &DeviceId, by: &Enrolled) -> Result<bool, StoreError>;

    /// Forgets a device, and ends what is open for it; answers whether it was known.
    async fn forget(&self, app: &AppId, device: &DeviceId) -> Result<bool, StoreError>;

    /// Opens a channel, or finds it open.
    async fn open(&self, new: NewChannel) -> Result<OpenChannel, OpenError>;

    /// A device's open channels.
    async fn list(&self, app: &AppId, device: &DeviceId) -> Result<Vec<OpenChannel>, OpenError>;

    /// Closes a channel; answers whether it was open.
    async fn close(
        &self,
        app: &AppId,
        device: &DeviceId,
        channel: &PushChannel,
    ) -> Result<bool, StoreError>;

    /// The endpoint of a token, gone ones too. Takes as long for texts that never were tokens. An endpoint whose device was
    /// not heard of for 60 days is answered as gone.
    async fn find(&self, token: &str) -> Result<Option<PushEndpoint>, StoreError>;

    /// Takes a message in; answers its id.
    async fn post(&self, to: &PushEndpoint, post: Post) -> Result<MessageId, StoreError>;

    /// Takes a message back, if it came over the endpoint with this hash; answers whether the endpoint is known.
    async fn withdraw(&self, hash: &[u8; 32], id: MessageId) -> Result<bool, StoreError>;

    /// What became of a message, if the endpoint with this hash is known.
    async fn state(&self, hash: &[u8; 32], id: MessageId) -> Result<Option<PushState>, StoreError>;
}

/// The whole address of an endpoint: `/wpush/v2/` when it is bound to a key, else `/wpush/v1/`. A sender may use either, and
/// `/up/` too.
#[must_use]
pub fn endpoint_url(root: &str, open: &OpenChannel) -> String {
    let version = if open.endpoint.vapid.is_some() {
        "v2"
    } else {
        "v1"
    };
    let token = String::from_utf8_lossy(open.token.expose());
    format!("{root}/wpush/{version}/{token}")
}
