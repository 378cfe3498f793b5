//! What happened: events (`events.rs`), counters, deliveries.

mod events;

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::delivery::Delivery;
use hongyan_core::port::{CounterRow, EventFilter, Ledger};
use hongyan_core::{AppId, DeviceId, Event, MessageId, StoreError, Timestamp};

use crate::embedded::Shelf;
use crate::maintain;
use crate::store::record::{Damage, Key, Parts, after, decode, encode, prefix_end};
use crate::store::{Range, Rows, Space, Txn, View};

/// Counters of one app that are answered: days times the product of the words.
const COUNTERS_MAX: usize = 200_000;

pub(crate) use events::{HEAD, OldestEvents, PreparedEvent, append, drop_slice, keep_first};

/// [`Ledger`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedLedger(pub(crate) Arc<Shelf>);

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
    let json = encode("delivery", delivery)?;
    let head = Key::sized(5 + json.len()).raw(&delivery.version.to_be_bytes());
    Ok(head.raw(&[open]).raw(&json).done())
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
                events::find(&shelf.store, &app, &filter, after, limit)
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
        let app = app.clone();
        self.0
            .read(move |shelf| events::counters_of(&shelf.store, &app, message))
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
