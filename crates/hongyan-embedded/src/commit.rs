//! The commit point: one write set is one operation of the writer.

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::limits::IDEMPOTENCY_TTL;
use hongyan_core::port::{
    Commit, CommitError, Committed, DeliveryWrite, Idempotency, InboxAppend, JobId, WriteSet,
};
use hongyan_core::{AppId, MessageId, StoreError, Timestamp};
use tokio::sync::watch;

use crate::cached::{message_key, message_payload, read_message};
use crate::embedded::Shelf;
use crate::store::record::{Damage, Key, Parts, encode};
use crate::store::{Admission, Space, Txn, Urgency, View};
use crate::work::Schedule;
use crate::{inbox, ledger, maintain, work};

/// [`Commit`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedCommit(pub(crate) Arc<Shelf>);

/// A write set with everything encoded that can be, so that the writer has less to do.
struct Prepared {
    idempotency: Option<Idempotency>,
    /// When the caller wrote it, as far as it says.
    written_at: Timestamp,
    messages: Vec<(AppId, MessageId, Timestamp, Vec<u8>)>,
    inbox: Vec<InboxAppend>,
    jobs: Vec<work::Prepared>,
    jobs_done: Vec<JobId>,
    deliveries: Vec<(DeliveryWrite, Vec<u8>)>,
    events: Vec<ledger::PreparedEvent>,
    recalled: Vec<(AppId, MessageId, Timestamp)>,
}

impl Prepared {
    fn of(set: WriteSet) -> Result<Self, StoreError> {
        let mut messages = Vec::with_capacity(set.messages.len());
        for message in &set.messages {
            let json = encode("message", message.as_ref())?;
            messages.push((message.app.clone(), message.id, message.expires_at, json));
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
        Ok(Self {
            written_at: said.unwrap_or(Timestamp(fallback)),
            idempotency: set.idempotency,
            messages,
            inbox: set.inbox,
            jobs: set
                .jobs
                .iter()
                .map(work::Prepared::of)
                .collect::<Result<_, _>>()?,
            jobs_done: set.jobs_done,
            deliveries,
            events: set
                .events
                .iter()
                .map(ledger::PreparedEvent::of)
                .collect::<Result<_, _>>()?,
            recalled: set.recalled,
        })
    }

    /// Bytes that wait with it, roughly.
    fn cost(&self) -> usize {
        let messages = self.messages.iter().map(|(.., json)| json.len() + 256);
        let deliveries = self
            .deliveries
            .iter()
            .map(|(_, payload)| payload.len() + 128);
        let jobs = self.jobs.iter().map(work::Prepared::cost);
        let events = self.events.iter().map(ledger::PreparedEvent::cost);
        let answer = self.idempotency.iter().map(|i| i.answer.len() + 256);
        let all = messages.chain(deliveries).chain(jobs).chain(events);
        256 + 128 * self.inbox.len() + all.chain(answer).sum::<usize>()
    }

    /// New messages are what admission control holds back; what follows from them must go on.
    fn admission(&self) -> Admission {
        if self.messages.is_empty() {
            Admission::Normal
        } else {
            Admission::Intake
        }
    }

    fn apply(
        self,
        txn: &mut Txn<'_>,
        schedule: &Arc<Schedule>,
        events: &Arc<watch::Sender<u64>>,
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
        for (app, id, expires_at, json) in self.messages {
            let key = message_key(&app, id);
            txn.put(Space::Message, &key, message_payload(None, &json));
            maintain::remember_message(txn, expires_at, &key);
        }
        for (app, id, at) in &self.recalled {
            recall(txn, app, *id, *at)?;
        }
        let mut places = Vec::with_capacity(self.inbox.len());
        for entry in &self.inbox {
            places.push(inbox::append(txn, entry)?);
        }
        for id in &self.jobs_done {
            work::finish(txn, id)?;
        }
        for job in &self.jobs {
            work::enqueue(txn, schedule, job)?;
        }
        for ((write, payload), was_open) in self.deliveries.into_iter().zip(was_open) {
            ledger::put_delivery(txn, &write.delivery, payload, was_open);
        }
        let mut newest = 0;
        for event in &self.events {
            newest = ledger::append(txn, event)?;
        }
        if newest > 0 {
            let events = Arc::clone(events);
            txn.after(move || {
                events.send_if_modified(|head| {
                    let grows = *head < newest;
                    *head = newest.max(*head);
                    grows
                });
            });
        }
        if self.jobs.iter().any(work::Prepared::is_offered) {
            let schedule = Arc::clone(schedule);
            txn.after(move || work::announce(&schedule));
        }
        Ok(Committed {
            number: txn.batch_number(),
            places,
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
    maintain::remember(txn, maintain::Kind::Idempotency, promise.expires_at, &key);
    Ok(())
}

/// Marks a message as recalled; the first time counts, an unknown message is left alone.
fn recall(txn: &mut Txn<'_>, app: &AppId, id: MessageId, at: Timestamp) -> Result<(), StoreError> {
    let key = message_key(app, id);
    let Some(payload) = txn.get(Space::Message, &key)? else {
        return Ok(());
    };
    if read_message(&key, &payload)?.recalled.is_none() {
        let json = payload.get(8..).unwrap_or_default();
        txn.put(Space::Message, &key, message_payload(Some(at), json));
    }
    Ok(())
}

#[async_trait]
impl Commit for EmbeddedCommit {
    async fn commit(&self, sets: Vec<WriteSet>) -> Vec<Result<Committed, CommitError>> {
        let mut pending = Vec::with_capacity(sets.len());
        for set in sets {
            let submitted = Prepared::of(set).and_then(|prepared| {
                let schedule = Arc::clone(&self.0.schedule);
                let events = Arc::clone(&self.0.events);
                let (admission, cost) = (prepared.admission(), prepared.cost());
                self.0
                    .store
                    .submit(admission, Urgency::Durable, cost, move |txn| {
                        prepared.apply(txn, &schedule, &events)
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
