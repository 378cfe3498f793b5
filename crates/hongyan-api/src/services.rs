//! What this room needs from others, as it sees it: the binary bridges these traits to dispatch and
//! gateway, tests to fakes.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::header::{HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode, Version};

use hongyan_core::app::{Credential, LaneLimits};
use hongyan_core::device::Platform;
use hongyan_core::draft::{Draft, Fault};
use hongyan_core::port::{Ack, Broadcasts, CheckReport, ConfigError, Parcel, Reader, WakeKey};
use hongyan_core::session::{AppState, SessionEvent};
use hongyan_core::{
    AppId, ChannelId, Class, CredentialName, Cursor, Device, DeviceId, MessageId, Reason, Secret,
    StoreError, Timestamp, UserId,
};
use hongyan_listener::secure::Tls;

/// A caller's wish to be answered the same for the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key.
    pub key: String,
    /// SHA-256 of the request body.
    pub body_hash: [u8; 32],
}

/// The messages are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// One id per draft, in order.
    pub ids: Vec<MessageId>,
    /// Whether this is the repeated answer to a known idempotency key.
    pub replayed: bool,
}

/// A service did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Some drafts are not well formed: (place, faults).
    #[error("{} of the messages cannot be accepted", .0.len())]
    Invalid(Vec<(usize, Vec<Fault>)>),
    /// The idempotency key was used with another body.
    #[error("the Idempotency-Key was used before with another body")]
    KeyReused,
    /// It is not there.
    #[error("{entity} not found")]
    NotFound {
        /// What was looked for.
        entity: &'static str,
    },
    /// No channel of this name is built in.
    #[error("there is no channel {0}")]
    UnknownChannel(ChannelId),
    /// A credential's configuration is not what the vendor hands out.
    #[error("the configuration has {} faults", .0.len())]
    Config(Vec<ConfigError>),
    /// A credential cannot be used; the text is for people and holds no secret.
    #[error("{0}")]
    Credential(String),
    /// The caller did not prove that it may do this.
    #[error("{0}")]
    Forbidden(String),
    /// It was done before, and must not be done again.
    #[error("{0}")]
    Repeated(String),
    /// It cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a vendor posted to a callback address.
pub struct CallbackCall {
    /// The credential that the address names.
    pub credential: Option<CredentialName>,
    /// The secret of the address.
    pub secret: Option<String>,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
}

impl fmt::Debug for CallbackCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackCall")
            .field("credential", &self.credential)
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What the vendor wants to hear, with status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackReply {
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

/// How a credential's quota stands in its vendor's day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaStanding {
    /// The channel.
    pub channel: ChannelId,
    /// The credential.
    pub credential: CredentialName,
    /// Begin of the vendor's day.
    pub day_start: Timestamp,
    /// Its end: all counters begin anew.
    pub resets_at: Timestamp,
    /// Taken by the vendor, or perhaps taken, by class.
    pub used: Vec<(Class, u64)>,
    /// Limit of all classes.
    pub per_day: Option<u64>,
    /// Whether that is the vendor's own word.
    pub per_day_named: bool,
    /// The most that `marketing` may use.
    pub marketing_per_day: Option<u64>,
    /// Whether it comes of the vendor's own word.
    pub marketing_named: bool,
    /// All limits that the vendor named.
    pub named: Vec<hongyan_core::port::DailyLimit>,
    /// What of the limit of all classes is kept for `im` and `transaction`, and not used yet.
    pub reserved: u64,
    /// The same of the limit on marketing, where one of them goes out as that.
    pub marketing_reserved: u64,
    /// When the limit of all classes will be reached, should the day go on as it began.
    pub runs_out_at: Option<Timestamp>,
    /// When nothing will be left for `marketing`.
    pub marketing_runs_out_at: Option<Timestamp>,
    /// The classes of which the vendor takes no more for now, by its own word.
    pub closed: Vec<ClosedClass>,
}

/// A class that a vendor closed by saying that its quota is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedClass {
    /// The class.
    pub class: Class,
    /// Until when.
    pub until: Timestamp,
    /// The vendor's words.
    pub why: String,
}

/// What would happen to a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// For each device, in routing order.
    pub devices: Vec<DeviceExplanation>,
    /// Whether there are more devices than are listed.
    pub more: bool,
}

/// What would happen to one device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceExplanation {
    /// The device; none for a user without devices.
    pub device: Option<DeviceId>,
    /// The user it would be meant for.
    pub user: Option<UserId>,
    /// What it runs.
    pub platform: Option<Platform>,
    /// Whether it is connected.
    pub connected: bool,
    /// What would happen.
    pub would: Would,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Would {
    /// It goes to the session; `otherwise` follows if the session stays silent until then.
    Online {
        /// End of the wait for the ack.
        until: Timestamp,
        /// What follows.
        otherwise: Box<Self>,
    },
    /// It goes to the session, and at once what follows here happens beside it.
    Both {
        /// A push or its wait.
        beside: Box<Self>,
    },
    /// It goes to a vendor.
    Push {
        /// The channel.
        channel: ChannelId,
        /// The credential.
        credential: CredentialName,
        /// The exact request, or why the channel would refuse it.
        parcel: Result<Parcel, (Reason, String)>,
    },
    /// It waits.
    Hold {
        /// Until when.
        until: Timestamp,
        /// For what.
        reason: Reason,
    },
    /// It ends.
    End(Reason),
}

