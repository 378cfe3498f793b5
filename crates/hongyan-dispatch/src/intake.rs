//! Makes messages durable; then, and only then, says so.

use std::sync::Arc;

use hongyan_core::draft::{Draft, Fault};
use hongyan_core::limits::IDEMPOTENCY_TTL;
use hongyan_core::message::{DeliveryMode, DeviceChoice, Target};
use hongyan_core::port::{
    CommitError, Fresh, Hint, Idempotency, InboxAppend, Job, JobKind, Owner, PushEntry, PushedOut,
    WriteSet,
};
use hongyan_core::{AppId, Event, Message, MessageId, Stage, StoreError, Timestamp};

use crate::ids::Ids;
use crate::service::Ports;

/// A caller's wish to be answered the same for the same key.
#[derive(Debug, Clone)]
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

/// The messages were not accepted; nothing of them was stored.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Some drafts are not well formed.
    #[error("{} of the messages cannot be accepted", .0.len())]
    Invalid(Vec<(usize, Vec<Fault>)>),
    /// The idempotency key was used with another body.
    #[error("the Idempotency-Key was used before with another body")]
    KeyReused,
    /// The store did not take them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes messages in.
#[derive(Debug, Clone)]
pub struct Intake {
    ports: Ports,
    ids: Ids,
}

impl Intake {
    pub(crate) const fn new(ports: Ports, ids: Ids) -> Self {
        Self { ports, ids }
    }

