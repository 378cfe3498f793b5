//! The cautious engine: SQLite, one file that operators can open.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hongyan_core::{Certainty, StoreError};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{Backend, Change, Direction, Durability, Range, Read, Rows, Space, unavailable};

const ENGINE: &str = "sqlite";
/// The database's file name.
const FILE: &str = "hongyan.sqlite";
/// Connections for readers.
const READERS: usize = 4;
/// Statements that each connection keeps prepared: a few for each keyspace.
const STATEMENTS: usize = 256;

/// A SQLite database with one table for each [`Space`].
pub struct SqliteBackend {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
}

impl fmt::Debug for SqliteBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBackend")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn fault(certainty: Certainty) -> impl Fn(rusqlite::Error) -> StoreError {
    move |e| unavailable(ENGINE, certainty, e)
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; \
         PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON; \
         PRAGMA trusted_schema = OFF;",
    )?;
    Ok(connection)
}

impl SqliteBackend {
    /// Opens or creates the database in a directory.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file cannot be opened or is no database.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let fault = fault(Certainty::NothingHappened);
        let writer = connect(&path).map_err(&fault)?;
        for space in Space::ALL {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS s_{} (k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) \
                 STRICT, WITHOUT ROWID",
                space.name()
            );
            writer.execute_batch(&sql).map_err(&fault)?;
        }
        let readers = (0..READERS)
            .map(|_| connect(&path).map(Mutex::new))
            .collect::<Result<_, _>>()
            .map_err(&fault)?;
        Ok(Self {
            path,
            writer: Mutex::new(writer),
            readers,
            turn: AtomicUsize::new(0),
        })
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for i in 0..self.readers.len() {
            if let Ok(free) = self.readers[(turn + i) % self.readers.len()].try_lock() {
                return free;
            }
        }
        lock(&self.readers[turn % self.readers.len()])
    }
}

fn get(c: &Connection, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    let sql = format!("SELECT v FROM s_{} WHERE k = ?1", space.name());
    c.prepare_cached(&sql)?
        .query_row([key], |row| row.get(0))
        .optional()
}

fn range(c: &Connection, space: Space, range: Range<'_>) -> Result<Rows, rusqlite::Error> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let order = match range.direction {
        Direction::Forward => "ASC",
        Direction::Reverse => "DESC",
    };
    let bound = if range.to.is_some() { "AND k < ?3" } else { "" };
    let sql = format!(
        "SELECT k, v FROM s_{} WHERE k >= ?1 {bound} ORDER BY k {order} LIMIT ?2",
        space.name()
    );
    let limit = i64::try_from(range.limit).unwrap_or(i64::MAX);
    let mut statement = c.prepare_cached(&sql)?;
    let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    match range.to {
        Some(to) => statement
            .query_map(params![range.from, limit, to], pair)?
            .collect(),
        None => statement
            .query_map(params![range.from, limit], pair)?
            .collect(),
    }
}

impl Read for SqliteBackend {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&self.reader(), space, key).map_err(fault(Certainty::NothingHappened))
    }

    fn range(&self, space: Space, r: Range<'_>) -> Result<Rows, StoreError> {
        range(&self.reader(), space, r).map_err(fault(Certainty::NothingHappened))
    }
}

/// A connection inside a read transaction.
struct SqliteSnapshot(Mutex<Connection>);

impl Read for SqliteSnapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&lock(&self.0), space, key).map_err(fault(Certainty::NothingHappened))
    }

    fn range(&self, space: Space, r: Range<'_>) -> Result<Rows, StoreError> {
        range(&lock(&self.0), space, r).map_err(fault(Certainty::NothingHappened))
    }
}

fn apply(c: &Connection, changes: &[Change]) -> Result<(), rusqlite::Error> {
    for change in changes {
        let table = change.space.name();
        match &change.value {
            Some(value) => {
                let sql = format!(
                    "INSERT INTO s_{table} (k, v) VALUES (?1, ?2) \
                     ON CONFLICT (k) DO UPDATE SET v = excluded.v"
                );
                c.prepare_cached(&sql)?
                    .execute(params![change.key, value])?;
            }
            None => {
                let sql = format!("DELETE FROM s_{table} WHERE k = ?1");
                c.prepare_cached(&sql)?.execute(params![change.key])?;
            }
        }
    }
    Ok(())
}

impl Backend for SqliteBackend {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn write(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let connection = lock(&self.writer);
        let synchronous = match durability {
            Durability::Synced => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
            Durability::Buffered => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
        };
        connection
            .execute_batch(synchronous)
            .and_then(|()| apply(&connection, changes))
            .and_then(|()| connection.execute_batch("COMMIT"))
            .map_err(|e| {
                if !connection.is_autocommit() {
                    // The process ends after this; the file is left as it was.
                    let _ = connection.execute_batch("ROLLBACK");
                }
                unavailable(ENGINE, Certainty::Unknown, e)
            })
    }

    fn snapshot(&self) -> Result<Box<dyn Read>, StoreError> {
        let open = || -> Result<Connection, rusqlite::Error> {
            let connection = connect(&self.path)?;
            connection.execute_batch("BEGIN")?;
            // The snapshot is taken by the first read.
            get(&connection, Space::Meta, b"")?;
            Ok(connection)
        };
        let connection = open().map_err(fault(Certainty::NothingHappened))?;
        Ok(Box::new(SqliteSnapshot(Mutex::new(connection))))
    }

    fn check(&self) -> Result<(), StoreError> {
        let verdict: String = self
            .reader()
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(fault(Certainty::NothingHappened))?;
        if verdict == "ok" {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            entity: "database file",
            source: format!("{}: {verdict}", self.path.display()).into(),
        })
    }

    fn disk_bytes(&self) -> u64 {
        let wal = self.path.with_extension("sqlite-wal");
        [&self.path, &wal]
            .into_iter()
            .filter_map(|p| std::fs::metadata(p).ok())
            .map(|m| m.len())
            .sum()
    }
}
