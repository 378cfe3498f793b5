//! What happened: events with their indexes, counters, deliveries.

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::delivery::Delivery;
use hongyan_core::port::{CounterKey, CounterRow, EventFilter, Ledger};
use hongyan_core::{AppId, DeviceId, Event, MessageId, StoreError, Timestamp, UserId};

use crate::embedded::Shelf;
use crate::maintain;
use crate::store::record::{Damage, Key, Parts, after, decode, encode, prefix_end};
use crate::store::{Range, Rows, Space, Txn, View};

/// The newest event number.
pub(crate) const HEAD: &[u8] = b"events";
/// Rows of an index that are looked at in one go.
const PAGE: usize = 1_000;
/// Counters of one app that are answered: days times the product of the words.
const COUNTERS_MAX: usize = 200_000;

/// [`Ledger`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedLedger(pub(crate) Arc<Shelf>);

/// An event, ready to be written.
#[derive(Debug)]
pub(crate) struct PreparedEvent {
    event: Event,
    json: Vec<u8>,
    counter: Vec<u8>,
}

impl PreparedEvent {
    pub(crate) fn of(event: &Event) -> Result<Self, StoreError> {
        let mut event = event.clone();
        event.seq = 0;
        let counter = CounterKey {
            day: event.at.day(),
            stage: event.stage,
            reason: event.reason,
            class: event.class,
            channel: event.channel.clone(),
            platform: event.platform,
        };
        Ok(Self {
            json: encode("event", &event)?,
            counter: encode("counter", &counter)?,
            event,
        })
    }

    pub(crate) fn cost(&self) -> usize {
        self.json.len() + self.counter.len() + 256
    }
}

fn bump(txn: &mut Txn<'_>, space: Space, key: Vec<u8>) -> Result<(), StoreError> {
    let count = txn.number(space, &key)?.unwrap_or(0);
    txn.put_number(space, key, count + 1);
    Ok(())
}

/// Appends an event and counts it; answers its number. Runs in the writer.
pub(crate) fn append(txn: &mut Txn<'_>, prepared: &PreparedEvent) -> Result<u64, StoreError> {
    let seq = txn.number(Space::Meta, HEAD)?.unwrap_or(0) + 1;
    txn.put_number(Space::Meta, HEAD, seq);
    let event = &prepared.event;
    let app = &event.app;
    txn.put(
        Space::Event,
        Key::of(app).number(seq),
        prepared.json.clone(),
    );
    let message: &[u8] = match &event.message {
        Some(id) => id.0.as_bytes(),
        None => &[],
    };
    if event.message.is_some() {
        let key = Key::of(app).raw(message).number(seq);
        txn.put(Space::EventByMessage, key, []);
        let key = Key::of(app).raw(message).raw(&prepared.counter);
        bump(txn, Space::MessageCounter, key.done())?;
    }
    if let Some(device) = &event.device {
        let key = Key::of(app).text(device).number(seq);
        txn.put(Space::EventByDevice, key, message);
    }
    if let Some(user) = &event.user {
        let key = Key::of(app).text(user).number(seq);
        txn.put(Space::EventByUser, key, message);
    }
    let key = Key::of(app)
        .signed(event.at.day())
        .raw(&prepared.counter)
        .done();
    bump(txn, Space::Counter, key)?;
    Ok(seq)
}

fn event_key(app: &AppId, seq: u64) -> Vec<u8> {
    Key::of(app).number(seq).done()
}

fn read_event(key: &[u8], payload: &[u8]) -> Result<Event, StoreError> {
    let mut event: Event = decode(Space::Event, key, payload)?;
    event.seq = number_at_end(key);
    Ok(event)
}

/// The number at the end of an index key.
fn number_at_end(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |n| u64::from_be_bytes(*n))
}

pub(crate) fn delivery_key(app: &AppId, message: MessageId, device: &DeviceId) -> Vec<u8> {
    Key::of(app).raw(message.0.as_bytes()).text(device).done()
}

fn open_key(app: &AppId, device: &DeviceId, message: MessageId) -> Vec<u8> {
    Key::of(app).text(device).raw(message.0.as_bytes()).done()
}

/// The version of a stored delivery and whether it is open: what the writer needs of it.
pub(crate) fn delivery_version(
    view: &impl View,
    key: &[u8],
) -> Result<Option<(u32, bool)>, StoreError> {
    let Some(payload) = view.get(Space::Delivery, key)? else {
        return Ok(None);
    };
    let mut parts = Parts(&payload);
    match (parts.raw::<4>(), parts.raw::<1>()) {
        (Some(version), Some([open])) => Ok(Some((u32::from_be_bytes(version), open == 1))),
        _ => Err(Damage::of(Space::Delivery, key, "it is cut short").into_store_error()),
    }
}

