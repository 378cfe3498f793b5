//! What a device can still fetch.

use std::sync::Arc;

use async_trait::async_trait;

use crate::message::Audience;
use crate::{AppId, Cursor, DeviceId, Message, MessageId, Reason, StoreError, Timestamp, UserId};

/// Whose list an entry stands in.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The ring of a user: read by every device bound to them.
    User(UserId),
    /// The ring of a device: read by it whoever holds it.
    Device(DeviceId),
    /// A broadcast, stored once, read by all who belong.
    Audience(Audience),
}

/// The device that reads, as it is bound now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reader {
    /// The app.
    pub app: AppId,
    /// The device.
    pub device: DeviceId,
    /// The user it is bound to.
    pub user: Option<UserId>,
}

/// One message in an inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The place right after this entry.
    pub cursor: Cursor,
    /// The message.
    pub message: Arc<Message>,
}

/// A slice of an inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxPage {
    /// Entries in order of acceptance.
    pub entries: Vec<Entry>,
    /// Where to read on: after the last entry, or after what was skipped (expired, acked, foreign).
    pub next: Cursor,
    /// The newest place of all.
    pub head: Cursor,
    /// Personal entries that left the ring before this device fetched them.
    pub lost: u64,
    /// Whether the given cursor was foreign (other epoch or reader) and reading began at the acked place.
    pub reset: bool,
    /// Whether there is more after `next`.
    pub more: bool,
}

/// What a device says it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ack {
    /// Everything up to this place.
    Upto(Cursor),
    /// These messages.
    Ids(Vec<MessageId>),
}

/// What a device can still fetch: rings of personal messages merged with broadcasts. Appending is
/// part of [`crate::port::WriteSet`].
///
/// Promises:
/// - the order of a user's (or device's) entries is the order of their commits;
/// - a ring keeps the newest [`crate::limits::INBOX_LEN_MAX`] entries; a reader that comes too late is told how many it `lost`;
/// - a push waits apart from the ring, among those of its channel: at most [`crate::push::PUSHES_PER_CHANNEL_MAX`] of a
///   channel and [`crate::push::PUSHES_PER_DEVICE_MAX`] of a device. Beyond it the oldest of the lowest urgency is gone,
///   body and all (of the channel, or of the channel with the most); expired ones go first. A reader that begins at its
///   acked place is told how many it `lost`, and why each went is known by `pushed_out`;
/// - a push takes the place of one of the same channel and topic that is not acked;
/// - a push that was acked or recalled, or whose channel was closed, waits no longer;
/// - a broadcast is seen by a topic's subscribers from their subscription on, `all` by devices from their registration on;
/// - a device bound to a user sees what was appended after the binding began;
/// - of entries with the same [`Message::collapses_with`] that are not acked yet only the newest by [`Message::rank`] is
///   given, wherever they stand; the others are skipped;
/// - expired and recalled entries are skipped, and entries that [`Message::may_be_given_to`] refuses the reader;
/// - `ack` is idempotent; unknown, foreign and future places do no harm and ack nothing;
/// - acked places survive a restart (at most 50 ms of acks may be lost in a crash: those entries come again);
/// - a cursor of another epoch or reader reads from the acked place and says `reset`.
#[async_trait]
pub trait Inbox: Send + Sync + std::fmt::Debug {
    /// Reads at most `limit` entries after `after`, or after the device's acked place when `None`.
    /// Entries acked by id above the acked place are left out. Messages that expired by `now` too.
    async fn read(
        &self,
        reader: &Reader,
        after: Option<Cursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<InboxPage, StoreError>;

    /// Records what the device has; answers the message ids that this call acked for the first time, all of them. What is
    /// acked by id is found wherever it stands. One call acks some ten thousand at most: of a place that is further away
    /// it records as much as it answers, and the rest comes again. So it is when the store fails half-way.
    async fn ack(
        &self,
        reader: &Reader,
        ack: Ack,
        now: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError>;

    /// Those of these messages that the reader has acknowledged and would be given again had it not: they stand in its
    /// lists. What has left a ring is not among them, for nobody knows any more, nor what would be skipped anyhow, nor what
    /// collapses with others, nor a push, of which nothing stays.
    async fn acked(
        &self,
        reader: &Reader,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError>;

    /// The newest place.
    async fn head(&self, reader: &Reader) -> Result<Cursor, StoreError>;

    /// The message itself, while it is kept.
    async fn message(&self, app: &AppId, id: MessageId)
    -> Result<Option<Arc<Message>>, StoreError>;

    /// Many messages, in the order of the ids.
    async fn messages(
        &self,
        ids: &[(AppId, MessageId)],
    ) -> Result<Vec<Option<Arc<Message>>>, StoreError>;

    /// Whether the message was recalled, and when.
    async fn recalled(&self, app: &AppId, id: MessageId) -> Result<Option<Timestamp>, StoreError>;

    /// Why a push is gone before its time, body and all: [`Reason::Collapsed`] or [`Reason::Overflowed`], as it was told in
    /// [`crate::port::PushedOut`]. `None` of every other message. Known as long as its events are.
    async fn pushed_out(&self, app: &AppId, id: MessageId) -> Result<Option<Reason>, StoreError>;
}
