//! The jobs that are offered or held, in memory: leasing them writes nothing. They are on the disk too, so that a
//! crash only makes them due again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use hongyan_core::port::Job;
use hongyan_core::{AppId, MessageId};
use tokio::sync::Notify;

use super::sheet::{Place, SheetId};

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
    pub(super) const fn to(id: Arc<str>, due: i64, job: Arc<Job>, place: Place) -> Self {
        let to = Some(Ready { due, job, place });
        Self { id, to }
    }

    /// It is finished, or waits for its time.
    pub(super) const fn out(id: Arc<str>) -> Self {
        Self { id, to: None }
    }
}

#[derive(Debug)]
struct Ready {
    due: i64,
    job: Arc<Job>,
    /// Where it stands on the disk.
    place: Place,
}

#[derive(Debug, Default)]
struct Jobs {
    by_id: HashMap<Arc<str>, Ready>,
    by_due: BTreeSet<(i64, Arc<str>)>,
    /// Messages are mostly new ones, so that this grows at its end.
    by_message: BTreeMap<MessageId, Vec<Arc<str>>>,
    /// Which jobs of a sheet are done, and how many it has.
    sheets: HashMap<SheetId, Sheet>,
}

/// What memory knows of a sheet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sheet {
    pub(super) len: u8,
    pub(super) done: u64,
}

impl Jobs {
    fn take_out(&mut self, id: &Arc<str>) -> Option<Ready> {
        let former = self.by_id.remove(id)?;
        self.by_due.remove(&(former.due, Arc::clone(id)));
        let message = former.job.message;
        if let Some(ids) = self.by_message.get_mut(&message) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.by_message.remove(&message);
            }
        }
        Some(former)
    }

    fn put_in(&mut self, id: Arc<str>, ready: Ready) {
        self.by_due.insert((ready.due, Arc::clone(&id)));
        let ids = self.by_message.entry(ready.job.message).or_default();
        ids.push(Arc::clone(&id));
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

    /// Where jobs stand on the disk as the last batch left it, with what is known of those sheets.
    pub(super) fn places<'a>(
        &self,
        ids: impl Iterator<Item = &'a Arc<str>>,
    ) -> BTreeMap<SheetId, (Sheet, u64)> {
        let jobs = self.lock();
        let mut sheets = BTreeMap::new();
        for id in ids {
            let Some(Ready { place, .. }) = jobs.by_id.get(id) else {
                continue;
            };
            let known = || (jobs.sheets.get(&place.sheet).copied(), 0);
            let (sheet, leaving) = sheets.entry(place.sheet).or_insert_with(known);
            if sheet.is_some() {
                *leaving |= 1 << place.at;
            }
        }
        let known = sheets
            .into_iter()
            .filter_map(|(id, (sheet, leaving))| Some((id, (sheet?, leaving))));
        known.collect()
    }

    /// Jobs of a message, at most `limit`.
    pub(super) fn of_message(&self, app: &AppId, message: MessageId, limit: usize) -> Vec<Job> {
        let jobs = self.lock();
        let ids = jobs.by_message.get(&message).into_iter().flatten();
        let found = ids.filter_map(|id| jobs.by_id.get(id));
        let found = found.filter(|ready| ready.job.app == *app);
        found.take(limit).map(|r| Job::clone(&r.job)).collect()
    }

    /// Ids of an app's jobs, at most `limit`.
    pub(super) fn of_app(&self, app: &AppId, limit: usize) -> Vec<Arc<str>> {
        let jobs = self.lock();
        let of_app = jobs.by_id.iter().filter(|(_, r)| r.job.app == *app);
        of_app.take(limit).map(|(id, _)| Arc::clone(id)).collect()
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().by_id.len() < self.room
    }

    /// Follows a batch that is durable: jobs, and sheets with what is now known of them (nothing: they are gone).
    pub(super) fn apply(&self, moves: Moves, sheets: Vec<(SheetId, Option<Sheet>)>) {
        let mut jobs = self.lock();
        for (id, sheet) in sheets {
            match sheet {
                Some(sheet) => drop(jobs.sheets.insert(id, sheet)),
                None => drop(jobs.sheets.remove(&id)),
            }
        }
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
        let jobs = &mut *jobs;
        let ready = jobs.by_id.get_mut(id)?;
        jobs.by_due.remove(&(ready.due, Arc::clone(id)));
        ready.due = until;
        jobs.by_due.insert((until, Arc::clone(id)));
        Some(Job::clone(&ready.job))
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
