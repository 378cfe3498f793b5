//! What one batch will change, seen by the operations of that batch in turn.

use std::collections::BTreeMap;
use std::fmt;

use hongyan_core::StoreError;

use super::record::{self, prefix_end, seal, unseal};
use super::{Backend, Change, Direction, Range, Read, Rows, Space};

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

/// Payloads by key; `None` removes.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
/// Something to run once the batch is durable and visible.
pub(crate) type After = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Layer {
    spaces: BTreeMap<Space, Changes>,
    bytes: usize,
    after: Vec<After>,
}

impl Layer {
    fn get(&self, space: Space, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.spaces.get(&space)?.get(key)
    }

    fn set(&mut self, space: Space, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 16;
        self.spaces.entry(space).or_default().insert(key, value);
    }
}

/// One batch in the making. An operation sees the store, what earlier operations of the batch
/// changed, and its own changes; those are kept only if it succeeds.
pub struct Txn<'a> {
    backend: &'a dyn Backend,
    number: u64,
    batch: Layer,
    own: Layer,
    orders: u64,
}

impl fmt::Debug for Txn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Txn")
            .field("number", &self.number)
            .field("bytes", &(self.batch.bytes + self.own.bytes))
            .finish_non_exhaustive()
    }
}

impl<'a> Txn<'a> {
    pub(crate) fn new(backend: &'a dyn Backend, number: u64) -> Self {
        Self {
            backend,
            number,
            batch: Layer::default(),
            own: Layer::default(),
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
        (self.number << 24) | self.orders
    }

    /// Writes a payload.
    pub fn put(&mut self, space: Space, key: impl AsRef<[u8]>, payload: impl Into<Vec<u8>>) {
        self.own
            .set(space, key.as_ref().to_vec(), Some(payload.into()));
    }

    /// Writes a number.
    pub fn put_number(&mut self, space: Space, key: impl AsRef<[u8]>, number: u64) {
        self.put(space, key, number.to_be_bytes());
    }

    /// Removes a key; an unknown one does nothing.
    pub fn remove(&mut self, space: Space, key: impl AsRef<[u8]>) {
        self.own.set(space, key.as_ref().to_vec(), None);
    }

    /// Runs something when the batch is durable and visible, before anybody is told.
    pub fn after(&mut self, what: impl FnOnce() + Send + 'static) {
        self.own.after.push(Box::new(what));
    }

    /// Takes the operation's changes over into the batch.
    pub(crate) fn keep(&mut self) {
        let own = std::mem::take(&mut self.own);
        self.batch.bytes += own.bytes;
        self.batch.after.extend(own.after);
        for (space, changes) in own.spaces {
            self.batch.spaces.entry(space).or_default().extend(changes);
        }
    }

    /// Forgets the operation's changes.
    pub(crate) fn discard(&mut self) {
        self.own = Layer::default();
    }

    /// Bytes that the batch will write, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.batch.bytes
    }

    /// Whether nothing would be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.spaces.is_empty()
    }

    /// The sealed changes, and what to run after them.
    pub(crate) fn into_changes(self) -> (Vec<Change>, Vec<After>) {
        let mut changes = Vec::with_capacity(self.batch.spaces.values().map(Changes::len).sum());
        for (space, of_space) in self.batch.spaces {
            for (key, payload) in of_space {
                let value = payload.map(|p| seal(space, &key, &p));
                changes.push(Change { space, key, value });
            }
        }
        (changes, self.batch.after)
    }

    fn overlay<'s>(&'s self, space: Space, range: &Range<'_>) -> Vec<(&'s [u8], Option<&'s [u8]>)> {
        let mut merged: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        for layer in [&self.batch, &self.own] {
            let Some(changes) = layer.spaces.get(&space) else {
                continue;
            };
            for (key, value) in changes.range(range.from.to_vec()..) {
                if range.to.is_some_and(|to| key.as_slice() >= to) {
                    break;
                }
                merged.insert(key, value.as_deref());
            }
        }
        merged.into_iter().collect()
    }
}

impl View for Txn<'_> {
    fn is_settled(&self) -> bool {
        false
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        for layer in [&self.own, &self.batch] {
            if let Some(value) = layer.get(space, key) {
                return Ok(value.clone());
            }
        }
        Checked(self.backend).get(space, key)
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let overlay = self.overlay(space, &range);
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
                Some(value) => merged.insert(key.to_vec(), value.to_vec()),
                None => merged.remove(key),
            };
        }
        Ok(match range.direction {
            Direction::Forward => merged.into_iter().take(range.limit).collect(),
            Direction::Reverse => merged.into_iter().rev().take(range.limit).collect(),
        })
    }
}
