//! Durable jobs: an index by due time, another for those that are held.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use hongyan_core::port::{Job, JobId, Work};
use hongyan_core::{AppId, MessageId, StoreError, Timestamp};
use tokio::sync::Notify;

use crate::embedded::Shelf;
use crate::store::record::{Damage, Key, Parts, decode, encode, prefix_end};
use crate::store::{Admission, Durability, Range, Space, Store, Txn, Urgency, View};

/// How many jobs there are.
const COUNT: &[u8] = b"jobs";
/// Held jobs that are made due in one batch when the store opens.
const RELEASE_SLICE: usize = 4_096;

/// Where to begin to look, so that no scan walks over what was removed; and who waits.
#[derive(Debug)]
pub(crate) struct Schedule {
    due_from: AtomicI64,
    held_from: AtomicI64,
    added: Notify,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            due_from: AtomicI64::new(i64::MIN),
            held_from: AtomicI64::new(i64::MIN),
            added: Notify::new(),
        }
    }
}

impl Schedule {
    fn floor(&self, space: Space) -> &AtomicI64 {
        match space {
            Space::Held => &self.held_from,
            _ => &self.due_from,
        }
    }
}

/// [`Work`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedWork(pub(crate) Arc<Shelf>);

/// A job, ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    id: JobId,
    due: Timestamp,
    space: Space,
    json: Vec<u8>,
}

impl Prepared {
    pub(crate) fn of(job: &Job) -> Result<Self, StoreError> {
        Ok(Self {
            id: job.id(),
            due: job.due,
            space: if job.leased { Space::Held } else { Space::Due },
            json: encode("job", job)?,
        })
    }

    pub(crate) fn cost(&self) -> usize {
        self.json.len() + self.id.0.len()
    }

    /// Whether somebody may take it up.
    pub(crate) fn is_offered(&self) -> bool {
        self.space == Space::Due
    }
}

/// A job as stored: which index it is in, when, and itself.
struct Record<'a> {
    space: Space,
    due: i64,
    json: &'a [u8],
}

fn index_key(due: i64, id: &[u8]) -> Vec<u8> {
    Key::empty().signed(due).raw(id).done()
}

fn payload(space: Space, due: i64, json: &[u8]) -> Vec<u8> {
    let held = u8::from(space == Space::Held);
    Key::empty().raw(&[held]).signed(due).raw(json).done()
}

fn parse<'a>(key: &[u8], payload: &'a [u8]) -> Result<Record<'a>, StoreError> {
    let mut parts = Parts(payload);
    match (parts.raw::<1>(), parts.signed()) {
        (Some([held]), Some(due)) => Ok(Record {
            space: if held == 1 { Space::Held } else { Space::Due },
            due,
            json: parts.rest(),
        }),
        _ => Err(Damage::of(Space::Job, key, "it is cut short").into_store_error()),
    }
}

fn count(txn: &mut Txn<'_>, change: i64) -> Result<(), StoreError> {
    let now = txn.number(Space::Meta, COUNT)?.unwrap_or(0);
    txn.put_number(Space::Meta, COUNT, now.saturating_add_signed(change));
    Ok(())
}

/// Enqueues a job, or moves it if it is known. Runs in the writer.
pub(crate) fn enqueue(
    txn: &mut Txn<'_>,
    schedule: &Schedule,
    job: &Prepared,
) -> Result<(), StoreError> {
    let id = job.id.0.as_bytes();
    match txn.get(Space::Job, id)? {
        Some(former) => {
            let former = parse(id, &former)?;
            txn.remove(former.space, index_key(former.due, id));
        }
        None => count(txn, 1)?,
    }
    place(txn, schedule, job.space, job.due.millis(), id, &job.json);
    Ok(())
}

fn place(txn: &mut Txn<'_>, schedule: &Schedule, space: Space, due: i64, id: &[u8], json: &[u8]) {
    txn.put(space, index_key(due, id), []);
    txn.put(Space::Job, id, payload(space, due, json));
    schedule.floor(space).fetch_min(due, Ordering::AcqRel);
}

/// Finishes a job; an unknown one does nothing. Runs in the writer.
pub(crate) fn finish(txn: &mut Txn<'_>, id: &JobId) -> Result<(), StoreError> {
    let id = id.0.as_bytes();
    let Some(former) = txn.get(Space::Job, id)? else {
        return Ok(());
    };
    let former = parse(id, &former)?;
    txn.remove(former.space, index_key(former.due, id));
    txn.remove(Space::Job, id);
    count(txn, -1)
}

/// Wakes whoever waits for jobs.
pub(crate) fn announce(schedule: &Schedule) {
    schedule.added.notify_waiters();
    // Nobody may be waiting just now: the next one who does returns at once.
    schedule.added.notify_one();
}

/// Makes every held job due: the process that held it is gone. Before the ports are handed out.
pub(crate) fn release_all(store: &Store) -> Result<(), StoreError> {
    loop {
        let rows = store.range(Space::Held, Range::forward(b"", None, RELEASE_SLICE))?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut txn = Txn::new(store.backend().as_ref(), 0);
        for (key, _) in rows {
            let id = key.get(8..).unwrap_or_default();
            txn.remove(Space::Held, &key);
            if let Some(former) = txn.get(Space::Job, id)? {
                let json = parse(id, &former)?.json;
                txn.put(Space::Due, index_key(0, id), []);
                let record = payload(Space::Due, 0, json);
                txn.put(Space::Job, id, record);
            }
        }
        txn.keep();
        // The writer has nothing to do yet; a crash in between only repeats this.
        let (changes, _) = txn.into_changes();
        store.backend().write(&changes, Durability::Synced)?;
    }
}

