//! What one batch will change, seen by the operations of that batch in turn.

use std::collections::BTreeMap;
use std::fmt;

use hongyan_core::StoreError;

use super::overlay::Overlay;
use super::record::{self, IntoKey, payload, prefix_end, seal, unseal};
use super::{Backend, Change, Direction, Range, Read, Rows, Space};
use crate::gather::Gathered;

/// Numbers of one batch's entries.
const ORDER_BITS: u32 = 24;

/// The batch in which [`Txn::next_order`] gave a number.
pub(crate) const fn batch_of_order(order: u64) -> u64 {
    order >> ORDER_BITS
}

/// Reads of checked payloads: from the store, from a snapshot, or from inside a batch.
pub trait View {
    /// The payload of a key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or, for a damaged record, [`StoreError::Corrupt`].
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keys and payloads of a range.
    ///
    /// # Errors
    /// As [`View::get`].
    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError>;

    /// Whether what it shows is committed and may be kept in a cache.
    fn is_settled(&self) -> bool {
        true
    }

    /// All rows whose key begins so, at most `limit`.
    ///
    /// # Errors
    /// As [`View::get`].
    fn prefix(&self, space: Space, prefix: &[u8], limit: usize) -> Result<Rows, StoreError> {
        let end = prefix_end(prefix);
        self.range(space, Range::forward(prefix, end.as_deref(), limit))
    }

    /// A JSON record.
    ///
    /// # Errors
    /// As [`View::get`].
    fn json<T: serde::de::DeserializeOwned>(
        &self,
        space: Space,
        key: &[u8],
    ) -> Result<Option<T>, StoreError>
    where
        Self: Sized,
    {
        match self.get(space, key)? {
            Some(payload) => record::decode(space, key, &payload).map(Some),
            None => Ok(None),
        }
    }

    /// A number; absent is `None`.
    ///
    /// # Errors
    /// As [`View::get`].
    fn number(&self, space: Space, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let Some(payload) = self.get(space, key)? else {
            return Ok(None);
        };
        match <[u8; 8]>::try_from(payload.as_slice()) {
            Ok(bytes) => Ok(Some(u64::from_be_bytes(bytes))),
            Err(_) => {
                Err(record::Damage::of(space, key, "not a number of 8 bytes").into_store_error())
            }
        }
    }
}

/// Checks what a raw reader gives.
#[derive(Clone, Copy)]
pub(crate) struct Checked<'a, R: ?Sized>(pub(crate) &'a R);

impl<R: Read + ?Sized> View for Checked<'_, R> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.get(space, key)? {
            Some(value) => unseal(space, key, value)
                .map(Some)
                .map_err(record::Damage::into_store_error),
            None => Ok(None),
        }
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        let mut rows = self.0.range(space, range)?;
        for (key, value) in &mut rows {
            *value = unseal(space, key, std::mem::take(value))
                .map_err(record::Damage::into_store_error)?;
        }
        Ok(rows)
    }
}

/// Something to run once the batch is durable and visible.
pub(crate) type After = Box<dyn FnOnce() + Send>;

/// What became of a batch.
pub(crate) struct Outcome {
    /// Sealed, for the engine.
    pub(crate) changes: Vec<Change>,
    /// Not for the engine.
    pub(crate) aside: Vec<Change>,
    /// To be run when the changes are durable.
    pub(crate) after: Vec<After>,
    room: Overlay,
}

impl Outcome {
    /// The room that the batch took, for the next one.
    pub(crate) fn room(self) -> Option<Room> {
        self.room.with_room_of(self.changes, self.aside).map(Room)
    }
}

/// Room for a batch's changes: large pieces of memory that come and go cost the allocator dear.
pub(crate) struct Room(Overlay);

/// One batch in the making. An operation sees the store, what earlier operations of the batch
/// changed, and its own changes; those are kept only if it succeeds.
pub struct Txn<'a> {
    backend: &'a dyn Backend,
    number: u64,
    overlay: Overlay,
    gathered: Gathered,
    own: Gathered,
    after: Vec<After>,
    own_after: Vec<After>,
    orders: u64,
}

