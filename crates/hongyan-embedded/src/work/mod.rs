//! Durable jobs: what the disk knows of them. What waits for its time stands in [`Space::Job`] with an index by due
//! time; what is offered or held stands in [`Space::Ready`] and, all of it, in memory (`schedule.rs`).

mod schedule;

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::port::{Job, JobId, Work};
use hongyan_core::{AppId, MessageId, StoreError, Timestamp};

use crate::embedded::Shelf;
use crate::store::record::{
    Damage, Key, Parts, after, decode, prefix_end, reseal, seal_json, signed, unseal,
};
use crate::store::{Admission, Range, Space, Store, Txn, Urgency, View};

pub(crate) use schedule::Schedule;
use schedule::{Move, Moves};

/// How many jobs there are.
const COUNT: &[u8] = b"jobs";
/// Jobs that are read at a time when the store opens.
const PAGE: usize = 4_096;

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
    /// Sealed for where it is to stand.
    value: Vec<u8>,
}

const fn space_of(is_ready: bool) -> Space {
    if is_ready { Space::Ready } else { Space::Job }
}

impl Prepared {
    /// `written_at` is when the caller wrote it: what is due then is ready.
    pub(crate) fn of(job: Job, written_at: Timestamp) -> Result<Self, StoreError> {
        let id: Arc<str> = job.id().0.into();
        let is_ready = job.leased || job.due <= written_at;
        let head = head(job.leased, job.due.millis());
        Ok(Self {
            value: seal_json(space_of(is_ready), id.as_bytes(), &head, &job)?,
            id,
            is_ready,
            job,
        })
    }

    pub(crate) fn cost(&self) -> usize {
        self.value.len() + 2 * self.id.len()
    }

    /// Whether somebody may take it up.
    pub(crate) const fn is_offered(&self) -> bool {
        !self.job.leased
    }
}

/// A job as stored.
struct Record<'a> {
    is_held: bool,
    due: i64,
    json: &'a [u8],
}

fn index_key(due: i64, id: &[u8]) -> Vec<u8> {
    Key::empty().signed(due).raw(id).done()
}

/// What a stored job begins with: whether it is held, and when it is due. Its JSON follows.
fn head(is_held: bool, due: i64) -> [u8; 9] {
    let mut head = [u8::from(is_held); 9];
    head[1..].copy_from_slice(&signed(due).to_be_bytes());
    head
}

fn parse<'a>(space: Space, key: &[u8], payload: &'a [u8]) -> Result<Record<'a>, StoreError> {
    let mut parts = Parts(payload);
    match (parts.raw::<1>(), parts.signed()) {
        (Some([held]), Some(due)) => Ok(Record {
            is_held: held == 1,
            due,
            json: parts.rest(),
        }),
        _ => Err(Damage::of(space, key, "it is cut short").into_store_error()),
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
    let is_ready = match txn.changed(Space::Ready, key) {
        Some(value) => value.is_some(),
        None => schedule.has(id),
    };
    if is_ready {
        return Ok(Some(Standing::Ready));
    }
    if !may_wait && txn.changed(Space::Job, key).is_none() {
        return Ok(None);
    }
    let Some(waiting) = txn.get(Space::Job, key)? else {
        return Ok(None);
    };
    let due = parse(Space::Job, key, &waiting)?.due;
    Ok(Some(Standing::Waiting { due }))
}

/// Changes the jobs of one write set. Runs in the writer.
pub(crate) struct Desk<'a> {
    schedule: &'a Arc<Schedule>,
    moves: Moves,
}

impl<'a> Desk<'a> {
    pub(crate) const fn new(schedule: &'a Arc<Schedule>) -> Self {
        Self {
            schedule,
            moves: Vec::new(),
        }
    }

    /// Enqueues a job, or moves it if it is known. One whose message comes with it cannot be known.
    pub(crate) fn enqueue(
        &mut self,
        txn: &mut Txn<'_>,
        mut job: Prepared,
        is_new: bool,
    ) -> Result<(), StoreError> {
        let key = job.id.as_bytes();
        let is_ready = job.is_ready && (job.job.leased || self.schedule.has_room());
        match standing(txn, self.schedule, &job.id, !is_new)? {
            Some(Standing::Ready) if !is_ready => {
                txn.remove(Space::Ready, key);
                self.moves.push(Move::out(&job.id));
            }
            Some(Standing::Waiting { due }) => {
                txn.remove(Space::Due, index_key(due, key));
                if is_ready {
                    txn.remove(Space::Job, key);
                }
            }
            Some(Standing::Ready) => {}
            None => txn.gather().jobs(1),
        }
        if is_ready != job.is_ready {
            reseal(space_of(is_ready), key, &mut job.value);
        }
        txn.put_sealed(space_of(is_ready), key.to_vec(), job.value);
        if is_ready {
            let due = job.job.due.millis();
            self.moves.push(Move::to(job.id, due, Arc::new(job.job)));
        } else {
            let due = job.job.due.millis();
            txn.put(Space::Due, index_key(due, key), []);
            self.schedule.expect(due);
        }
        Ok(())
    }

