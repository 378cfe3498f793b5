//! The default engine: fjall, a log-structured store.

use std::fmt;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable};
use hongyan_core::{Certainty, StoreError};

use super::{
    Backend, Change, Direction, Durability, Range, Read, Rows, Space, manifest, unavailable,
};

const ENGINE: &str = "fjall";
/// Memory before a keyspace is written out; small, because every keyspace has its own.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// All journals together: the bound on how long reopening takes.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;
/// Cache of blocks, shared by all keyspaces.
const CACHE_BYTES: u64 = 128 << 20;
/// Threads that write out and compact. Of several, fjall 3.1 keeps the first for writing out: that one hands each compaction
/// back to the queue, and so turns without rest while the others compact.
const WORKERS: usize = 1;

/// A fjall database with one keyspace for each [`Space`].
pub struct FjallBackend {
    database: Database,
    spaces: Vec<Keyspace>,
}

impl fmt::Debug for FjallBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallBackend").finish_non_exhaustive()
    }
}

fn fault(certainty: Certainty) -> impl Fn(fjall::Error) -> StoreError {
    move |e| unavailable(ENGINE, certainty, e)
}

impl FjallBackend {
    /// Opens or creates the database in a directory.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when its files cannot be opened or its journal is damaged.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let fault = fault(Certainty::NothingHappened);
        manifest::check(dir).map_err(|e| unavailable(ENGINE, Certainty::NothingHappened, e))?;
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(WORKERS)
            .open()
            .map_err(&fault)?;
        let mut spaces = Vec::with_capacity(Space::ALL.len());
        for space in Space::ALL {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            spaces.push(database.keyspace(space.name(), options).map_err(&fault)?);
        }
        Ok(Self { database, spaces })
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space.index()]
    }
}

fn rows(iter: fjall::Iter, range: &Range<'_>) -> Result<Rows, StoreError> {
    let take = |guard: fjall::Guard| {
        guard
            .into_inner()
            .map(|(k, v)| (k.to_vec(), v.to_vec()))
            .map_err(fault(Certainty::NothingHappened))
    };
    match range.direction {
        Direction::Forward => iter.take(range.limit).map(take).collect(),
        Direction::Reverse => iter.rev().take(range.limit).map(take).collect(),
    }
}

impl Read for FjallBackend {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.space(space)
            .get(key)
            .map(|value| value.map(|v| v.to_vec()))
            .map_err(fault(Certainty::NothingHappened))
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let keyspace = self.space(space);
        let iter = match range.to {
            Some(to) => keyspace.range(range.from..to),
            None => keyspace.range(range.from..),
        };
        rows(iter, &range)
    }
}

struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    spaces: Vec<Keyspace>,
}

impl Read for FjallSnapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.snapshot
            .get(&self.spaces[space.index()], key)
            .map(|value| value.map(|v| v.to_vec()))
            .map_err(fault(Certainty::NothingHappened))
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let keyspace = &self.spaces[space.index()];
        let iter = match range.to {
            Some(to) => self.snapshot.range(keyspace, range.from..to),
            None => self.snapshot.range(keyspace, range.from..),
        };
        rows(iter, &range)
    }
}

impl Backend for FjallBackend {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn write(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let mode = match durability {
            Durability::Synced => PersistMode::SyncData,
            Durability::Buffered => PersistMode::Buffer,
        };
        let batch = OwnedWriteBatch::with_capacity(self.database.clone(), changes.len());
        let mut batch = batch.durability(Some(mode));
        for change in changes {
            let keyspace = self.space(change.space);
            match &change.value {
                Some(value) => batch.insert(keyspace, change.key.as_slice(), value.as_slice()),
                None => batch.remove(keyspace, change.key.as_slice()),
            }
        }
        batch.commit().map_err(fault(Certainty::Unknown))
    }

    fn snapshot(&self) -> Result<Box<dyn Read>, StoreError> {
        Ok(Box::new(FjallSnapshot {
            snapshot: self.database.snapshot(),
            spaces: self.spaces.clone(),
        }))
    }

    fn check(&self) -> Result<(), StoreError> {
        // Every block has a checksum that is compared on reading; the walk over all records that
        // accompanies this check reads them all.
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}
