//! The store: opening it, writing to it, closing it.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hongyan_core::StoreError;

use super::disk::DiskWatch;
use super::inspect::{check_engine, inspect, io_error, open_backend};
use super::keeper::Keeper;
use super::txn::Checked;
use super::verify::Loss;
use super::watermark::{NearMark, Watermark};
use super::writer::{Mend, Observer, OnFatal, Pending, Settle, Setup, Shared, Writer};
use super::{Admission, Backend, Lock, OpenError, Options, Range, Rows, Space, Txn, Urgency, View};

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
impl Store {
    /// Opens or creates the store.
    ///
    /// # Errors
    /// [`OpenError`] names the file and what to do.
    pub(crate) fn open(
        options: &Options,
        observer: Observer,
        settle: Settle,
        mend: Mend,
    ) -> Result<Self, OpenError> {
        let dir = options.store_dir();
        fs::create_dir_all(&dir).map_err(io_error(&dir))?;
        let lock = Lock::take(&dir)?;
        check_engine(&dir, options.engine)?;
        let mut backend = open_backend(options.engine, &dir)?;
        let found = catch_unwind(AssertUnwindSafe(|| {
            inspect(backend.as_ref(), options, &dir, mend)
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
        let near = NearMark::open(&dir, found.epoch, found.number).map_err(io_error(&dir))?;
        let shared = Arc::new(Shared::default());
        shared.durable.store(found.number, Ordering::Release);
        let disk = DiskWatch {
            shared: Arc::clone(&shared),
            dir: dir.clone(),
            min_free_bytes: options.min_free_bytes,
            probe: Arc::clone(&options.disk_probe),
        };
        disk.look();
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            dir: dir.clone(),
            epoch: found.epoch,
            disk: disk.clone(),
            written: found.number,
        };
        let on_fatal: OnFatal = Arc::clone(&options.on_fatal);
        let (writer, writer_thread) = Writer::start(Setup {
            backend: Arc::clone(&backend),
            shared: Arc::clone(&shared),
            number: found.number,
            near: Some(near),
            on_fatal,
            observer,
            settle,
            disk,
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
