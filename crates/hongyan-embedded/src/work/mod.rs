//! Durable jobs: what the disk knows of them. What waits for its time stands in [`Space::Job`] with an index by due
//! time; what is offered or held stands in sheets (`sheet.rs`) and, all of it, in memory (`schedule.rs`).

mod schedule;
mod sheet;

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::port::{Job, JobId, Work};
use hongyan_core::{AppId, MessageId, StoreError, Timestamp};

use crate::embedded::Shelf;
use crate::store::record::{Damage, Key, Parts, decode, encode, prefix_end};
use crate::store::{Admission, Range, Space, Txn, Urgency, View};

pub(crate) use schedule::Schedule;
pub(crate) use sheet::{Made, load, mend, write_sheets};

/// How many jobs there are.
const COUNT: &[u8] = b"jobs";

/// [`Work`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedWork(pub(crate) Arc<Shelf>);

/// A job, ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    id: Arc<str>,
    job: Job,
    /// Whether it need not wait for its time.
    is_ready: bool,
    json: Vec<u8>,
}

impl Prepared {
    /// `written_at` is when the caller wrote it: what is due then is ready.
    pub(crate) fn of(job: Job, written_at: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            id: job.id().0.into(),
            is_ready: job.leased || job.due <= written_at,
            json: encode("job", &job)?,
            job,
        })
    }

    pub(crate) fn cost(&self) -> usize {
        self.json.len() + 2 * self.id.len()
    }

    /// Whether somebody may take it up.
    pub(crate) const fn is_offered(&self) -> bool {
        !self.job.leased
    }
}

/// A job that waits, as stored.
struct Record<'a> {
    due: i64,
    json: &'a [u8],
}

fn index_key(due: i64, id: &[u8]) -> Vec<u8> {
    Key::empty().signed(due).raw(id).done()
}

fn parse<'a>(key: &[u8], payload: &'a [u8]) -> Result<Record<'a>, StoreError> {
    let mut parts = Parts(payload);
    match parts.signed() {
        Some(due) => Ok(Record {
            due,
            json: parts.rest(),
        }),
        None => Err(Damage::of(Space::Job, key, "it is cut short").into_store_error()),
    }
}

/// Writes how many jobs came and went in a batch.
pub(crate) fn count(txn: &mut Txn<'_>, change: i64) -> Result<(), StoreError> {
    if change != 0 {
        let now = txn.number(Space::Meta, COUNT)?.unwrap_or(0);
        txn.put_number(Space::Meta, COUNT, now.saturating_add_signed(change));
    }
    Ok(())
}

/// Where a job stands.
enum Standing {
    Ready,
    Waiting { due: i64 },
}

fn standing(
    txn: &Txn<'_>,
    schedule: &Schedule,
    id: &str,
    may_wait: bool,
) -> Result<Option<Standing>, StoreError> {
    let key = id.as_bytes();
    // Memory is as the last batch left it: what this batch changed comes first.
    if txn.is_ready(id).unwrap_or_else(|| schedule.has(id)) {
        return Ok(Some(Standing::Ready));
    }
    if !may_wait && txn.changed(Space::Job, key).is_none() {
        return Ok(None);
    }
    let Some(waiting) = txn.get(Space::Job, key)? else {
        return Ok(None);
    };
    let due = parse(key, &waiting)?.due;
    Ok(Some(Standing::Waiting { due }))
}

/// Enqueues a job, or moves it if it is known. One whose message comes with it cannot be known. Runs in the writer.
pub(crate) fn enqueue(
    txn: &mut Txn<'_>,
    schedule: &Schedule,
    job: Prepared,
    is_new: bool,
) -> Result<(), StoreError> {
    let Prepared {
        id,
        job,
        is_ready,
        json,
    } = job;
    let key = id.as_bytes();
    let is_ready = is_ready && (job.leased || schedule.has_room());
    match standing(txn, schedule, &id, !is_new)? {
        Some(Standing::Ready) if !is_ready => txn.gather().unready(Arc::clone(&id)),
        Some(Standing::Waiting { due }) => {
            txn.remove(Space::Due, index_key(due, key));
            if is_ready {
                txn.remove(Space::Job, key);
            }
        }
        Some(Standing::Ready) => {}
        None => txn.gather().jobs(1),
    }
    let due = job.due.millis();
    if is_ready {
        let made = Made {
            is_held: job.leased,
            job: Arc::new(job),
            due,
            due_on_disk: due,
            json,
        };
        txn.gather().ready(id, made);
    } else {
        let payload = Key::sized(8 + json.len()).signed(due).raw(&json);
        txn.put(Space::Job, key, payload);
        txn.put(Space::Due, index_key(due, key), []);
        schedule.expect(due);
    }
    Ok(())
}

