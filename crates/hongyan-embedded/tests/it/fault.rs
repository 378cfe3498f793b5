//! A failing engine, a full disk, a full queue.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use hongyan_core::port::{Ack, CommitError, WriteSet};
use hongyan_core::{Certainty, StoreError};
use hongyan_embedded::store::{Backend, Change, Durability, Range, Read, Rows, Space};
use hongyan_embedded::{Embedded, Engine};
use hongyan_testkit::sample::*;

use crate::sets::{self, Found};
use crate::subject::{open, options, ports};

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a test does to the engine.
#[derive(Debug, Default)]
pub(crate) struct Control {
    fails: AtomicBool,
    panics: AtomicBool,
    shut: Mutex<bool>,
    opened: Condvar,
    pub(crate) writes: AtomicUsize,
}

impl Control {
    pub(crate) fn set_shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn Backend>,
    control: Arc<Control>,
}

impl Read for Faulty {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(space, key)
    }
    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        self.inner.range(space, range)
    }
}

impl Backend for Faulty {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn write(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        self.control.writes.fetch_add(1, Ordering::SeqCst);
        let mut shut = self.control.shut.lock().unwrap();
        while *shut {
            shut = self.control.opened.wait(shut).unwrap();
        }
        drop(shut);
        assert!(!self.control.panics.load(Ordering::SeqCst), "as asked");
        if self.control.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable {
                engine: "faulty",
                certainty: Certainty::Unknown,
                source: "no space left on device".into(),
            });
        }
        self.inner.write(changes, durability)
    }
    fn snapshot(&self) -> Result<Box<dyn Read>, StoreError> {
        self.inner.snapshot()
    }
    fn check(&self) -> Result<(), StoreError> {
        self.inner.check()
    }
    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }
}

pub(crate) struct Rig {
    dir: tempfile::TempDir,
    engine: Engine,
    pub(crate) control: Arc<Control>,
    fatal: Arc<Mutex<Vec<String>>>,
    pub(crate) embedded: Embedded,
}

pub(crate) fn rig(engine: Engine) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let control = Arc::new(Control::default());
    let fatal = Arc::new(Mutex::new(Vec::new()));
    let mut options = options(dir.path(), engine);
    let (of_engine, said) = (Arc::clone(&control), Arc::clone(&fatal));
    options.wrap = Some(Arc::new(move |inner| {
        Arc::new(Faulty {
            inner,
            control: Arc::clone(&of_engine),
        })
    }));
    options.on_fatal = Arc::new(move |fatal| said.lock().unwrap().push(fatal.to_string()));
    let embedded = open(&options).unwrap();
    Rig {
        dir,
        engine,
        control,
        fatal,
        embedded,
    }
}

