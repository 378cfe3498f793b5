//! What the operations of a batch add to, and the batch writes once, at its end: events, the
//! counters that follow from them, notes of what will expire, how many jobs there are.

use hongyan_core::{StoreError, Timestamp};
use tokio::sync::watch;

use crate::ledger::PreparedEvent;
use crate::store::Txn;
use crate::{ledger, maintain, work};

/// Sums and lists of one operation, or of all of a batch so far.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    events: Vec<PreparedEvent>,
    notes: Vec<(maintain::Kind, Timestamp, Vec<u8>)>,
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

    /// Counts jobs that came or went.
    pub(crate) const fn jobs(&mut self, change: i64) {
        self.jobs += change;
    }

    /// Takes over what an operation gathered.
    pub(crate) fn append(&mut self, own: &mut Self) {
        self.events.append(&mut own.events);
        self.notes.append(&mut own.notes);
        self.jobs += std::mem::take(&mut own.jobs);
        self.bytes += std::mem::take(&mut own.bytes);
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.events.is_empty() && self.notes.is_empty() && self.jobs == 0
    }
}

/// Writes what a batch gathered. Runs in the writer, after the last operation.
pub(crate) fn settle(
    txn: &mut Txn<'_>,
    events: &std::sync::Arc<watch::Sender<u64>>,
) -> Result<(), StoreError> {
    let mut gathered = txn.take_gathered();
    if let Some(newest) = ledger::append(txn, &gathered.events)? {
        let events = std::sync::Arc::clone(events);
        txn.after(move || {
            events.send_replace(newest);
        });
    }
    maintain::write_notes(txn, &mut gathered.notes);
    work::count(txn, gathered.jobs)
}
