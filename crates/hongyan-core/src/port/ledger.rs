//! What happened: events, counters, traces.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::delivery::Delivery;
use crate::device::Platform;
use crate::{
    AppId, ChannelId, Class, DeviceId, Event, MessageId, Reason, Stage, StoreError, Timestamp,
    UserId,
};

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventFilter {
    /// All of the app, in ledger order.
    App,
    /// Of a message.
    Message(MessageId),
    /// Of a message for one user.
    MessageUser(MessageId, UserId),
    /// Of a message for one device.
    MessageDevice(MessageId, DeviceId),
    /// Of a user.
    User(UserId),
    /// Of a device.
    Device(DeviceId),
}

/// What a counter counts by; absent parts are "not applicable".
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CounterKey {
    /// Day since the epoch, UTC.
    pub day: i64,
    /// Stage.
    pub stage: Stage,
    /// Reason.
    pub reason: Option<Reason>,
    /// Class.
    pub class: Option<Class>,
    /// Channel; none for the long connection.
    pub channel: Option<ChannelId>,
    /// Platform.
    pub platform: Option<Platform>,
    /// Whether the event ended something: exactly one of each delivery's does. Counters that were written before this was
    /// told have it false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends: bool,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// What it counts.
    pub key: CounterKey,
    /// How many events.
    pub count: u64,
}

/// What happened. Appending is part of [`crate::port::WriteSet`].
///
/// Promises:
/// - events are numbered in commit order without reuse (gaps allowed);
/// - counters equal the number of events with their key, always;
/// - a page begins after the given number and is in number order;
/// - a delivery read back is the one last committed.
#[async_trait]
pub trait Ledger: Send + Sync + std::fmt::Debug {
    /// Events of the filter with `seq > after`, at most `limit`.
    async fn events(
        &self,
        app: &AppId,
        filter: EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError>;

    /// The newest event number of all apps.
    async fn head(&self) -> Result<u64, StoreError>;

    /// Resolves when the newest number is above `seq`.
    async fn wait_after(&self, seq: u64);

    /// Counters of the app for days `from..=to` (UTC days since the epoch).
    async fn counters(
        &self,
        app: &AppId,
        from: i64,
        to: i64,
    ) -> Result<Vec<CounterRow>, StoreError>;

    /// Counters of one message.
    async fn message_counters(
        &self,
        app: &AppId,
        message: MessageId,
    ) -> Result<Vec<CounterRow>, StoreError>;

    /// Deliveries by (message, device), in the order of the keys.
    async fn deliveries(
        &self,
        app: &AppId,
        keys: &[(MessageId, DeviceId)],
    ) -> Result<Vec<Option<Delivery>>, StoreError>;

    /// Deliveries of a message in device order after a device, at most `limit`.
    async fn deliveries_of(
        &self,
        app: &AppId,
        message: MessageId,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// Open (not final) deliveries of a device in message order after a message, at most `limit`: for logout and deletion.
    async fn open_of_device(
        &self,
        app: &AppId,
        device: &DeviceId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<(MessageId, DeviceId)>, StoreError>;

    /// The undelivered deliveries of a device with this collapse key.
    async fn open_with_collapse_key(
        &self,
        app: &AppId,
        device: &DeviceId,
        collapse_key: &str,
    ) -> Result<Vec<MessageId>, StoreError>;

    /// Drops what is older than `before`; answers how many records went.
    async fn expire(&self, before: Timestamp) -> Result<u64, StoreError>;
}
