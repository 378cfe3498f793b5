//! The one writer: runs the operations that wait, one after the other, and hands them over as one batch. While a batch is on
//! its way to the disk (`flight.rs`) it makes the next one, which sees what the former changes as if it were there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use hongyan_core::error::BoxError;
use hongyan_core::{Certainty, StoreError};
use tokio::sync::oneshot;

use super::disk::DiskWatch;
use super::flight::{Batch, Flight, Lander};
use super::txn::Room;
use super::verify::chain_change;
use super::watermark::NearMark;
use super::{Backend, Change, Read, Space, Txn, unavailable};

/// Operations in one batch.
const BATCH_OPS_MAX: usize = 4_096;
/// Bytes in one batch, after which no more operations are taken into it.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Operations that wait for the writer: four full batches.
const QUEUE_LEN_MAX: usize = 16_384;
/// Of these, for work that is already accepted and must not be held up by new messages.
const QUEUE_RESERVED: usize = QUEUE_LEN_MAX / 4;
/// Bytes that wait for the writer.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// How long a relaxed write may be without a sync.
const RELAXED_MAX: Duration = Duration::from_millis(50);
/// What a caller is told when the queue is full: a few batches later there is room.
const BUSY_RETRY_MS: u64 = 100;

/// Whether a batch has to be on the disk before anybody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk.
    Synced,
    /// With the operating system: survives the process, not the power.
    Buffered,
}

/// How a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// When it is on the disk.
    Durable,
    /// When it can be read; it is on the disk at most 50 ms later.
    Relaxed,
}

/// Who is let in when it gets tight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// New work: refused first.
    Intake,
    /// Work that follows from what was accepted.
    Normal,
    /// What makes room.
    Maintenance,
}

/// The store failed and acknowledges nothing more; the process has to end.
#[derive(Debug, thiserror::Error)]
#[error(
    "engine {engine} failed to commit batch {number}: {what}; nothing after it was acknowledged. \
     Check the disk and the system log, then start again"
)]
pub struct Fatal {
    /// The engine.
    pub engine: &'static str,
    /// The batch.
    pub number: u64,
    /// What the engine said.
    pub what: String,
}

/// What ends the process.
pub(crate) type OnFatal = Arc<dyn Fn(&Fatal) + Send + Sync>;
/// Is told every key that a batch changed, with its payload; `None` when it was removed.
pub(crate) type Observer = Arc<dyn Fn(Space, &[u8], Option<&[u8]>) + Send + Sync>;
/// Writes what the operations of a batch gathered, after the last of them.
pub(crate) type Settle = Arc<dyn Fn(&mut Txn<'_>) -> Result<(), StoreError> + Send + Sync>;

/// Makes good what lost records leave undetermined, when a store opens with the loss accepted.
pub(crate) type Mend = fn(&dyn Read) -> Result<Mended, StoreError>;

/// What lost records leave to be done.
pub(crate) struct Mended {
    /// What is to be written.
    pub(crate) changes: Vec<Change>,
    /// The newest batch that what is left tells of: its number and those before it are used up.
    pub(crate) newest_batch: u64,
}

/// How much room the disk has, as of the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum DiskRoom {
    Enough = 0,
    /// Below the threshold: no new work.
    Low = 1,
    /// Below a quarter of it: only what makes room.
    Critical = 2,
}

/// What writer, keeper and callers share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Last batch that is on the disk.
    pub(crate) durable: AtomicU64,
    failed: AtomicBool,
    room: AtomicU8,
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    pub(crate) failure: OnceLock<String>,
}

impl Shared {
    pub(crate) fn set_room(&self, room: DiskRoom) {
        self.room.store(room as u8, Ordering::Relaxed);
    }

    /// Operations that wait for the writer.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Nothing is acknowledged any more. Answers what went wrong, without the words around it; only the first failure is kept.
    pub(super) fn fail(&self, error: &StoreError) -> String {
        let what = cause(error);
        let _ = self.failure.set(what.clone());
        self.failed.store(true, Ordering::Release);
        what
    }