    /// Finishes a job; an unknown one does nothing.
    pub(crate) fn finish(&mut self, txn: &mut Txn<'_>, id: &str) -> Result<(), StoreError> {
        let key = id.as_bytes();
        match standing(txn, self.schedule, id, true)? {
            Some(Standing::Ready) => {
                txn.remove(Space::Ready, key);
                self.moves.push(Move::out(&Arc::from(id)));
            }
            Some(Standing::Waiting { due }) => {
                txn.remove(Space::Due, index_key(due, key));
                txn.remove(Space::Job, key);
            }
            None => return Ok(()),
        }
        txn.gather().jobs(-1);
        Ok(())
    }

    /// Makes memory follow as soon as the batch is durable.
    pub(crate) fn done(self, txn: &mut Txn<'_>) {
        if !self.moves.is_empty() {
            let schedule = Arc::clone(self.schedule);
            txn.after(move || schedule.apply(self.moves));
        }
    }
}

/// Takes what is offered or held into memory, all of it due at once where it was held: the process that held it is
/// gone. Before the ports are handed out.
pub(crate) fn load(store: &Store) -> Result<Schedule, StoreError> {
    let schedule = Schedule::default();
    let mut from = Vec::new();
    loop {
        let range = Range::forward(&from, None, PAGE);
        let rows = store.backend().range(Space::Ready, range)?;
        let Some((last, _)) = rows.last() else {
            return Ok(schedule);
        };
        from = after(last);
        let mut moves = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let read = || -> Result<(i64, Job), StoreError> {
                let payload =
                    unseal(Space::Ready, &key, value).map_err(Damage::into_store_error)?;
                let record = parse(Space::Ready, &key, &payload)?;
                let due = if record.is_held { 0 } else { record.due };
                Ok((due, decode(Space::Ready, &key, record.json)?))
            };
            let found = read().or_else(|e| made_again(&key, 0, &e).map(|job| (0, job)).ok_or(e));
            if let Ok((due, job)) = found {
                moves.push(Move::to(job.id().0.into(), due, Arc::new(job)));
            }
        }
        schedule.apply(moves);
    }
}

