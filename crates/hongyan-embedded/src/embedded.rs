//! Everything on one machine: opens the store and hands out the ports.

use std::sync::Arc;

use hongyan_core::port::{Commit, Inbox, Ledger, Quota, Registry, Work};
use hongyan_core::{StoreError, Timestamp};
use tokio::sync::watch;

use crate::cached::Caches;
use crate::store::verify::Loss;
use crate::store::{Mended, OpenError, Options, Read, Space, Store, View};
use crate::work::Schedule;
use crate::{commit, gather, inbox, ledger, maintain, quota, registry, work};

/// What the ports share.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) store: Store,
    pub(crate) caches: Arc<Caches>,
    pub(crate) schedule: Arc<Schedule>,
    /// The newest event number.
    pub(crate) events: Arc<watch::Sender<u64>>,
}

impl Shelf {
    /// Runs reads that may touch the disk often on a thread that may block.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        what: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shelf = Arc::clone(self);
        match tokio::task::spawn_blocking(move || what(&shelf)).await {
            Ok(result) => result,
            Err(e) => Err(crate::store::unavailable(
                self.store.backend().name(),
                hongyan_core::Certainty::NothingHappened,
                e,
            )),
        }
    }
}

/// The engine ports on one store. Cheap to clone; the store closes with [`Embedded::close`], or when
/// the last port is dropped.
#[derive(Debug, Clone)]
pub struct Embedded {
    shelf: Arc<Shelf>,
}

/// What every part does for itself after a loss was accepted.
fn mend(reader: &dyn Read) -> Result<Mended, StoreError> {
    let (mut inbox, work) = (inbox::mend(reader)?, work::mend(reader)?);
    inbox.changes.extend(work.changes);
    inbox.newest_batch = inbox.newest_batch.max(work.newest_batch);
    Ok(inbox)
}

impl Embedded {
    /// Opens or creates the store. Blocks: reading back the journal can take seconds after a crash.
    ///
    /// # Errors
    /// [`OpenError`] says which file is at fault, what is lost and what to do.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let caches = Arc::new(Caches::new());
        let observer = Arc::clone(&caches);
        let events = Arc::new(watch::Sender::new(0));
        let newest = Arc::clone(&events);
        let schedule = Arc::new(Schedule::default());
        let jobs = Arc::clone(&schedule);
        let store = Store::open(
            options,
            Arc::new(move |space, key, payload| observer.changed(space, key, payload)),
            Arc::new(move |txn| gather::settle(txn, &newest, &jobs)),
            mend,
        )?;
        let fault = |e| OpenError::Engine {
            engine: options.engine.as_str(),
            dir: options.store_dir(),
            source: Box::new(e),
        };
        work::load(store.backend().as_ref(), &schedule).map_err(fault)?;
        let head = store.number(Space::Meta, ledger::HEAD).map_err(fault)?;
        events.send_replace(head.unwrap_or(0));
        let shelf = Arc::new(Shelf {
            store,
            caches,
            schedule,
            events,
        });
        Ok(Self { shelf })
    }

    /// Apps, devices, users, topics.
    #[must_use]
    pub fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(registry::EmbeddedRegistry(Arc::clone(&self.shelf)))
    }

    /// What devices can fetch.
    #[must_use]
    pub fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::new(inbox::EmbeddedInbox(Arc::clone(&self.shelf)))
    }

    /// Durable jobs.
    #[must_use]
    pub fn work(&self) -> Arc<dyn Work> {
        Arc::new(work::EmbeddedWork(Arc::clone(&self.shelf)))
    }

    /// Events, counters, deliveries.
    #[must_use]
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::new(ledger::EmbeddedLedger(Arc::clone(&self.shelf)))
    }

    /// Windows with counters.
    #[must_use]
    pub fn quota(&self) -> Arc<dyn Quota> {
        Arc::new(quota::EmbeddedQuota(Arc::clone(&self.shelf)))
    }

    /// The commit point.
    #[must_use]
    pub fn commit(&self) -> Arc<dyn Commit> {
        Arc::new(commit::EmbeddedCommit(Arc::clone(&self.shelf)))
    }

    /// Drops a bounded number of expired messages, idempotency keys and quota windows, and goes on
    /// with deletions that a crash interrupted; answers how many records went. Call it every minute or so,
    /// again at once while it answers more than zero. Events and deliveries go by [`Ledger::expire`].
    ///
    /// # Errors
    /// [`StoreError`] when the store does not work.
    pub async fn maintain(&self, now: Timestamp) -> Result<u64, StoreError> {
        maintain::maintain(&self.shelf, now).await
    }

    /// The store below, for backup and diagnosis.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shelf.store
    }

    /// What was lost, when the store was opened with the loss accepted.
    #[must_use]
    pub fn loss(&self) -> Option<&Loss> {
        self.shelf.store.loss()
    }

    /// Copies the store as it is now to a file, while it goes on working.
    ///
    /// # Errors
    /// [`crate::store::backup::BackupError`].
    pub async fn backup(
        &self,
        path: std::path::PathBuf,
    ) -> Result<crate::store::backup::Summary, crate::store::backup::BackupError> {
        let shelf = Arc::clone(&self.shelf);
        let copy = move || crate::store::backup::backup(&shelf.store, &path);
        match tokio::task::spawn_blocking(copy).await {
            Ok(result) => result,
            Err(e) => Err(crate::store::unavailable(
                self.shelf.store.backend().name(),
                hongyan_core::Certainty::NothingHappened,
                e,
            )
            .into()),
        }
    }

    /// Reads every record and lets the engine check its files; answers what is damaged, by name. Costs
    /// a read of everything.
    ///
    /// # Errors
    /// [`StoreError`] when the engine cannot read at all.
    pub async fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.shelf
            .read(|shelf| {
                let damaged = crate::store::verify::deep(shelf.store.backend().as_ref())?;
                Ok(damaged.iter().map(|(.., d)| d.to_string()).collect())
            })
            .await
    }

    /// Finishes what waits, syncs and marks the store as closed. Writes after it are refused. The
    /// files stay locked until every port is dropped.
    pub async fn close(&self) {
        let shelf = Arc::clone(&self.shelf);
        // A panic in there was reported by the thread that had it.
        let _ = tokio::task::spawn_blocking(move || shelf.store.close()).await;
    }
}
