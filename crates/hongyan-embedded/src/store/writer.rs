//! The one writer: takes what waits, commits it as one batch, wakes all who wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hongyan_core::error::BoxError;
use hongyan_core::{Certainty, StoreError};
use tokio::sync::oneshot;

use super::disk::DiskWatch;
use super::record::payload;
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
}

trait Op: Send {
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
    /// Starts the thread.
    pub(crate) fn start(setup: Setup) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (queue, items) = sync_channel(QUEUE_LEN_MAX + 1);
        let shared = Arc::clone(&setup.shared);
        let engine = setup.backend.name();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Loop::new(setup).run(&items))?;
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
    setup: Setup,
    engine: &'static str,
    /// Since when something is written and not synced.
    unsynced: Option<Instant>,
    /// Bytes written since the last look at the disk.
    unseen: u64,
    room: Option<Room>,
}

impl Loop {
    fn new(setup: Setup) -> Self {
        let engine = setup.backend.name();
        Self {
            setup,
            engine,
            unsynced: None,
            unseen: 0,
            room: None,
        }
    }

    fn run(mut self, items: &Receiver<Item>) {
        loop {
            let next = match self.unsynced {
                None => items.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => items.recv_timeout(RELAXED_MAX.saturating_sub(since.elapsed())),
            };
            match next {
                Ok(Item::Op { op, urgency, cost }) => {
                    if let Some(done) = self.turn(items, op, urgency, cost) {
                        return self.end(Some(done));
                    }
                }
                Ok(Item::Close(done)) => return self.end(Some(done)),
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => return self.end(None),
            }
        }
    }

