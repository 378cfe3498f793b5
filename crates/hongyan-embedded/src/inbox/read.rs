//! Reading an inbox: a merge of its lists in order of acceptance.

use std::collections::HashMap;

use hongyan_core::limits::INBOX_LEN_MAX;
use hongyan_core::port::{Entry, InboxPage, Reader, Subscription};
use hongyan_core::{AppId, Cursor, Message, MessageId, StoreError, Timestamp, UserId};

use super::place::{self, Place, Vector};
use super::push;
use super::ring::{self, Raw, Source};
use crate::cached::{Caches, Stored};
use crate::embedded::Shelf;
use crate::store::View;

/// Broadcasts of one audience that are looked at for one page, at least.
const CHUNK_MIN: usize = 64;
/// Broadcasts of one audience that are looked at to find the newest of a collapse key.
const LOOK_AHEAD_MAX: usize = 1_000;

/// The newest places of what a reader reads.
fn heads(
    caches: &Caches,
    view: &impl View,
    app: &AppId,
    reader: &Reader,
) -> Result<Vector, StoreError> {
    let user = match &reader.user {
        Some(user) => caches.ring_head(view, &ring::user_key(app, user))?,
        None => 0,
    };
    Ok(Vector {
        user,
        device: caches.ring_head(view, &ring::device_key(app, &reader.device))?,
        broadcast: caches.head(view, &ring::broadcasts_key(app))?,
    })
}

/// What is known of a reader before its lists are read.
struct Start {
    heads: Vector,
    place: std::sync::Arc<Place>,
    reader: u32,
    from: Vector,
    reset: bool,
}

fn start(shelf: &Shelf, reader: &Reader, after: Option<Cursor>) -> Result<Start, StoreError> {
    // Heads first: whatever is read later is at least as new.
    let mut heads = heads(&shelf.caches, &shelf.store, &reader.app, reader)?;
    let place_key = place::key(&reader.app, &reader.device);
    let place = shelf
        .caches
        .place(&shelf.store, &place_key)?
        .unwrap_or_default();
    if place.reader_user(reader).is_none() {
        heads.user = 0;
    }
    let hash = place.reader_hash(reader);
    let ours = |c: &Cursor| {
        c.epoch == shelf.store.epoch() && c.reader == hash && Vector::from(*c).within(&heads)
    };
    let known = after.filter(ours);
    Ok(Start {
        heads,
        reader: hash,
        from: known.map_or(place.acked, |c| Vector::from(c).max(place.start)),
        reset: after.is_some() && known.is_none(),
        place,
    })
}

/// The newest place.
pub(super) fn head(shelf: &Shelf, reader: &Reader) -> Result<Cursor, StoreError> {
    let start = start(shelf, reader, None)?;
    Ok(start.heads.cursor(shelf.store.epoch(), start.reader))
}

/// Answers without touching the disk when nothing is newer than the place: most reads.
pub(super) fn nothing_new(
    shelf: &Shelf,
    reader: &Reader,
    after: Option<Cursor>,
) -> Result<Option<InboxPage>, StoreError> {
    let start = start(shelf, reader, after)?;
    if !start.heads.within(&start.from) {
        return Ok(None);
    }
    let head = start.heads.cursor(shelf.store.epoch(), start.reader);
    Ok(Some(InboxPage {
        entries: Vec::new(),
        next: head,
        head,
        lost: 0,
        reset: start.reset,
        more: false,
    }))
}

/// Up to where the broadcasts and pushes are known that stand in a reader's lists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Horizon {
    /// Place among all entries of the store.
    order: u64,
    /// Place among the broadcasts.
    pub(super) seq: u64,
}

impl Horizon {
    /// The nearer one, when a list was read only up to its last entry here.
    fn or_nearer(known: Option<Self>, last: &Raw) -> Self {
        let (order, seq) = (last.order, last.seq);
        known
            .filter(|known| known.order < order)
            .unwrap_or(Self { order, seq })
    }
}

/// What stands in a reader's lists after `from`, in order of acceptance. The rings are there whole, broadcasts and pushes
/// all up to the horizon (`None`: all of them) and some after it.
pub(super) struct Candidates {
    pub(super) entries: Vec<Raw>,
    pub(super) horizon: Option<Horizon>,
}

impl Candidates {
    /// The entries before which none is missing.
    pub(super) fn complete(&self) -> impl Iterator<Item = &Raw> {
        let far = self.horizon.map_or(u64::MAX, |horizon| horizon.order);
        self.entries.iter().take_while(move |e| e.order <= far)
    }
}

