//! The contract of a way out: one file per vendor implements it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Broadcasts;
use crate::device::Environment;
use crate::error::BoxError;
use crate::{
    AppId, ChannelId, Class, ClassDetail, CredentialName, DeviceId, Message, MessageId, Reason,
    Secret, Timestamp, Verdict,
};

/// What a vendor can do; the lane and the policy read it, so nothing of it is coded elsewhere.
#[derive(Debug, Clone)]
pub struct Capability {
    /// Largest payload, bytes.
    pub payload_bytes_max: usize,
    /// Tokens in one request.
    pub batch_len_max: usize,
    /// What a new lane may start with each second, in the vendor's own unit: see [`Capability::rate_counts`].
    pub rate_per_s: u32,
    /// What the vendor counts for its rate.
    pub rate_counts: RateCounts,
    /// Requests under way at once.
    pub concurrency: u32,
    /// Longest time that the vendor keeps a message.
    pub ttl_max: Duration,
    /// Whether the vendor can withdraw a sent message.
    pub recalls: bool,
    /// Whether the vendor reports deliveries.
    pub receipts: bool,
    /// How often to ask [`Channel::poll`]; `None` for vendors that have nothing to ask for.
    pub poll_every: Option<Duration>,
    /// Whether tokens belong to one of two environments.
    pub environments: bool,
    /// Whether a send may be made again when nobody knows whether the vendor took it: the vendor recognises the repeat, or the
    /// device shows both as one. Otherwise such a send ends as [`Verdict::Unknown`]. A credential may say otherwise:
    /// [`Channel::repeats`].
    pub repeatable: bool,
    /// What the vendor's word that a quota is used up closes.
    pub quota_word: QuotaWord,
}

/// What a vendor counts for its rate per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateCounts {
    /// Requests, however many devices one is for: [`Channel::requests`] says how many a batch is.
    Requests,
    /// Devices that are pushed to, however many share a request.
    Devices,
}

impl RateCounts {
    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Devices => "devices",
        }
    }
}

/// What a vendor's [`Verdict::QuotaExhausted`] closes until its day ends, or until the time that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaWord {
    /// The class of the push. One push asks again now and then, for the word may have been wrong, or the vendor gave more.
    AskedAgain,
    /// Everything that is [`CountedAs`] with it. Nobody asks before the end: calls after it count against the app.
    Final,
}

/// Which of a vendor's daily counts a push falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedAs {
    /// What the vendor calls private, system, service or communication.
    Service,
    /// What it calls public, operation, or information and marketing.
    Marketing,
}

impl CountedAs {
    /// As a class is counted where nothing else is said.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        match class {
            Class::Im | Class::Transaction | Class::Subscription => Self::Service,
            Class::Marketing => Self::Marketing,
        }
    }

    /// In keys and for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Marketing => "marketing",
        }
    }
}

/// A vendor as the wiring knows it: checks configurations and opens channels.
pub trait Vendor: Send + Sync + std::fmt::Debug {
    /// The channel's id.
    fn id(&self) -> ChannelId;

    /// What it can do.
    fn capability(&self) -> &Capability;

    /// Which of several vendors a token leads to, where a channel has more than one: each has its own rate and its own troubles.
    /// Reads the token only. One of few names, whatever the token says: devices register any.
    fn peer(&self, _token: &str) -> Option<String> {
        None
    }

    /// How many seconds the clocks by which the vendor counts its days are ahead of UTC; Beijing's, unless it says otherwise.
    fn day_offset_s(&self) -> i32 {
        8 * 3600
    }

