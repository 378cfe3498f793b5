//! A consistent copy of a running store in one file, and back.
//!
//! File: magic, format, epoch, batch number; then for each record keyspace tag, lengths, key, sealed
//! value; then an end mark, the number of records and the SHA-256 of everything before it. The copy
//! is of one instant and knows no engine: it restores into either.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use hongyan_core::StoreError;
use ring::digest::{Context, SHA256};

use super::inspect::{founding, fresh_epoch, open_backend};
use super::record::{after, unseal};
use super::watermark::Watermark;
use super::{Backend, Change, Durability, Engine, Lock, OpenError, Options, Range, Space, Store};

const MAGIC: &[u8; 8] = b"hongyanB";
/// Grows with the layout of the records.
const FORMAT: u8 = 3;
const END: u8 = 0;
/// Rows read from the engine at a time.
const PAGE: usize = 1_024;
/// Bytes loaded in one batch.
const LOAD_BYTES: usize = 4 << 20;
/// Largest key and value that a file may claim: damage must not make us ask for gigabytes.
const KEY_BYTES_MAX: u32 = 1 << 16;
const VALUE_BYTES_MAX: u32 = 1 << 28;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Records in the file.
    pub records: u64,
    /// The file's length in bytes.
    pub bytes: u64,
    /// The batch after which it was taken.
    pub number: u64,
}

/// Backup or restore did not work.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("cannot use {path}; check the path, its permissions and free space")]
    Io {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not whole.
    #[error("the backup {path} is damaged: {what}; use another one")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is a store already.
    #[error("there is a store in {dir} already; restore into an empty data directory")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io {
        path: path.clone(),
        source,
    }
}

/// Writes and hashes.
struct Sink {
    file: BufWriter<File>,
    hash: Context,
    bytes: u64,
}

impl Sink {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// Copies the store as it is now to a new file, while it goes on working. Blocks; reads everything.
///
/// # Errors
/// [`BackupError`]; an unfinished file is removed. A damaged record fails the backup, so that a
/// backup is always whole.
pub fn backup(store: &Store, path: &Path) -> Result<Summary, BackupError> {
    let unfinished = path.with_extension("unfinished");
    let summary = copy(store, &unfinished);
    match summary {
        Ok(summary) => {
            fs::rename(&unfinished, path).map_err(io_error(path))?;
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)
                    .and_then(|d| d.sync_all())
                    .map_err(io_error(parent))?;
            }
            Ok(summary)
        }
        Err(e) => {
            // The error that matters is the one that is returned.
            let _ = fs::remove_file(&unfinished);
            Err(e)
        }
    }
}

fn copy(store: &Store, path: &Path) -> Result<Summary, BackupError> {
    let fault = io_error(path);
    let snapshot = store.backend().snapshot()?;
    let (number, _) = super::verify::chain(snapshot.as_ref())?;
    let file = private_file(path).map_err(&fault)?;
    let mut sink = Sink {
        file: BufWriter::with_capacity(1 << 20, file),
        hash: Context::new(&SHA256),
        bytes: 0,
    };
    let mut head = MAGIC.to_vec();
    head.push(FORMAT);
    head.extend_from_slice(&store.epoch().to_be_bytes());
    head.extend_from_slice(&number.to_be_bytes());
    sink.put(&head).map_err(&fault)?;
    let mut records = 0u64;
    // Meta and chain are of this life of the store; a restored one begins its own.
    let copied = |s: &&Space| !matches!(s, Space::Chain);
    for space in Space::ALL.iter().filter(copied) {
        let mut from = Vec::new();
        loop {
            let rows = snapshot.range(*space, Range::forward(&from, None, PAGE))?;
            let Some((last, _)) = rows.last() else {
                break;
            };
            from = after(last);
            for (key, value) in rows {
                unseal(*space, &key, value.clone()).map_err(|d| d.into_store_error())?;
                let mut row = Vec::with_capacity(9 + key.len() + value.len());
                row.push(space.tag());
                row.extend_from_slice(&length(key.len()));
                row.extend_from_slice(&length(value.len()));
                row.extend_from_slice(&key);
                row.extend_from_slice(&value);
                sink.put(&row).map_err(&fault)?;
                records += 1;
            }
        }
    }
    let mut tail = vec![END];
    tail.extend_from_slice(&records.to_be_bytes());
    sink.put(&tail).map_err(&fault)?;
    let digest = sink.hash.finish();
    sink.file.write_all(digest.as_ref()).map_err(&fault)?;
    let file = sink.file.into_inner().map_err(|e| fault(e.into_error()))?;
    file.sync_all().map_err(&fault)?;
    Ok(Summary {
        records,
        bytes: sink.bytes + digest.as_ref().len() as u64,
        number,
    })
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes()
}

/// A new file that only its owner can read: it holds tokens and hashes.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Reads and hashes.
struct Source<'a> {
    file: BufReader<File>,
    hash: Context,
    bytes: u64,
    path: &'a Path,
}

