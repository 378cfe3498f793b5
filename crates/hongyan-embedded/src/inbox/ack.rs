//! Acknowledging: everything up to a place, or single messages.

use hongyan_core::limits::{ACKED_ABOVE_MAX, INBOX_LEN_MAX};
use hongyan_core::port::{Ack, Reader};
use hongyan_core::{Cursor, MessageId, StoreError, Timestamp};

use super::place::{self, Place, Vector};
use super::push;
use super::read::{Ahead, Candidates, Horizon, Newest, candidates, logged, visible};
use super::ring::{self, Raw, Source};
use crate::cached::Caches;
use crate::store::{Space, Txn, View};

/// Broadcasts of an audience, and pushes, that one step of an ack looks at: it delays a push by one batch at most.
const STEP: usize = 1_000;

/// What one step of an ack did.
pub(super) struct Acked {
    /// The messages that were not acked before.
    pub(super) messages: Vec<MessageId>,
    /// Whether that was all; else the same ack goes on where this step ended.
    pub(super) is_all: bool,
}

impl Acked {
    const fn all(messages: Vec<MessageId>) -> Self {
        let is_all = true;
        Self { messages, is_all }
    }
}

/// Records an ack, or a part of one that reaches far. Runs in the writer.
pub(super) fn ack(
    txn: &mut Txn<'_>,
    caches: &Caches,
    epoch: u32,
    reader: &Reader,
    ack: &Ack,
    now: Timestamp,
) -> Result<Acked, StoreError> {
    let key = place::key(&reader.app, &reader.device);
    let stored: Option<Place> = txn.json(Space::Place, &key)?;
    let mut place = stored.clone().unwrap_or_default();
    let desk = Desk {
        caches,
        reader,
        heads: heads(txn, caches, reader, &place)?,
        now,
    };
    let acked = match ack {
        Ack::Upto(cursor) => desk.upto(txn, &mut place, epoch, *cursor)?,
        Ack::Ids(ids) => Acked::all(desk.ids(txn, &mut place, ids)?),
    };
    if Some(&place) != stored.as_ref() && place != Place::default() {
        place::put(txn, &reader.app, &reader.device, &place)?;
    }
    Ok(acked)
}

fn heads(
    txn: &Txn<'_>,
    caches: &Caches,
    reader: &Reader,
    place: &Place,
) -> Result<Vector, StoreError> {
    let app = &reader.app;
    let user = match place.reader_user(reader) {
        Some(user) => caches.ring_head_in(txn, &ring::user_key(app, user))?,
        None => 0,
    };
    Ok(Vector {
        user,
        device: caches.ring_head_in(txn, &ring::device_key(app, &reader.device))?,
        broadcast: ring::broadcast_head(txn, app)?,
    })
}

/// What one ack is worked out with.
struct Desk<'a> {
    caches: &'a Caches,
    reader: &'a Reader,
    heads: Vector,
    now: Timestamp,
}

