//! The lists: a ring for each user and device, a log for each broadcast audience.

use hongyan_core::limits::{INBOX_LEN_MAX, INBOX_SLOTS};
use hongyan_core::message::Audience;
use hongyan_core::port::{InboxAppend, Owner, PushedOut};
use hongyan_core::{AppId, DeviceId, MessageId, StoreError, Timestamp, Topic, UserId};

use super::push;
use crate::cached::Caches;
use crate::store::record::{Damage, Key, Parts, prefix_end};
use crate::store::{Range, Space, Txn, View, batch_of_order};

/// Up to so many slots of a ring are read one by one; for more, all are.
const FEW_SLOTS: u64 = 8;

/// The newest place of a ring is written when it is a multiple of this; in between the slots tell it, and an append saves
/// a record. Of an owner who was not heard of lately a read looks at one slot when there is nothing after the record, and
/// at eight at most.
pub(super) const HEAD_STEP: u64 = 16;
/// Where a slot's payload has its place: after order, message and expiry.
const SEQ_AT: usize = 8 + 16 + 8;

/// Which list an entry stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    User,
    Device,
    Broadcast,
    /// Of the device's channels: numbered with the broadcasts.
    Push,
}

impl Source {
    /// Where it has its place in a cursor.
    pub(super) const fn list(self) -> Self {
        match self {
            Self::Push => Self::Broadcast,
            own => own,
        }
    }
}

/// An entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) source: Source,
    /// Place in its list (broadcasts: in all of the app's).
    pub(super) seq: u64,
    /// Place among all entries of the store.
    pub(super) order: u64,
    pub(super) message: MessageId,
    pub(super) expires_at: Timestamp,
}

pub(super) fn user_key(app: &AppId, user: &UserId) -> Vec<u8> {
    Key::of(app).raw(b"u").text(user).done()
}

pub(super) fn device_key(app: &AppId, device: &DeviceId) -> Vec<u8> {
    Key::of(app).raw(b"d").text(device).done()
}

pub(super) fn topic_key(app: &AppId, topic: &Topic) -> Vec<u8> {
    Key::of(app).raw(b"t").text(topic).done()
}

pub(super) fn all_key(app: &AppId) -> Vec<u8> {
    Key::of(app).raw(b"a").done()
}

/// Where the newest of all broadcasts of an app is kept.
pub(super) fn broadcasts_key(app: &AppId) -> Vec<u8> {
    Key::of(app).raw(b"b").done()
}

/// Where the newest push of a device is kept.
pub(super) fn push_key(app: &AppId, device: &DeviceId) -> Vec<u8> {
    Key::of(app).raw(b"p").text(device).done()
}

/// Where the places of a message in the lists of its app are kept, by list.
pub(super) fn back_key(app: &AppId, message: MessageId, log: &[u8]) -> Vec<u8> {
    let back = Key::of(app).raw(message.0.as_bytes());
    back.raw(log.get(app.as_str().len() + 1..).unwrap_or_default())
        .done()
}

/// The device whose pushes a list holds, if it does.
fn device_of(app: &AppId, log: &[u8]) -> Option<DeviceId> {
    let name = log.get(app.as_str().len() + 1..)?.strip_prefix(b"p")?;
    DeviceId::parse(Parts(name).text()?).ok()
}

fn audience_key(app: &AppId, audience: &Audience) -> Vec<u8> {
    match audience {
        Audience::Topic(topic) => topic_key(app, topic),
        Audience::All => all_key(app),
    }
}

fn payload(order: u64, append: &InboxAppend) -> Key {
    Key::empty()
        .number(order)
        .raw(append.message.0.as_bytes())
        .signed(append.expires_at.millis())
}

/// Appends an entry and answers its place. Runs in the writer, so that places are dense and in the
/// order of acceptance.
pub(crate) fn append(
    txn: &mut Txn<'_>,
    caches: &Caches,
    append: &InboxAppend,
    now: Timestamp,
    out: &mut Vec<PushedOut>,
) -> Result<u64, StoreError> {
    let app = &append.app;
    if let (Owner::Device(device), Some(push)) = (&append.owner, &append.push) {
        return push::append(txn, caches, append, (device, push), now, out);
    }
    let order = txn.next_order();
    let payload = payload(order, append);
    let ring = match &append.owner {
        Owner::User(user) => user_key(app, user),
        Owner::Device(device) => device_key(app, device),
        Owner::Audience(audience) => {
            let all = broadcasts_key(app);
            let seq = caches.head_in(txn, &all)? + 1;
            let log = audience_key(app, audience);
            txn.put_number(Space::Head, &all, seq);
            txn.put_number(Space::Head, &log, seq);
            let back = back_key(app, append.message, &log);
            txn.put_number(Space::BroadcastOf, back, seq);
            txn.put(
                Space::Broadcast,
                Key::empty().raw(&log).number(seq),
                payload.done(),
            );
            return Ok(seq);
        }
    };
    let seq = caches.ring_head_in(txn, &ring)? + 1;
    // Overwriting a slot costs a fifth of appending and trimming.
    let slot = slot_key(&ring, seq);
    txn.put(Space::Ring, slot, payload.number(seq));
    if seq.is_multiple_of(HEAD_STEP) {
        txn.put_number(Space::Head, ring, seq);
    } else {
        txn.put_number_aside(Space::Head, ring, seq);
    }
    Ok(seq)
}

