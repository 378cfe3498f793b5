//! Opening the store: lock, engine, what was lost, then the threads.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hongyan_core::StoreError;
use ring::rand::{SecureRandom, SystemRandom};

use super::record::{Damage, seal};
use super::txn::Checked;
use super::verify::{self, Loss};
use super::watermark::Watermark;
use super::writer::{DiskRoom, Observer, OnFatal, Pending, Setup, Shared, Writer};
use super::{
    Admission, Backend, Change, Durability, Fatal, FjallBackend, Lock, LockError, Range, Read,
    Rows, Space, SqliteBackend, Txn, Urgency, View,
};

/// Layout of keys and records; an older program does not open a newer layout.
const LAYOUT: u64 = 1;
const EPOCH: &[u8] = b"epoch";
const LAYOUT_KEY: &[u8] = b"layout";
/// Names the engine that made the directory.
const ENGINE_FILE: &str = "ENGINE";
/// How often watermark and free disk are looked after.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// fjall: least writing, the default.
    #[default]
    Fjall,
    /// SQLite: one well-known file.
    Sqlite,
}

impl Engine {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fjall, Self::Sqlite];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sqlite => "sqlite",
        }
    }

    /// The engine with this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.as_str() == text)
    }
}

/// Puts something between the store and its engine (fault injection in tests).
pub type Wrap = Arc<dyn Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync>;
/// Answers the free bytes of the disk, if they can be known.
pub type DiskProbe = Arc<dyn Fn(&Path) -> Option<u64> + Send + Sync>;

/// How to open the store.
#[derive(Clone)]
pub struct Options {
    /// The data directory; the store is in `store/` below it.
    pub dir: PathBuf,
    /// The engine; must be the one that made the store.
    pub engine: Engine,
    /// Open although acknowledged data is lost. Damaged records are then removed.
    pub accept_loss: bool,
    /// Below this many free bytes nothing new is accepted; below a quarter, nothing at all. Default 256 MiB.
    pub min_free_bytes: u64,
    /// A store up to this size is read in full when it is opened. Default 256 MiB.
    pub verify_bytes_max: u64,
    /// Is called once when a commit failed; has to end the process.
    pub on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    /// How free disk is measured.
    pub disk_probe: DiskProbe,
    /// Put between store and engine.
    pub wrap: Option<Wrap>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("engine", &self.engine)
            .field("accept_loss", &self.accept_loss)
            .field("min_free_bytes", &self.min_free_bytes)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults for a data directory; a failed commit aborts the process.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            engine: Engine::default(),
            accept_loss: false,
            min_free_bytes: 256 << 20,
            verify_bytes_max: 256 << 20,
            on_fatal: Arc::new(|_| std::process::abort()),
            disk_probe: Arc::new(free_bytes),
            wrap: None,
        }
    }

    /// The same with another engine.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Where the store's files are.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }
}

fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory cannot be used.
    #[error("cannot use {path}; check that it exists and may be written")]
    Io {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses the store.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The directory was made by another engine.
    #[error(
        "the store in {dir} was made by engine {found}, not {wanted}; set store.engine = \"{found}\", or move it by backup and restore"
    )]
    OtherEngine {
        /// The directory.
        dir: PathBuf,
        /// What made it.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The store was written by a newer version.
    #[error(
        "the store in {dir} has layout {found}, this program knows {known}; use a newer program"
    )]
    NewerLayout {
        /// The directory.
        dir: PathBuf,
        /// Its layout.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The engine cannot open or read its files.
    #[error("engine {engine} cannot read its files in {dir}; restore the newest backup")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// The directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: hongyan_core::error::BoxError,
    },
    /// Acknowledged data is lost.
    #[error(
        "the store in {dir} has lost acknowledged data: {loss}. Restore the newest backup, or start once with the loss accepted"
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
        /// What.
        loss: Box<Loss>,
    },
}

/// The store: an engine behind one writer, with checked records.
pub struct Store {
    backend: Arc<dyn Backend>,
    writer: Writer,
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
    epoch: u32,
    loss: Option<Loss>,
    dir: PathBuf,
    _lock: Lock,
}

