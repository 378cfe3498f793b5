//! Dropping what has had its time, in bounded slices.
//!
//! What expires leaves a note in [`Space::Expiry`] when it is written: kind, time, key. A sweep reads
//! the notes whose time has come and asks the record itself whether it is still to go.

use std::sync::Arc;

use hongyan_core::limits::LEDGER_TTL;
use hongyan_core::{AppId, Event, MessageId, StoreError, Timestamp};

use crate::embedded::Shelf;
use crate::store::record::{Key, Parts, after, decode, prefix_end};
use crate::store::{Admission, Range, Rows, Space, Txn, Urgency, View};
use crate::{inbox, registry};

/// Notes worked off in one slice, so that a sweep delays a push by one batch at most.
const SLICE: usize = 512;
/// Slices of one call.
const SLICES_MAX: usize = 64;

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message body, with its broadcast entry.
    Message = 1,
    /// Deliveries and counters of a message.
    Deliveries = 2,
    /// A promised answer.
    Idempotency = 3,
    /// A window.
    Quota = 4,
}

/// Leaves a note to drop a record at a time.
pub(crate) fn remember(txn: &mut Txn<'_>, kind: Kind, at: Timestamp, key: &[u8]) {
    let note = Key::empty().raw(&[kind as u8]).signed(at.millis()).raw(key);
    txn.put(Space::Expiry, note, []);
}

/// Leaves the notes of a message: its body is kept as long as what happened to it.
pub(crate) fn remember_message(txn: &mut Txn<'_>, expires_at: Timestamp, key: &[u8]) {
    remember(txn, Kind::Message, expires_at.plus(LEDGER_TTL), key);
    remember(txn, Kind::Deliveries, expires_at, key);
}

/// Notes of a kind whose time was before `before`.
fn notes(view: &impl View, kind: Kind, before: Timestamp) -> Result<Rows, StoreError> {
    let from = [kind as u8];
    let to = Key::empty().raw(&from).signed(before.millis()).done();
    view.range(Space::Expiry, Range::forward(&from, Some(&to), SLICE))
}