/// The newest place of a ring as the store has it, for the cache: a record names one that is less than [`HEAD_STEP`]
/// before it, and the slots after that one tell the rest.
pub(crate) fn newest(view: &impl View, ring: &[u8]) -> Result<u64, StoreError> {
    let known = view.number(Space::Head, ring)?.unwrap_or(0);
    // The largest step that is known to be there, and the smallest that is known not to be.
    let (mut there, mut beyond) = (0, HEAD_STEP + 1);
    let mut step = 1;
    while there + 1 < beyond {
        match occupant(view, ring, known + step)? {
            Some(seq) if seq > known + step => return newest_of_all(view, ring),
            Some(seq) if seq == known + step => there = step,
            _ => beyond = step,
        }
        // Most often there is nothing, or little.
        step = if beyond > HEAD_STEP {
            2 * step
        } else {
            there.midpoint(beyond)
        };
    }
    if there == HEAD_STEP {
        return newest_of_all(view, ring);
    }
    Ok(known + there)
}

/// The place that stands in a place's slot.
fn occupant(view: &impl View, ring: &[u8], seq: u64) -> Result<Option<u64>, StoreError> {
    let slot = slot_key(ring, seq);
    match view.get(Space::Ring, &slot)? {
        Some(payload) => seq_of(&payload)
            .map(Some)
            .ok_or_else(|| Damage::of(Space::Ring, &slot, "it is cut short").into_store_error()),
        None => Ok(None),
    }
}

/// The batch that wrote a slot's payload.
pub(super) fn batch_of(payload: &[u8]) -> Option<u64> {
    Parts(payload).number().map(batch_of_order)
}

/// What a row's key says of the log that it stands in.
pub(super) struct InLog {
    pub(super) app: AppId,
    /// The key of the record that names the log's newest place.
    pub(super) head: Vec<u8>,
    pub(super) seq: u64,
}

/// Where a broadcast stands.
pub(super) fn in_log(key: &[u8]) -> Option<InLog> {
    let (log, seq) = key.split_last_chunk::<8>()?;
    Some(InLog {
        app: AppId::parse(Parts(log).text()?).ok()?,
        head: log.to_vec(),
        seq: u64::from_be_bytes(*seq),
    })
}

/// The place in a slot's payload.
pub(crate) fn seq_of(payload: &[u8]) -> Option<u64> {
    Parts(payload.get(SEQ_AT..)?).number()
}

/// The newest place by every slot: for a ring whose record was lost with the loss accepted.
fn newest_of_all(view: &impl View, ring: &[u8]) -> Result<u64, StoreError> {
    let limit = usize::try_from(INBOX_SLOTS).unwrap_or(usize::MAX);
    let slots = view.prefix(Space::Ring, ring, limit)?;
    let newest = slots.iter().filter_map(|(_, payload)| seq_of(payload));
    Ok(newest.max().unwrap_or(0))
}

/// Brings the newest place of an entry's ring into the cache, so that the writer need not look for it.
pub(crate) fn expect(
    view: &impl View,
    caches: &Caches,
    append: &InboxAppend,
) -> Result<(), StoreError> {
    let ring = match &append.owner {
        Owner::User(user) => user_key(&append.app, user),
        Owner::Device(device) if append.push.is_none() => device_key(&append.app, device),
        Owner::Device(_) | Owner::Audience(_) => return Ok(()),
    };
    caches.ring_head(view, &ring).map(drop)
}