impl Desk<'_> {
    fn upto(
        &self,
        txn: &mut Txn<'_>,
        place: &mut Place,
        epoch: u32,
        cursor: Cursor,
    ) -> Result<Acked, StoreError> {
        let upto = Vector::from(cursor);
        let ours = cursor.epoch == epoch && cursor.reader == place.reader_hash(self.reader);
        if !ours || !upto.within(&self.heads) || upto.within(&place.acked) {
            return Ok(Acked::all(Vec::new()));
        }
        let user = place.reader_user(self.reader);
        let mut acked = Vec::new();
        let mut waiting = self.waiting(txn, place, STEP)?;
        let is_far = |horizon: &Horizon| horizon.seq < upto.broadcast;
        waiting.horizon = waiting.horizon.filter(is_far);
        let is_all = waiting.horizon.is_none();
        let mut here = if is_all { upto } else { place.acked };
        let mut newest = None;
        for entry in waiting.complete() {
            if entry.seq > upto.of(entry.source) {
                continue;
            }
            here.set(entry.source, here.of(entry.source).max(entry.seq));
            // What was not visible was not given to the device, so it did not ack it.
            if !place.has_above(entry.source, entry.seq)
                && self.visible(txn, user, entry, &waiting.entries, &mut newest)?
            {
                acked.push(entry.message);
            }
        }
        place.acked = place.acked.max(here);
        place.tidy();
        self.forget_pushes(txn, place, &waiting)?;
        let messages = acked;
        Ok(Acked { messages, is_all })
    }

    /// Pushes that the acked place has passed wait no longer, nor do they count among those that do.
    fn forget_pushes(
        &self,
        txn: &mut Txn<'_>,
        place: &Place,
        found: &Candidates,
    ) -> Result<(), StoreError> {
        let (app, device) = (&self.reader.app, &self.reader.device);
        let passed = |e: &&Raw| e.source == Source::Push && e.seq <= place.acked_broadcast();
        for entry in found.entries.iter().filter(passed) {
            push::remove(txn, app, device, entry.seq)?;
        }
        Ok(())
    }

    fn ids(
        &self,
        txn: &mut Txn<'_>,
        place: &mut Place,
        ids: &[MessageId],
    ) -> Result<Vec<MessageId>, StoreError> {
        let mut waiting = self.waiting(txn, place, ACKED_ABOVE_MAX)?;
        let mut acked = Vec::new();
        for id in ids.iter().take(2 * ACKED_ABOVE_MAX) {
            let mut is_new = false;
            for (source, seq) in self.places_of(txn, place, &waiting.entries, *id)? {
                if source == Source::Push {
                    // What is acked waits no longer, and needs no note.
                    push::remove(txn, &self.reader.app, &self.reader.device, seq)?;
                    waiting
                        .entries
                        .retain(|e| e.source != source || e.seq != seq);
                    is_new = true;
                } else {
                    is_new |= place.add_above(source, seq);
                }
            }
            if is_new {
                acked.push(*id);
            }
        }
        if !acked.is_empty() {
            self.advance(txn, place, &waiting)?;
        }
        Ok(acked)
    }

    /// Entries above the acked place, by order of acceptance: the rings whole, and so many broadcasts of each audience.
    fn waiting(
        &self,
        txn: &Txn<'_>,
        place: &Place,
        broadcasts: usize,
    ) -> Result<Candidates, StoreError> {
        let from = place.acked;
        candidates(
            self.caches,
            txn,
            self.reader,
            place,
            from,
            self.heads,
            broadcasts,
        )
    }

    /// Where a message stands in this reader's lists, above the acked places.
    fn places_of(
        &self,
        txn: &Txn<'_>,
        place: &Place,
        waiting: &[Raw],
        id: MessageId,
    ) -> Result<Vec<(Source, u64)>, StoreError> {
        let found: Vec<_> = waiting
            .iter()
            .filter(|e| e.message == id)
            .map(|e| (e.source, e.seq))
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        // A broadcast or a push beyond those that were looked at.
        let mut places = logged(self.caches, txn, self.reader, place, id)?;
        places.retain(|(source, seq)| *source == Source::Push || *seq > place.acked.broadcast);
        Ok(places)
    }

    fn visible(
        &self,
        txn: &Txn<'_>,
        user: Option<&hongyan_core::UserId>,
        entry: &Raw,
        waiting: &[Raw],
        newest: &mut Option<Newest>,
    ) -> Result<bool, StoreError> {
        let app = &self.reader.app;
        let Some(stored) = visible(self.caches, txn, app, user, entry, self.now)? else {
            return Ok(false);
        };
        if stored.message.collapses_with().is_none() {
            return Ok(true);
        }
        if newest.is_none() {
            *newest = Some(Ahead::of(self.caches, txn, app, user).newest(waiting)?);
        }
        Ok(!newest.as_ref().is_some_and(|n| n.is_after(&stored.message)))
    }

    /// Moves the acked places over everything that is acked or was never for this device.
    fn advance(
        &self,
        txn: &mut Txn<'_>,
        place: &mut Place,
        found: &Candidates,
    ) -> Result<(), StoreError> {
        let user = place.reader_user(self.reader);
        let waiting = found.entries.as_slice();
        let mut newest = None;
        for source in [Source::User, Source::Device, Source::Broadcast] {
            if source == Source::User && user.is_none() {
                continue;
            }
            let mut upto = match found.horizon {
                // Not all were looked at: no further than the last of them.
                Some(horizon) if source == Source::Broadcast => horizon.seq,
                _ => self.heads.of(source),
            };
            let known = upto;
            let of_list = |e: &&Raw| e.source.list() == source && e.seq <= known;
            for entry in waiting.iter().filter(of_list) {
                if place.has_above(source, entry.seq)
                    || !self.visible(txn, user, entry, waiting, &mut newest)?
                {
                    continue;
                }
                // Whatever is before the first entry that is still open has left the ring or is acked.
                upto = entry.seq - 1;
                break;
            }
            let before = place.acked.of(source);
            place.acked.set(source, before.max(upto));
        }
        place.tidy();
        self.forget_pushes(txn, place, found)?;
        let over = place.above.len().saturating_sub(ACKED_ABOVE_MAX);
        // These come again: at-least-once, and the client drops them by id.
        place.above.drain(..over);
        debug_assert!(INBOX_LEN_MAX < ACKED_ABOVE_MAX as u64);
        Ok(())
    }
}
