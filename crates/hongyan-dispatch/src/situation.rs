//! The reads before a decision, each one a batch.

use std::collections::HashMap;
use std::sync::Arc;

use hongyan_core::app::AppPolicy;
use hongyan_core::delivery::{Delivery, Next, Step};
use hongyan_core::limits::LEASE;
use hongyan_core::port::{DeliveryWrite, Job, JobKind, SessionInfo, WriteSet};
use hongyan_core::{AppId, Device, DeviceId, Message, StoreError, Timestamp, User, UserId};

use crate::choice::{Learned, Scores};
use crate::plan::{CredentialIndex, Situation};
use crate::service::Ports;

/// What an app has decided, as far as a plan needs it.
#[derive(Debug, Default)]
pub(crate) struct AppFacts {
    pub(crate) policy: AppPolicy,
    pub(crate) credentials: CredentialIndex,
    pub(crate) scores: Arc<Scores>,
}

pub(crate) async fn app_facts(
    ports: &Ports,
    learned: &Learned,
    app: &AppId,
) -> Result<AppFacts, StoreError> {
    let policy = ports
        .registry
        .app(app)
        .await?
        .map(|a| a.policy)
        .unwrap_or_default();
    let mut credentials = CredentialIndex::default();
    for c in ports.registry.credentials(app).await? {
        credentials.add(c.channel, c.name);
    }
    Ok(AppFacts {
        policy,
        credentials,
        scores: learned.scores(app),
    })
}

/// The users that these devices are bound to.
pub(crate) async fn users_of<'a>(
    ports: &Ports,
    app: &AppId,
    devices: impl Iterator<Item = &'a Device>,
) -> Result<HashMap<UserId, User>, StoreError> {
    let mut ids: Vec<UserId> = devices.filter_map(|d| d.user.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let users = ports.registry.users(app, &ids).await?;
    Ok(users
        .into_iter()
        .flatten()
        .map(|u| (u.id.clone(), u))
        .collect())
}

/// Sessions of devices.
pub(crate) fn sessions_of(
    ports: &Ports,
    app: &AppId,
    ids: Vec<DeviceId>,
) -> HashMap<DeviceId, SessionInfo> {
    let sessions = ports.presence.sessions(app, &ids);
    ids.into_iter()
        .zip(sessions)
        .filter_map(|(id, s)| Some((id, s?)))
        .collect()
}

/// Everything read for the deliveries of one app, ready for single decisions.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    pub(crate) facts: &'a AppFacts,
    pub(crate) users: HashMap<UserId, User>,
    pub(crate) sessions: HashMap<DeviceId, SessionInfo>,
    pub(crate) built_in_order: &'a [hongyan_core::ChannelId],
    pub(crate) now: Timestamp,
}

impl Read<'_> {
    pub(crate) fn situation<'s>(
        &'s self,
        message: &'s Message,
        delivery: &'s Delivery,
        device: Option<&'s Device>,
        recalled: Option<Timestamp>,
    ) -> Situation<'s> {
        Situation {
            message,
            delivery,
            device,
            user: device
                .and_then(|d| d.user.as_ref())
                .and_then(|u| self.users.get(u)),
            policy: &self.facts.policy,
            credentials: &self.facts.credentials,
            built_in_order: self.built_in_order,
            scores: &self.facts.scores,
            session: self.sessions.get(&delivery.device),
            recalled,
            now: self.now,
        }
    }
}

/// Adds a changed delivery to a write set: the record, its events, and what becomes of its job.
pub(crate) fn write(
    set: &mut WriteSet,
    delivery: &Delivery,
    expected: Option<u32>,
    steps: Vec<Step>,
    now: Timestamp,
) {
    let mut next = Next::Nothing;
    for step in steps {
        set.events
            .extend(step.happened.into_iter().map(|h| delivery.event(h, now)));
        // What only records never hides a step that moves the job.
        if next == Next::Nothing || !matches!(step.next, Next::Nothing | Next::Recorded) {
            next = step.next;
        }
    }
    if next == Next::Nothing {
        return;
    }
    set.deliveries.push(DeliveryWrite {
        delivery: delivery.clone(),
        expected,
    });
    let job = |due: Timestamp, leased: bool| Job {
        app: delivery.app.clone(),
        message: delivery.message,
        kind: JobKind::Deliver {
            device: delivery.device.clone(),
        },
        due,
        leased,
    };
    match next {
        Next::Nothing | Next::Recorded => {}
        Next::Plan => set.jobs.push(job(now, false)),
        Next::Wait(until) => set
            .jobs
            .push(job(until.min(delivery.expires_at).max(now), false)),
        Next::Push => set.jobs.push(job(now.plus(LEASE), true)),
        Next::Done => set.jobs_done.push(Job::deliver_id(
            &delivery.app,
            delivery.message,
            &delivery.device,
        )),
    }
}

/// A message with what is known of its recall.
pub(crate) type Known = HashMap<hongyan_core::MessageId, (Arc<Message>, Option<Timestamp>)>;

/// Messages of one app, with their recalls.
pub(crate) async fn messages(
    ports: &Ports,
    app: &AppId,
    mut ids: Vec<hongyan_core::MessageId>,
) -> Result<Known, StoreError> {
    ids.sort_unstable();
    ids.dedup();
    let keys: Vec<_> = ids.iter().map(|id| (app.clone(), *id)).collect();
    let mut known = Known::with_capacity(ids.len());
    for (id, message) in ids.into_iter().zip(ports.inbox.messages(&keys).await?) {
        if let Some(message) = message {
            let recalled = ports.inbox.recalled(app, id).await?;
            known.insert(id, (message, recalled));
        }
    }
    Ok(known)
}
