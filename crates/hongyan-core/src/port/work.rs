//! Durable jobs with due time and lease.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::port::Owner;
use crate::{AppId, DeviceId, MessageId, StoreError, Timestamp};

/// Names a job; the same id is the same job, so that enqueuing twice is enqueuing once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub String);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Find the devices of a personal message's owner and plan a delivery for each.
    Route {
        /// The user or device.
        owner: Owner,
    },
    /// Plan the next page of a broadcast.
    Broadcast {
        /// Devices up to this one are done.
        after: Option<DeviceId>,
    },
    /// Take up a delivery again: its wait is over.
    Deliver {
        /// The device.
        device: DeviceId,
    },
}

/// A durable job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The app.
    pub app: AppId,
    /// The message.
    pub message: MessageId,
    /// What is to be done.
    pub kind: JobKind,
    /// When.
    pub due: Timestamp,
    /// Whether it is meant as held by the process that writes it (so that a restart takes it up at once).
    #[serde(default)]
    pub leased: bool,
}

impl Job {
    /// The job's id, made of what it does.
    #[must_use]
    pub fn id(&self) -> JobId {
        JobId(match &self.kind {
            JobKind::Route {
                owner: Owner::User(user),
            } => {
                format!("r/{}/{}/u/{user}", self.app, self.message)
            }
            JobKind::Route {
                owner: Owner::Device(device),
            } => {
                format!("r/{}/{}/d/{device}", self.app, self.message)
            }
            JobKind::Route {
                owner: Owner::Audience(_),
            }
            | JobKind::Broadcast { .. } => {
                format!("b/{}/{}", self.app, self.message)
            }
            JobKind::Deliver { device } => {
                return Self::deliver_id(&self.app, self.message, device);
            }
        })
    }

    /// Whether it plans a message to a user, so that its deliveries are for that user alone.
    #[must_use]
    pub const fn is_to_user(&self) -> bool {
        matches!(
            self.kind,
            JobKind::Route {
                owner: Owner::User(_)
            }
        )
    }

    /// The id of the job that every open delivery has.
    #[must_use]
    pub fn deliver_id(app: &AppId, message: MessageId, device: &DeviceId) -> JobId {
        JobId(format!("d/{app}/{message}/{device}"))
    }
}

/// Durable jobs. Enqueuing, moving and finishing is part of [`crate::port::WriteSet`].
///
/// Promises:
/// - a job is handed out at or after its due time, earliest first;
/// - a leased job is not handed out again before its lease ends, then it is simply due again;
/// - opening the store makes every leased job due at once (the process that held it is gone);
/// - enqueuing an id that exists moves it;
/// - finishing an unknown job does nothing.
#[async_trait]
pub trait Work: Send + Sync + std::fmt::Debug {
    /// Takes at most `limit` due jobs and holds them until `lease_until`.
    async fn lease(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError>;

    /// When the next job is due, if there is one (leased ones count with the end of their lease).
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Open jobs of a message, at most `limit`: for recall and status.
    async fn of_message(
        &self,
        app: &AppId,
        message: MessageId,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError>;

    /// How many jobs there are (may be an estimate).
    async fn open(&self) -> Result<u64, StoreError>;

    /// Resolves when a commit may have added a job that is due before those known: a hint.
    async fn changed(&self);
}
