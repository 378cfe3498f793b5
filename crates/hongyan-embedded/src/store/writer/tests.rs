//! Batches, their order and what follows them.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

use proptest::prelude::*;

use super::*;
use crate::store::{Range, Rows, View};

type Memory = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// In memory. Writes wait for permission.
#[derive(Debug, Default)]
struct Gated {
    rows: Mutex<Memory>,
    allowed: Mutex<usize>,
    more: Condvar,
}

impl Gated {
    fn allow(&self, writes: usize) {
        let mut allowed = self.allowed.lock().unwrap();
        *allowed = allowed.saturating_add(writes);
        self.more.notify_all();
    }
}

impl Read for Gated {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.rows.lock().unwrap();
        Ok(rows.get(&(space, key.to_vec())).cloned())
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        let rows = self.rows.lock().unwrap();
        let rows = rows.range((space, range.from.to_vec())..);
        let rows = rows.take_while(|((of, key), _)| {
            *of == space && range.to.is_none_or(|to| key.as_slice() < to)
        });
        let mut rows: Rows = rows.map(|((_, k), v)| (k.clone(), v.clone())).collect();
        if range.direction == crate::store::Direction::Reverse {
            rows.reverse();
        }
        rows.truncate(range.limit);
        Ok(rows)
    }
}