/// Finishes a job; an unknown one does nothing. Runs in the writer.
pub(crate) fn finish(txn: &mut Txn<'_>, schedule: &Schedule, id: &str) -> Result<(), StoreError> {
    let key = id.as_bytes();
    match standing(txn, schedule, id, true)? {
        Some(Standing::Ready) => txn.gather().unready(id.into()),
        Some(Standing::Waiting { due }) => {
            txn.remove(Space::Due, index_key(due, key));
            txn.remove(Space::Job, key);
        }
        None => return Ok(()),
    }
    txn.gather().jobs(-1);
    Ok(())
}

/// Removes jobs of a deleted app, at most `limit`; answers how many went.
pub(crate) fn forget_app(
    txn: &mut Txn<'_>,
    schedule: &Schedule,
    app: &AppId,
    limit: usize,
) -> Result<u64, StoreError> {
    let mut removed = 0;
    for id in txn.ready_of(app) {
        txn.gather().unready(id);
        removed += 1;
    }
    for id in schedule.of_app(app, limit) {
        if txn.is_ready(&id).is_none() {
            txn.gather().unready(id);
            removed += 1;
        }
    }
    for kind in ["r", "b", "d"] {
        let prefix = format!("{kind}/{app}/");
        for (key, payload) in txn.prefix(Space::Job, prefix.as_bytes(), limit)? {
            let due = parse(&key, &payload)?.due;
            txn.remove(Space::Job, &key);
            txn.remove(Space::Due, index_key(due, &key));
            removed += 1;
        }
    }
    txn.gather().jobs(-removed);
    Ok(removed.unsigned_abs())
}

/// Jobs whose time has come, by due time; the place to begin next time is kept when nothing earlier is left.
fn due_rows(
    txn: &Txn<'_>,
    schedule: &Schedule,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let from = Key::empty().signed(schedule.due_from()).done();
    let to = Key::empty().signed(now.millis().saturating_add(1)).done();
    let rows = txn.range(Space::Due, Range::forward(&from, Some(&to), limit))?;
    let mut due = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let mut parts = Parts(&key);
        if let Some(at) = parts.signed() {
            due.push((at, parts.rest().to_vec()));
        }
    }
    // All before the first row is gone; without a row, all up to now is.
    schedule.nothing_before(due.first().map_or(now.millis(), |(at, _)| *at));
    Ok(due)
}