struct Threads {
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
    keeper_stop: SyncSender<()>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("engine", &self.backend.name())
            .field("dir", &self.dir)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl View for Store {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Checked(self.backend.as_ref()).get(space, key)
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        Checked(self.backend.as_ref()).range(space, range)
    }
}

/// Opens an engine's files in the store's directory.
pub(crate) fn open_backend(engine: Engine, dir: &Path) -> Result<Arc<dyn Backend>, OpenError> {
    // A damaged file must not take the process down with an engine's own panic.
    let opened = catch_unwind(AssertUnwindSafe(
        || -> Result<Arc<dyn Backend>, StoreError> {
            Ok(match engine {
                Engine::Fjall => Arc::new(FjallBackend::open(&dir.join("fjall"))?),
                Engine::Sqlite => Arc::new(SqliteBackend::open(dir)?),
            })
        },
    ));
    match opened {
        Ok(Ok(backend)) => Ok(backend),
        Ok(Err(e)) => Err(engine_error(engine, dir, e)),
        Err(_) => Err(OpenError::Engine {
            engine: engine.as_str(),
            dir: dir.to_owned(),
            source: "the engine panicked over its files".into(),
        }),
    }
}

fn engine_error(engine: Engine, dir: &Path, error: StoreError) -> OpenError {
    let source = match error {
        StoreError::Unavailable { source, .. } => source,
        other => Box::new(other),
    };
    OpenError::Engine {
        engine: engine.as_str(),
        dir: dir.to_owned(),
        source,
    }
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        path: path.clone(),
        source,
    }
}

fn check_engine(dir: &Path, engine: Engine) -> Result<(), OpenError> {
    let path = dir.join(ENGINE_FILE);
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == engine.as_str() => Ok(()),
        // A crash right after the file was made leaves it empty.
        Ok(found) if found.trim().is_empty() => {
            fs::write(&path, engine.as_str()).map_err(io_error(&path))
        }
        Ok(found) => Err(OpenError::OtherEngine {
            dir: dir.to_owned(),
            found: found.trim().to_owned(),
            wanted: engine.as_str(),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            fs::write(&path, engine.as_str()).map_err(io_error(&path))
        }
        Err(e) => Err(io_error(&path)(e)),
    }
}

/// A number that no earlier life of a store had, as good as surely.
pub(crate) fn fresh_epoch() -> u32 {
    let mut bytes = [0u8; 4];
    // Without randomness the epoch is 1: unique for a store that was never restored.
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_be_bytes(bytes).max(1)
}

fn meta(key: &[u8], number: u64) -> Change {
    Change {
        space: Space::Meta,
        key: key.to_vec(),
        value: Some(seal(Space::Meta, key, &number.to_be_bytes())),
    }
}

/// The records that make an empty engine a store whose numbers begin after `base`.
pub(crate) fn founding(epoch: u32, base: u64) -> Vec<Change> {
    vec![
        meta(LAYOUT_KEY, LAYOUT),
        meta(EPOCH, u64::from(epoch)),
        meta(verify::BASE, base),
    ]
}

/// What was found in a store before its threads start.
struct Found {
    epoch: u32,
    number: u64,
    loss: Option<Loss>,
}