fn parse(space: Space, key: &[u8], payload: &[u8], source: Source) -> Result<Raw, StoreError> {
    let mut parts = Parts(payload);
    let read = || -> Option<Raw> {
        let order = parts.number()?;
        let message = MessageId(uuid::Uuid::from_bytes(parts.raw()?));
        let expires_at = Timestamp(parts.signed()?);
        let seq = match source {
            Source::Broadcast | Source::Push => Parts(key.last_chunk::<8>()?).number()?,
            Source::User | Source::Device => parts.number()?,
        };
        Some(Raw {
            source,
            seq,
            order,
            message,
            expires_at,
        })
    };
    let mut read = read;
    read().ok_or_else(|| Damage::of(space, key, "it is cut short").into_store_error())
}

fn slot_key(ring: &[u8], seq: u64) -> Vec<u8> {
    let slot = (seq % INBOX_SLOTS).to_be_bytes()[7];
    Key::sized(ring.len() + 1).raw(ring).raw(&[slot]).done()
}

/// What a ring holds after `floor` and up to `head`, in order.
pub(super) fn ring(
    view: &impl View,
    key: &[u8],
    source: Source,
    floor: u64,
    head: u64,
) -> Result<Vec<Raw>, StoreError> {
    let floor = floor.max(head.saturating_sub(INBOX_LEN_MAX));
    if head <= floor {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    let mut add = |slot: &[u8], payload: &[u8]| -> Result<(), StoreError> {
        let entry = parse(Space::Ring, slot, payload, source)?;
        if entry.seq > floor && entry.seq <= head {
            entries.push(entry);
        }
        Ok(())
    };
    if head - floor <= FEW_SLOTS {
        for seq in floor + 1..=head {
            let slot = slot_key(key, seq);
            if let Some(payload) = view.get(Space::Ring, &slot)? {
                add(&slot, &payload)?;
            }
        }
    } else {
        let limit = usize::try_from(INBOX_SLOTS).unwrap_or(usize::MAX);
        for (slot, payload) in view.prefix(Space::Ring, key, limit)? {
            add(&slot, &payload)?;
        }
    }
    entries.sort_unstable_by_key(|e| e.seq);
    Ok(entries)
}

/// What an audience's log holds after `floor` and up to `head`, in order, at most `limit`.
pub(super) fn broadcasts(
    view: &impl View,
    log: &[u8],
    floor: u64,
    head: u64,
    limit: usize,
) -> Result<Vec<Raw>, StoreError> {
    let from = Key::empty().raw(log).number(floor.saturating_add(1)).done();
    let to = Key::empty().raw(log).number(head.saturating_add(1)).done();
    let rows = view.range(Space::Broadcast, Range::forward(&from, Some(&to), limit))?;
    rows.iter()
        .map(|(key, payload)| parse(Space::Broadcast, key, payload, Source::Broadcast))
        .collect()
}

/// The audiences that a broadcast message stands in, as log keys with places.
pub(super) fn audiences_of(
    view: &impl View,
    app: &AppId,
    message: MessageId,
) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
    let prefix = Key::of(app).raw(message.0.as_bytes()).done();
    let mut audiences = Vec::new();
    for (key, payload) in view.prefix(Space::BroadcastOf, &prefix, 16)? {
        if let Some(seq) = Parts(&payload).number() {
            let log = Key::of(app).raw(&key[prefix.len()..]).done();
            audiences.push((log, seq));
        }
    }
    Ok(audiences)
}

/// The newest broadcast of an app.
pub(crate) fn broadcast_head(view: &impl View, app: &AppId) -> Result<u64, StoreError> {
    Ok(view.number(Space::Head, &broadcasts_key(app))?.unwrap_or(0))
}

/// Takes a message that is gone out of the broadcasts, or out of what waits for a device.
pub(crate) fn forget_broadcasts(
    txn: &mut Txn<'_>,
    app: &AppId,
    message: MessageId,
) -> Result<(), StoreError> {
    for (log, seq) in audiences_of(txn, app, message)? {
        if let Some(device) = device_of(app, &log) {
            push::remove(txn, app, &device, seq)?;
            push::tidy(txn, app, &device)?;
        }
        txn.remove(Space::Broadcast, Key::empty().raw(&log).number(seq));
        txn.remove(Space::BroadcastOf, back_key(app, message, &log));
    }
    Ok(())
}

/// Removes a ring with its newest place.
pub(super) fn forget(txn: &mut Txn<'_>, key: &[u8]) -> Result<(), StoreError> {
    let end = prefix_end(key);
    let limit = usize::try_from(INBOX_SLOTS).unwrap_or(usize::MAX);
    for (slot, _) in txn.range(Space::Ring, Range::forward(key, end.as_deref(), limit))? {
        txn.remove(Space::Ring, slot);
    }
    txn.remove(Space::Head, key);
    Ok(())
}

#[cfg(test)]
mod tests;