/// What a recall did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecallReport {
    /// Deliveries that were still open and now end as `recalled`.
    pub stopped: u64,
    /// Deliveries that a vendor withdrew.
    pub withdrawn: u64,
}

/// A vendor credential as its owner gives it.
#[derive(Debug)]
pub struct NewCredential {
    /// The vendor's configuration: a JSON object with secrets in it.
    pub config: serde_json::Value,
    /// Where the vendor is, when not at its usual address.
    pub endpoint: Option<String>,
    /// Limits of the lane, when not the channel's usual ones.
    pub limits: LaneLimits,
}

/// The operations that are more than a read or write of one record. The binary bridges them to dispatch.
#[async_trait]
pub trait Services: Send + Sync + fmt::Debug {
    /// Accepts all drafts or none; durable when it returns `Ok`.
    async fn accept(
        &self,
        app: &AppId,
        drafts: Vec<Draft>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Accepted, ServiceError>;

    /// What would happen if the draft were sent now; sends nothing.
    async fn explain(&self, app: &AppId, draft: Draft) -> Result<Explanation, ServiceError>;

    /// Stops what has not left, takes the message out of inboxes and asks vendors to withdraw it. Idempotent.
    async fn recall(&self, app: &AppId, id: MessageId) -> Result<RecallReport, ServiceError>;

    /// Binds a device to a user. When it returns, nothing of a former user can reach the device any more.
    async fn login(
        &self,
        app: &AppId,
        device: &DeviceId,
        user: &UserId,
    ) -> Result<(), ServiceError>;

    /// Unbinds a device from its user, if it has one; the same promise as [`Services::login`].
    async fn logout(&self, app: &AppId, device: &DeviceId) -> Result<(), ServiceError>;

    /// Unbinds a device because the app's server says so, and ends its connection.
    async fn kick(&self, app: &AppId, device: &DeviceId) -> Result<(), ServiceError>;

    /// Forgets a device: ends its deliveries, its connection and its record. Answers whether it was there.
    async fn delete_device(&self, app: &AppId, device: &DeviceId) -> Result<bool, ServiceError>;

    /// Forgets a user and unbinds their devices. Answers whether they were known.
    async fn forget_user(&self, app: &AppId, user: &UserId) -> Result<bool, ServiceError>;

    /// Takes up again what waits for a user's quiet hours and would not wait as their preferences are now. Idempotent.
    async fn preferences_changed(&self, app: &AppId, user: &UserId) -> Result<(), ServiceError>;

    /// The same of one device, whose time zone changed.
    async fn timezone_changed(&self, app: &AppId, device: &DeviceId) -> Result<(), ServiceError>;

    /// The key of a device's wake-ups; nothing when none of its channels sends any.
    async fn wake_key(&self, device: &Device) -> Result<Option<WakeKey>, ServiceError>;

    /// Takes what devices say over HTTP: acks and client events.
    async fn feedback(&self, events: Vec<SessionEvent>);

    /// Checks, seals and stores a credential, replacing one of the same name.
    async fn put_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
        new: NewCredential,
    ) -> Result<(), ServiceError>;

    /// Gives a credential that was read other limits, and answers what is stored then; a conflict when it changed since.
    async fn limit_credential(
        &self,
        read: Credential,
        limits: LaneLimits,
    ) -> Result<Credential, ServiceError>;

    /// How many pushes wait for this credential's vendor now.
    fn waiting(&self, app: &AppId, channel: &ChannelId, name: &CredentialName) -> usize;

    /// Deletes a credential and closes its channel. Answers whether it was there.
    async fn delete_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<bool, ServiceError>;

    /// Proves a credential with the vendor, within the vendor call deadline.
    async fn check_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<CheckReport, ServiceError>;