    /// Accepts all drafts or none. When this returns `Ok` they are durable.
    ///
    /// # Errors
    /// [`AcceptError`]; nothing was stored, except that [`StoreError::Unavailable`] with `Certainty::Unknown` may have.
    pub async fn accept(
        &self,
        app: &AppId,
        drafts: Vec<Draft>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Accepted, AcceptError> {
        let now = self.ports.clock.now();
        if let Some(wanted) = &idempotency
            && let Some((hash, answer)) =
                self.ports.commit.idempotent(app, &wanted.key, now).await?
        {
            return replay(wanted, hash, &answer);
        }
        let faults: Vec<_> = drafts
            .iter()
            .enumerate()
            .map(|(i, d)| (i, d.check(now)))
            .filter(|(_, faults)| !faults.is_empty())
            .collect();
        if !faults.is_empty() {
            return Err(AcceptError::Invalid(faults));
        }
        let ids: Vec<MessageId> = drafts
            .iter()
            .map(|_| self.ids.next(now, self.ports.dice.as_ref()))
            .collect();
        let mut set = WriteSet {
            idempotency: idempotency.as_ref().map(|wanted| Idempotency {
                app: app.clone(),
                key: wanted.key.clone(),
                body_hash: wanted.body_hash,
                answer: ids.iter().flat_map(|id| *id.0.as_bytes()).collect(),
                expires_at: now.plus(IDEMPOTENCY_TTL),
            }),
            ..WriteSet::default()
        };
        let mut hints = Vec::new();
        for (draft, id) in drafts.into_iter().zip(&ids) {
            let message = Arc::new(draft.into_message(app.clone(), *id, now));
            take_in(&message, now, &mut set, &mut hints);
            set.messages.push(message);
        }
        match self.ports.commit.commit(vec![set]).await.pop() {
            Some(Ok(done)) => place(&mut hints, &done.places),
            Some(Err(CommitError::Known { body_hash, answer })) => {
                return match &idempotency {
                    Some(wanted) => replay(wanted, body_hash, &answer),
                    None => Err(AcceptError::KeyReused),
                };
            }
            Some(Err(CommitError::Store(error))) => return Err(error.into()),
            Some(Err(CommitError::Stale)) | None => {
                return Err(StoreError::Conflict { entity: "message" }.into());
            }
        }
        metrics::counter!("hongyan_intake_messages_total").increment(ids.len() as u64);
        self.ports.presence.notify(hints);
        Ok(Accepted {
            ids,
            replayed: false,
        })
    }
}

impl Intake {
    /// Makes a push durable for its device; when this returns `Ok`, it is. Answers those that wait no longer for it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was stored, except with `Certainty::Unknown`.
    pub(crate) async fn accept_push(
        &self,
        message: Arc<Message>,
    ) -> Result<Vec<PushedOut>, StoreError> {
        let mut set = WriteSet::default();
        let mut hints = Vec::new();
        take_in(&message, message.accepted_at, &mut set, &mut hints);
        set.messages.push(message);
        let committed = match self.ports.commit.commit(vec![set]).await.pop() {
            Some(Ok(committed)) => committed,
            Some(Err(CommitError::Store(error))) => return Err(error),
            Some(Err(CommitError::Known { .. } | CommitError::Stale)) | None => {
                return Err(StoreError::Conflict { entity: "message" });
            }
        };
        place(&mut hints, &committed.places);
        self.ports.presence.notify(hints);
        Ok(committed.pushed_out)
    }
}

fn replay(wanted: &IdempotencyKey, hash: [u8; 32], answer: &[u8]) -> Result<Accepted, AcceptError> {
    if hash != wanted.body_hash {
        return Err(AcceptError::KeyReused);
    }
    let ids = answer
        .chunks_exact(16)
        .filter_map(|c| uuid::Uuid::from_slice(c).ok())
        .map(MessageId)
        .collect();
    Ok(Accepted {
        ids,
        replayed: true,
    })
}

/// The owners whose lists a message stands in, or whose devices it is routed to.
pub(crate) fn owners(message: &Message) -> Vec<Owner> {
    match &message.to {
        Target::Users(users) => users.iter().cloned().map(Owner::User).collect(),
        Target::Devices(devices) => devices.iter().cloned().map(Owner::Device).collect(),
        Target::Topic(_) | Target::All => message
            .to
            .audience()
            .into_iter()
            .map(Owner::Audience)
            .collect(),
    }
}

/// Whether the router puts it into inboxes when it routes, because when or to whom is not known yet.
pub(crate) fn appended_by_router(message: &Message) -> bool {
    message.is_scheduled() || message.options.devices == DeviceChoice::Latest
}

/// The entry of a message in an owner's list.
pub(crate) fn entry(message: &Message, owner: Owner) -> InboxAppend {
    InboxAppend {
        app: message.app.clone(),
        owner,
        message: message.id,
        expires_at: message.expires_at,
        push: message.push.as_deref().map(|push| PushEntry {
            channel: push.channel.clone(),
            urgency: push.urgency,
            topic: push.topic.clone(),
        }),
    }
}

fn take_in(message: &Arc<Message>, now: Timestamp, set: &mut WriteSet, hints: &mut Vec<Hint>) {
    let due = message.options.send_at.map_or(now, |at| at.max(now));
    let in_inbox =
        message.options.delivery != DeliveryMode::OfflineOnly && !appended_by_router(message);
    // What takes the place of others, or waits apart from the ring, is found by a read alone.
    let stands_alone = message.collapses_with().is_none() && message.push.is_none();
    for owner in owners(message) {
        let kind = match &owner {
            Owner::Audience(_) => JobKind::Broadcast { after: None },
            Owner::User(_) | Owner::Device(_) => JobKind::Route {
                owner: owner.clone(),
            },
        };
        set.jobs.push(Job {
            app: message.app.clone(),
            message: message.id,
            kind,
            due,
            leased: false,
        });
        if in_inbox {
            set.inbox.push(entry(message, owner.clone()));
            hints.push(Hint {
                app: message.app.clone(),
                owner,
                fresh: stands_alone.then(|| Fresh {
                    after: 0,
                    place: 0,
                    message: Arc::clone(message),
                }),
            });
        }
    }
    set.events.push(about(message, Stage::Accepted, now));
}

/// Says where the entries came to stand, one for each hint. It is told before the caller learns the ids, so that no
/// recall overtakes it.
pub(crate) fn place(hints: &mut [Hint], places: &[u64]) {
    let known = hints.len() == places.len();
    for (at, hint) in hints.iter_mut().enumerate() {
        match (&mut hint.fresh, places.get(at).copied()) {
            (Some(fresh), Some(place)) if known && place > 0 => {
                (fresh.after, fresh.place) = (place - 1, place);
            }
            (fresh, _) => *fresh = None,
        }
    }
}

/// An event about a message as a whole.
pub(crate) fn about(message: &Message, stage: Stage, now: Timestamp) -> Event {
    Event {
        seq: 0,
        at: now,
        app: message.app.clone(),
        stage,
        reason: None,
        message: Some(message.id),
        class: Some(message.class),
        user: None,
        device: None,
        platform: None,
        channel: None,
        attempt: 0,
        until: None,
        took_ms: None,
        detail: None,
        r#final: false,
    }
}
