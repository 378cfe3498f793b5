//! Where a client keeps what must survive its process: cursor, seen ids, waiting events.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Longest record that is read back, in bytes; a longer file is not one of ours.
const RECORD_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Keeps one record of one device.
///
/// - `load` gives what the last successful `save` was given, or nothing.
/// - A `save` that is cut off by a crash leaves the record before it.
/// - Calls never overlap.
#[async_trait]
pub trait Storage: Send + Sync + fmt::Debug + 'static {
    /// Reads the record, if there is one.
    async fn load(&self) -> io::Result<Option<Bytes>>;
    /// Replaces the record.
    async fn save(&self, record: Bytes) -> io::Result<()>;
}

/// Keeps the record in memory: for tests, and for programs that stop and start clients.
#[derive(Default, Clone)]
pub struct Memory(Arc<Mutex<Option<Bytes>>>);

#[async_trait]
impl Storage for Memory {
    async fn load(&self) -> io::Result<Option<Bytes>> {
        Ok(self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }

    async fn save(&self, record: Bytes) -> io::Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
        Ok(())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

/// Keeps the record in a file that is replaced as a whole: written beside, synced, renamed.
#[derive(Debug, Clone)]
pub struct File {
    path: PathBuf,
}

impl File {
    /// Keeps the record at `path`; its folder has to exist. One client a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl Storage for File {
    async fn load(&self) -> io::Result<Option<Bytes>> {
        let path = self.path.clone();
        blocking(move || match std::fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
            Ok(meta) if meta.len() > RECORD_BYTES_MAX => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the record is too long",
            )),
            Ok(_) => Ok(Some(Bytes::from(std::fs::read(&path)?))),
        })
        .await
    }

    async fn save(&self, record: Bytes) -> io::Result<()> {
        let path = self.path.clone();
        blocking(move || replace(&path, &record)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn replace(path: &Path, record: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(record)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&beside, path)?;
    // The rename itself is durable once the folder is.
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => std::fs::File::open(folder)?.sync_all(),
        _ => std::fs::File::open(".")?.sync_all(),
    }
}

/// The first version of the record.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of the record; a newer one than ours is not read.
    pub(crate) v: u32,
    /// The place up to which everything was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    /// Ids of taken messages, oldest first.
    #[serde(default)]
    pub(crate) seen: Vec<String>,
    /// Client events that no connection has carried yet.
    #[serde(default)]
    pub(crate) events: Vec<crate::wire::ClientEvent>,
}

impl Record {
    /// Version that this code writes.
    pub(crate) const VERSION: u32 = 1;

    /// Reads a record; a damaged or newer one counts as none, since the gateway can replay.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (record.v == Self::VERSION).then_some(record)
    }

    pub(crate) fn write(&self) -> Bytes {
        // Strings and numbers always encode; an empty record would only cost a replay.
        serde_json::to_vec(self)
            .map(Bytes::from)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_keeps_the_last_record() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::new(folder.path().join("device.json"));
        assert_eq!(file.load().await.unwrap(), None);
        file.save(Bytes::from_static(b"one")).await.unwrap();
        file.save(Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(file.load().await.unwrap().unwrap(), "two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn records_round_trip_and_strangers_are_refused() {
        let record = Record {
            v: Record::VERSION,
            cursor: Some("e1.5.7".into()),
            seen: vec!["a".into()],
            events: Vec::new(),
        };
        assert_eq!(Record::read(&record.write()), Some(record));
        assert_eq!(Record::read(b"{\"v\":99}"), None);
        assert_eq!(Record::read(b"\x00\xff"), None);
    }
}