impl Source<'_> {
    fn take(&mut self, n: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = vec![0; n];
        self.file.read_exact(&mut bytes).map_err(|e| {
            if e.kind() == io::ErrorKind::UnexpectedEof {
                self.damaged("it ends too early")
            } else {
                io_error(self.path)(e)
            }
        })?;
        self.hash.update(&bytes);
        self.bytes += n as u64;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let bytes = self.take(N)?;
        <[u8; N]>::try_from(bytes.as_slice()).map_err(|_| self.damaged("it ends too early"))
    }

    fn damaged(&self, what: &str) -> BackupError {
        BackupError::Damaged {
            path: self.path.to_owned(),
            what: what.to_owned(),
        }
    }
}

/// Reads a backup to its end and checks it, giving each record to `each`.
fn scan(
    path: &Path,
    mut each: impl FnMut(Space, Vec<u8>, Vec<u8>) -> Result<(), BackupError>,
) -> Result<Summary, BackupError> {
    let file = File::open(path).map_err(io_error(path))?;
    let mut source = Source {
        file: BufReader::with_capacity(1 << 20, file),
        hash: Context::new(&SHA256),
        bytes: 0,
        path,
    };
    if &source.array::<8>()? != MAGIC {
        return Err(source.damaged("it is not a backup of ours"));
    }
    match source.array::<1>()? {
        [FORMAT] => {}
        [older] if older < FORMAT => {
            let what = "it is of an earlier format; use the program that made it";
            return Err(source.damaged(what));
        }
        _ => return Err(source.damaged("it is of an unknown format; use a newer program")),
    }
    let _epoch = source.array::<4>()?;
    let number = u64::from_be_bytes(source.array()?);
    let mut records = 0u64;
    loop {
        let [tag] = source.array::<1>()?;
        if tag == END {
            break;
        }
        let Some(space) = Space::from_tag(tag) else {
            return Err(source.damaged("it has a record of an unknown kind"));
        };
        let key_len = u32::from_be_bytes(source.array()?);
        let value_len = u32::from_be_bytes(source.array()?);
        if key_len > KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
            return Err(source.damaged("it has a record of impossible size"));
        }
        let key = source.take(key_len as usize)?;
        let value = source.take(value_len as usize)?;
        each(space, key, value)?;
        records += 1;
    }
    if u64::from_be_bytes(source.array()?) != records {
        return Err(source.damaged("it lacks records"));
    }
    let digest = source.hash.clone().finish();
    let bytes = source.bytes + digest.as_ref().len() as u64;
    if source.take(digest.as_ref().len())? != digest.as_ref() {
        return Err(source.damaged("its checksum does not match"));
    }
    Ok(Summary {
        records,
        bytes,
        number,
    })
}

/// Checks a backup without restoring it.
///
/// # Errors
/// [`BackupError::Damaged`] says what is wrong.
pub fn check(path: &Path) -> Result<Summary, BackupError> {
    scan(path, |space, key, value| {
        unseal(space, &key, value)
            .map(drop)
            .map_err(|d| BackupError::Store(d.into_store_error()))
    })
}

/// Loads a backup into an empty data directory, for either engine. The restored store has an epoch
/// of its own, so that clients' cursors of the lost one are noticed. Blocks.
///
/// # Errors
/// [`BackupError`]; the directory then has no store.
pub fn restore(path: &Path, dir: &Path, engine: Engine) -> Result<Summary, BackupError> {
    // The whole file is checked before anything is made.
    let summary = check(path)?;
    let target = Options::new(dir).store_dir();
    if target.exists() {
        return Err(BackupError::NotEmpty { dir: target });
    }
    let fresh = dir.join("store.restoring");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(io_error(&fresh))?;
    }
    fs::create_dir_all(&fresh).map_err(io_error(&fresh))?;
    {
        let _lock = Lock::take(&fresh).map_err(OpenError::from)?;
        let backend = open_backend(engine, &fresh)?;
        load(path, backend.as_ref(), summary.number, &fresh)?;
        let name = fresh.join("ENGINE");
        fs::write(&name, engine.as_str()).map_err(io_error(&name))?;
    }
    fs::rename(&fresh, &target).map_err(io_error(&target))?;
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(io_error(dir))?;
    Ok(summary)
}

fn load(path: &Path, backend: &dyn Backend, number: u64, dir: &Path) -> Result<(), BackupError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    scan(path, |space, key, value| {
        if space == Space::Meta && FOUNDING.contains(&key.as_slice()) {
            return Ok(());
        }
        bytes += key.len() + value.len();
        batch.push(Change {
            space,
            key,
            value: Some(value),
        });
        if bytes >= LOAD_BYTES {
            bytes = 0;
            backend.write(&std::mem::take(&mut batch), Durability::Buffered)?;
        }
        Ok(())
    })?;
    let epoch = fresh_epoch();
    batch.extend(founding(epoch, number));
    backend.write(&batch, Durability::Synced)?;
    let watermark = Watermark {
        epoch,
        number,
        closed: true,
    };
    watermark.write(dir).map_err(io_error(dir))
}

/// Meta keys that a restored store makes anew.
const FOUNDING: [&[u8]; 3] = [b"epoch", b"layout", super::verify::BASE];
