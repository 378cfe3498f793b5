//! The commit point: one write set is one operation of the writer.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::limits::IDEMPOTENCY_TTL;
use hongyan_core::port::{
    Commit, CommitError, Committed, DeliveryWrite, Idempotency, InboxAppend, JobId, WriteSet,
};
use hongyan_core::{AppId, MessageId, StoreError, Timestamp};

use crate::cached::{Caches, mark_recalled, message_head, message_key, pushed_out, read_message};
use crate::embedded::Shelf;
use crate::ledger::PreparedEvent;
use crate::store::record::{Damage, Key, Parts, seal_json};
use crate::store::{Admission, Space, Txn, Urgency, View};
use crate::work::Schedule;
use crate::{inbox, ledger, maintain, work};

/// [`Commit`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedCommit(pub(crate) Arc<Shelf>);

/// A message with its key, sealed.
struct SealedMessage {
    key: Vec<u8>,
    value: Vec<u8>,
    expires_at: Timestamp,
}

/// A write set with everything encoded that can be, so that the writer has less to do.
struct Prepared {
    idempotency: Option<Idempotency>,
    /// When the caller wrote it, as far as it says.
    written_at: Timestamp,
    messages: Vec<SealedMessage>,
    inbox: Vec<InboxAppend>,
    /// Each with whether its message comes with it.
    jobs: Vec<(work::Prepared, bool)>,
    jobs_done: Vec<JobId>,
    deliveries: Vec<(DeliveryWrite, Vec<u8>)>,
    events: Vec<PreparedEvent>,
    recalled: Vec<(AppId, MessageId, Timestamp)>,
}

impl Prepared {
    fn of(set: WriteSet) -> Result<Self, StoreError> {
        let mut messages = Vec::with_capacity(set.messages.len());
        for message in &set.messages {
            let key = message_key(&message.app, message.id);
            let head = message_head();
            messages.push(SealedMessage {
                value: seal_json(Space::Message, &key, &head, message.as_ref())?,
                key,
                expires_at: message.expires_at,
            });
        }
        let mut deliveries = Vec::with_capacity(set.deliveries.len());
        for write in set.deliveries {
            let payload = ledger::delivery_payload(&write.delivery)?;
            deliveries.push((write, payload));
        }
        let said = set.messages.iter().map(|m| m.accepted_at);
        let said = said.chain(set.events.iter().map(|e| e.at)).max();
        let fallback = set.idempotency.as_ref().map_or(0, |i| {
            let ttl = i64::try_from(IDEMPOTENCY_TTL.as_millis()).unwrap_or(0);
            i.expires_at.millis().saturating_sub(ttl)
        });
        let written_at = said.unwrap_or(Timestamp(fallback));
        let new: HashSet<MessageId> = set.messages.iter().map(|m| m.id).collect();
        let jobs = set.jobs.into_iter().map(|job| {
            let is_new = new.contains(&job.message);
            Ok((work::Prepared::of(job, written_at)?, is_new))
        });
        // A message names the first event that comes with it.
        let mut named = HashSet::new();
        let events = set.events.into_iter().map(|event| {
            let first = event.message.filter(|id| new.contains(id));
            let is_first = first.is_some_and(|id| named.insert(id));
            PreparedEvent::of(event, is_first)
        });
        Ok(Self {
            written_at,
            idempotency: set.idempotency,
            messages,
            inbox: set.inbox,
            jobs: jobs.collect::<Result<_, StoreError>>()?,
            jobs_done: set.jobs_done,
            deliveries,
            events: events.collect::<Result<_, _>>()?,
            recalled: set.recalled,
        })
    }

    /// Bytes that wait with it, roughly.
    fn cost(&self) -> usize {
        let messages = self.messages.iter().map(|m| m.value.len() + 256);
        let deliveries = self
            .deliveries
            .iter()
            .map(|(_, payload)| payload.len() + 128);
        let jobs = self.jobs.iter().map(|(job, _)| job.cost());
        let events = self.events.iter().map(PreparedEvent::cost);
        let answer = self.idempotency.iter().map(|i| i.answer.len() + 256);
        let all = messages.chain(deliveries).chain(jobs).chain(events);
        256 + 128 * self.inbox.len() + all.chain(answer).sum::<usize>()
    }

    /// New messages are what admission control holds back; what follows from them must go on, and so must a recall.
    fn admission(&self) -> Admission {
        if self.messages.is_empty() || !self.recalled.is_empty() {
            Admission::Normal
        } else {
            Admission::Intake
        }
    }