/// After a failed commit nothing is acknowledged any more, and nothing acknowledged is lost.
async fn fail_stop(engine: Engine, panics: bool) {
    let rig = rig(engine);
    let before = ports(&rig.embedded);
    sets::commit(&before, 0..20, 10).await;
    let flag = if panics {
        &rig.control.panics
    } else {
        &rig.control.fails
    };
    flag.store(true, Ordering::SeqCst);
    let failed = before
        .commit
        .commit(vec![sets::full(20, 10)])
        .await
        .remove(0);
    let Err(CommitError::Store(e)) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(e.certainty(), Certainty::Unknown, "{e:?}");
    // The fault is gone, but retrying would hide what it did.
    flag.store(false, Ordering::SeqCst);
    let writes = rig.control.writes.load(Ordering::SeqCst);
    for n in 21..25 {
        let refused = before
            .commit
            .commit(vec![sets::full(n, 10)])
            .await
            .remove(0);
        let Err(CommitError::Store(e)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(e.certainty(), Certainty::NothingHappened, "{e:?}");
    }
    assert_eq!(rig.control.writes.load(Ordering::SeqCst), writes);
    let fatal = rig.fatal.lock().unwrap().clone();
    assert_eq!(fatal.len(), 1, "{fatal:?}");
    assert!(fatal[0].contains("failed to commit batch"), "{fatal:?}");
    assert_eq!(
        sets::find(&before, 19).await,
        Found::Whole,
        "reading goes on"
    );
    drop(before);
    rig.embedded.close().await;
    let Rig { dir, embedded, .. } = rig;
    drop(embedded);
    let again = open(&options(dir.path(), engine)).unwrap();
    let ports = ports(&again);
    for n in 0..20 {
        assert_eq!(sets::find(&ports, n).await, Found::Whole, "set {n}");
    }
    for n in 21..25 {
        assert_eq!(sets::find(&ports, n).await, Found::Missing, "set {n}");
    }
}

#[tokio::test]
async fn fjall_stops_after_a_failed_commit() {
    fail_stop(Engine::Fjall, false).await;
}

#[tokio::test]
async fn sqlite_stops_after_a_failed_commit() {
    fail_stop(Engine::Sqlite, false).await;
}

#[tokio::test]
async fn a_panicking_engine_is_a_failed_commit() {
    fail_stop(Engine::Sqlite, true).await;
}

/// A relaxed write that fails stops the store as a durable one does, and no sync that follows makes a gap in its numbers.
#[tokio::test]
async fn a_failed_relaxed_write_is_followed_by_none() {
    use hongyan_embedded::store::{Admission, Urgency, View};
    let rig = rig(Engine::Fjall);
    let store = rig.embedded.store();
    let put = |key: &'static [u8]| {
        store.write(Admission::Normal, Urgency::Relaxed, 1, move |txn| {
            txn.put(Space::Meta, key, []);
            Ok::<_, StoreError>(())
        })
    };
    // Something is written and not synced.
    put(b"first").await.unwrap();
    rig.control.fails.store(true, Ordering::SeqCst);
    put(b"second").await.unwrap_err();
    rig.control.fails.store(false, Ordering::SeqCst);
    let writes = rig.control.writes.load(Ordering::SeqCst);
    put(b"third").await.unwrap_err();
    rig.embedded.close().await;
    assert_eq!(rig.control.writes.load(Ordering::SeqCst), writes);
    let Rig { dir, embedded, .. } = rig;
    drop(embedded);
    let again = open(&options(dir.path(), Engine::Fjall)).unwrap();
    assert!(again.store().get(Space::Meta, b"third").unwrap().is_none());
}