    /// Checks a credential's configuration (a JSON object as the vendor hands it out, see the channel's page) without
    /// calling the vendor, and answers the part of it that may be shown to people.
    ///
    /// # Errors
    /// Every fault, each with the path of its field; never the secret itself.
    fn check_config(
        &self,
        config: &serde_json::Value,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Vec<ConfigError>>;

    /// Opens a channel for a credential whose configuration was checked before.
    ///
    /// # Errors
    /// [`ChannelError`] when the configuration does not hold after all.
    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError>;
}

/// A credential with its secrets opened.
#[derive(Clone)]
pub struct OpenCredential {
    /// The app.
    pub app: AppId,
    /// The credential's name.
    pub name: CredentialName,
    /// The configuration: a JSON object.
    pub config: Secret,
    /// Where the vendor is, when not at its usual address: `https://host[:port]`.
    pub endpoint: Option<String>,
    /// Where the vendor may post receipts to: a whole URL, with a secret of this credential in its query. `None` when the
    /// server has no public address.
    pub callback: Option<String>,
}

impl std::fmt::Debug for OpenCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenCredential")
            .field("app", &self.app)
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// What is wrong in a credential's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ConfigError {
    /// Where, as a JSON pointer without the leading slash.
    pub path: String,
    /// What, and what to do.
    pub problem: String,
}

/// A channel could not do its work at all (as against a vendor's [`Verdict`] on a parcel).
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The configuration does not hold.
    #[error("the credential cannot be used: {detail}")]
    Config {
        /// What, and what to do.
        detail: String,
    },
    /// Something below failed.
    #[error("{what}")]
    Failed {
        /// What failed.
        what: &'static str,
        /// The cause.
        #[source]
        source: BoxError,
    },
}

/// One device's place in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The device.
    pub device: DeviceId,
    /// Its token at this channel.
    pub token: Secret,
    /// The vendor's world, where it has several.
    pub environment: Option<Environment>,
    /// SHA-256 of the device's own token: what is made for this installation alone ends with it.
    pub secret_hash: [u8; 32],
}

/// What a device needs to tell a true wake-up from a false one.
#[derive(Debug, Clone)]
pub struct WakeKey {
    /// The device's own secret.
    pub key: Secret,
    /// The app, as its wake-ups name it.
    pub app: [u8; 4],
    /// How far the time in a wake-up may be from the device's.
    pub valid: Duration,
}

/// What the channel is to send: everything that shapes the payload, nothing that is particular to one token.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The message.
    pub message: Arc<Message>,
    /// Title after push options; `None` for a data-only push.
    pub title: Option<String>,
    /// Body after push options.
    pub body: Option<String>,
    /// Number for the icon, if it may be set.
    pub badge: Option<u32>,
    /// Package or bundle id of the devices, when known: some vendors address by it.
    pub package: Option<String>,
    /// When it is no longer worth delivering.
    pub expires_at: Timestamp,
    /// Now, for fields that need it (relative TTL, Live Activity timestamps).
    pub now: Timestamp,
    /// Same message, same value over all tries and devices: collapse ids, job keys and vendor-side de-duplication use it.
    pub dedup_key: String,
}

/// A payload and those who get it. At most `batch_len_max` recipients.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What.
    pub outbound: Outbound,
    /// To whom; all of one environment.
    pub recipients: Vec<Recipient>,
}

/// What was shortened to the vendor's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncation {
    /// `title`, `body`, `data` (left out whole: bytes before, 0 after), or a name of the channel's own.
    pub field: &'static str,
    /// Length before, in the vendor's unit.
    pub from: usize,
    /// Length after.
    pub to: usize,
}

/// Exactly what would be sent, for `explain` and golden tests; tokens and credentials are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// HTTP method and path (with `{token}` in place of a token).
    pub method: &'static str,
    /// Path.
    pub path: String,
    /// Headers that shape delivery (never authorization). Names that begin with a colon say how the vendor counts and are
    /// not sent: `:segments` of a text message.
    pub headers: Vec<(String, String)>,
    /// Body as JSON (forms are shown as an object).
    pub body: serde_json::Value,
    /// What was shortened.
    pub truncated: Vec<Truncation>,
    /// Why it goes out as a lower class than the message has, when it does: a class that the vendor did not grant.
    pub downgraded: Option<String>,
}

/// A request that a vendor made to the callback address.
#[derive(Clone, Copy)]
pub struct CallbackRequest<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// The URL as the vendor knows it, query included: some sign it.
    pub url: &'a str,
    /// Headers, names in lower case.
    pub headers: &'a [(String, String)],
    /// Body.
    pub body: &'a [u8],
    /// Now, to refuse what was signed long ago.
    pub now: Timestamp,
}