    fn apply(
        self,
        txn: &mut Txn<'_>,
        caches: &Caches,
        schedule: &Arc<Schedule>,
    ) -> Result<Committed, CommitError> {
        let mut was_open = Vec::with_capacity(self.deliveries.len());
        if let Some(promise) = &self.idempotency {
            promise_once(txn, promise, self.written_at)?;
        }
        for (write, _) in &self.deliveries {
            let d = &write.delivery;
            let key = ledger::delivery_key(&d.app, d.message, &d.device);
            let current = ledger::delivery_version(txn, &key)?;
            if current.map(|(version, _)| version) != write.expected {
                return Err(CommitError::Stale);
            }
            was_open.push(current.is_some_and(|(_, open)| open));
        }
        for message in self.messages {
            maintain::remember_message(txn, message.expires_at, &message.key);
            txn.put_sealed(Space::Message, message.key, message.value);
        }
        for (app, id, at) in &self.recalled {
            recall(txn, app, *id, *at)?;
        }
        let mut places = Vec::with_capacity(self.inbox.len());
        let mut pushed_out = Vec::new();
        for entry in &self.inbox {
            let place = inbox::append(txn, caches, entry, self.written_at, &mut pushed_out)?;
            places.push(place);
        }
        for id in &self.jobs_done {
            work::finish(txn, schedule, &id.0)?;
        }
        let is_offered = self.jobs.iter().any(|(job, _)| job.is_offered());
        for (job, is_new) in self.jobs {
            work::enqueue(txn, schedule, job, is_new)?;
        }
        for ((write, payload), was_open) in self.deliveries.into_iter().zip(was_open) {
            ledger::put_delivery(txn, &write.delivery, payload, was_open);
        }
        for event in self.events {
            txn.gather().event(event);
        }
        if is_offered {
            let schedule = Arc::clone(schedule);
            txn.after(move || schedule.announce());
        }
        Ok(Committed {
            number: txn.batch_number(),
            places,
            pushed_out,
        })
    }
}

fn idempotency_key(app: &AppId, key: &str) -> Vec<u8> {
    Key::of(app).raw(key.as_bytes()).done()
}

/// A promised answer: (expiry, body hash, answer).
type Promise = (Timestamp, [u8; 32], Vec<u8>);

fn promised(view: &impl View, key: &[u8]) -> Result<Option<Promise>, StoreError> {
    let Some(payload) = view.get(Space::Idempotency, key)? else {
        return Ok(None);
    };
    let mut parts = Parts(&payload);
    match (parts.signed(), parts.raw::<32>()) {
        (Some(expires), Some(hash)) => Ok(Some((Timestamp(expires), hash, parts.rest().to_vec()))),
        _ => Err(Damage::of(Space::Idempotency, key, "it is cut short").into_store_error()),
    }
}

fn promise_once(
    txn: &mut Txn<'_>,
    promise: &Idempotency,
    now: Timestamp,
) -> Result<(), CommitError> {
    let key = idempotency_key(&promise.app, &promise.key);
    if let Some((expires_at, body_hash, answer)) = promised(txn, &key)?
        && expires_at > now
    {
        return Err(CommitError::Known { body_hash, answer });
    }
    let payload = Key::empty()
        .signed(promise.expires_at.millis())
        .raw(&promise.body_hash)
        .raw(&promise.answer);
    txn.put(Space::Idempotency, &key, payload.done());
    let kind = maintain::Kind::Idempotency;
    txn.gather().note(kind, promise.expires_at, &key);
    Ok(())
}

/// Marks a message as recalled; the first time counts, an unknown message is left alone.
fn recall(txn: &mut Txn<'_>, app: &AppId, id: MessageId, at: Timestamp) -> Result<(), StoreError> {
    let key = message_key(app, id);
    let payload = txn.get(Space::Message, &key)?;
    let Some(mut payload) = payload.filter(|p| pushed_out(p).is_none()) else {
        return Ok(());
    };
    let stored = read_message(&key, &payload)?;
    if stored.recalled.is_none() {
        if stored.message.push.is_some() {
            inbox::forget_broadcasts(txn, app, id)?;
        }
        mark_recalled(&mut payload, Some(at));
        txn.put(Space::Message, &key, payload);
    }
    Ok(())
}

#[async_trait]
impl Commit for EmbeddedCommit {
    async fn commit(&self, sets: Vec<WriteSet>) -> Vec<Result<Committed, CommitError>> {
        let mut pending = Vec::with_capacity(sets.len());
        for set in sets {
            let submitted = Prepared::of(set).and_then(|prepared| {
                // What the one writer would have to look up is in the cache when it gets there.
                for entry in &prepared.inbox {
                    inbox::expect(&self.0.store, &self.0.caches, entry)?;
                }
                let schedule = Arc::clone(&self.0.schedule);
                let caches = Arc::clone(&self.0.caches);
                let (admission, cost) = (prepared.admission(), prepared.cost());
                self.0
                    .store
                    .submit(admission, Urgency::Durable, cost, move |txn| {
                        prepared.apply(txn, &caches, &schedule)
                    })
            });
            pending.push(submitted);
        }
        let mut results = Vec::with_capacity(pending.len());
        for submitted in pending {
            results.push(match submitted {
                Ok(pending) => pending.wait().await,
                Err(e) => Err(e.into()),
            });
        }
        results
    }

    async fn idempotent(
        &self,
        app: &AppId,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError> {
        let known = promised(&self.0.store, &idempotency_key(app, key))?;
        Ok(known
            .filter(|(expires_at, ..)| *expires_at > now)
            .map(|(_, hash, answer)| (hash, answer)))
    }
}