fn inspect(backend: &dyn Backend, options: &Options, dir: &Path) -> Result<Found, OpenError> {
    let fault = |e| engine_error(options.engine, dir, e);
    let mut loss = Loss::default();
    let watermark = Watermark::read(dir).unwrap_or_else(|e| {
        loss.watermark = Some(e.to_string());
        None
    });
    let reader: &dyn Read = backend;
    let layout = verify::number_or_damage(reader, LAYOUT_KEY).map_err(fault)?;
    if let Some(found) = layout.flatten().filter(|found| *found > LAYOUT) {
        return Err(OpenError::NewerLayout {
            dir: dir.to_owned(),
            found,
            known: LAYOUT,
        });
    }
    let epoch = verify::number_or_damage(reader, EPOCH).map_err(fault)?;
    if epoch == Some(None) && watermark.is_none_or(|w| w.number == 0) && loss.watermark.is_none() {
        return found_new(backend, dir).map_err(|e| match e {
            Founding::Io(e) => e,
            Founding::Store(e) => fault(e),
        });
    }
    if watermark.is_none() && loss.watermark.is_none() {
        let path = super::watermark::path(dir);
        loss.watermark = Some(format!("the watermark file {} is gone", path.display()));
    }
    let (head, missing) = verify::chain(reader).map_err(fault)?;
    loss.found = head;
    loss.missing = missing;
    loss.acknowledged = watermark.map_or(head, |w| w.number);
    if loss.acknowledged > head {
        loss.missing.push((head + 1, loss.acknowledged));
    }
    let mut damaged = Vec::new();
    if epoch.is_none() || layout.is_none() {
        let what = "a founding record is damaged";
        damaged.push((
            Space::Meta,
            EPOCH.to_vec(),
            Damage::of(Space::Meta, EPOCH, what),
        ));
    }
    if backend.disk_bytes() <= options.verify_bytes_max {
        damaged = verify::deep(backend).map_err(fault)?;
    }
    verify::name(&damaged, &mut loss);
    let of_watermark = watermark.map(|w| u64::from(w.epoch));
    let epoch = epoch.flatten().or(of_watermark);
    let old = epoch.and_then(|e| u32::try_from(e).ok()).unwrap_or(0);
    if loss.is_none() {
        return Ok(Found {
            epoch: old,
            number: head,
            loss: None,
        });
    }
    if !options.accept_loss {
        return Err(OpenError::Lost {
            dir: dir.to_owned(),
            loss: Box::new(loss),
        });
    }
    tracing::warn!(%loss, "the store opens with the loss accepted");
    // A new life: clients' cursors are of another epoch now, and numbers go on after the lost ones.
    let epoch = old.wrapping_add(1).max(1);
    let base = head.max(loss.acknowledged);
    let mut changes: Vec<Change> = damaged
        .into_iter()
        .map(|(space, key, _)| Change {
            space,
            key,
            value: None,
        })
        .collect();
    changes.extend(founding(epoch, base));
    backend.write(&changes, Durability::Synced).map_err(fault)?;
    Ok(Found {
        epoch,
        number: base,
        loss: Some(loss),
    })
}

enum Founding {
    Io(OpenError),
    Store(StoreError),
}

fn found_new(backend: &dyn Backend, dir: &Path) -> Result<Found, Founding> {
    let epoch = fresh_epoch();
    // The watermark first: a store that has records and no watermark has lost it.
    let watermark = Watermark {
        epoch,
        number: 0,
        closed: false,
    };
    watermark
        .write(dir)
        .map_err(|e| Founding::Io(io_error(&super::watermark::path(dir))(e)))?;
    backend
        .write(&founding(epoch, 0), Durability::Synced)
        .map_err(Founding::Store)?;
    Ok(Found {
        epoch,
        number: 0,
        loss: None,
    })
}