impl Backend for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn write(&self, changes: &[Change], _: Durability) -> Result<(), StoreError> {
        let mut allowed = self.allowed.lock().unwrap();
        while *allowed == 0 {
            allowed = self.more.wait(allowed).unwrap();
        }
        *allowed -= 1;
        drop(allowed);
        for change in changes {
            // One at a time, as an engine shows it to those who read meanwhile.
            let mut rows = self.rows.lock().unwrap();
            let key = (change.space, change.key.clone());
            match &change.value {
                Some(value) => rows.insert(key, value.clone()),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Read>, StoreError> {
        Err(unavailable("gated", Certainty::NothingHappened, "no"))
    }

    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

fn setup(backend: Arc<dyn Backend>, settle: Settle) -> Setup {
    let shared = Arc::new(Shared::default());
    Setup {
        backend,
        shared: Arc::clone(&shared),
        number: 0,
        near: None,
        on_fatal: Arc::new(|fatal| panic!("{fatal}")),
        observer: Arc::new(|_, _, _| {}),
        settle,
        disk: DiskWatch {
            shared,
            dir: "/".into(),
            min_free_bytes: 0,
            probe: Arc::new(|_| Some(u64::MAX)),
        },
    }
}

/// Puts a number under a key, if one is given.
fn put(key: Option<&'static [u8]>) -> (Box<dyn Op>, oneshot::Receiver<Result<(), StoreError>>) {
    let run = move |txn: &mut Txn<'_>| {
        if let Some(key) = key {
            txn.put_number(Space::Meta, key, 1);
        }
        Ok::<_, StoreError>(())
    };
    let (reply, answer) = oneshot::channel();
    let (run, result) = (Some(run), None);
    (Box::new(Typed { run, result, reply }), answer)
}

/// Where something always comes, the end of the traffic is not waited for.
#[test]
fn what_is_written_relaxed_is_on_the_disk_in_time_under_steady_load() {
    let backend = Arc::new(Gated::default());
    backend.allow(usize::MAX);
    let mut writer = Loop::new(setup(backend, Arc::new(|_| Ok(()))));
    let (_queue, items) = sync_channel(1);
    assert!(
        writer
            .turn(&items, put(Some(b"a")).0, Urgency::Relaxed, 1)
            .is_none()
    );
    assert!(writer.unsynced.is_some());
    writer.unsynced = Instant::now().checked_sub(RELAXED_MAX);
    assert!(
        writer
            .turn(&items, put(Some(b"b")).0, Urgency::Relaxed, 1)
            .is_none()
    );
    assert!(writer.unsynced.is_none());
}

#[test]
fn a_panic_in_what_follows_a_batch_stops_the_store() {
    let backend = Arc::new(Gated::default());
    backend.allow(usize::MAX);
    let mut setup = setup(backend, Arc::new(|_| Ok(())));
    setup.observer = Arc::new(|_, _, _| panic!("as the test says"));
    let fatal = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let told = Arc::clone(&fatal);
    setup.on_fatal = Arc::new(move |_| {
        told.fetch_add(1, Ordering::SeqCst);
    });
    let mut writer = Loop::new(setup);
    let (_queue, items) = sync_channel(1);
    for key in [b"a", b"b"] {
        let (op, mut answer) = put(Some(key));
        assert!(writer.turn(&items, op, Urgency::Relaxed, 1).is_none());
        assert!(answer.try_recv().unwrap().is_err());
    }
    assert_eq!(fatal.load(Ordering::SeqCst), 1);
}

/// Batches that write nothing, or fail, hand the room on as those do that write.
#[test]
fn the_room_is_kept_from_batch_to_batch() {
    let backend = Arc::new(Gated::default());
    backend.allow(usize::MAX);
    let settle: Settle = Arc::new(|txn| match txn.changed(Space::Meta, b"unsettled") {
        None => Ok(()),
        Some(_) => Err(unavailable("test", Certainty::NothingHappened, "no")),
    });
    let mut writer = Loop::new(setup(backend, settle));
    let (_queue, items) = sync_channel(1);
    let mut turn = |key: Option<&'static [u8]>| {
        assert!(
            writer
                .turn(&items, put(key).0, Urgency::Relaxed, 1)
                .is_none()
        );
        writer.room.is_some()
    };
    assert!(turn(Some(b"written")));
    assert!(turn(None), "nothing to write");
    assert!(turn(Some(b"unsettled")), "not to be written");
    assert!(turn(Some(b"written")));
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Remove(u8),
    /// Writes, then refuses itself.
    Fail(u8),
    /// From, to, at most, backwards.
    Look(u8, u8, usize, bool),
    /// Lets this many batches land.
    Land(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..12;
    prop_oneof![
        4 => (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        3 => key.clone().prop_map(Step::Remove),
        1 => key.clone().prop_map(Step::Fail),
        4 => (key.clone(), key, 0usize..5, any::<bool>())
            .prop_map(|(a, b, n, back)| Step::Look(a, b, n, back)),
        2 => (1usize..3).prop_map(Step::Land),
    ]
}

/// What an operation saw: the value of its key before it, or the rows of a range.
type Seen = Vec<(u8, u8)>;

/// One step, as an operation.
fn operation(
    step: &Step,
) -> impl FnOnce(&mut Txn<'_>) -> Result<Seen, StoreError> + Send + 'static {
    let step = step.clone();
    let space = Space::Ring;
    move |txn| {
        let at = |txn: &Txn<'_>, key: u8| -> Result<Seen, StoreError> {
            let value = txn.get(space, &[key])?;
            Ok(value.into_iter().map(|v| (key, v[0])).collect())
        };
        match step {
            Step::Put(key, value) => {
                let seen = at(txn, key)?;
                txn.put(space, vec![key], [value]);
                Ok(seen)
            }
            Step::Remove(key) => {
                let seen = at(txn, key)?;
                txn.remove(space, vec![key]);
                Ok(seen)
            }
            Step::Fail(key) => {
                txn.put(space, vec![key], [0]);
                Err(unavailable("test", Certainty::NothingHappened, "as asked"))
            }
            Step::Look(from, to, limit, back) => {
                let (from, to) = ([from], [to]);
                let range = if back {
                    Range::reverse(&from, Some(&to), limit)
                } else {
                    Range::forward(&from, Some(&to), limit)
                };
                let rows = txn.range(space, range)?;
                Ok(rows.into_iter().map(|(k, v)| (k[0], v[0])).collect())
            }
            Step::Land(_) => Ok(Vec::new()),
        }
    }
}

/// The same on a plain map.
fn expected(model: &mut BTreeMap<u8, u8>, step: &Step) -> Option<Seen> {
    let at = |value: Option<u8>, key: u8| value.into_iter().map(|v| (key, v)).collect();
    Some(match *step {
        Step::Put(key, value) => at(model.insert(key, value), key),
        Step::Remove(key) => at(model.remove(&key), key),
        Step::Fail(_) => return None,
        Step::Look(from, to, limit, back) => {
            let rows = model.iter().map(|(k, v)| (*k, *v));
            let mut rows: Seen = rows.filter(|(k, _)| (from..to).contains(k)).collect();
            if back {
                rows.reverse();
            }
            rows.truncate(limit);
            rows
        }
        Step::Land(_) => Vec::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However batches fall and whenever they land, operations see what they would see one after the other.
    #[test]
    fn operations_see_those_before_them(steps in prop::collection::vec((step(), any::<bool>()), 1..80)) {
        let backend = Arc::new(Gated::default());
        let (writer, thread) =
            Writer::start(setup(Arc::clone(&backend) as Arc<dyn Backend>, Arc::new(|_| Ok(())))).unwrap();
        let (mut model, mut waiting) = (BTreeMap::new(), Vec::new());
        for (step, durable) in &steps {
            if let Step::Land(batches) = step {
                backend.allow(*batches);
                continue;
            }
            let urgency = if *durable { Urgency::Durable } else { Urgency::Relaxed };
            let pending = writer.submit(Admission::Normal, urgency, 1, operation(step)).unwrap();
            waiting.push((step, expected(&mut model, step), pending));
        }
        backend.allow(usize::MAX);
        let rest = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (step, want, pending) in waiting {
            let seen = rest.block_on(pending.wait()).ok();
            prop_assert_eq!(seen, want, "{:?}", step);
        }
        drop(writer.close());
        thread.join().unwrap();
        let rows = backend.range(Space::Ring, Range::forward(b"", None, 99)).unwrap();
        let left: Vec<u8> = rows.iter().map(|(k, _)| k[0]).collect();
        prop_assert_eq!(left, model.into_keys().collect::<Vec<_>>());
    }
}

/// Whoever is told of a batch finds it everywhere: in the store, in the caches, in what follows it in memory.
#[test]
fn all_follows_a_batch_before_anybody_is_told() {
    let log: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let note = |what: &'static str| {
        let log = Arc::clone(&log);
        move || log.lock().unwrap().push(what)
    };
    let backend = Arc::new(Gated::default());
    let mut setup = setup(
        Arc::clone(&backend) as Arc<dyn Backend>,
        Arc::new(|_| Ok(())),
    );
    let (seen, rows) = (note("the caches follow"), Arc::clone(&backend));
    setup.observer = Arc::new(move |space, key, _| {
        assert!(rows.get(space, key).unwrap().is_some());
        if space == Space::Ring {
            seen();
        }
    });
    let (writer, thread) = Writer::start(setup).unwrap();
    let (follows, answered) = (note("memory follows"), note("the caller is told"));
    let pending = writer
        .submit(Admission::Normal, Urgency::Durable, 1, move |txn| {
            txn.after(follows);
            txn.put(Space::Ring, vec![1], [1]);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    backend.allow(1);
    let rest = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    rest.block_on(pending.wait()).unwrap();
    answered();
    drop(writer.close());
    thread.join().unwrap();
    let order = ["the caches follow", "memory follows", "the caller is told"];
    assert_eq!(*log.lock().unwrap(), order);
}
