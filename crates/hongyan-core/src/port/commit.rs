//! The one commit point: inbox, work and ledger change together or not at all.

use std::sync::Arc;

use async_trait::async_trait;

use crate::delivery::Delivery;
use crate::port::{Job, JobId, Owner};
use crate::push::Urgency;
use crate::{
    AppId, DeviceId, Event, Message, MessageId, PushChannel, Reason, StoreError, Timestamp,
};

/// An entry to append to an owner's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxAppend {
    /// The app.
    pub app: AppId,
    /// Whose list.
    pub owner: Owner,
    /// The message, in [`WriteSet::messages`] or stored before.
    pub message: MessageId,
    /// When it leaves the list.
    pub expires_at: Timestamp,
    /// Of a push: it waits among those of its channel, apart from the ring. The owner is the device.
    pub push: Option<PushEntry>,
}

/// How a push waits among the others of its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushEntry {
    /// The channel that it came over.
    pub channel: PushChannel,
    /// Of too many, the oldest of the lowest urgency is the first to go.
    pub urgency: Urgency,
    /// What it takes the place of while that waits.
    pub topic: Option<String>,
}

/// A push that waits no longer because of what was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedOut {
    /// The app.
    pub app: AppId,
    /// Whose it was.
    pub device: DeviceId,
    /// Itself. Its body is gone.
    pub message: MessageId,
    /// [`Reason::Collapsed`] when one of the same topic took its place, [`Reason::Overflowed`] when too many waited.
    pub reason: Reason,
}

/// A delivery to write, if it still has the version that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryWrite {
    /// The delivery with its *new* version.
    pub delivery: Delivery,
    /// The version that was read; `None` when it must not exist yet.
    pub expected: Option<u32>,
}

/// A promise to answer the same key with the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The app.
    pub app: AppId,
    /// The caller's key.
    pub key: String,
    /// SHA-256 of the request body.
    pub body_hash: [u8; 32],
    /// The answer to repeat.
    pub answer: Vec<u8>,
    /// When it is forgotten.
    pub expires_at: Timestamp,
}

/// What changes together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WriteSet {
    /// Checked first: a known key refuses the set with what it promised.
    pub idempotency: Option<Idempotency>,
    /// Messages to store.
    pub messages: Vec<Arc<Message>>,
    /// Entries to append, numbered in this order.
    pub inbox: Vec<InboxAppend>,
    /// Jobs to enqueue or move.
    pub jobs: Vec<Job>,
    /// Jobs that are done.
    pub jobs_done: Vec<JobId>,
    /// Deliveries to write.
    pub deliveries: Vec<DeliveryWrite>,
    /// Events to append; counters follow from them.
    pub events: Vec<Event>,
    /// Messages to mark as recalled, with the time: they leave all inboxes.
    pub recalled: Vec<(AppId, MessageId, Timestamp)>,
}

/// The set is durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// Number of the batch it was in; grows.
    pub number: u64,
    /// The place of each [`WriteSet::inbox`] entry in its owner's list (broadcasts: in all of the app's), in order. Places
    /// are dense: each is one more than the one before.
    pub places: Vec<u64>,
    /// Pushes that wait no longer because of this.
    pub pushed_out: Vec<PushedOut>,
}

/// The set was not written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The idempotency key is known: with the same body, repeat the answer; else it is a conflict.
    #[error("the idempotency key was used before")]
    Known {
        /// SHA-256 of the body that used it first.
        body_hash: [u8; 32],
        /// What was answered.
        answer: Vec<u8>,
    },
    /// A delivery has another version than expected: read again and decide again.
    #[error("a delivery changed since it was read")]
    Stale,
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The commit point.
///
/// Promises:
/// - each set is applied whole or not at all, and is durable (fsync'ed) when the call returns;
/// - sets of one call are applied in order; one that is refused does not hold up the others;
/// - a set whose delivery version or idempotency key does not fit is refused and changes nothing;
/// - a reader that starts after the call sees the set.
#[async_trait]
pub trait Commit: Send + Sync + std::fmt::Debug {
    /// Commits the sets; one result for each, in order.
    async fn commit(&self, sets: Vec<WriteSet>) -> Vec<Result<Committed, CommitError>>;

    /// What an idempotency key was answered with, if it is known at `now`: (body hash, answer).
    async fn idempotent(
        &self,
        app: &AppId,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError>;
}