    fn end(mut self, done: Option<oneshot::Sender<()>>) {
        if self.unsynced.is_some() {
            self.sync();
        }
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    /// One batch. Answers who asked to close, if somebody did.
    fn turn(
        &mut self,
        items: &Receiver<Item>,
        op: Box<dyn Op>,
        urgency: Urgency,
        cost: usize,
    ) -> Option<oneshot::Sender<()>> {
        let backend = Arc::clone(&self.setup.backend);
        let number = self.setup.number + 1;
        let mut txn = Txn::in_room(backend.as_ref(), number, self.room.take());
        let mut ran = Vec::new();
        let mut durability = Durability::Buffered;
        let mut close = None;
        let mut next = Some((op, urgency, cost));
        while let Some((mut op, urgency, cost)) = next.take() {
            self.setup.shared.queued.fetch_sub(1, Ordering::Relaxed);
            self.setup
                .shared
                .queued_bytes
                .fetch_sub(cost, Ordering::Relaxed);
            if urgency == Urgency::Durable {
                durability = Durability::Synced;
            }
            // A panic in one operation is caught, refused and stays there.
            match catch_unwind(AssertUnwindSafe(|| op.run(&mut txn))) {
                Ok(true) => txn.keep(),
                Ok(false) => txn.discard(),
                Err(_) => {
                    metrics::counter!("hongyan_store_operation_panics_total").increment(1);
                    tracing::error!("a store operation panicked and was refused");
                    txn.discard();
                }
            }
            ran.push(op);
            if ran.len() >= BATCH_OPS_MAX || txn.bytes() >= BATCH_BYTES_MAX {
                break;
            }
            match items.try_recv() {
                Ok(Item::Op { op, urgency, cost }) => next = Some((op, urgency, cost)),
                Ok(Item::Close(done)) => close = Some(done),
                Err(_) => {}
            }
        }
        self.commit(txn, ran, durability);
        close
    }

    fn commit(&mut self, mut txn: Txn<'_>, ran: Vec<Box<dyn Op>>, durability: Durability) {
        if self.setup.shared.has_failed() {
            return self.refuse(ran, Certainty::NothingHappened);
        }
        // Where something always comes, nobody waits long enough to sync for its own sake.
        let is_late = |since: Instant| since.elapsed() >= RELAXED_MAX;
        let durability = match self.unsynced.is_some_and(is_late) {
            true => Durability::Synced,
            false => durability,
        };
        let number = txn.batch_number();
        if let Err(e) = self.settle(&mut txn) {
            self.room = txn.into_changes().room();
            return refuse_unwritten(ran, self.engine, &e);
        }
        if txn.is_empty() {
            self.room = txn.into_changes().room();
            // Nothing to write; but what these operations saw must be durable before they answer.
            if durability == Durability::Synced && self.unsynced.is_some() {
                self.sync();
            }
            if self.setup.shared.has_failed() {
                return self.refuse(ran, Certainty::Unknown);
            }
            for op in ran {
                op.finish(Ok(()));
            }
            return;
        }
        let (ops, bytes) = (ran.len(), txn.bytes());
        let mut outcome = txn.into_changes();
        outcome.changes.push(chain_change(number));
        if let Err(e) = self.write_through(&outcome.changes, durability) {
            self.fail(number, &e);
            return self.refuse(ran, Certainty::Unknown);
        }
        self.written(number, durability);
        self.setup.disk.wrote(bytes, &mut self.unseen);
        let observer = &self.setup.observer;
        let told = catch_unwind(AssertUnwindSafe(|| {
            for change in outcome.changes.iter().chain(&outcome.aside) {
                let value = change.value.as_deref().map(payload);
                observer(change.space, &change.key, value);
            }
            for run in outcome.after.drain(..) {
                run();
            }
        }));
        if told.is_err() {
            // What is kept in memory may differ from the disk now.
            let what = "what follows a batch panicked";
            self.fail(number, &unavailable(self.engine, Certainty::Unknown, what));
            return self.refuse(ran, Certainty::Unknown);
        }
        for op in ran {
            op.finish(Ok(()));
        }
        self.room = outcome.room();
        metrics::counter!("hongyan_store_batches_total").increment(1);
        metrics::counter!("hongyan_store_operations_total").increment(ops as u64);
    }

    /// Lets what was gathered be written; nothing of the batch is on the disk yet.
    fn settle(&self, txn: &mut Txn<'_>) -> Result<(), StoreError> {
        let settled = catch_unwind(AssertUnwindSafe(|| (self.setup.settle)(txn)));
        settled.unwrap_or_else(|_| {
            metrics::counter!("hongyan_store_operation_panics_total").increment(1);
            let what = "the end of the batch panicked";
            Err(unavailable(self.engine, Certainty::NothingHappened, what))
        })?;
        txn.keep();
        Ok(())
    }

    /// Writes; an engine's panic is a failed commit.
    fn write_through(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let backend = &self.setup.backend;
        catch_unwind(AssertUnwindSafe(|| backend.write(changes, durability))).unwrap_or_else(|_| {
            let what = "the engine panicked while it wrote";
            Err(unavailable(self.engine, Certainty::Unknown, what))
        })
    }

    fn written(&mut self, number: u64, durability: Durability) {
        self.setup.number = number;
        match durability {
            Durability::Synced => {
                self.unsynced = None;
                self.setup.shared.durable.store(number, Ordering::Release);
                let noted = self.setup.near.as_ref().map(|near| near.note(number));
                if let Some(Err(error)) = noted {
                    tracing::warn!(%error, "the near mark cannot be written; the watermark is up to a second old from now on");
                    self.setup.near = None;
                }
            }
            Durability::Buffered => {
                self.unsynced.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Brings what is buffered to the disk, as a batch of its own.
    fn sync(&mut self) {
        if self.setup.shared.has_failed() {
            self.unsynced = None;
            return;
        }
        let number = self.setup.number + 1;
        let change = vec![chain_change(number)];
        match self.write_through(&change, Durability::Synced) {
            Ok(()) => self.written(number, Durability::Synced),
            Err(e) => {
                self.unsynced = None;
                self.fail(number, &e);
            }
        }
    }

    /// Fail-stop: whether the batch is on the disk is unknown, and another try would hide it.
    fn fail(&mut self, number: u64, error: &StoreError) {
        let cause: Option<&BoxError> = match error {
            StoreError::Unavailable { source, .. } | StoreError::Corrupt { source, .. } => {
                Some(source)
            }
            _ => None,
        };
        let what = cause.map_or_else(|| error.to_string(), ToString::to_string);
        // Only the first failure is kept.
        let _ = self.setup.shared.failure.set(what.clone());
        self.setup.shared.failed.store(true, Ordering::Release);
        tracing::error!(engine = self.engine, number, error = %what, "a commit or what follows it failed: the store stops");
        (self.setup.on_fatal)(&Fatal {
            engine: self.engine,
            number,
            what,
        });
    }

    fn refuse(&self, ran: Vec<Box<dyn Op>>, certainty: Certainty) {
        let what = self.setup.shared.failure.get().cloned().unwrap_or_default();
        for op in ran {
            op.finish(Err(unavailable(self.engine, certainty, what.clone())));
        }
    }
}

/// Tells all operations of a batch that nothing of it was written.
fn refuse_unwritten(ran: Vec<Box<dyn Op>>, engine: &'static str, error: &StoreError) {
    let cause: Option<&BoxError> = match error {
        StoreError::Unavailable { source, .. } | StoreError::Corrupt { source, .. } => Some(source),
        _ => None,
    };
    let what = cause.map_or_else(|| error.to_string(), ToString::to_string);
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