    /// The broadcast channels of a credential's vendor; nothing when it has none that can be managed.
    async fn broadcasts(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<Option<Arc<dyn Broadcasts>>, ServiceError>;

    /// Where the vendor of a credential may post receipts to; nothing when it posts none, or the server was given no public address.
    fn callback_url(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Option<String>;

    /// Takes what a vendor posted.
    async fn callback(
        &self,
        app: &AppId,
        channel: &ChannelId,
        call: CallbackCall,
    ) -> Result<CallbackReply, ServiceError>;

    /// How the quotas of all credentials of an app stand that have limits, or whose vendors said something today.
    async fn quotas(&self, app: &AppId) -> Result<Vec<QuotaStanding>, ServiceError>;
}

/// A place at the gateway, taken before 101 is answered and carried along with the socket; only the gateway looks inside.
pub struct Place(pub Box<dyn std::any::Any + Send>);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

/// An acceptable WebSocket request: answer 101 with these headers.
#[derive(Debug)]
pub struct Upgrade {
    /// Headers of the 101 answer, `Upgrade` and `Connection` excepted.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The place that was taken for it.
    pub place: Place,
}

/// An unacceptable WebSocket request: answer this before any upgrade.
#[derive(Debug, Clone)]
pub struct Refused {
    /// 400, 403, 426, or 429 and 503 when there is no place.
    pub status: StatusCode,
    /// Headers that belong to the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What was wrong.
    pub detail: String,
}

/// A socket after its 101 answer went out.
pub struct Adopted {
    /// The socket, non-blocking.
    pub stream: std::net::TcpStream,
    /// The TLS state, when the listener speaks TLS. It may hold decrypted bytes that were not read yet;
    /// they come after `leftover`.
    pub tls: Option<Box<Tls>>,
    /// Bytes that the client sent after its request.
    pub leftover: Bytes,
    /// The client's address.
    pub peer: SocketAddr,
    /// The place that [`Connect::check`] took.
    pub place: Place,
}

impl fmt::Debug for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopted")
            .field("tls", &self.tls.is_some())
            .field("leftover_bytes", &self.leftover.len())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Bytes of a live answer, until it ends.
pub type Bytestream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Who asks for a stream or polls.
#[derive(Debug)]
pub enum LiveCaller {
    /// A device, by its token.
    Device(Box<Device>),
    /// Whoever holds this ticket.
    Ticket(Secret),
}

/// A wish for a stream of events.
#[derive(Debug)]
pub struct StreamRequest {
    /// Who.
    pub caller: LiveCaller,
    /// The last place that the client has.
    pub cursor: Option<Cursor>,
    /// Most unacknowledged messages.
    pub inflight: Option<u16>,
    /// Coming back with the last id acknowledges, instead of `POST /v1/acks`.
    pub resume: bool,
    /// The session that the client had before, as its `welcome` named it.
    pub session: Option<String>,
    /// The page that asks, if it is one.
    pub origin: Option<String>,
    /// The client's address.
    pub peer: SocketAddr,
}

/// A poll.
#[derive(Debug)]
pub struct PollRequest {
    /// Who.
    pub device: Box<Device>,
    /// The last place that the client has processed.
    pub cursor: Option<Cursor>,
    /// How long to wait for a first message.
    pub wait: Duration,
    /// Most messages.
    pub limit: u16,
    /// The client's address.
    pub peer: SocketAddr,
}

/// What a poll is answered.
#[derive(Debug)]
pub struct PollAnswer {
    /// To be given with the next poll.
    pub cursor: Cursor,
    /// The newest place.
    pub head: Cursor,
    /// There is more.
    pub more: bool,
    /// The client's cursor was of another inbox or epoch.
    pub reset: bool,
    /// A newer poll took over.
    pub superseded: bool,
    /// Messages, each a JSON object as it stands in `msg`.
    pub messages: Vec<Vec<u8>>,
    /// Messages to be taken out of sight, each a JSON object as it stands in `recall`.
    pub recalled: Vec<Vec<u8>>,
}

/// A stream or poll was not taken.
#[derive(Debug, Clone)]
pub struct Turned {
    /// 204 (the client was replaced and is to stay away), 401, 403, 409, 410, 429 or 503.
    pub status: StatusCode,
    /// Of a 403: the app's server sent the device away.
    pub kicked: bool,
    /// What happened and what to do.
    pub detail: String,
}

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub struct From<'a> {
    /// The client's address, or that of a proxy in front.
    pub peer: SocketAddr,
    /// `https` when the listener speaks TLS.
    pub scheme: &'a Scheme,
}

/// The door to the gateway: it judges WebSocket requests to `/v1/connect` and the paths of other protocols, and takes the
/// sockets over.
#[async_trait]
pub trait Connect: Send + Sync + fmt::Debug {
    /// Judges a request and takes a place for it. `origins` are the origins that any app allows.
    ///
    /// # Errors
    /// [`Refused`] says what to answer instead of 101.
    fn check(
        &self,
        path: &str,
        method: &Method,
        version: Version,
        headers: &HeaderMap,
        origins: &[String],
        from: From<'_>,
    ) -> Result<Upgrade, Refused>;

    /// Makes `text` a single-use ticket of the device for its next connection. Answers how long it is good, or nothing
    /// when there are too many.
    fn ticket(&self, text: &Secret, device: &Device, now: Timestamp) -> Option<Duration>;

    /// Takes a socket over. Must not block; a socket that cannot be taken is closed.
    fn adopt(&self, socket: Adopted);

    /// Opens a stream of server-sent events; its bytes begin with `welcome`.
    ///
    /// # Errors
    /// [`Turned`] says what to answer instead of 200.
    async fn stream(&self, request: StreamRequest) -> Result<Bytestream, Turned>;

    /// Polls a device's inbox, and waits for a first message as long as the request says.
    ///
    /// # Errors
    /// [`Turned`] says what to answer instead of 200.
    async fn poll(&self, request: PollRequest) -> Result<PollAnswer, Turned>;

    /// A device acknowledged over HTTP, durably: its live session, if it has one, stops waiting for that.
    fn acked(&self, reader: &Reader, ack: Ack);

    /// A device's app went to the front or back.
    fn state(&self, app: &AppId, device: &DeviceId, state: AppState);
}