async fn write(
    shelf: &Arc<Shelf>,
    run: impl FnOnce(&mut Txn<'_>) -> Result<u64, StoreError> + Send + 'static,
) -> Result<u64, StoreError> {
    shelf
        .store
        .write(Admission::Maintenance, Urgency::Relaxed, 1 << 16, run)
        .await
}

/// Works off the notes of a kind, at most [`SLICES_MAX`] slices.
async fn sweep(
    shelf: &Arc<Shelf>,
    kind: Kind,
    before: Timestamp,
    budget: &mut usize,
) -> Result<u64, StoreError> {
    let mut total = 0;
    while *budget > 0 {
        *budget -= 1;
        let rows = shelf
            .read(move |shelf| notes(&shelf.store, kind, before))
            .await?;
        let is_last = rows.len() < SLICE;
        if rows.is_empty() {
            break;
        }
        total += write(shelf, move |txn| {
            let mut removed = 0;
            for (note, _) in rows {
                let key = note.get(9..).unwrap_or_default();
                let gone = drop_record(txn, kind, key, before)?;
                removed += gone.removed;
                if gone.is_done {
                    txn.remove(Space::Expiry, &note);
                }
            }
            Ok(removed)
        })
        .await?;
        if is_last {
            break;
        }
    }
    Ok(total)
}

/// What became of one note.
struct Gone {
    removed: u64,
    /// Whether the note itself may go.
    is_done: bool,
}

fn drop_record(
    txn: &mut Txn<'_>,
    kind: Kind,
    key: &[u8],
    before: Timestamp,
) -> Result<Gone, StoreError> {
    let removed = match kind {
        Kind::Message => drop_message(txn, key)?,
        Kind::Deliveries => return drop_deliveries(txn, key),
        Kind::Idempotency => {
            let expires = txn.get(Space::Idempotency, key)?;
            let expires = expires.and_then(|p| Parts(&p).signed());
            drop_if(txn, Space::Idempotency, key, expires, before)
        }
        Kind::Quota => {
            let resets = txn.get(Space::Quota, key)?.and_then(|p| {
                let mut parts = Parts(&p);
                parts.number()?;
                parts.signed()
            });
            drop_if(txn, Space::Quota, key, resets, before)
        }
    };
    Ok(Gone {
        removed,
        is_done: true,
    })
}

fn drop_if(
    txn: &mut Txn<'_>,
    space: Space,
    key: &[u8],
    ends: Option<i64>,
    before: Timestamp,
) -> u64 {
    let over = ends.is_some_and(|at| at < before.millis());
    if over {
        txn.remove(space, key);
    }
    u64::from(over)
}

/// `app, message` of a note.
fn message_of(key: &[u8]) -> Option<(AppId, MessageId)> {
    let mut parts = Parts(key);
    let app = AppId::parse(parts.text()?).ok()?;
    Some((app, MessageId(uuid::Uuid::from_bytes(parts.raw()?))))
}

fn drop_message(txn: &mut Txn<'_>, key: &[u8]) -> Result<u64, StoreError> {
    if txn.get(Space::Message, key)?.is_none() {
        return Ok(0);
    }
    if let Some((app, message)) = message_of(key) {
        inbox::forget_broadcasts(txn, &app, message)?;
    }
    txn.remove(Space::Message, key);
    Ok(1)
}

/// Drops deliveries and counters of a message, a slice at a time.
fn drop_deliveries(txn: &mut Txn<'_>, key: &[u8]) -> Result<Gone, StoreError> {
    let rows = txn.prefix(Space::Delivery, key, SLICE)?;
    let mut removed = 0;
    for (row, _) in &rows {
        let mut parts = Parts(row);
        let (app, message) = (parts.text().map(str::to_owned), parts.raw::<16>());
        if let (Some(app), Some(message), Some(device)) = (app, message, parts.text()) {
            let open = Key::of(app).text(device).raw(&message);
            txn.remove(Space::OpenDelivery, open);
        }
        txn.remove(Space::Delivery, row);
        removed += 1;
    }
    if rows.len() == SLICE {
        return Ok(Gone {
            removed,
            is_done: false,
        });
    }
    for (row, _) in txn.prefix(Space::MessageCounter, key, SLICE)? {
        txn.remove(Space::MessageCounter, &row);
        removed += 1;
    }
    Ok(Gone {
        removed,
        is_done: true,
    })
}

/// See [`crate::Embedded::maintain`].
pub(crate) async fn maintain(shelf: &Arc<Shelf>, now: Timestamp) -> Result<u64, StoreError> {
    let mut budget = SLICES_MAX;
    let mut total = registry::resume_deletions(shelf).await?;
    for kind in [Kind::Message, Kind::Idempotency, Kind::Quota] {
        total += sweep(shelf, kind, now, &mut budget).await?;
    }
    Ok(total)
}

/// Drops events and counters of days that ended before `before`, and deliveries of messages that
/// expired before it. Whole days, so that counters equal the events at any time.
pub(crate) async fn expire_ledger(
    shelf: &Arc<Shelf>,
    before: Timestamp,
) -> Result<u64, StoreError> {
    let mut budget = SLICES_MAX;
    let mut total = sweep(shelf, Kind::Deliveries, before, &mut budget).await?;
    let apps = shelf.read(|shelf| apps_with_events(&shelf.store)).await?;
    let first_day = before.day();
    for app in apps {
        while budget > 0 {
            budget -= 1;
            let app = app.clone();
            let removed = write(shelf, move |txn| drop_events(txn, &app, first_day)).await?;
            total += removed;
            if removed == 0 {
                break;
            }
        }
    }
    Ok(total)
}

fn apps_with_events(view: &impl View) -> Result<Vec<String>, StoreError> {
    let mut apps = Vec::new();
    let mut from = Vec::new();
    loop {
        let rows = view.range(Space::Counter, Range::forward(&from, None, 1))?;
        let Some(app) = rows.first().and_then(|(key, _)| Parts(key).text()) else {
            return Ok(apps);
        };
        let prefix = Key::of(app).done();
        apps.push(app.to_owned());
        from = prefix_end(&prefix).unwrap_or_else(|| after(&prefix));
    }
}

/// Drops a slice of an app's events before a day, in number order. Events are nearly in order of
/// time: one that is young enough does not end the slice, only a slice without old ones does.
fn drop_events(txn: &mut Txn<'_>, app: &str, first_day: i64) -> Result<u64, StoreError> {
    let prefix = Key::of(app).done();
    let mut removed = 0;
    for (key, payload) in txn.prefix(Space::Event, &prefix, SLICE)? {
        let event: Event = decode(Space::Event, &key, &payload)?;
        if event.at.day() >= first_day {
            continue;
        }
        let seq = key.last_chunk::<8>().copied().unwrap_or_default();
        if let Some(message) = &event.message {
            let index = Key::of(app).raw(message.0.as_bytes()).raw(&seq);
            txn.remove(Space::EventByMessage, index);
        }
        if let Some(device) = &event.device {
            txn.remove(Space::EventByDevice, Key::of(app).text(device).raw(&seq));
        }
        if let Some(user) = &event.user {
            txn.remove(Space::EventByUser, Key::of(app).text(user).raw(&seq));
        }
        txn.remove(Space::Event, &key);
        removed += 1;
    }
    if removed > 0 {
        return Ok(removed);
    }
    let to = Key::of(app).signed(first_day).done();
    for (key, _) in txn.range(Space::Counter, Range::forward(&prefix, Some(&to), SLICE))? {
        txn.remove(Space::Counter, &key);
        removed += 1;
    }
    Ok(removed)
}