impl std::fmt::Debug for CallbackRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallbackRequest")
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl CallbackRequest<'_> {
    /// The first header of this name, which is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What a callback said, and what the vendor wants to hear.
#[derive(Debug, Clone, PartialEq)]
pub struct Callback {
    /// The news in it.
    pub receipts: Vec<Receipt>,
    /// Whether the vendor's own signature was there and right. A request without one must carry the secret of the
    /// callback address.
    pub signed: bool,
    /// Content type of the answer, which has status 200.
    pub content_type: &'static str,
    /// Body of the answer.
    pub body: String,
}

/// Why a callback is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// The signature is wrong or too old.
    #[error("the callback's signature does not hold: {0}")]
    Signature(String),
    /// Its signature was taken before, with another body.
    #[error("the callback's signature was taken before, with another body")]
    Replayed,
    /// It is not what the vendor sends, and nothing in it shows that it is from the vendor.
    #[error("the callback cannot be read: {0}")]
    Malformed(String),
    /// Its signature is right, and it is not what the vendor sends.
    #[error("the callback cannot be read, though its signature holds: {0}")]
    SignedMalformed(String),
}

/// What a vendor says about an earlier push. At least one of `message` and `vendor_id` names the push, unless the news is
/// about the token alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// What happened.
    pub kind: ReceiptKind,
    /// Our message, when the vendor gives our parameter back.
    pub message: Option<MessageId>,
    /// The vendor's id of the push, as [`Verdict::Accepted`] had it.
    pub vendor_id: Option<String>,
    /// The device token.
    pub token: Option<Secret>,
    /// When, by the vendor's clock.
    pub at: Option<Timestamp>,
    /// The vendor's words.
    pub detail: String,
}

/// A push that a vendor took before this process began.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// The vendor's id of it, as [`Verdict::Accepted`] had it.
    pub vendor_id: String,
    /// Our message.
    pub message: MessageId,
    /// The tokens that it went to.
    pub tokens: Vec<Secret>,
    /// Whether these are certainly all: a device may have been forgotten since, or have another token.
    pub whole: bool,
    /// When the vendor took it.
    pub at: Timestamp,
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptKind {
    /// It is on the device.
    Delivered,
    /// It was shown.
    Displayed,
    /// The person tapped it.
    Clicked,
    /// The person swiped it away.
    Dismissed,
    /// The token reaches nobody any more.
    TokenInvalid,
    /// Notifications are switched off on the device.
    PermissionOff,
    /// The vendor took it and did not deliver it, since the day's quota of the app, or of this kind of push, is used up. What is
    /// too much for one device is [`ReceiptKind::Failed`].
    OverQuota,
    /// The vendor took it and did not deliver it after all, for this reason.
    Failed(Reason),
    /// News that changes nothing; counted.
    Other,
}

/// Whose a daily limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOf {
    /// Every push of the credential.
    All,
    /// Those that the vendor counts as [`CountedAs::Marketing`].
    Marketing,
    /// A part of the pushes that nobody can tell beforehand, such as those that a platform sends through one maker's service:
    /// it is shown and limits nothing.
    Part,
}

/// A daily limit by a vendor's own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DailyLimit {
    /// Whose it is.
    pub of: LimitOf,
    /// Which part, in the vendor's words; empty for the whole.
    pub part: String,
    /// Pushes a day.
    pub limit: u64,
    /// How many of them the vendor counts.
    pub used: Option<u64>,
    /// When it said so.
    pub at: Timestamp,
}

/// What a check of a credential found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Whether it can be used.
    pub ok: bool,
    /// One line for a person: what is wrong and what to do.
    pub detail: String,
}

