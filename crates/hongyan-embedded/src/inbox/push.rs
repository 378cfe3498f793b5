//! Pushes that wait for a device, each among those of its channel. They are numbered with the app's broadcasts, so that
//! one cursor holds both, and removed as soon as they are acked: what stands here waits.
//!
//! All rows of a device begin with `app, device`; a tag says which they are.

use hongyan_core::port::{InboxAppend, PushEntry, PushedOut};
use hongyan_core::push::{PUSHES_PER_CHANNEL_MAX, PUSHES_PER_DEVICE_MAX, Urgency};
use hongyan_core::{AppId, DeviceId, MessageId, PushChannel, Reason, StoreError, Timestamp};

use super::place::{self, Place};
use super::ring::{self, InLog, Raw, Source};
use crate::cached::{Caches, message_key, pushed_out_head};
use crate::store::record::{Damage, Key, Parts, prefix_end};
use crate::store::{Range, Space, Txn, View};

/// place → order, message, expiry, urgency, channel, topic (empty for none).
const ENTRY: &[u8] = b"e";
/// channel, urgency, place → expiry.
const BY_URGENCY: &[u8] = b"o";
/// channel, topic → place.
const BY_TOPIC: &[u8] = b"t";
/// channel → how many wait, no later than when the first of them expires.
const CHANNEL: &[u8] = b"c";
/// → how many wait, how many were pushed out since the device was last up to date, the last of those.
const DEVICE: &[u8] = b"n";

/// Rows that are read at once.
const SLICE: usize = 1_000;

/// The rows of one device.
struct Shelf<'a> {
    app: &'a AppId,
    device: &'a DeviceId,
    base: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Waiting {
    raw: Raw,
    urgency: u8,
    channel: String,
    topic: String,
}

/// What is kept of a channel.
#[derive(Debug, Clone, Copy)]
struct OfChannel {
    count: u64,
    expires_first: Timestamp,
}

/// What is kept of a device.
#[derive(Debug, Clone, Copy, Default)]
struct OfDevice {
    count: u64,
    lost: u64,
    lost_upto: u64,
}

fn damaged(key: &[u8]) -> StoreError {
    Damage::of(Space::Push, key, "it is cut short").into_store_error()
}

fn parse(key: &[u8], payload: &[u8]) -> Result<Waiting, StoreError> {
    let read = || -> Option<Waiting> {
        let mut parts = Parts(payload);
        Some(Waiting {
            raw: Raw {
                source: Source::Push,
                seq: Parts(key.last_chunk::<8>()?).number()?,
                order: parts.number()?,
                message: MessageId(uuid::Uuid::from_bytes(parts.raw()?)),
                expires_at: Timestamp(parts.signed()?),
            },
            urgency: parts.raw::<1>()?[0],
            channel: parts.text()?.to_owned(),
            topic: parts.text()?.to_owned(),
        })
    };
    read().ok_or_else(|| damaged(key))
}

/// Where a waiting push stands; `None` for rows of other kinds.
pub(super) fn in_log(key: &[u8]) -> Option<InLog> {
    let mut parts = Parts(key);
    let app = AppId::parse(parts.text()?).ok()?;
    let device = DeviceId::parse(parts.text()?).ok()?;
    let is_entry = parts.raw::<1>()?.as_slice() == ENTRY;
    Some(InLog {
        seq: parts.number().filter(|_| is_entry)?,
        head: ring::push_key(&app, &device),
        app,
    })
}

const fn rank(urgency: Urgency) -> u8 {
    match urgency {
        Urgency::VeryLow => 0,
        Urgency::Low => 1,
        Urgency::Normal => 2,
        Urgency::High => 3,
    }
}

impl<'a> Shelf<'a> {
    fn of(app: &'a AppId, device: &'a DeviceId) -> Self {
        let base = Key::of(app).text(device).done();
        Self { app, device, base }
    }

    fn key(&self, tag: &[u8]) -> Key {
        Key::empty().raw(&self.base).raw(tag)
    }

    fn entry_key(&self, seq: u64) -> Vec<u8> {
        self.key(ENTRY).number(seq).done()
    }

    fn entry(&self, view: &impl View, seq: u64) -> Result<Option<Waiting>, StoreError> {
        let key = self.entry_key(seq);
        let payload = view.get(Space::Push, &key)?;
        payload.map(|payload| parse(&key, &payload)).transpose()
    }