impl Store {
    /// Opens or creates the store.
    ///
    /// # Errors
    /// [`OpenError`] names the file and what to do.
    pub(crate) fn open(options: &Options, observers: Vec<Observer>) -> Result<Self, OpenError> {
        let dir = options.store_dir();
        fs::create_dir_all(&dir).map_err(io_error(&dir))?;
        let lock = Lock::take(&dir)?;
        check_engine(&dir, options.engine)?;
        let mut backend = open_backend(options.engine, &dir)?;
        let found = catch_unwind(AssertUnwindSafe(|| {
            inspect(backend.as_ref(), options, &dir)
        }))
        .unwrap_or_else(|_| {
            Err(OpenError::Engine {
                engine: options.engine.as_str(),
                dir: dir.clone(),
                source: "the engine panicked over its files".into(),
            })
        })?;
        if let Some(wrap) = &options.wrap {
            backend = wrap(backend);
        }
        let watermark = Watermark {
            epoch: found.epoch,
            number: found.number,
            closed: false,
        };
        watermark
            .write(&dir)
            .map_err(io_error(&super::watermark::path(&dir)))?;
        let shared = Arc::new(Shared::default());
        shared.durable.store(found.number, Ordering::Release);
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            dir: dir.clone(),
            epoch: found.epoch,
            min_free_bytes: options.min_free_bytes,
            probe: Arc::clone(&options.disk_probe),
            written: found.number,
        };
        keeper.look_at_disk();
        let on_fatal: OnFatal = Arc::clone(&options.on_fatal);
        let (writer, writer_thread) = Writer::start(Setup {
            backend: Arc::clone(&backend),
            shared: Arc::clone(&shared),
            number: found.number,
            on_fatal,
            observers,
        })
        .map_err(io_error(&dir))?;
        let (keeper_stop, stop) = sync_channel(1);
        let keeper_thread = std::thread::Builder::new()
            .name("store-keeper".to_owned())
            .spawn(move || keeper.run(&stop))
            .map_err(io_error(&dir))?;
        Ok(Self {
            backend,
            writer,
            shared,
            threads: Mutex::new(Some(Threads {
                writer: writer_thread,
                keeper: keeper_thread,
                keeper_stop,
            })),
            epoch: found.epoch,
            loss: found.loss,
            dir,
            _lock: lock,
        })
    }

    /// Which life of the store this is: another one after a restore or an accepted loss.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What was lost, when it was opened with the loss accepted.
    #[must_use]
    pub const fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// The last batch that is on the disk.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// The engine below.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs an operation inside the writer thread, where all writes are serial, and answers when it
    /// is acknowledged. An operation that answers an error changes nothing; the others of its batch
    /// are not affected. `cost` is about how many bytes wait with it.
    ///
    /// # Errors
    /// What the operation answers, or [`StoreError::Busy`], [`StoreError::DiskFull`],
    /// [`StoreError::Unavailable`].
    pub async fn write<T, E, F>(
        &self,
        admission: Admission,
        urgency: Urgency,
        cost: usize,
        run: F,
    ) -> Result<T, E>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.writer.write(admission, urgency, cost, run).await
    }

    /// Queues an operation without waiting for it.
    pub(crate) fn submit<T, E, F>(
        &self,
        admission: Admission,
        urgency: Urgency,
        cost: usize,
        run: F,
    ) -> Result<Pending<T, E>, StoreError>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.writer.submit(admission, urgency, cost, run)
    }

    /// Finishes what waits, syncs, writes the watermark and ends the threads. Later writes are
    /// refused. Blocks for as long as that takes.
    pub fn close(&self) {
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(threads) = threads else {
            return;
        };
        let _closed = self.writer.close();
        // Panics of these threads were reported when they happened.
        let _ = threads.writer.join();
        let _ = threads.keeper_stop.send(());
        let _ = threads.keeper.join();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Looks after watermark and free disk once a second.
struct Keeper {
    shared: Arc<Shared>,
    dir: PathBuf,
    epoch: u32,
    min_free_bytes: u64,
    probe: DiskProbe,
    written: u64,
}

impl Keeper {
    fn run(mut self, stop: &std::sync::mpsc::Receiver<()>) {
        loop {
            let closing = match stop.recv_timeout(KEEP_EVERY) {
                Err(RecvTimeoutError::Timeout) => false,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            };
            self.keep(closing);
            if closing {
                return;
            }
        }
    }

    fn keep(&mut self, closing: bool) {
        self.look_at_disk();
        let waiting = u32::try_from(self.shared.queued()).unwrap_or(u32::MAX);
        metrics::gauge!("hongyan_store_queue_len_now").set(waiting);
        let number = self.shared.durable.load(Ordering::Acquire);
        let closed = closing && !self.shared.has_failed();
        if number == self.written && !closed {
            return;
        }
        let watermark = Watermark {
            epoch: self.epoch,
            number,
            closed,
        };
        match watermark.write(&self.dir) {
            Ok(()) => self.written = number,
            Err(error) => tracing::warn!(%error, "the watermark was not written"),
        }
    }

    fn look_at_disk(&self) {
        let room = match (self.probe)(&self.dir) {
            Some(free) if free < self.min_free_bytes / 4 => DiskRoom::Critical,
            Some(free) if free < self.min_free_bytes => DiskRoom::Low,
            _ => DiskRoom::Enough,
        };
        self.shared.set_room(room);
    }
}
