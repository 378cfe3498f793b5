//! What the operations of a batch add to, and the batch writes once, at its end: events, the
//! counters that follow from them, notes of what will expire, jobs that are ready and how many there are.

use std::sync::Arc;

use hashbrown::HashMap;
use hongyan_core::{AppId, StoreError, Timestamp};
use tokio::sync::watch;

use crate::ledger::PreparedEvent;
use crate::store::Txn;
use crate::{ledger, maintain, work};

/// Sums and lists of one operation, or of all of a batch so far.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    events: Vec<PreparedEvent>,
    notes: Vec<(maintain::Kind, Timestamp, Vec<u8>)>,
    ready: HashMap<Arc<str>, Option<work::Made>>,
    jobs: i64,
    bytes: usize,
}

impl Gathered {
    /// Appends an event.
    pub(crate) fn event(&mut self, event: PreparedEvent) {
        self.bytes += event.cost();
        self.events.push(event);
    }

    /// Leaves a note to drop a record at a time.
    pub(crate) fn note(&mut self, kind: maintain::Kind, at: Timestamp, key: &[u8]) {
        self.bytes += key.len() + 16;
        self.notes.push((kind, at, key.to_vec()));
    }

    /// Makes a job ready, or moves it if it is.
    pub(crate) fn ready(&mut self, id: Arc<str>, made: work::Made) {
        self.bytes += made.cost();
        self.ready.insert(id, Some(made));
    }

    /// Takes a job out of those that are ready.
    pub(crate) fn unready(&mut self, id: Arc<str>) {
        self.ready.insert(id, None);
    }

    /// What became of a job in here: `Some(false)` when it is no longer ready.
    pub(crate) fn is_ready(&self, id: &str) -> Option<bool> {
        self.ready.get(id).map(Option::is_some)
    }

    /// Jobs of an app that are ready in here.
    pub(crate) fn ready_of(&self, app: &AppId) -> impl Iterator<Item = &Arc<str>> {
        let made = self.ready.iter();
        let made = made.filter_map(|(id, made)| Some((id, made.as_ref()?)));
        made.filter(|(_, made)| made.job.app == *app)
            .map(|(id, _)| id)
    }

    /// Counts jobs that came or went.
    pub(crate) const fn jobs(&mut self, change: i64) {
        self.jobs += change;
    }

    /// Takes over what an operation gathered.
    pub(crate) fn append(&mut self, own: &mut Self) {
        self.events.append(&mut own.events);
        self.notes.append(&mut own.notes);
        self.ready.extend(own.ready.drain());
        self.jobs += std::mem::take(&mut own.jobs);
        self.bytes += std::mem::take(&mut own.bytes);
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.notes.is_empty() && self.ready.is_empty() && self.jobs == 0
    }
}

/// Writes what a batch gathered. Runs in the writer, after the last operation.
pub(crate) fn settle(
    txn: &mut Txn<'_>,
    events: &Arc<watch::Sender<u64>>,
    schedule: &Arc<work::Schedule>,
) -> Result<(), StoreError> {
    let mut gathered = txn.take_gathered();
    if let Some(newest) = ledger::append(txn, &gathered.events)? {
        let events = Arc::clone(events);
        txn.after(move || {
            events.send_replace(newest);
        });
    }
    maintain::write_notes(txn, &mut gathered.notes);
    work::write_sheets(txn, schedule, gathered.ready);
    work::count(txn, gathered.jobs)
}