pub(super) fn candidates(
    caches: &Caches,
    view: &impl View,
    reader: &Reader,
    place: &Place,
    from: Vector,
    heads: Vector,
    chunk: usize,
) -> Result<Candidates, StoreError> {
    let app = &reader.app;
    let mut entries = Vec::new();
    if let Some(user) = place.reader_user(reader) {
        let key = ring::user_key(app, user);
        entries.extend(ring::ring(view, &key, Source::User, from.user, heads.user)?);
    }
    let key = ring::device_key(app, &reader.device);
    entries.extend(ring::ring(
        view,
        &key,
        Source::Device,
        from.device,
        heads.device,
    )?);
    let mut horizon = None;
    if heads.broadcast > from.broadcast {
        let subscriptions = caches.topics(view, &place::key(app, &reader.device))?;
        let topics = subscriptions
            .iter()
            .map(|s| (ring::topic_key(app, &s.topic), s.since));
        let logs = std::iter::once((ring::all_key(app), place.start.broadcast)).chain(topics);
        let push_floor = from.broadcast.max(place.start.broadcast);
        if caches.head(view, &ring::push_key(app, &reader.device))? > push_floor {
            let device = (app, &reader.device);
            let found = push::waiting(view, device, push_floor, heads.broadcast, chunk)?;
            if found.len() >= chunk
                && let Some(last) = found.last()
            {
                horizon = Some(Horizon::or_nearer(horizon, last));
            }
            entries.extend(found);
        }
        for (log, since) in logs {
            let floor = from.broadcast.max(since);
            // Most topics have nothing new, and that is known without looking.
            if caches.head(view, &log)? <= floor {
                continue;
            }
            let found = ring::broadcasts(view, &log, floor, heads.broadcast, chunk)?;
            if found.len() >= chunk
                && let Some(last) = found.last()
            {
                horizon = Some(Horizon::or_nearer(horizon, last));
            }
            entries.extend(found);
        }
    }
    entries.sort_unstable_by_key(|e| e.order);
    Ok(Candidates { entries, horizon })
}

/// Where a message stands among the reader's broadcasts and pushes.
pub(super) fn logged(
    caches: &Caches,
    view: &impl View,
    reader: &Reader,
    place: &Place,
    id: MessageId,
) -> Result<Vec<(Source, u64)>, StoreError> {
    let app = &reader.app;
    let (all, pushes) = (ring::all_key(app), ring::push_key(app, &reader.device));
    let topics = caches.topics(view, &place::key(app, &reader.device))?;
    let mut places = Vec::new();
    for (log, seq) in ring::audiences_of(view, app, id)? {
        if log == pushes {
            places.push((Source::Push, seq));
            continue;
        }
        let since = if log == all {
            Some(place.start.broadcast)
        } else {
            let of_log = |t: &&Subscription| ring::topic_key(app, &t.topic) == log;
            topics.iter().find(of_log).map(|t| t.since)
        };
        if since.is_some_and(|since| seq > since) {
            places.push((Source::Broadcast, seq));
        }
    }
    Ok(places)
}