/// The stored form of a delivery: version, whether it is open, JSON.
pub(crate) fn delivery_payload(delivery: &Delivery) -> Result<Vec<u8>, StoreError> {
    let open = u8::from(delivery.outcome().is_none());
    let head = Key::empty().raw(&delivery.version.to_be_bytes());
    Ok(head.raw(&[open]).raw(&encode("delivery", delivery)?).done())
}

/// Writes a delivery and keeps the index of open ones in step. Runs in the writer.
pub(crate) fn put_delivery(
    txn: &mut Txn<'_>,
    delivery: &Delivery,
    payload: Vec<u8>,
    was_open: bool,
) {
    let (app, message, device) = (&delivery.app, delivery.message, &delivery.device);
    let is_open = delivery.outcome().is_none();
    let key = open_key(app, device, message);
    if is_open && !was_open {
        let mut collapse = Vec::new();
        if let Some(text) = &delivery.collapse_key {
            collapse.push(1);
            collapse.extend_from_slice(text.as_bytes());
        }
        txn.put(Space::OpenDelivery, key, collapse);
    } else if was_open && !is_open {
        txn.remove(Space::OpenDelivery, key);
    }
    txn.put(Space::Delivery, delivery_key(app, message, device), payload);
}

fn read_delivery(key: &[u8], payload: &[u8]) -> Result<Delivery, StoreError> {
    decode(Space::Delivery, key, payload.get(5..).unwrap_or_default())
}

fn index_rows(
    view: &impl View,
    space: Space,
    prefix: &Key,
    after_seq: u64,
    limit: usize,
) -> Result<Rows, StoreError> {
    let from = after(prefix.clone().number(after_seq).as_ref());
    let end = prefix_end(prefix.as_ref());
    view.range(space, Range::forward(&from, end.as_deref(), limit))
}

/// Numbers in an index, only those of one message if it is given.
fn numbers(
    view: &impl View,
    space: Space,
    prefix: &Key,
    message: Option<MessageId>,
    mut after_seq: u64,
    limit: usize,
) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    loop {
        let page = if message.is_some() { PAGE } else { limit };
        let rows = index_rows(view, space, prefix, after_seq, page)?;
        let is_last = rows.len() < page;
        for (key, of) in rows {
            after_seq = number_at_end(&key);
            if message.is_none_or(|m| m.0.as_bytes() == of.as_slice()) {
                found.push(after_seq);
            }
            if found.len() == limit {
                return Ok(found);
            }
        }
        if is_last {
            return Ok(found);
        }
    }
}

fn events(
    view: &impl View,
    app: &AppId,
    filter: EventFilter,
    after_seq: u64,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let of = |id: MessageId| Key::of(app).raw(id.0.as_bytes());
    let user_key = |user: &UserId| Key::of(app).text(user);
    let device_key = |device: &DeviceId| Key::of(app).text(device);
    let (space, prefix, message) = match filter {
        EventFilter::App => {
            let rows = index_rows(view, Space::Event, &Key::of(app), after_seq, limit)?;
            return rows.iter().map(|(k, v)| read_event(k, v)).collect();
        }
        EventFilter::Message(id) => (Space::EventByMessage, of(id), None),
        EventFilter::MessageUser(id, user) => (Space::EventByUser, user_key(&user), Some(id)),
        EventFilter::MessageDevice(id, device) => {
            (Space::EventByDevice, device_key(&device), Some(id))
        }
        EventFilter::User(user) => (Space::EventByUser, user_key(&user), None),
        EventFilter::Device(device) => (Space::EventByDevice, device_key(&device), None),
    };
    let mut found = Vec::new();
    for seq in numbers(view, space, &prefix, message, after_seq, limit)? {
        let key = event_key(app, seq);
        if let Some(payload) = view.get(Space::Event, &key)? {
            found.push(read_event(&key, &payload)?);
        }
    }
    Ok(found)
}