impl fmt::Debug for Txn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Txn")
            .field("number", &self.number)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl<'a> Txn<'a> {
    #[cfg(test)]
    pub(crate) fn new(backend: &'a dyn Backend, number: u64) -> Self {
        Self::in_room(backend, number, None)
    }

    /// A batch in the room that a former one left.
    pub(crate) fn in_room(backend: &'a dyn Backend, number: u64, room: Option<Room>) -> Self {
        Self {
            backend,
            number,
            overlay: room.map_or_else(Overlay::new, |Room(overlay)| overlay),
            gathered: Gathered::default(),
            own: Gathered::default(),
            after: Vec::new(),
            own_after: Vec::new(),
            orders: 0,
        }
    }

    /// The number of the batch; grows.
    #[must_use]
    pub const fn batch_number(&self) -> u64 {
        self.number
    }

    /// A number greater than all given out before, over all batches: the order of acceptance.
    pub fn next_order(&mut self) -> u64 {
        self.orders += 1;
        (self.number << ORDER_BITS) | self.orders
    }

    /// Writes a payload.
    pub fn put(&mut self, space: Space, key: impl IntoKey, payload: impl AsRef<[u8]>) {
        let key = key.into_key();
        let value = seal(space, &key, payload.as_ref());
        self.overlay.set(space, key, Some(value));
    }

    /// Writes what [`seal`] made of a payload for this key: the caller's thread has done the work.
    pub(crate) fn put_sealed(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.overlay.set(space, key, Some(value));
    }

    /// Writes a number.
    pub fn put_number(&mut self, space: Space, key: impl IntoKey, number: u64) {
        self.put(space, key, number.to_be_bytes());
    }

    /// Sets a number that this batch and the caches see and the engine does not, unless the batch writes the key
    /// anyway: then it writes this one.
    pub(crate) fn put_number_aside(&mut self, space: Space, key: impl IntoKey, number: u64) {
        let key = key.into_key();
        let value = seal(space, &key, &number.to_be_bytes());
        self.overlay.set_aside(space, key, value);
    }

    /// Changes the payload that this batch gives a key, in place; answers whether it gives one.
    pub(crate) fn amend(
        &mut self,
        space: Space,
        key: &[u8],
        change: impl FnOnce(&mut [u8]),
    ) -> bool {
        let Some(sealed) = self.overlay.get_mut(space, key) else {
            return false;
        };
        change(record::payload_mut(sealed));
        record::reseal(space, key, sealed);
        true
    }

    /// Removes a key; an unknown one does nothing.
    pub fn remove(&mut self, space: Space, key: impl IntoKey) {
        self.overlay.set(space, key.into_key(), None);
    }

    /// Runs something when the batch is durable and visible, before anybody is told.
    pub fn after(&mut self, what: impl FnOnce() + Send + 'static) {
        self.own_after.push(Box::new(what));
    }

    /// What the operation adds to that the batch writes together at its end.
    pub(crate) const fn gather(&mut self) -> &mut Gathered {
        &mut self.own
    }

    /// Whether this batch made a job ready or took it out: `None` when it left it alone.
    pub(crate) fn is_ready(&self, id: &str) -> Option<bool> {
        let own = self.own.is_ready(id);
        own.or_else(|| self.gathered.is_ready(id))
    }

    /// Jobs of an app that this batch made ready.
    pub(crate) fn ready_of(&self, app: &hongyan_core::AppId) -> Vec<std::sync::Arc<str>> {
        let made = self.own.ready_of(app).chain(self.gathered.ready_of(app));
        let made = made.filter(|id| self.is_ready(id) == Some(true));
        made.cloned().collect()
    }

    /// Takes what all operations gathered, to write it.
    pub(crate) fn take_gathered(&mut self) -> Gathered {
        std::mem::take(&mut self.gathered)
    }

    /// What this batch made of a key: `None` when it left it alone, `Some(None)` when it removed it.
    pub(crate) fn changed(&self, space: Space, key: &[u8]) -> Option<Option<&[u8]>> {
        self.overlay.get(space, key).map(|value| value.map(payload))
    }

    /// Takes the operation's changes over into the batch.
    pub(crate) fn keep(&mut self) {
        self.overlay.keep();
        self.gathered.append(&mut self.own);
        self.after.append(&mut self.own_after);
    }

    /// Forgets the operation's changes.
    pub(crate) fn discard(&mut self) {
        self.overlay.discard();
        self.own = Gathered::default();
        self.own_after.clear();
    }

    /// Bytes that the batch will write, roughly.
    pub(crate) const fn bytes(&self) -> usize {
        self.overlay.bytes() + self.gathered.bytes()
    }

    /// Whether nothing would be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.overlay.is_empty() && self.gathered.is_empty()
    }

    /// What is to be written, what only the observer is to see, and what to run afterwards.
    pub(crate) fn into_changes(mut self) -> Outcome {
        let (changes, aside) = self.overlay.take_changes();
        Outcome {
            changes,
            aside,
            after: self.after,
            room: self.overlay,
        }
    }
}

impl View for Txn<'_> {
    fn is_settled(&self) -> bool {
        false
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changed(space, key) {
            Some(value) => Ok(value.map(<[u8]>::to_vec)),
            None => Checked(self.backend).get(space, key),
        }
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let overlay = self.overlay.range(space, range.from, range.to);
        if overlay.is_empty() {
            return Checked(self.backend).range(space, range);
        }
        // Each removal in the overlay can hide one row of the store.
        let hidden = overlay.iter().filter(|(_, v)| v.is_none()).count();
        let wide = Range {
            limit: range.limit.saturating_add(hidden),
            ..range
        };
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = Checked(self.backend)
            .range(space, wide)?
            .into_iter()
            .collect();
        for (key, value) in overlay {
            match value {
                Some(value) => merged.insert(key.to_vec(), payload(value).to_vec()),
                None => merged.remove(key),
            };
        }
        Ok(match range.direction {
            Direction::Forward => merged.into_iter().take(range.limit).collect(),
            Direction::Reverse => merged.into_iter().rev().take(range.limit).collect(),
        })
    }
}