/// Below the threshold new messages are refused; what follows from accepted ones goes on.
#[tokio::test]
async fn a_nearly_full_disk_refuses_new_messages_first() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let mut options = options(dir.path(), Engine::Sqlite);
    options.min_free_bytes = 1_000;
    let probe = Arc::clone(&free);
    options.disk_probe = Arc::new(move |_| Some(probe.load(Ordering::SeqCst)));
    let embedded = open(&options).unwrap();
    let ports = ports(&embedded);
    let mut n = 0;
    let follow = WriteSet {
        events: vec![event(1, "d1", hongyan_core::Stage::Targeted)],
        ..WriteSet::default()
    };
    for (bytes, new, more) in [
        (u64::MAX, true, true),
        (999, false, true),
        (100, false, false),
        (1_000, true, true),
    ] {
        free.store(bytes, Ordering::SeqCst);
        let begin = Instant::now();
        loop {
            n += 1;
            let results = ports
                .commit
                .commit(vec![sets::full(n, 10), follow.clone()])
                .await;
            let refused = |r: &Result<_, CommitError>| {
                matches!(r, Err(CommitError::Store(StoreError::DiskFull)))
            };
            if refused(&results[0]) != new && refused(&results[1]) != more {
                break;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "{bytes}: {results:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        embedded.maintain(NOW).await.unwrap();
    }
}

/// The queue into the writer is bounded: more is refused at once, without waiting.
#[tokio::test]
async fn a_full_queue_says_busy_and_keeps_room_for_what_was_accepted() {
    let rig = rig(Engine::Fjall);
    let ports = ports(&rig.embedded);
    rig.control.set_shut(true);
    let (mut tasks, mut sent) = (tokio::task::JoinSet::new(), 0);
    let busy = Arc::new(AtomicUsize::new(0));
    let started = Arc::new(AtomicUsize::new(0));
    while busy.load(Ordering::SeqCst) == 0 {
        for _ in 0..1_000 {
            let (commit, busy) = (ports.commit.clone(), Arc::clone(&busy));
            let started = Arc::clone(&started);
            sent += 1;
            let set = append(sent, &user_list("u1"));
            tasks.spawn(async move {
                started.fetch_add(1, Ordering::SeqCst);
                let result = commit.commit(vec![set]).await.remove(0);
                if let Err(CommitError::Store(StoreError::Busy { retry_after_ms })) = result {
                    assert!(retry_after_ms > 0);
                    busy.fetch_add(1, Ordering::SeqCst);
                    return 0;
                }
                result.unwrap();
                1
            });
        }
        while started.load(Ordering::SeqCst) < usize::try_from(sent).unwrap() {
            tokio::task::yield_now().await;
        }
        if sent > 100_000 {
            rig.control.set_shut(false);
            panic!("the queue grows without bound");
        }
    }
    // What follows from accepted messages is still let in.
    let event = event(1, "d1", hongyan_core::Stage::Targeted);
    let set = WriteSet {
        events: vec![event],
        ..WriteSet::default()
    };
    let follow = ports.commit.commit(vec![set]);
    let open = async {
        tokio::task::yield_now().await;
        rig.control.set_shut(false);
    };
    let (mut follow, ()) = tokio::join!(follow, open);
    follow.remove(0).unwrap();
    let accepted: u64 = tasks.join_all().await.into_iter().sum();
    let refused = busy.load(Ordering::SeqCst) as u64;
    assert_eq!(accepted + refused, sent);
    let last = ports.inbox.head(&reader("d1", Some("u1"))).await.unwrap();
    assert_eq!(last.user, accepted, "accepted and stored are the same");
}

#[tokio::test]
async fn an_operation_that_panics_is_refused_alone() {
    use hongyan_embedded::store::{Admission, Urgency};
    let rig = rig(Engine::Sqlite);
    let store = rig.embedded.store();
    rig.control.set_shut(true);
    let bad = store.write(
        Admission::Normal,
        Urgency::Durable,
        1,
        |txn| -> Result<(), StoreError> {
            txn.put(Space::Meta, b"bad", []);
            panic!("as asked")
        },
    );
    let good = store.write(Admission::Normal, Urgency::Durable, 1, |txn| {
        txn.put(Space::Meta, b"good", []);
        Ok::<_, StoreError>(())
    });
    let open = async { rig.control.set_shut(false) };
    let (bad, good, ()) = tokio::join!(bad, good, open);
    assert!(
        matches!(bad, Err(StoreError::Unavailable { .. })),
        "{bad:?}"
    );
    good.unwrap();
    use hongyan_embedded::store::View;
    assert!(store.get(Space::Meta, b"good").unwrap().is_some());
    assert!(store.get(Space::Meta, b"bad").unwrap().is_none());
    assert!(rig.fatal.lock().unwrap().is_empty());
    assert_eq!(rig.engine, Engine::Sqlite);
}

/// A relaxed write is visible at once and on the disk soon after, without another write.
#[tokio::test]
async fn a_relaxed_write_reaches_the_disk_by_itself() {
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let embedded = open(&options(dir.path(), engine)).unwrap();
        let ports = ports(&embedded);
        sets::commit(&ports, 0..1, 10).await;
        let before = embedded.store().durable();
        let me = reader("d1", Some("u0"));
        let ack = Ack::Ids(vec![message_id(0)]);
        let acked = ports.inbox.ack(&me, ack, NOW).await.unwrap();
        assert_eq!(acked, [message_id(0)]);
        let page = ports.inbox.read(&me, None, 9, NOW).await.unwrap();
        assert!(page.entries.is_empty());
        until("synced", || embedded.store().durable() > before).await;
    }
}