/// Those of these messages that stand in the reader's lists and are acknowledged.
pub(super) fn acked(
    shelf: &Shelf,
    reader: &Reader,
    ids: &[MessageId],
    now: Timestamp,
) -> Result<Vec<MessageId>, StoreError> {
    let start = start(shelf, reader, None)?;
    let (caches, view, place) = (&shelf.caches, &shelf.store, &start.place);
    let (app, user) = (&reader.app, place.reader_user(reader));
    let (from, heads) = (place.start, start.heads);
    let key = ring::device_key(app, &reader.device);
    let mut personal = ring::ring(view, &key, Source::Device, from.device, heads.device)?;
    if let Some(user) = user {
        let key = ring::user_key(app, user);
        personal.extend(ring::ring(view, &key, Source::User, from.user, heads.user)?);
    }
    let mut acked = Vec::new();
    for id in ids {
        let of_id = personal.iter().filter(|e| e.message == *id);
        let mut places: Vec<_> = of_id.map(|e| (e.source, e.seq)).collect();
        if places.is_empty() {
            places = logged(caches, view, reader, place, *id)?;
        }
        let is_behind = |(source, seq): &(Source, u64)| {
            *source != Source::Push
                && (*seq <= place.acked.of(*source) || place.has_above(*source, *seq))
        };
        if !places.iter().any(is_behind) {
            continue;
        }
        let is_given = |s: &Stored| {
            let message = &s.message;
            s.recalled.is_none()
                && message.expires_at > now
                && message.collapses_with().is_none()
                && message.may_be_given_to(user)
        };
        match caches.message(view, app, *id) {
            Ok(stored) if stored.as_ref().is_some_and(is_given) => acked.push(*id),
            // A damaged one says nothing of the others.
            Ok(_) | Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(acked)
}

/// The message of an entry, if the reader may have it now.
pub(super) fn visible(
    caches: &Caches,
    view: &impl View,
    app: &AppId,
    user: Option<&UserId>,
    entry: &Raw,
    now: Timestamp,
) -> Result<Option<Stored>, StoreError> {
    if entry.expires_at <= now {
        return Ok(None);
    }
    let stored = caches.message(view, app, entry.message)?;
    Ok(stored.filter(|s| s.recalled.is_none() && s.message.may_be_given_to(user)))
}

/// Looks at what stands after an entry. Only messages with a collapse key make anybody look.
pub(super) struct Ahead<'a, V> {
    caches: &'a Caches,
    view: &'a V,
    app: &'a AppId,
    user: Option<&'a UserId>,
}

/// The newest message of each collapse key, by what [`hongyan_core::Message::collapses_with`] says.
pub(super) struct Newest(HashMap<(String, bool), (Timestamp, MessageId)>);

impl<'a, V: View> Ahead<'a, V> {
    pub(super) const fn of(
        caches: &'a Caches,
        view: &'a V,
        app: &'a AppId,
        user: Option<&'a UserId>,
    ) -> Self {
        Self {
            caches,
            view,
            app,
            user,
        }
    }

    /// Also what has expired or was recalled took the place of what came before it.
    pub(super) fn newest(&self, entries: &[Raw]) -> Result<Newest, StoreError> {
        let mut newest = HashMap::new();
        for entry in entries {
            let Some(stored) = self.caches.message(self.view, self.app, entry.message)? else {
                continue;
            };
            if !stored.message.may_be_given_to(self.user) {
                continue;
            }
            if let Some((key, personal)) = stored.message.collapses_with() {
                let rank = stored.message.rank();
                let at = newest.entry((key.to_owned(), personal)).or_insert(rank);
                *at = rank.max(*at);
            }
        }
        Ok(Newest(newest))
    }
}

impl Newest {
    /// Whether a newer message took this one's place.
    pub(super) fn is_after(&self, message: &Message) -> bool {
        message.collapses_with().is_some_and(|(key, personal)| {
            let newest = self.0.get(&(key.to_owned(), personal));
            newest.is_some_and(|rank| *rank > message.rank())
        })
    }
}

fn lost(from: Vector, heads: Vector) -> u64 {
    let of = |from: u64, head: u64| head.saturating_sub(INBOX_LEN_MAX).saturating_sub(from);
    of(from.user, heads.user) + of(from.device, heads.device)
}

/// One page.
pub(super) fn page(
    shelf: &Shelf,
    reader: &Reader,
    after: Option<Cursor>,
    limit: usize,
    now: Timestamp,
) -> Result<InboxPage, StoreError> {
    let start = start(shelf, reader, after)?;
    let (epoch, hash, place) = (shelf.store.epoch(), start.reader, &start.place);
    let user = place.reader_user(reader);
    let mut at = start.from;
    if user.is_none() {
        at.user = 0;
    }
    let chunk = limit.saturating_mul(2).max(CHUNK_MIN);
    let (caches, view) = (&shelf.caches, &shelf.store);
    let found = candidates(caches, view, reader, place, at, start.heads, chunk)?;
    let mut lost = lost(at, start.heads);
    if after.is_none() || start.reset {
        // Told once to each that begins anew: what is pushed out has no place to be behind.
        let device = (&reader.app, &reader.device);
        lost += push::lost(view, device, place.acked_broadcast())?;
    }
    let ahead = Ahead::of(caches, view, &reader.app, user);
    let mut newest = None;
    let mut entries = Vec::new();
    let mut more = found.horizon.is_some();
    let mut next = at;
    for raw in found.complete() {
        at.set(raw.source, raw.seq);
        if !place.has_above(raw.source, raw.seq)
            && let Some(stored) = visible(caches, view, &reader.app, user, raw, now)?
        {
            if stored.message.collapses_with().is_some() {
                if newest.is_none() {
                    newest = Some(if found.horizon.is_some() {
                        let from = start.from;
                        let far = candidates(
                            caches,
                            view,
                            reader,
                            place,
                            from,
                            start.heads,
                            LOOK_AHEAD_MAX,
                        )?;
                        ahead.newest(&far.entries)?
                    } else {
                        ahead.newest(&found.entries)?
                    });
                }
                if newest.as_ref().is_some_and(|n| n.is_after(&stored.message)) {
                    next = at;
                    continue;
                }
            }
            if entries.len() == limit {
                more = true;
                break;
            }
            entries.push(Entry {
                cursor: at.cursor(epoch, hash),
                message: stored.message,
            });
        }
        if entries.len() <= limit {
            next = at;
        }
    }
    if !more {
        next = start.heads;
    }
    Ok(InboxPage {
        entries,
        next: next.cursor(epoch, hash),
        head: start.heads.cursor(epoch, hash),
        lost,
        reset: start.reset,
        more,
    })
}