    fn of_device(&self, view: &impl View) -> Result<OfDevice, StoreError> {
        let key = self.key(DEVICE).done();
        let Some(payload) = view.get(Space::Push, &key)? else {
            return Ok(OfDevice::default());
        };
        let mut parts = Parts(&payload);
        match (parts.number(), parts.number(), parts.number()) {
            (Some(count), Some(lost), Some(lost_upto)) => Ok(OfDevice {
                count,
                lost,
                lost_upto,
            }),
            _ => Err(damaged(&key)),
        }
    }

    fn put_device(&self, txn: &mut Txn<'_>, of: OfDevice) {
        let payload = Key::empty().number(of.count).number(of.lost);
        let payload = payload.number(of.lost_upto);
        txn.put(Space::Push, self.key(DEVICE), payload.done());
    }

    fn of_channel(&self, view: &impl View, channel: &str) -> Result<OfChannel, StoreError> {
        let key = self.key(CHANNEL).text(channel).done();
        let Some(payload) = view.get(Space::Push, &key)? else {
            return Ok(OfChannel {
                count: 0,
                expires_first: Timestamp(i64::MAX),
            });
        };
        read_channel(&key, &payload)
    }

    fn put_channel(&self, txn: &mut Txn<'_>, channel: &str, of: OfChannel) {
        let key = self.key(CHANNEL).text(channel);
        if of.count == 0 {
            txn.remove(Space::Push, key);
        } else {
            let payload = Key::empty()
                .number(of.count)
                .signed(of.expires_first.millis());
            txn.put(Space::Push, key, payload.done());
        }
    }

    /// Removes what is kept of a device for which nothing waits.
    fn forget(&self, txn: &mut Txn<'_>) {
        txn.remove(Space::Head, ring::push_key(self.app, self.device));
        txn.remove(Space::Push, self.key(DEVICE));
    }

    /// Takes one out; its message stays.
    fn take(&self, txn: &mut Txn<'_>, seq: u64) -> Result<Option<Waiting>, StoreError> {
        let Some(waiting) = self.entry(txn, seq)? else {
            return Ok(None);
        };
        let channel = waiting.channel.as_str();
        txn.remove(Space::Push, self.entry_key(seq));
        let by_urgency = self.key(BY_URGENCY).text(channel);
        txn.remove(Space::Push, by_urgency.raw(&[waiting.urgency]).number(seq));
        if !waiting.topic.is_empty() {
            let key = self.key(BY_TOPIC).text(channel).text(&waiting.topic);
            let key = key.done();
            if txn.number(Space::Push, &key)? == Some(seq) {
                txn.remove(Space::Push, key);
            }
        }
        let back = ring::back_key(
            self.app,
            waiting.raw.message,
            &ring::push_key(self.app, self.device),
        );
        txn.remove(Space::BroadcastOf, back);
        let mut of = self.of_channel(txn, channel)?;
        of.count = of.count.saturating_sub(1);
        self.put_channel(txn, channel, of);
        let mut all = self.of_device(txn)?;
        all.count = all.count.saturating_sub(1);
        self.put_device(txn, all);
        Ok(Some(waiting))
    }

