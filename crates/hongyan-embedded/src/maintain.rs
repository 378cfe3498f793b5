//! Dropping what has had its time, in bounded slices.
//!
//! What expires leaves a note when it is written: kind, time, key. A batch writes notes of one kind and about one
//! time into one record of [`Space::Expiry`]: kind, latest time of these, batch, part → each key with its length. A
//! sweep reads the records whose time has come and asks what the keys name itself whether it is still to go.

use std::sync::Arc;

use hongyan_core::limits::LEDGER_TTL;
use hongyan_core::{AppId, MessageId, StoreError, Timestamp};

use crate::embedded::Shelf;
use crate::ledger::OldestEvents;
use crate::store::record::{Damage, Key, Parts, after, prefix_end};
use crate::store::{Admission, Range, Rows, Space, Txn, Urgency, View};
use crate::{inbox, ledger, registry};

/// Notes worked off in one slice, so that a sweep delays a push by one batch at most.
const SLICE: usize = 512;
/// Slices of one call.
const SLICES_MAX: usize = 64;
/// Notes of one record.
const NOTES_LEN: usize = 64;
/// Notes that are so close in time share a record, and are dropped together: milliseconds.
const NOTES_SPAN: i64 = 60_000;
/// Chunks of events that one slice looks at.
const CHUNKS: usize = 32;

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A message body, with its broadcast entry.
    Message = 1,
    /// Deliveries of a message.
    Deliveries = 2,
    /// A promised answer.
    Idempotency = 3,
    /// A window.
    Quota = 4,
    /// A push endpoint that is gone.
    Endpoint = 5,
}

/// Leaves the notes of a message: its body is kept as long as what happened to it.
pub(crate) fn remember_message(txn: &mut Txn<'_>, expires_at: Timestamp, key: &[u8]) {
    let gathered = txn.gather();
    gathered.note(Kind::Message, expires_at.plus(LEDGER_TTL), key);
    gathered.note(Kind::Deliveries, expires_at, key);
}

/// Writes the notes of a batch. Runs in the writer.
pub(crate) fn write_notes(txn: &mut Txn<'_>, notes: &mut [(Kind, Timestamp, Vec<u8>)]) {
    notes.sort_by_key(|(kind, at, _)| (*kind, *at));
    let span = |at: Timestamp| at.millis().div_euclid(NOTES_SPAN);
    let together =
        |a: &(Kind, Timestamp, _), b: &(Kind, Timestamp, _)| a.0 == b.0 && span(a.1) == span(b.1);
    let records = notes.chunk_by(together).flat_map(|n| n.chunks(NOTES_LEN));
    for (part, record) in (0u64..).zip(records) {
        let Some((kind, latest, _)) = record.last() else {
            continue;
        };
        let mut payload = Vec::new();
        for (.., key) in record {
            let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
            payload.extend_from_slice(&length.to_be_bytes());
            payload.extend_from_slice(key);
        }
        let key = Key::empty().raw(&[*kind as u8]).signed(latest.millis());
        let key = key.number(txn.batch_number()).number(part);
        txn.put(Space::Expiry, key, payload);
    }
}

/// The keys that a record of notes holds.
fn noted<'a>(key: &[u8], payload: &'a [u8]) -> Result<Vec<&'a [u8]>, StoreError> {
    let mut parts = Parts(payload);
    let mut keys = Vec::new();
    while !parts.rest().is_empty() {
        let length = parts.raw().map(u16::from_be_bytes);
        let noted = length.and_then(|length| parts.take(usize::from(length)));
        keys.push(
            noted.ok_or_else(|| {
                Damage::of(Space::Expiry, key, "it is cut short").into_store_error()
            })?,
        );
    }
    Ok(keys)
}

/// Records of notes of a kind whose time was before `before`.
fn notes(view: &impl View, kind: Kind, before: Timestamp) -> Result<Rows, StoreError> {
    let from = [kind as u8];
    let to = Key::empty().raw(&from).signed(before.millis()).done();
    view.range(
        Space::Expiry,
        Range::forward(&from, Some(&to), SLICE / NOTES_LEN),
    )
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
        let is_last = rows.len() < SLICE / NOTES_LEN;
        if rows.is_empty() {
            break;
        }
        total += write(shelf, move |txn| {
            let mut removed = 0;
            let mut oldest = OldestEvents::default();
            for (note, payload) in rows {
                let mut is_done = true;
                for key in noted(&note, &payload)? {
                    let gone = drop_record(txn, kind, key, before, &mut oldest)?;
                    removed += gone.removed;
                    is_done &= gone.is_done;
                }
                if is_done {
                    txn.remove(Space::Expiry, note);
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
    oldest: &mut OldestEvents,
) -> Result<Gone, StoreError> {
    let removed = match kind {
        Kind::Message => drop_message(txn, key, oldest)?,
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
        Kind::Endpoint => registry::endpoint::forget(txn, key, before)?,
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

fn drop_message(
    txn: &mut Txn<'_>,
    key: &[u8],
    oldest: &mut OldestEvents,
) -> Result<u64, StoreError> {
    let Some(stored) = txn.get(Space::Message, key)? else {
        return Ok(0);
    };
    if let Some((app, message)) = message_of(key) {
        inbox::forget_broadcasts(txn, &app, message)?;
        // Events go by days: those of a message that lived for hours only are there for some hours more.
        ledger::keep_first(txn, (&app, message), &stored, oldest)?;
    }
    txn.remove(Space::Message, key);
    Ok(1)
}

/// Drops deliveries of a message, a slice at a time.
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
    Ok(Gone {
        removed,
        is_done: rows.len() < SLICE,
    })
}

/// See [`crate::Embedded::maintain`].
pub(crate) async fn maintain(shelf: &Arc<Shelf>, now: Timestamp) -> Result<u64, StoreError> {
    let mut budget = SLICES_MAX;
    let mut total = registry::resume_deletions(shelf).await?;
    for kind in [
        Kind::Message,
        Kind::Idempotency,
        Kind::Quota,
        Kind::Endpoint,
    ] {
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

/// Drops a slice of an app's events before a day, in number order, then its counters. Events are nearly in order of
/// time: one that is young enough does not end the slice, only a slice without old ones does.
fn drop_events(txn: &mut Txn<'_>, app: &str, first_day: i64) -> Result<u64, StoreError> {
    let mut removed = ledger::drop_slice(txn, app, first_day, CHUNKS)?;
    if removed > 0 {
        return Ok(removed);
    }
    let prefix = Key::of(app).done();
    let to = Key::of(app).signed(first_day).done();
    for (key, _) in txn.range(Space::Counter, Range::forward(&prefix, Some(&to), SLICE))? {
        txn.remove(Space::Counter, key);
        removed += 1;
    }
    Ok(removed)
}
