//! The narrow store below the ports: ordered keyspaces, one writer, two engines.
//!
//! [`Backend`] is all that an engine has to offer. [`Store`] adds what must not differ between
//! engines: checksums, the one writer thread with group commit, the watermark and caches.

pub mod backup;
pub(crate) mod cache;
mod disk;
mod fjall;
mod inspect;
mod keeper;
mod lock;
mod manifest;
mod open;
mod options;
mod overlay;
pub mod record;
mod space;
mod sqlite;
mod txn;
pub mod verify;
pub mod watermark;
mod writer;

use std::fmt;

use hongyan_core::StoreError;

pub use self::fjall::FjallBackend;
pub use lock::{Lock, LockError};
pub use open::Store;
pub use options::{DiskProbe, Engine, OpenError, Options, Wrap};
pub use record::IntoKey;
pub use space::Space;
pub use sqlite::SqliteBackend;
pub(crate) use txn::{Checked, batch_of_order};
pub use txn::{Txn, View};
pub use writer::{Admission, Durability, Fatal, Urgency};
pub(crate) use writer::{Mended, Pending};

/// Keys and values, in key order.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// One change: a new value, or `None` to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The keyspace.
    pub space: Space,
    /// The key.
    pub key: Vec<u8>,
    /// The sealed value; `None` removes.
    pub value: Option<Vec<u8>>,
}

/// Which way a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key.
    Forward,
    /// From the largest key.
    Reverse,
}

/// Keys from `from` (inclusive) to `to` (exclusive; `None` is without end), at most `limit`.
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    /// First key.
    pub from: &'a [u8],
    /// First key that is no longer meant.
    pub to: Option<&'a [u8]>,
    /// Which way.
    pub direction: Direction,
    /// Rows at most.
    pub limit: usize,
}

impl<'a> Range<'a> {
    /// Upwards from `from` to before `to`.
    #[must_use]
    pub const fn forward(from: &'a [u8], to: Option<&'a [u8]>, limit: usize) -> Self {
        Self {
            from,
            to,
            direction: Direction::Forward,
            limit,
        }
    }

    /// Downwards from before `to` to `from`.
    #[must_use]
    pub const fn reverse(from: &'a [u8], to: Option<&'a [u8]>, limit: usize) -> Self {
        Self {
            from,
            to,
            direction: Direction::Reverse,
            limit,
        }
    }

    /// Whether no key can be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.limit == 0 || self.to.is_some_and(|to| self.from >= to)
    }
}

/// Raw reads: what the engine has, sealed.
pub trait Read: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the engine cannot read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The rows of a range, in its direction.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the engine cannot read.
    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError>;
}

/// What an engine has to offer.
pub trait Backend: Read + fmt::Debug {
    /// Its name, as in the configuration.
    fn name(&self) -> &'static str;

    /// Writes all changes or none; with [`Durability::Synced`] they and everything before them are
    /// on the disk when it returns, with [`Durability::Buffered`] they survive the process only.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; whether the changes are there is then unknown.
    fn write(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError>;

    /// A view that later writes do not change. Short-lived: it holds back compaction.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the engine cannot read.
    fn snapshot(&self) -> Result<Box<dyn Read>, StoreError>;

    /// The engine's own check of its files, as far as it has one; costs a read of everything.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] says what it found.
    fn check(&self) -> Result<(), StoreError>;

    /// Bytes on disk, roughly.
    fn disk_bytes(&self) -> u64;
}

pub(crate) fn unavailable(
    engine: &'static str,
    certainty: hongyan_core::Certainty,
    source: impl Into<hongyan_core::error::BoxError>,
) -> StoreError {
    StoreError::Unavailable {
        engine,
        certainty,
        source: source.into(),
    }
}