    /// Takes one out, with the body of its message: what is left of that says why, to who comes to it later.
    fn push_out(
        &self,
        txn: &mut Txn<'_>,
        seq: u64,
        reason: Reason,
        out: &mut Vec<PushedOut>,
    ) -> Result<(), StoreError> {
        if let Some(waiting) = self.take(txn, seq)? {
            let message = waiting.raw.message;
            let key = message_key(self.app, message);
            match txn.get(Space::Message, &key) {
                Ok(Some(payload)) => {
                    txn.put(Space::Message, key, pushed_out_head(&payload, reason));
                }
                Ok(None) => {}
                // What comes in its place must not suffer.
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%error, "a push that waits no longer is damaged and is removed");
                    txn.remove(Space::Message, key);
                }
                Err(error) => return Err(error),
            }
            out.push(PushedOut {
                app: self.app.clone(),
                device: self.device.clone(),
                message,
                reason,
            });
        }
        Ok(())
    }

    /// Makes room in a channel: what has expired goes, else the oldest of the lowest urgency.
    fn make_room(
        &self,
        txn: &mut Txn<'_>,
        channel: &str,
        now: Timestamp,
        out: &mut Vec<PushedOut>,
    ) -> Result<(), StoreError> {
        let prefix = self.key(BY_URGENCY).text(channel).done();
        let mut of = self.of_channel(txn, channel)?;
        if of.expires_first <= now {
            let rows = txn.prefix(Space::Push, &prefix, SLICE + 1)?;
            of.expires_first = Timestamp(i64::MAX);
            let mut expired = Vec::new();
            for (key, payload) in &rows {
                let seq = key.last_chunk::<8>().and_then(|seq| Parts(seq).number());
                let (Some(seq), Some(expires)) = (seq, Parts(payload).signed()) else {
                    return Err(damaged(key));
                };
                if expires <= now.millis() {
                    expired.push(seq);
                } else {
                    of.expires_first = of.expires_first.min(Timestamp(expires));
                }
            }
            self.put_channel(txn, channel, of);
            if !expired.is_empty() {
                // Their messages are dropped in their own time.
                for seq in expired {
                    self.take(txn, seq)?;
                }
                return Ok(());
            }
        }
        let rows = txn.prefix(Space::Push, &prefix, 1)?;
        let first = rows.first().and_then(|(key, _)| key.last_chunk::<8>());
        let Some(seq) = first.and_then(|seq| Parts(seq).number()) else {
            return Ok(());
        };
        self.push_out(txn, seq, Reason::Overflowed, out)?;
        let place: Option<Place> = txn.json(Space::Place, &place::key(self.app, self.device))?;
        let acked = place.map_or(0, |place| place.acked_broadcast());
        let mut all = self.of_device(txn)?;
        if all.lost_upto <= acked {
            all.lost = 0;
        }
        all.lost += 1;
        all.lost_upto = all.lost_upto.max(seq);
        self.put_device(txn, all);
        Ok(())
    }

    /// The channel with the most.
    fn fullest(&self, view: &impl View) -> Result<Option<String>, StoreError> {
        let prefix = self.key(CHANNEL).done();
        let mut fullest: Option<(u64, String)> = None;
        let mut from = prefix.clone();
        let end = prefix_end(&prefix);
        loop {
            let range = Range::forward(&from, end.as_deref(), SLICE);
            let rows = view.range(Space::Push, range)?;
            for (key, payload) in &rows {
                let count = read_channel(key, payload)?.count;
                if fullest.as_ref().is_none_or(|(most, _)| count > *most) {
                    let name = Parts(&key[prefix.len()..]).text();
                    fullest = name.map(|name| (count, name.to_owned())).or(fullest);
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == SLICE => {
                    from = crate::store::record::after(last);
                }
                _ => return Ok(fullest.map(|(_, name)| name)),
            }
        }
    }
}

fn read_channel(key: &[u8], payload: &[u8]) -> Result<OfChannel, StoreError> {
    let mut parts = Parts(payload);
    match (parts.number(), parts.signed()) {
        (Some(count), Some(expires)) => Ok(OfChannel {
            count,
            expires_first: Timestamp(expires),
        }),
        _ => Err(damaged(key)),
    }
}

/// Appends a push and answers its place. Runs in the writer.
pub(super) fn append(
    txn: &mut Txn<'_>,
    caches: &Caches,
    append: &InboxAppend,
    (device, push): (&DeviceId, &PushEntry),
    now: Timestamp,
    out: &mut Vec<PushedOut>,
) -> Result<u64, StoreError> {
    let app = &append.app;
    let shelf = Shelf::of(app, device);
    let (channel, topic) = (push.channel.as_str(), push.topic.as_deref());
    let topic_key = topic.map(|topic| shelf.key(BY_TOPIC).text(channel).text(topic).done());
    if let Some(key) = &topic_key
        && let Some(former) = txn.number(Space::Push, key)?
    {
        shelf.push_out(txn, former, Reason::Collapsed, out)?;
    }
    let order = txn.next_order();
    let all = ring::broadcasts_key(app);
    let seq = caches.head_in(txn, &all)? + 1;
    let log = ring::push_key(app, device);
    txn.put_number(Space::Head, &all, seq);
    txn.put_number(Space::Head, &log, seq);
    txn.put_number(
        Space::BroadcastOf,
        ring::back_key(app, append.message, &log),
        seq,
    );
    let urgency = rank(push.urgency);
    let payload = Key::empty()
        .number(order)
        .raw(append.message.0.as_bytes())
        .signed(append.expires_at.millis())
        .raw(&[urgency])
        .text(channel)
        .text(topic.unwrap_or_default());
    txn.put(Space::Push, shelf.entry_key(seq), payload.done());
    let by_urgency = shelf.key(BY_URGENCY).text(channel).raw(&[urgency]);
    let expires = Key::empty().signed(append.expires_at.millis()).done();
    txn.put(Space::Push, by_urgency.number(seq), expires);
    if let Some(key) = topic_key {
        txn.put_number(Space::Push, key, seq);
    }
    let mut of = shelf.of_channel(txn, channel)?;
    of.count += 1;
    of.expires_first = of.expires_first.min(append.expires_at);
    shelf.put_channel(txn, channel, of);
    let mut of_device = shelf.of_device(txn)?;
    of_device.count += 1;
    shelf.put_device(txn, of_device);
    if of.count > PUSHES_PER_CHANNEL_MAX {
        shelf.make_room(txn, channel, now, out)?;
    } else if of_device.count > PUSHES_PER_DEVICE_MAX
        && let Some(fullest) = shelf.fullest(txn)?
    {
        shelf.make_room(txn, &fullest, now, out)?;
    }
    Ok(seq)
}

