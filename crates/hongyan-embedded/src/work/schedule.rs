//! The jobs that are offered or held, in memory: leasing them writes nothing. They are on the disk too, so that a
//! crash only makes them due again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use hongyan_core::port::Job;
use tokio::sync::Notify;

/// Jobs in memory from which on new ones are put where jobs wait for their time: some 500 bytes each.
const READY_MAX: usize = 65_536;

/// A change of memory that follows a batch.
#[derive(Debug)]
pub(super) struct Move {
    id: Arc<str>,
    to: Option<Ready>,
}

/// In the order of the batch.
pub(super) type Moves = Vec<Move>;

impl Move {
    /// It is offered from a time on, or held until then.
    pub(super) const fn to(id: Arc<str>, due: i64, job: Arc<Job>) -> Self {
        let to = Some(Ready { due, job });
        Self { id, to }
    }

    /// It is finished, or waits for its time.
    pub(super) fn out(id: &Arc<str>) -> Self {
        Self {
            id: Arc::clone(id),
            to: None,
        }
    }
}

#[derive(Debug)]
struct Ready {
    due: i64,
    job: Arc<Job>,
}

#[derive(Debug, Default)]
struct Jobs {
    by_id: HashMap<Arc<str>, Ready>,
    by_due: BTreeSet<(i64, Arc<str>)>,
}

impl Jobs {
    fn take_out(&mut self, id: &Arc<str>) -> Option<Ready> {
        let former = self.by_id.remove(id)?;
        self.by_due.remove(&(former.due, Arc::clone(id)));
        Some(former)
    }

    fn put_in(&mut self, id: Arc<str>, ready: Ready) {
        self.by_due.insert((ready.due, Arc::clone(&id)));
        self.by_id.insert(id, ready);
    }
}

/// What is ready, where to begin to look for what waits, and who waits for either.
#[derive(Debug)]
pub(crate) struct Schedule {
    ready: Mutex<Jobs>,
    room: usize,
    due_from: AtomicI64,
    added: Notify,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::with_room(READY_MAX)
    }
}

impl Schedule {
    /// With room for so many jobs that nobody holds yet.
    pub(super) fn with_room(room: usize) -> Self {
        Self {
            ready: Mutex::default(),
            room,
            due_from: AtomicI64::new(i64::MIN),
            added: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.lock().by_id.contains_key(id)
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().by_id.len() < self.room
    }

    /// Follows a batch that is durable.
    pub(super) fn apply(&self, moves: Moves) {
        let mut jobs = self.lock();
        for Move { id, to } in moves {
            jobs.take_out(&id);
            if let Some(ready) = to {
                jobs.put_in(id, ready);
            }
        }
    }

    /// Jobs due at `now`, earliest first, that the batch under way has left alone.
    pub(super) fn offered(
        &self,
        now: i64,
        limit: usize,
        is_settled: impl Fn(&str) -> bool,
    ) -> Vec<(i64, Arc<str>)> {
        let jobs = self.lock();
        let due = jobs.by_due.iter().take_while(|(due, _)| *due <= now);
        let settled = due.filter(|(_, id)| is_settled(id));
        settled.take(limit).cloned().collect()
    }

    /// Holds a job until a time, at once: the next to ask must not get it.
    pub(super) fn hold(&self, id: &Arc<str>, until: i64) -> Option<Job> {
        let mut jobs = self.lock();
        let Ready { job, .. } = jobs.take_out(id)?;
        let held = Job::clone(&job);
        jobs.put_in(Arc::clone(id), Ready { due: until, job });
        Some(held)
    }

    /// When the first is due, or its lease ends.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.lock().by_due.first().map(|(due, _)| *due)
    }

    /// Where to begin to look for what waits, so that no scan walks over what was removed.
    pub(super) fn due_from(&self) -> i64 {
        self.due_from.load(Ordering::Acquire)
    }

    /// A job is about to wait until then.
    pub(super) fn expect(&self, due: i64) {
        self.due_from.fetch_min(due, Ordering::AcqRel);
    }

    /// Nothing waits for an earlier time.
    pub(super) fn nothing_before(&self, due: i64) {
        self.due_from.fetch_max(due, Ordering::AcqRel);
    }

    /// Wakes whoever waits for jobs.
    pub(crate) fn announce(&self) {
        self.added.notify_waiters();
        // Nobody may be waiting just now: the next one who does returns at once.
        self.added.notify_one();
    }

    pub(super) async fn changed(&self) {
        self.added.notified().await;
    }
}