fn counter_rows(rows: Rows, space: Space, head: usize) -> Result<Vec<CounterRow>, StoreError> {
    let mut counters = Vec::with_capacity(rows.len());
    for (key, payload) in rows {
        let counter = decode(space, &key, key.get(head..).unwrap_or_default())?;
        let count = Parts(&payload).number().unwrap_or(0);
        counters.push(CounterRow {
            key: counter,
            count,
        });
    }
    Ok(counters)
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn events(
        &self,
        app: &AppId,
        filter: EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let app = app.clone();
        self.0
            .read(move |shelf| {
                if limit == 0 {
                    return Ok(Vec::new());
                }
                events(&shelf.store, &app, filter, after, limit)
            })
            .await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        Ok(*self.0.events.borrow())
    }

    async fn wait_after(&self, seq: u64) {
        let mut newest = self.0.events.subscribe();
        // The sender lives as long as this port.
        let _ = newest.wait_for(|head| *head > seq).await;
    }

    async fn counters(
        &self,
        app: &AppId,
        from: i64,
        to: i64,
    ) -> Result<Vec<CounterRow>, StoreError> {
        let head = Key::of(app);
        let start = head.clone().signed(from).done();
        let end = head.clone().signed(to.saturating_add(1)).done();
        let head = head.as_ref().len() + 8;
        self.0
            .read(move |shelf| {
                let range = Range::forward(&start, Some(&end), COUNTERS_MAX);
                let rows = shelf.store.range(Space::Counter, range)?;
                counter_rows(rows, Space::Counter, head)
            })
            .await
    }

    async fn message_counters(
        &self,
        app: &AppId,
        message: MessageId,
    ) -> Result<Vec<CounterRow>, StoreError> {
        let prefix = Key::of(app).raw(message.0.as_bytes()).done();
        self.0
            .read(move |shelf| {
                let rows = shelf
                    .store
                    .prefix(Space::MessageCounter, &prefix, COUNTERS_MAX)?;
                counter_rows(rows, Space::MessageCounter, prefix.len())
            })
            .await
    }

    async fn deliveries(
        &self,
        app: &AppId,
        keys: &[(MessageId, DeviceId)],
    ) -> Result<Vec<Option<Delivery>>, StoreError> {
        let keys: Vec<_> = keys
            .iter()
            .map(|(message, device)| delivery_key(app, *message, device))
            .collect();
        let one = keys.len() <= 1;
        let read = move |shelf: &Shelf| {
            keys.iter()
                .map(|key| match shelf.store.get(Space::Delivery, key)? {
                    Some(payload) => read_delivery(key, &payload).map(Some),
                    None => Ok(None),
                })
                .collect()
        };
        if one {
            return read(&self.0);
        }
        self.0.read(read).await
    }

    async fn deliveries_of(
        &self,
        app: &AppId,
        message: MessageId,
        after_device: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let prefix = Key::of(app).raw(message.0.as_bytes()).done();
        let from = match after_device {
            Some(device) => after(&delivery_key(app, message, &device)),
            None => prefix.clone(),
        };
        self.0
            .read(move |shelf| {
                let end = prefix_end(&prefix);
                let range = Range::forward(&from, end.as_deref(), limit);
                let rows = shelf.store.range(Space::Delivery, range)?;
                rows.iter().map(|(k, v)| read_delivery(k, v)).collect()
            })
            .await
    }

    async fn open_of_device(
        &self,
        app: &AppId,
        device: &DeviceId,
        last: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<(MessageId, DeviceId)>, StoreError> {
        let prefix = Key::of(app).text(device).done();
        let device = device.clone();
        self.0
            .read(move |shelf| {
                let end = prefix_end(&prefix);
                let from = match last {
                    Some(last) => after(Key::empty().raw(&prefix).raw(last.0.as_bytes()).as_ref()),
                    None => prefix.clone(),
                };
                let range = Range::forward(&from, end.as_deref(), limit);
                let rows = shelf.store.range(Space::OpenDelivery, range)?;
                let ids = rows.iter().filter_map(|(key, _)| message_at_end(key));
                Ok(ids.map(|id| (id, device.clone())).collect())
            })
            .await
    }

    async fn open_with_collapse_key(
        &self,
        app: &AppId,
        device: &DeviceId,
        collapse_key: &str,
    ) -> Result<Vec<MessageId>, StoreError> {
        let prefix = Key::of(app).text(device).done();
        let wanted = [&[1], collapse_key.as_bytes()].concat();
        self.0
            .read(move |shelf| {
                let rows = shelf
                    .store
                    .prefix(Space::OpenDelivery, &prefix, COUNTERS_MAX)?;
                let same = rows.iter().filter(|(_, key)| *key == wanted);
                Ok(same.filter_map(|(key, _)| message_at_end(key)).collect())
            })
            .await
    }

    async fn expire(&self, before: Timestamp) -> Result<u64, StoreError> {
        maintain::expire_ledger(&self.0, before).await
    }
}

fn message_at_end(key: &[u8]) -> Option<MessageId> {
    key.last_chunk::<16>()
        .map(|bytes| MessageId(uuid::Uuid::from_bytes(*bytes)))
}