/// Removes jobs of a deleted app, at most `limit`; answers how many went.
pub(crate) fn forget_app(
    txn: &mut Txn<'_>,
    schedule: &Arc<Schedule>,
    app: &AppId,
    limit: usize,
) -> Result<u64, StoreError> {
    let mut desk = Desk::new(schedule);
    let mut removed = 0;
    for kind in ["r", "b", "d"] {
        let prefix = format!("{kind}/{app}/");
        for space in [Space::Ready, Space::Job] {
            for (key, payload) in txn.prefix(space, prefix.as_bytes(), limit)? {
                let due = parse(space, &key, &payload)?.due;
                txn.remove(space, &key);
                if space == Space::Job {
                    txn.remove(Space::Due, index_key(due, &key));
                } else {
                    let id = String::from_utf8_lossy(&key);
                    desk.moves.push(Move::out(&Arc::from(id.as_ref())));
                }
                removed += 1;
            }
        }
    }
    txn.gather().jobs(-removed);
    desk.done(txn);
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
    schedule: &Arc<Schedule>,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Job>, StoreError> {
    let waiting = due_rows(txn, schedule, now, limit)?;
    let is_settled = |id: &str| txn.changed(Space::Ready, id.as_bytes()).is_none();
    let offered = schedule.offered(now.millis(), limit, is_settled);
    let waiting = waiting
        .into_iter()
        .map(|(due, id)| (due, Taken::Waiting(id)));
    let offered = offered
        .into_iter()
        .map(|(due, id)| (due, Taken::Offered(id)));
    let mut taken: Vec<_> = waiting.chain(offered).collect();
    taken.sort_by_key(|(due, _)| *due);
    let mut got: Vec<(Arc<str>, Option<Job>)> = Vec::new();
    for (due, taken) in taken {
        if got.len() == limit {
            break;
        }
        match taken {
            Taken::Offered(id) => got.push((id, None)),
            Taken::Waiting(id) => {
                let job = take_up(txn, due, &id)?;
                got.extend(job.map(|(id, job)| (id, Some(job))));
            }
        }
    }
    // Nothing can fail any more: what is held in memory stays so.
    let mut jobs = Vec::with_capacity(got.len());
    let mut desk = Desk::new(schedule);
    for (id, waited) in got {
        let until = until.millis();
        match waited {
            Some(job) => {
                jobs.push(job.clone());
                desk.moves.push(Move::to(id, until, Arc::new(job)));
            }
            None => jobs.extend(schedule.hold(&id, until)),
        }
    }
    desk.done(txn);
    Ok(jobs)
}

/// A due job: by its key on the disk, or by its id in memory.
enum Taken {
    Waiting(Vec<u8>),
    Offered(Arc<str>),
}

/// Makes a job that waited ready, held by this process.
fn take_up(txn: &mut Txn<'_>, due: i64, key: &[u8]) -> Result<Option<(Arc<str>, Job)>, StoreError> {
    txn.remove(Space::Due, index_key(due, key));
    let read = || -> Result<Option<(i64, Job)>, StoreError> {
        let Some(waiting) = txn.get(Space::Job, key)? else {
            return Ok(None);
        };
        let record = parse(Space::Job, key, &waiting)?;
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
    let value = seal_json(Space::Ready, key, &head(true, due), &job)?;
    txn.put_sealed(Space::Ready, key.to_vec(), value);
    Ok(Some((job.id().0.into(), job)))
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
        self.0
            .read(move |shelf| {
                let mut jobs = Vec::new();
                for prefix in prefixes {
                    for space in [Space::Ready, Space::Job] {
                        let left = limit - jobs.len();
                        let from = prefix.as_bytes();
                        let end = prefix_end(from);
                        let range = Range::forward(from, end.as_deref(), left);
                        for (id, payload) in shelf.store.range(space, range)? {
                            jobs.push(decode(space, &id, parse(space, &id, &payload)?.json)?);
                        }
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
        run: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError>,
    ) -> (T, usize) {
        let mut txn = Txn::new(backend, 1);
        let result = run(&mut txn).unwrap();
        txn.keep();
        let (changes, after) = txn.into_changes();
        backend.write(&changes, Durability::Buffered).unwrap();
        for run in after {
            run();
        }
        (result, changes.len())
    }

    fn enqueue(backend: &FjallBackend, schedule: &Arc<Schedule>, jobs: &[u128]) -> usize {
        let enqueue = |txn: &mut Txn<'_>| {
            let mut desk = Desk::new(schedule);
            for n in jobs {
                desk.enqueue(txn, Prepared::of(job(*n), Timestamp(10))?, false)?;
            }
            desk.done(txn);
            Ok(())
        };
        batch(backend, enqueue).1
    }

    fn take(backend: &FjallBackend, schedule: &Arc<Schedule>, now: i64) -> (Vec<u128>, usize) {
        let (now, until) = (Timestamp(now), Timestamp(now + 100));
        let (jobs, changes) = batch(backend, |txn| lease(txn, schedule, now, until, 9));
        let ids = jobs.into_iter().map(|j| j.message.0.as_u128());
        (ids.collect(), changes)
    }

    #[test]
    fn leasing_what_is_ready_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let schedule = Arc::new(Schedule::default());
        assert_eq!(enqueue(&backend, &schedule, &[1, 2]), 2);
        assert_eq!(take(&backend, &schedule, 10), (vec![1, 2], 0));
        assert_eq!(take(&backend, &schedule, 50), (vec![], 0));
        assert_eq!(take(&backend, &schedule, 110), (vec![1, 2], 0));
    }

    #[test]
    fn what_memory_has_no_room_for_waits_on_the_disk_and_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let schedule = Arc::new(Schedule::with_room(1));
        enqueue(&backend, &schedule, &[1]);
        assert_eq!(enqueue(&backend, &schedule, &[2, 3]), 4);
        assert_eq!(enqueue(&backend, &schedule, &[2]), 2, "moved where it is");
        let (mut taken, changes) = take(&backend, &schedule, 10);
        taken.sort_unstable();
        assert_eq!((taken, changes), (vec![1, 2, 3], 6));
        assert_eq!(take(&backend, &schedule, 11), (vec![], 0));
        let ((), changes) = batch(&backend, |txn| {
            let mut desk = Desk::new(&schedule);
            for n in [1, 2, 2, 9] {
                desk.finish(txn, &job(n).id().0)?;
            }
            desk.done(txn);
            Ok(())
        });
        assert_eq!(changes, 2);
        assert_eq!(take(&backend, &schedule, 500).0, [3]);
    }
}