/// What waits for a device after `floor` and up to `head`, in order, at most `limit`.
pub(super) fn waiting(
    view: &impl View,
    (app, device): (&AppId, &DeviceId),
    floor: u64,
    head: u64,
    limit: usize,
) -> Result<Vec<Raw>, StoreError> {
    let shelf = Shelf::of(app, device);
    let from = shelf.entry_key(floor.saturating_add(1));
    let to = shelf.entry_key(head.saturating_add(1));
    let rows = view.range(Space::Push, Range::forward(&from, Some(&to), limit))?;
    rows.iter()
        .map(|(key, payload)| parse(key, payload).map(|waiting| waiting.raw))
        .collect()
}

/// How many were pushed out after what the device acked.
pub(super) fn lost(
    view: &impl View,
    (app, device): (&AppId, &DeviceId),
    acked: u64,
) -> Result<u64, StoreError> {
    let all = Shelf::of(app, device).of_device(view)?;
    Ok(if all.lost_upto > acked { all.lost } else { 0 })
}

/// One waits no longer.
pub(super) fn remove(
    txn: &mut Txn<'_>,
    app: &AppId,
    device: &DeviceId,
    seq: u64,
) -> Result<(), StoreError> {
    Shelf::of(app, device).take(txn, seq).map(drop)
}

/// What was posted to a device while it was deleted goes with its messages, and then leaves nothing behind.
pub(super) fn tidy(txn: &mut Txn<'_>, app: &AppId, device: &DeviceId) -> Result<(), StoreError> {
    let shelf = Shelf::of(app, device);
    let is_gone = txn.get(Space::Place, &place::key(app, device))?.is_none();
    if is_gone && shelf.of_device(txn)?.count == 0 {
        shelf.forget(txn);
    }
    Ok(())
}

/// Nothing of a channel waits any more.
pub(crate) fn forget_channel(
    txn: &mut Txn<'_>,
    app: &AppId,
    device: &DeviceId,
    channel: &PushChannel,
) -> Result<(), StoreError> {
    let shelf = Shelf::of(app, device);
    let prefix = shelf.key(BY_URGENCY).text(channel).done();
    let limit = usize::try_from(PUSHES_PER_CHANNEL_MAX).unwrap_or(SLICE) + 1;
    for (key, _) in txn.prefix(Space::Push, &prefix, limit)? {
        let seq = key.last_chunk::<8>().and_then(|seq| Parts(seq).number());
        shelf.take(txn, seq.ok_or_else(|| damaged(&key))?)?;
    }
    Ok(())
}

/// Nothing waits for a device any more.
pub(super) fn forget_device(
    txn: &mut Txn<'_>,
    app: &AppId,
    device: &DeviceId,
) -> Result<(), StoreError> {
    let mut floor = 0;
    // At most as many as may wait.
    for _ in 0..=PUSHES_PER_DEVICE_MAX / SLICE as u64 {
        let gone = waiting(txn, (app, device), floor, u64::MAX - 1, SLICE)?;
        for one in &gone {
            remove(txn, app, device, one.seq)?;
        }
        match gone.last() {
            Some(last) if gone.len() == SLICE => floor = last.seq,
            _ => break,
        }
    }
    Shelf::of(app, device).forget(txn);
    Ok(())
}