/// Removes jobs of a deleted app, at most `limit`; answers how many went.
pub(crate) fn forget_app(txn: &mut Txn<'_>, app: &AppId, limit: usize) -> Result<u64, StoreError> {
    let mut removed = 0;
    for kind in ["r", "b", "d"] {
        let prefix = format!("{kind}/{app}/");
        for (id, payload) in txn.prefix(Space::Job, prefix.as_bytes(), limit)? {
            let former = parse(&id, &payload)?;
            txn.remove(former.space, index_key(former.due, &id));
            txn.remove(Space::Job, &id);
            removed += 1;
        }
    }
    count(txn, -removed)?;
    Ok(removed.unsigned_abs())
}

/// Due rows of an index; the place to begin next time is kept when nothing earlier is left.
fn due_rows(
    txn: &Txn<'_>,
    schedule: &Schedule,
    space: Space,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let floor = schedule.floor(space);
    let from = Key::empty().signed(floor.load(Ordering::Acquire)).done();
    let to = Key::empty().signed(now.millis().saturating_add(1)).done();
    let rows = txn.range(space, Range::forward(&from, Some(&to), limit))?;
    let mut due = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let mut parts = Parts(&key);
        if let Some(at) = parts.signed() {
            due.push((at, parts.rest().to_vec()));
        }
    }
    // All before the first row is gone; without a row, all up to now is.
    let first = due.first().map_or(now.millis(), |(at, _)| *at);
    floor.fetch_max(first, Ordering::AcqRel);
    Ok(due)
}

/// A job with where it stands and its JSON.
type Stored = (Space, i64, Job, Vec<u8>);

fn stored(txn: &Txn<'_>, id: &[u8]) -> Result<Option<Stored>, StoreError> {
    let Some(former) = txn.get(Space::Job, id)? else {
        return Ok(None);
    };
    let record = parse(id, &former)?;
    let job = decode(Space::Job, id, record.json)?;
    Ok(Some((record.space, record.due, job, record.json.to_vec())))
}

fn lease(
    txn: &mut Txn<'_>,
    schedule: &Schedule,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Job>, StoreError> {
    let mut rows = due_rows(txn, schedule, Space::Due, now, limit)?;
    rows.extend(due_rows(txn, schedule, Space::Held, now, limit)?);
    rows.sort_unstable();
    let mut jobs = Vec::with_capacity(rows.len().min(limit));
    for (due, id) in rows {
        if jobs.len() == limit {
            break;
        }
        let (job, json) = match stored(txn, &id) {
            Ok(Some((space, due, job, json))) => {
                txn.remove(space, index_key(due, &id));
                (job, json)
            }
            found @ (Ok(None) | Err(StoreError::Corrupt { .. })) => {
                txn.remove(Space::Due, index_key(due, &id));
                txn.remove(Space::Held, index_key(due, &id));
                let Err(error) = found else { continue };
                // All others would wait behind it.
                tracing::error!(job = %id.escape_ascii(), %error, "a job cannot be read; it is made again from its id");
                let text = String::from_utf8_lossy(&id).into_owned();
                let Some(job) = Job::of_id(&JobId(text), Timestamp(due)) else {
                    continue;
                };
                let json = encode("job", &job)?;
                (job, json)
            }
            Err(error) => return Err(error),
        };
        place(txn, schedule, Space::Held, until.millis(), &id, &json);
        jobs.push(job);
    }
    Ok(jobs)
}

#[async_trait]
impl Work for EmbeddedWork {
    async fn lease(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let schedule = Arc::clone(&self.0.schedule);
        // A lease that a power cut undoes is a job that is due again.
        self.0
            .store
            .write(Admission::Normal, Urgency::Relaxed, 4_096, move |txn| {
                lease(txn, &schedule, now, lease_until, limit)
            })
            .await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let mut next: Option<i64> = None;
        for space in [Space::Due, Space::Held] {
            let floor = self.0.schedule.floor(space).load(Ordering::Acquire);
            let from = Key::empty().signed(floor).done();
            let rows = self.0.store.range(space, Range::forward(&from, None, 1))?;
            let first = rows.first().and_then(|(key, _)| Parts(key).signed());
            next = match (next, first) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(next.map(Timestamp))
    }

    async fn of_message(
        &self,
        app: &AppId,
        message: MessageId,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let prefixes = ["r", "b", "d"].map(|kind| format!("{kind}/{app}/{message}"));
        self.0
            .read(move |shelf| {
                let mut jobs = Vec::new();
                for prefix in prefixes {
                    let left = limit - jobs.len();
                    let from = prefix.as_bytes();
                    let end = prefix_end(from);
                    let range = Range::forward(from, end.as_deref(), left);
                    for (id, payload) in shelf.store.range(Space::Job, range)? {
                        jobs.push(decode(Space::Job, &id, parse(&id, &payload)?.json)?);
                    }
                }
                Ok(jobs)
            })
            .await
    }

    async fn open(&self) -> Result<u64, StoreError> {
        Ok(self.0.store.number(Space::Meta, COUNT)?.unwrap_or(0))
    }

    async fn changed(&self) {
        self.0.schedule.added.notified().await;
    }
}