    /// Tells operations that the store has failed.
    pub(super) fn refuse(&self, ran: Vec<Box<dyn Op>>, engine: &'static str, certainty: Certainty) {
        let what = self.failure.get().cloned().unwrap_or_default();
        for op in ran {
            op.finish(Err(unavailable(engine, certainty, what.clone())));
        }
    }
}

/// What an error of the engine says, without the words around it.
fn cause(error: &StoreError) -> String {
    let cause: Option<&BoxError> = match error {
        StoreError::Unavailable { source, .. } | StoreError::Corrupt { source, .. } => Some(source),
        _ => None,
    };
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

pub(super) trait Op: Send {
    /// Runs; answers whether its changes are to be kept.
    fn run(&mut self, txn: &mut Txn<'_>) -> bool;
    /// Tells the caller; `Err` when the batch failed.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Typed<F, T, E> {
    run: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Op for Typed<F, T, E>
where
    F: FnOnce(&mut Txn<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run(&mut self, txn: &mut Txn<'_>) -> bool {
        let Some(run) = self.run.take() else {
            return false;
        };
        let result = run(txn);
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let result = match (outcome, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(E::from(unavailable(
                "writer",
                Certainty::NothingHappened,
                "the operation did not finish",
            ))),
            (Err(e), _) => Err(E::from(e)),
        };
        // The caller may have gone; the write stands all the same.
        let _ = self.reply.send(result);
    }
}

enum Item {
    Op {
        op: Box<dyn Op>,
        urgency: Urgency,
        cost: usize,
    },
    /// The batch that was on its way has landed.
    Landed,
    Close(oneshot::Sender<()>),
}

/// The callers' side.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
    engine: &'static str,
}

/// What the writer thread needs.
pub(crate) struct Setup {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
    /// `None` once it could not be written.
    pub(crate) near: Option<NearMark>,
    pub(crate) on_fatal: OnFatal,
    pub(crate) observer: Observer,
    pub(crate) settle: Settle,
    pub(crate) disk: DiskWatch,
}

impl Writer {
    /// Starts the two threads; the one that is answered ends last.
    pub(crate) fn start(setup: Setup) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, items) = sync_channel(QUEUE_LEN_MAX + 1);
        let shared = Arc::clone(&setup.shared);
        let engine = setup.backend.name();
        let (writing, lander) = Loop::start(setup, queue.clone())?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let done = writing.run(&items);
                // A panic in there was reported by the thread that had it.
                let _ = lander.join();
                if let Some(done) = done {
                    let _ = done.send(());
                }
            })?;
        let writer = Self {
            queue,
            shared,
            engine,
        };
        Ok((writer, thread))
    }

    /// Runs an operation inside the writer and answers when it is acknowledged. Dropping the future
    /// does not take the operation back.
    pub(crate) async fn write<T, E, F>(
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
        self.submit(admission, urgency, cost, run)?.wait().await
    }

    /// Queues an operation: those of one caller run in the order of these calls.
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
        self.admit(admission, cost)?;
        let (reply, answer) = oneshot::channel();
        let op = Box::new(Typed {
            run: Some(run),
            result: None,
            reply,
        });
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.shared.queued_bytes.fetch_add(cost, Ordering::Relaxed);
        match self.queue.try_send(Item::Op { op, urgency, cost }) {
            Ok(()) => Ok(Pending {
                answer,
                engine: self.engine,
            }),
            Err(refused) => {
                self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                self.shared.queued_bytes.fetch_sub(cost, Ordering::Relaxed);
                Err(match refused {
                    TrySendError::Full(_) => busy(),
                    TrySendError::Disconnected(_) => self.closed(),
                })
            }
        }
    }

    fn admit(&self, admission: Admission, cost: usize) -> Result<(), StoreError> {
        if self.shared.has_failed() {
            let what = self.shared.failure.get().cloned().unwrap_or_default();
            let what = format!("the store failed before: {what}");
            return Err(unavailable(self.engine, Certainty::NothingHappened, what));
        }
        let room = self.shared.room.load(Ordering::Relaxed);
        let full = match admission {
            Admission::Intake => room >= DiskRoom::Low as u8,
            Admission::Normal => room >= DiskRoom::Critical as u8,
            Admission::Maintenance => false,
        };
        if full {
            return Err(StoreError::DiskFull);
        }
        let reserved = match admission {
            Admission::Intake => QUEUE_RESERVED,
            Admission::Normal | Admission::Maintenance => 0,
        };
        let queued = self.shared.queued.load(Ordering::Relaxed);
        let bytes = self.shared.queued_bytes.load(Ordering::Relaxed);
        let bytes_max = QUEUE_BYTES_MAX - QUEUE_BYTES_MAX / QUEUE_LEN_MAX * reserved;
        // A single large operation is let in when nothing else waits.
        if queued >= QUEUE_LEN_MAX - reserved || (bytes > 0 && bytes + cost > bytes_max) {
            return Err(busy());
        }
        Ok(())
    }

    fn closed(&self) -> StoreError {
        unavailable(
            self.engine,
            Certainty::NothingHappened,
            "the store is closed",
        )
    }

    /// Lets the thread finish what waits, and end. Waits until it accepts the request.
    pub(crate) fn close(&self) -> oneshot::Receiver<()> {
        let (done, closed) = oneshot::channel();
        // Disconnected means that it has ended already.
        let _ = self.queue.send(Item::Close(done));
        closed
    }
}