/// A way out, opened for one credential. It encodes, authenticates and makes one call; it does not retry, log, sleep,
/// or touch a port. Tokens of its own (OAuth, JWT) are cached inside, single-flight.
///
/// Promises (cases of the channel suite):
/// - `send` answers one verdict for each recipient, in order, within `deadline`;
/// - a vendor answer of every row of the vendor's error table gives the verdict that its notes ask for;
/// - an expired access token is renewed once and the call repeated once;
/// - `preview` is exactly what `send` sends;
/// - dropping the future of `send` leaks nothing;
/// - `send` never answers [`Verdict::Unknown`]: whether an uncertain send is made again is not its decision.
#[async_trait]
pub trait Channel: Send + Sync + std::fmt::Debug {
    /// What would be sent.
    ///
    /// # Errors
    /// The reason and words with which `send` would refuse it: it is never sent.
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)>;

    /// Sends the batch with one call to the vendor (or one for each recipient, where the vendor has no batches).
    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict>;

    /// Proves the credential with the vendor without disturbing a user.
    async fn check(&self, deadline: Duration) -> CheckReport;

    /// Asks the vendor to withdraw a message from a device. `None` when the vendor cannot.
    async fn recall(
        &self,
        message: &Message,
        recipients: &[Recipient],
        deadline: Duration,
    ) -> Option<Vec<Verdict>>;

    /// Reads what the vendor posted to the callback address. `None` when the vendor has no callbacks.
    fn callback(&self, _request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        None
    }

    /// Asks the vendor for its daily limits, where it has a question for them: [`Channel::limits`] then has them.
    ///
    /// # Errors
    /// When it could not be asked.
    async fn ask_limits(&self, _deadline: Duration) -> Result<(), ChannelError> {
        Ok(())
    }

    /// The daily limits that the vendor named when it was asked, or in its answers to sends; makes no call. Empty when it
    /// named none.
    fn limits(&self) -> Vec<DailyLimit> {
        Vec::new()
    }

    /// Which of the vendor's daily counts a push of this kind falls under, as this credential sends it: a class that was not
    /// granted goes out, and counts, as another.
    fn counts_as(&self, class: Class, _detail: Option<ClassDetail>) -> CountedAs {
        CountedAs::of(class)
    }

    /// Which of the credential's own vendors a token leads to that [`Vendor::peer`] does not know. One of few names as well.
    fn peer(&self, _token: &str) -> Option<String> {
        None
    }

    /// How many requests a batch of so many devices is, where the vendor's rate counts requests.
    fn requests(&self, _devices: usize) -> usize {
        1
    }

    /// Whether this credential's vendor tells of each delivery, so that silence means something; `None` when the vendor's
    /// [`Capability::receipts`] and the callback address say it all.
    fn hears(&self) -> Option<bool> {
        None
    }

    /// Whether this credential's sends may be made again when nobody knows whether the vendor took them; `None` when the
    /// vendor's [`Capability::repeatable`] says it all.
    fn repeats(&self) -> Option<bool> {
        None
    }

    /// Asks for receipts that the vendor only gives when asked. What was answered once may not come again, so the caller
    /// stores it. Called every [`Capability::poll_every`], and again at once while the answer is not empty.
    async fn poll(&self, _deadline: Duration) -> Result<Vec<Receipt>, ChannelError> {
        Ok(Vec::new())
    }

    /// Hears of pushes that the vendor took before this process began, oldest first: for channels that ask about a push later, or
    /// withdraw it by the vendor's id. Makes no call; hearing of a push twice changes nothing.
    fn remember(&self, _earlier: &[Earlier]) {}

    /// The key of a device's wake-ups, of the same installation as [`Recipient::secret_hash`]. `None` when the channel carries
    /// messages and not wake-ups.
    fn wake_key(&self, _device: &DeviceId, _secret_hash: &[u8; 32]) -> Option<WakeKey> {
        None
    }

    /// The vendor's broadcast channels, to make and delete them. `None` when the vendor has none, or no interface for that.
    fn broadcasts(self: Arc<Self>) -> Option<Arc<dyn Broadcasts>> {
        None
    }

    /// Asks which of these tokens still reach a device, without disturbing it: [`Verdict::Accepted`] for a living one.
    /// `None` when the vendor cannot say.
    async fn probe(&self, _tokens: &[Secret], _deadline: Duration) -> Option<Vec<Verdict>> {
        None
    }
}
