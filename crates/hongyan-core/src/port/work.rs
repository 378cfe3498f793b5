//! Durable jobs with due time and lease.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::port::Owner;
use crate::{AppId, DeviceId, MessageId, StoreError, Timestamp, UserId};

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

    /// The job of an id, due then: an id says all that a job is but how far a broadcast has come, which then begins anew
    /// and finds what it did before. `None` when it is no id of a job.
    #[must_use]
    pub fn of_id(id: &JobId, due: Timestamp) -> Option<Self> {
        let mut parts = id.0.splitn(4, '/');
        let (kind, app, message) = (parts.next()?, parts.next()?, parts.next()?);
        let rest = parts.next();
        let kind = match (kind, rest) {
            ("b", None) => JobKind::Broadcast { after: None },
            ("d", Some(device)) => JobKind::Deliver {
                device: DeviceId::parse(device).ok()?,
            },
            ("r", Some(owner)) => JobKind::Route {
                owner: match owner.split_once('/')? {
                    ("u", user) => Owner::User(UserId::parse(user).ok()?),
                    ("d", device) => Owner::Device(DeviceId::parse(device).ok()?),
                    _ => return None,
                },
            },
            _ => return None,
        };
        Some(Self {
            app: AppId::parse(app).ok()?,
            message: MessageId(uuid::Uuid::parse_str(message).ok()?),
            kind,
            due,
            leased: false,
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
/// - a job whose record is damaged is handed out as [`Job::of_id`] makes it, and holds up no other;
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

    /// Open jobs of a message, at most `limit`, those that still look for devices before those that deliver: for recall
    /// and status.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_known_by_its_id() {
        let app = AppId::parse("demo").unwrap();
        let message = MessageId(uuid::Uuid::from_u128(7));
        let (user, device) = (
            UserId::parse("a/b").unwrap(),
            DeviceId::parse("d1").unwrap(),
        );
        let kinds = [
            JobKind::Route {
                owner: Owner::User(user),
            },
            JobKind::Route {
                owner: Owner::Device(device.clone()),
            },
            JobKind::Broadcast { after: None },
            JobKind::Deliver { device },
        ];
        for kind in kinds {
            let job = Job {
                app: app.clone(),
                message,
                kind,
                due: Timestamp(9),
                leased: false,
            };
            assert_eq!(Job::of_id(&job.id(), Timestamp(9)), Some(job));
        }
        for strange in ["", "x", "b/demo", "r/demo/7/u/a", "d/demo", "q/a/b/c"] {
            assert_eq!(Job::of_id(&JobId(strange.into()), Timestamp(9)), None);
        }
    }
}