fn busy() -> StoreError {
    StoreError::Busy {
        retry_after_ms: BUSY_RETRY_MS,
    }
}

/// An operation that is under way.
#[derive(Debug)]
pub(crate) struct Pending<T, E> {
    answer: oneshot::Receiver<Result<T, E>>,
    engine: &'static str,
}

impl<T, E: From<StoreError>> Pending<T, E> {
    pub(crate) async fn wait(self) -> Result<T, E> {
        match self.answer.await {
            Ok(result) => result,
            Err(_) => Err(E::from(unavailable(
                self.engine,
                Certainty::Unknown,
                "the store ended before it answered",
            ))),
        }
    }
}

/// The writer thread.
struct Loop {
    backend: Arc<dyn Backend>,
    shared: Arc<Shared>,
    /// The last batch that was handed over.
    number: u64,
    settle: Settle,
    batches: SyncSender<(Batch, Thread)>,
    /// What was handed over last; its memory is used again once it has landed.
    flight: Option<Arc<Flight>>,
    /// Since when something is written and not synced.
    unsynced: Option<Instant>,
    room: Option<Room>,
}

/// Operations that ran and are not handed over yet.
struct Making<'a> {
    txn: Txn<'a>,
    ran: Vec<Box<dyn Op>>,
    durability: Durability,
}

impl Making<'_> {
    fn is_full(&self) -> bool {
        self.ran.len() >= BATCH_OPS_MAX || self.txn.bytes() >= BATCH_BYTES_MAX
    }

    fn add(&mut self, mut op: Box<dyn Op>, urgency: Urgency) {
        if urgency == Urgency::Durable {
            self.durability = Durability::Synced;
        }
        // A panic in one operation is caught, refused and stays there.
        match catch_unwind(AssertUnwindSafe(|| op.run(&mut self.txn))) {
            Ok(true) => self.txn.keep(),
            Ok(false) => self.txn.discard(),
            Err(_) => {
                metrics::counter!("hongyan_store_operation_panics_total").increment(1);
                tracing::error!("a store operation panicked and was refused");
                self.txn.discard();
            }
        }
        self.ran.push(op);
    }
}