/// Takes due jobs: from memory with nothing to write, from the disk by making them ready.
fn lease(
    txn: &mut Txn<'_>,
    schedule: &Schedule,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Job>, StoreError> {
    let waiting = due_rows(txn, schedule, now, limit)?;
    let is_settled = |id: &str| txn.is_ready(id).is_none();
    let offered = schedule.offered(now.millis(), limit, is_settled);
    let waiting = waiting
        .into_iter()
        .map(|(due, id)| (due, Taken::Waiting(id)));
    let offered = offered
        .into_iter()
        .map(|(due, id)| (due, Taken::Offered(id)));
    let mut taken: Vec<_> = waiting.chain(offered).collect();
    taken.sort_by_key(|(due, _)| *due);
    let mut got: Vec<Got> = Vec::new();
    for (due, taken) in taken {
        if got.len() == limit {
            break;
        }
        match taken {
            Taken::Offered(id) => got.push(Got::Offered(id)),
            Taken::Waiting(id) => {
                let job = take_up(txn, due, until.millis(), &id)?;
                got.extend(job.map(Got::Waited));
            }
        }
    }
    // Nothing can fail any more: what is held in memory stays so.
    let jobs = got.into_iter().filter_map(|got| match got {
        Got::Offered(id) => schedule.hold(&id, until.millis()),
        Got::Waited(job) => Some(job),
    });
    Ok(jobs.collect())
}

/// A job that is about to be handed out.
enum Got {
    Offered(Arc<str>),
    Waited(Job),
}

/// A due job: by its key on the disk, or by its id in memory.
enum Taken {
    Waiting(Vec<u8>),
    Offered(Arc<str>),
}

/// Makes a job that waited ready, held by this process.
fn take_up(txn: &mut Txn<'_>, due: i64, until: i64, key: &[u8]) -> Result<Option<Job>, StoreError> {
    txn.remove(Space::Due, index_key(due, key));
    let read = || -> Result<Option<(i64, Job)>, StoreError> {
        let Some(waiting) = txn.get(Space::Job, key)? else {
            return Ok(None);
        };
        let record = parse(key, &waiting)?;
        Ok(Some((record.due, decode(Space::Job, key, record.json)?)))
    };
    let job = match read() {
        Ok(Some((its_due, job))) if its_due == due => job,
        Ok(_) => return Ok(None),
        Err(error @ StoreError::Corrupt { .. }) => match made_again(key, due, &error) {
            Some(job) => job,
            None => return Ok(None),
        },
        Err(error) => return Err(error),
    };
    txn.remove(Space::Job, key);
    let made = Made {
        job: Arc::new(job.clone()),
        due: until,
        is_held: true,
        due_on_disk: due,
        json: encode("job", &job)?,
    };
    txn.gather().ready(job.id().0.into(), made);
    Ok(Some(job))
}

/// A job whose record is damaged, from its id: all others would wait behind it.
fn made_again(key: &[u8], due: i64, error: &StoreError) -> Option<Job> {
    tracing::error!(job = %key.escape_ascii(), %error, "a job cannot be read; it is made again from its id");
    let text = String::from_utf8_lossy(key).into_owned();
    Job::of_id(&JobId(text), Timestamp(due))
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
        let from = Key::empty().signed(self.0.schedule.due_from()).done();
        let range = Range::forward(&from, None, 1);
        let rows = self.0.store.range(Space::Due, range)?;
        let waiting = rows.first().and_then(|(key, _)| Parts(key).signed());
        let next = waiting.into_iter().chain(self.0.schedule.next_due()).min();
        Ok(next.map(Timestamp))
    }

    async fn of_message(
        &self,
        app: &AppId,
        message: MessageId,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let prefixes = ["r", "b", "d"].map(|kind| format!("{kind}/{app}/{message}"));
        let app = app.clone();
        self.0
            .read(move |shelf| {
                let mut jobs = shelf.schedule.of_message(&app, message, limit);
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
        self.0.schedule.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use hongyan_core::UserId;
    use hongyan_core::port::{JobKind, Owner};
    use uuid::Uuid;

    use super::*;
    use crate::store::{Backend, Durability, FjallBackend};

    fn job(n: u128) -> Job {
        Job {
            app: AppId::parse("app").unwrap(),
            message: MessageId(Uuid::from_u128(n)),
            kind: JobKind::Route {
                owner: Owner::User(UserId::parse("u").unwrap()),
            },
            due: Timestamp(10),
            leased: false,
        }
    }

    /// One batch with one operation.
    fn batch<T>(
        backend: &FjallBackend,
        schedule: &Arc<Schedule>,
        number: u64,
        run: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError>,
    ) -> (T, usize) {
        let mut txn = Txn::new(backend, number);
        let result = run(&mut txn).unwrap();
        txn.keep();
        let events = Arc::new(tokio::sync::watch::Sender::new(0));
        crate::gather::settle(&mut txn, &events, schedule).unwrap();
        txn.keep();
        let outcome = txn.into_changes();
        let changes = outcome.changes;
        backend.write(&changes, Durability::Buffered).unwrap();
        for run in outcome.after {
            run();
        }
        // How many jobs there are is counted in each.
        let counted = changes.iter().filter(|c| c.space != Space::Meta);
        (result, counted.count())
    }

    fn enqueue(
        backend: &FjallBackend,
        schedule: &Arc<Schedule>,
        number: u64,
        jobs: &[u128],
    ) -> usize {
        let enqueue = |txn: &mut Txn<'_>| {
            for n in jobs {
                let job = Prepared::of(job(*n), Timestamp(10))?;
                super::enqueue(txn, schedule, job, false)?;
            }
            Ok(())
        };
        batch(backend, schedule, number, enqueue).1
    }

    fn finish(
        backend: &FjallBackend,
        schedule: &Arc<Schedule>,
        number: u64,
        jobs: &[u128],
    ) -> usize {
        let finish = |txn: &mut Txn<'_>| {
            for n in jobs {
                super::finish(txn, schedule, &job(*n).id().0)?;
            }
            Ok(())
        };
        batch(backend, schedule, number, finish).1
    }

    fn take(
        backend: &FjallBackend,
        schedule: &Arc<Schedule>,
        number: u64,
        now: i64,
    ) -> (Vec<u128>, usize) {
        let (now, until) = (Timestamp(now), Timestamp(now + 100));
        let lease = |txn: &mut Txn<'_>| lease(txn, schedule, now, until, 99);
        let (jobs, changes) = batch(backend, schedule, number, lease);
        let mut ids: Vec<_> = jobs.iter().map(|j| j.message.0.as_u128()).collect();
        ids.sort_unstable();
        (ids, changes)
    }

    #[test]
    fn leasing_what_is_ready_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let schedule = Arc::new(Schedule::default());
        assert_eq!(enqueue(&backend, &schedule, 1, &[1, 2]), 1);
        assert_eq!(take(&backend, &schedule, 2, 10), (vec![1, 2], 0));
        assert_eq!(take(&backend, &schedule, 3, 50), (vec![], 0));
        assert_eq!(take(&backend, &schedule, 4, 110), (vec![1, 2], 0));
    }

    #[test]
    fn what_memory_has_no_room_for_waits_on_the_disk_and_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let schedule = Arc::new(Schedule::with_room(1));
        enqueue(&backend, &schedule, 1, &[1]);
        assert_eq!(enqueue(&backend, &schedule, 2, &[2, 3]), 4);
        let moved = enqueue(&backend, &schedule, 3, &[2]);
        assert_eq!(moved, 2, "moved where it is");
        let taken = take(&backend, &schedule, 4, 10);
        assert_eq!(taken, (vec![1, 2, 3], 5), "four removed, one sheet");
        assert_eq!(take(&backend, &schedule, 5, 11), (vec![], 0));
        let changes = finish(&backend, &schedule, 6, &[1, 2, 2, 9]);
        assert_eq!(changes, 2, "one sheet goes, one has one job done");
        assert_eq!(take(&backend, &schedule, 7, 500).0, [3]);
    }

    /// Jobs end in about the order in which they are handed out: a batch that ends some touches as few sheets as can be.
    #[test]
    fn what_is_taken_up_together_stands_together() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let schedule = Arc::new(Schedule::default());
        let all: Vec<u128> = (1..=200).collect();
        assert_eq!(enqueue(&backend, &schedule, 1, &all), 4);
        let ids = schedule.offered(10, 999, |_| true);
        let order: Vec<u128> = ids
            .iter()
            .map(|(_, id)| schedule.hold(id, 20).unwrap().message.0.as_u128())
            .collect();
        assert_eq!(order.len(), 200);
        assert_eq!(finish(&backend, &schedule, 2, &order[..64]), 1, "one goes");
        assert_eq!(finish(&backend, &schedule, 3, &order[64..100]), 1);
        assert_eq!(finish(&backend, &schedule, 4, &order[100..130]), 3);
    }

    /// Several sheets, jobs of each done in several batches, and the store read back after each.
    #[test]
    fn a_sheet_goes_with_its_last_job() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let schedule = Arc::new(Schedule::default());
        let all: Vec<u128> = (1..=70).collect();
        assert_eq!(enqueue(&backend, &schedule, 1, &all), 2);
        let sheets = |space| {
            let rows = crate::store::Read::range(&backend, space, Range::forward(b"", None, 99));
            rows.unwrap().len()
        };
        let mut left = all.clone();
        for (number, n) in (2u64..).zip([3, 70, 1, 64, 65]) {
            assert!(finish(&backend, &schedule, number, &[n]) >= 1);
            left.retain(|other| *other != n);
        }
        assert_eq!((sheets(Space::Sheet), sheets(Space::SheetDone)), (2, 2));
        // Another batch makes one of them ready anew: it leaves its sheet.
        assert_eq!(enqueue(&backend, &schedule, 20, &[2]), 2);
        let fresh = Schedule::default();
        load(&backend, &fresh).unwrap();
        let due = |schedule: &Schedule| {
            let ids = schedule.offered(10, 99, |_| true);
            let mut ids: Vec<_> = ids.into_iter().map(|(_, id)| id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(due(&fresh), due(&schedule));
        assert_eq!(due(&fresh).len(), left.len());
        let (last, most) = left.split_last().unwrap();
        finish(&backend, &schedule, 21, most);
        assert_eq!(sheets(Space::Sheet), 1);
        assert_eq!(take(&backend, &schedule, 22, 10).0, [*last]);
        finish(&backend, &schedule, 23, &[*last]);
        assert_eq!((sheets(Space::Sheet), sheets(Space::SheetDone)), (0, 0));
    }

    #[test]
    fn jobs_of_a_message_and_of_an_app_are_found_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let schedule = Arc::new(Schedule::default());
        enqueue(&backend, &schedule, 1, &[1, 2]);
        let (app, other) = (AppId::parse("app").unwrap(), AppId::parse("b").unwrap());
        let of = |app, n| schedule.of_message(app, MessageId(Uuid::from_u128(n)), 9);
        assert_eq!(of(&app, 2), [job(2)]);
        assert!(of(&app, 3).is_empty() && of(&other, 2).is_empty());
        let forget = |txn: &mut Txn<'_>| {
            super::enqueue(txn, &schedule, Prepared::of(job(3), Timestamp(10))?, true)?;
            assert_eq!(forget_app(txn, &schedule, &other, 9)?, 0);
            forget_app(txn, &schedule, &app, 9)
        };
        let (removed, changes) = batch(&backend, &schedule, 2, forget);
        assert_eq!((removed, changes), (3, 1));
        assert!(of(&app, 1).is_empty() && of(&app, 3).is_empty());
    }
}
