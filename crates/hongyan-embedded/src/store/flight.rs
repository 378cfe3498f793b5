//! A batch on its way to the disk, and the thread that brings it there, so that the writer makes the next one meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::Thread;

use hashbrown::HashMap;
use hongyan_core::port::Job;
use hongyan_core::{Certainty, StoreError};

use super::disk::DiskWatch;
use super::record::payload;
use super::txn::{Follow, Tell};
use super::watermark::NearMark;
use super::writer::{Durability, Fatal, Observer, OnFatal, Op, Shared};
use super::{Backend, Change, Space, unavailable};

/// What a batch that left the writer changes. Until it has landed, the batch after it sees these changes over the store.
#[derive(Debug)]
pub(crate) struct Flight {
    /// For the engine, by keyspace and key.
    pub(super) changes: Vec<Change>,
    /// Not for the engine, by keyspace and key.
    pub(super) aside: Vec<Change>,
    /// Jobs that it made ready, or took out.
    pub(super) ready: HashMap<Arc<str>, Option<Arc<Job>>>,
    landed: AtomicBool,
}

impl Flight {
    pub(super) fn new(
        changes: Vec<Change>,
        aside: Vec<Change>,
        ready: HashMap<Arc<str>, Option<Arc<Job>>>,
    ) -> Self {
        Self {
            changes,
            aside,
            ready,
            landed: AtomicBool::new(false),
        }
    }

    /// Whether the store, the caches and the schedule tell all that stands in here; also when it failed.
    pub(super) fn has_landed(&self) -> bool {
        self.landed.load(Ordering::Acquire)
    }

    /// The sealed value that it gives a key; `Some(None)` when it removes it.
    pub(super) fn get(&self, space: Space, key: &[u8]) -> Option<Option<&[u8]>> {
        [&self.changes, &self.aside].into_iter().find_map(|all| {
            let at = all.binary_search_by(|c| (c.space, c.key.as_slice()).cmp(&(space, key)));
            Some(all[at.ok()?].value.as_deref())
        })
    }

    /// Keys from `from` to before `to` that it changes, with their sealed values; not in order.
    pub(super) fn range<'a>(
        &'a self,
        space: Space,
        from: &'a [u8],
        to: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        [&self.changes, &self.aside]
            .into_iter()
            .flat_map(move |all| {
                let begin = all.partition_point(|c| (c.space, c.key.as_slice()) < (space, from));
                let rows = all[begin..].iter();
                rows.take_while(move |c| {
                    c.space == space && to.is_none_or(|to| c.key.as_slice() < to)
                })
                .map(|c| (c.key.as_slice(), c.value.as_deref()))
            })
    }
}

/// A flight with all who wait for it.
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) flight: Arc<Flight>,
    pub(super) durability: Durability,
    pub(super) bytes: usize,
    pub(super) ran: Vec<Box<dyn Op>>,
    pub(super) follow: Vec<Follow>,
    pub(super) tell: Vec<Tell>,
}

/// The thread that writes batches, one after the other.
pub(super) struct Lander {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) shared: Arc<Shared>,
    /// `None` once it could not be written.
    pub(super) near: Option<NearMark>,
    pub(super) on_fatal: OnFatal,
    pub(super) observer: Observer,
    pub(super) disk: DiskWatch,
    /// Bytes written since the last look at the disk.
    pub(super) unseen: u64,
}

/// Tells the writer that a flight has ended, however it did.
struct Landing<'a, W: Fn()> {
    flight: &'a Flight,
    writer: &'a Thread,
    wake: &'a W,
}

impl<W: Fn()> Drop for Landing<'_, W> {
    fn drop(&mut self) {
        self.flight.landed.store(true, Ordering::Release);
        self.writer.unpark();
        (self.wake)();
    }
}

impl Lander {
    /// Until the writer ends. `wake` is called after each landing.
    pub(super) fn run(mut self, batches: &Receiver<(Batch, Thread)>, wake: impl Fn()) {
        while let Ok((batch, writer)) = batches.recv() {
            // Whatever panics, the next batch must find somebody who lands it.
            let one = AssertUnwindSafe(|| self.one(batch, &writer, &wake));
            if catch_unwind(one).is_err() {
                metrics::counter!("hongyan_store_operation_panics_total").increment(1);
                tracing::error!("what follows a batch panicked");
            }
        }
    }

    fn one(&mut self, batch: Batch, writer: &Thread, wake: &impl Fn()) {
        let engine = self.backend.name();
        let (number, durability, follow) = (batch.number, batch.durability, batch.follow);
        let flight = &batch.flight;
        let landing = Landing {
            flight,
            writer,
            wake,
        };
        if self.shared.has_failed() {
            drop(landing);
            let certainty = Certainty::NothingHappened;
            return self.shared.refuse(batch.ran, engine, certainty);
        }
        let land = AssertUnwindSafe(|| self.land(number, flight, durability, follow));
        let landed = catch_unwind(land).unwrap_or_else(|_| {
            let what = "the engine panicked while it wrote";
            Err(unavailable(engine, Certainty::Unknown, what))
        });
        if let Err(error) = &landed {
            self.fail(number, error);
        }
        drop(landing);
        // The writer uses its memory again.
        drop(batch.flight);
        if landed.is_err() {
            return self.shared.refuse(batch.ran, engine, Certainty::Unknown);
        }
        self.disk.wrote(batch.bytes, &mut self.unseen);
        for tell in batch.tell {
            tell();
        }
        let ops = batch.ran.len() as u64;
        for op in batch.ran {
            op.finish(Ok(()));
        }
        metrics::counter!("hongyan_store_batches_total").increment(1);
        metrics::counter!("hongyan_store_operations_total").increment(ops);
    }

    /// Writes, then lets memory follow: caches, then what the batch asked for.
    fn land(
        &mut self,
        number: u64,
        flight: &Flight,
        durability: Durability,
        follow: Vec<Follow>,
    ) -> Result<(), StoreError> {
        self.backend.write(&flight.changes, durability)?;
        if durability == Durability::Synced {
            self.shared.durable.store(number, Ordering::Release);
            let noted = self.near.as_ref().map(|near| near.note(number));
            if let Some(Err(error)) = noted {
                tracing::warn!(%error, "the near mark cannot be written; the watermark is up to a second old from now on");
                self.near = None;
            }
        }
        for change in flight.changes.iter().chain(&flight.aside) {
            let value = change.value.as_deref().map(payload);
            (self.observer)(change.space, &change.key, value);
        }
        for run in follow {
            run();
        }
        Ok(())
    }

    /// Fail-stop: whether the batch is on the disk is unknown, and another try would hide it.
    fn fail(&self, number: u64, error: &StoreError) {
        let engine = self.backend.name();
        let what = self.shared.fail(error);
        tracing::error!(engine, number, error = %what, "commit failed");
        (self.on_fatal)(&Fatal {
            engine,
            number,
            what,
        });
    }
}