impl Loop {
    /// Starts the thread that its batches go to; `queue` is its own.
    fn start(setup: Setup, queue: SyncSender<Item>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (batches, arriving) = sync_channel(1);
        let lander = Lander {
            backend: Arc::clone(&setup.backend),
            shared: Arc::clone(&setup.shared),
            near: setup.near,
            on_fatal: setup.on_fatal,
            observer: setup.observer,
            disk: setup.disk,
            unseen: 0,
        };
        let thread = std::thread::Builder::new()
            .name("store-lander".to_owned())
            .spawn(move || {
                // A full queue has other things to wake the writer with.
                lander.run(&arriving, || drop(queue.try_send(Item::Landed)));
            })?;
        let writing = Self {
            backend: setup.backend,
            shared: setup.shared,
            number: setup.number,
            settle: setup.settle,
            batches,
            flight: None,
            unsynced: None,
            room: None,
        };
        Ok((writing, thread))
    }

    /// Until somebody asks to close; answers who did.
    fn run(mut self, items: &Receiver<Item>) -> Option<oneshot::Sender<()>> {
        let backend = Arc::clone(&self.backend);
        let mut close = None;
        while close.is_none() {
            match self.next(items) {
                Ok(Item::Op { op, urgency, cost }) => {
                    let making = self.begin(backend.as_ref());
                    close = self.turn(items, making, (op, urgency, cost));
                }
                Ok(Item::Landed) => {}
                Ok(Item::Close(done)) => close = Some(done),
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.wait_landed();
        if self.unsynced.is_some() {
            self.sync();
        }
        close
    }

    fn next(&self, items: &Receiver<Item>) -> Result<Item, RecvTimeoutError> {
        match self.unsynced {
            Some(since) if self.has_landed() => {
                items.recv_timeout(RELAXED_MAX.saturating_sub(since.elapsed()))
            }
            _ => items.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn begin<'a>(&mut self, backend: &'a dyn Backend) -> Making<'a> {
        let flight = self.flight.clone().filter(|flight| !flight.has_landed());
        Making {
            txn: Txn::in_room(backend, self.number + 1, self.room.take()).behind(flight),
            ran: Vec::new(),
            durability: Durability::Buffered,
        }
    }

    fn has_landed(&self) -> bool {
        let flight = self.flight.as_ref();
        flight.is_none_or(|flight| flight.has_landed())
    }

    fn wait_landed(&self) {
        while !self.has_landed() {
            std::thread::park();
        }
    }

    /// One batch: takes in what comes until the former one has landed and nothing waits. Answers who asked to close, if
    /// somebody did.
    fn turn(
        &mut self,
        items: &Receiver<Item>,
        mut making: Making<'_>,
        first: (Box<dyn Op>, Urgency, usize),
    ) -> Option<oneshot::Sender<()>> {
        let mut close = None;
        let mut next = Some(first);
        loop {
            if let Some((op, urgency, cost)) = next.take() {
                self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                self.shared.queued_bytes.fetch_sub(cost, Ordering::Relaxed);
                making.add(op, urgency);
            }
            if making.is_full() || close.is_some() {
                self.wait_landed();
                break;
            }
            let item = match items.try_recv() {
                Ok(item) => item,
                Err(_) if self.has_landed() => break,
                Err(_) => match items.recv() {
                    Ok(item) => item,
                    Err(_) => {
                        self.wait_landed();
                        break;
                    }
                },
            };
            match item {
                Item::Op { op, urgency, cost } => next = Some((op, urgency, cost)),
                Item::Landed => {}
                Item::Close(done) => close = Some(done),
            }
        }
        self.hand_over(making);
        close
    }

    /// Sends a batch on its way. Nothing else is.
    fn hand_over(&mut self, making: Making<'_>) {
        let Making {
            mut txn,
            ran,
            mut durability,
        } = making;
        let engine = self.backend.name();
        if self.shared.has_failed() {
            return self.shared.refuse(ran, engine, Certainty::NothingHappened);
        }
        if let Err(e) = self.settle(&mut txn) {
            self.room = Some(txn.into_room());
            return refuse_unwritten(ran, engine, &e);
        }
        // Where something always comes, nobody waits long enough to sync for its own sake.
        if self.unsynced.is_some_and(|at| at.elapsed() >= RELAXED_MAX) {
            durability = Durability::Synced;
        }
        // What operations saw that write nothing must be durable before they answer.
        let must_sync = durability == Durability::Synced && self.unsynced.is_some();
        if txn.is_empty() && !must_sync {
            self.room = Some(txn.into_room());
            for op in ran {
                op.finish(Ok(()));
            }
            return;
        }
        // The former one's memory is free, unless the other thread holds it for a moment more.
        drop(txn.take_flight());
        let spare = self.flight.take().and_then(Arc::into_inner);
        let spare = spare.map(|flight| (flight.changes, flight.aside));
        let (number, bytes) = (txn.batch_number(), txn.bytes());
        let mut outcome = txn.into_changes(spare);
        self.room = outcome.room;
        let chain = chain_change(number);
        let changes = &mut outcome.changes;
        let at = changes.partition_point(|c| (c.space, &c.key) < (chain.space, &chain.key));
        changes.insert(at, chain);
        self.send(Batch {
            number,
            flight: Arc::new(Flight::new(outcome.changes, outcome.aside, outcome.ready)),
            durability,
            bytes,
            ran,
            follow: outcome.follow,
            tell: outcome.tell,
        });
    }

    fn send(&mut self, batch: Batch) {
        self.number = batch.number;
        self.unsynced = match batch.durability {
            Durability::Synced => None,
            Durability::Buffered => self.unsynced.or_else(|| Some(Instant::now())),
        };
        let flight = Arc::clone(&batch.flight);
        match self.batches.send((batch, std::thread::current())) {
            Ok(()) => self.flight = Some(flight),
            // It lands whatever comes until the writer ends; but nobody must wait for what will not come.
            Err(lost) => {
                let engine = self.backend.name();
                let what = "the thread that writes has ended";
                let error = unavailable(engine, Certainty::NothingHappened, what);
                self.shared.fail(&error);
                self.shared
                    .refuse(lost.0.0.ran, engine, Certainty::NothingHappened);
            }
        }
    }

    /// Lets what was gathered be written; nothing of the batch is on the disk yet.
    fn settle(&self, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let settled = catch_unwind(AssertUnwindSafe(|| (self.settle)(txn)));
        settled.unwrap_or_else(|_| {
            metrics::counter!("hongyan_store_operation_panics_total").increment(1);
            let what = "the end of the batch panicked";
            let engine = self.backend.name();
            Err(unavailable(engine, Certainty::NothingHappened, what))
        })?;
        txn.keep();
        Ok(())
    }

    /// Brings what is buffered to the disk, as a batch of its own.
    fn sync(&mut self) {
        if self.shared.has_failed() {
            self.unsynced = None;
            return;
        }
        let number = self.number + 1;
        self.send(Batch {
            number,
            flight: Arc::new(Flight::new(
                vec![chain_change(number)],
                Vec::new(),
                hashbrown::HashMap::new(),
            )),
            durability: Durability::Synced,
            bytes: 0,
            ran: Vec::new(),
            follow: Vec::new(),
            tell: Vec::new(),
        });
    }
}

/// Tells all operations of a batch that nothing of it was written.
fn refuse_unwritten(ran: Vec<Box<dyn Op>>, engine: &'static str, error: &StoreError) {
    let what = cause(error);
    tracing::error!(engine, error = %what, "a batch cannot be counted and was refused");
    for op in ran {
        op.finish(Err(match error {
            StoreError::Corrupt { entity, .. } => StoreError::Corrupt {
                entity,
                source: what.clone().into(),
            },
            _ => unavailable(engine, Certainty::NothingHappened, what.clone()),
        }));
    }
}

#[cfg(test)]
mod tests;
