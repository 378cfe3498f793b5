//! What is done when a store opens with a loss accepted: what is left must not be taken for something else later.

use std::fs;
use std::path::Path;

use hongyan_core::message::Audience;
use hongyan_core::port::{Ack, Job, JobKind, Owner, WriteSet};
use hongyan_core::push::Urgency;
use hongyan_embedded::store::{
    Backend, Change, Durability, FjallBackend, Range, Space, SqliteBackend, View,
};
use hongyan_embedded::{Embedded, Engine};
use hongyan_testkit::sample::*;

use crate::subject::{open, options};

/// The engine's files, while no store has them open.
fn files_of(dir: &Path, engine: Engine) -> Box<dyn Backend> {
    let store = options(dir, engine).store_dir();
    match engine {
        Engine::Fjall => Box::new(FjallBackend::open(&store.join("fjall")).unwrap()),
        Engine::Sqlite => Box::new(SqliteBackend::open(&store).unwrap()),
    }
}

/// Sets all records of a keyspace that are meant: to nonsense, or to nothing.
fn change(
    dir: &Path,
    engine: Engine,
    space: Space,
    value: Option<&[u8]>,
    is_meant: impl Fn(&[u8]) -> bool,
) -> usize {
    let backend = files_of(dir, engine);
    let rows = backend.range(space, Range::forward(b"", None, 999_999));
    let meant = rows.unwrap().into_iter().filter(|(key, _)| is_meant(key));
    let changes: Vec<_> = meant
        .map(|(key, _)| Change {
            space,
            key,
            value: value.map(<[u8]>::to_vec),
        })
        .collect();
    backend.write(&changes, Durability::Synced).unwrap();
    changes.len()
}

fn without_watermark(dir: &Path, engine: Engine) {
    let store = options(dir, engine).store_dir();
    fs::remove_file(hongyan_embedded::store::watermark::path(&store)).unwrap();
}

fn accepting(dir: &Path, engine: Engine) -> Embedded {
    let mut options = options(dir, engine);
    options.accept_loss = true;
    let embedded = open(&options).unwrap();
    assert!(embedded.loss().is_some());
    embedded
}

async fn commit(embedded: &Embedded, set: WriteSet) {
    let done = embedded.commit().commit(vec![set]).await.remove(0);
    done.unwrap();
}

async fn end(embedded: Embedded) {
    embedded.close().await;
    drop(embedded);
}

/// Lists are gone to their last record, and a device has acknowledged places in them.
#[tokio::test]
async fn no_acknowledged_place_is_given_out_again() {
    let lists = [
        user_list("u1"),
        Owner::Device(device_id("d1")),
        Owner::Audience(Audience::All),
        Owner::Audience(Audience::Topic(topic("t"))),
    ];
    let me = reader("d1", Some("u1"));
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let embedded = open(&options(dir.path(), engine)).unwrap();
        let registry = embedded.registry();
        registry
            .put_device(device_of("d1", "u1"), None)
            .await
            .unwrap();
        for n in 1..=120 {
            commit(&embedded, append(n, &lists[n as usize % 4])).await;
        }
        // Subscribed only now: that place too is one that others must come after.
        let one = [device_id("d1")];
        registry.subscribe(&app(), &topic("t"), &one).await.unwrap();
        let inbox = embedded.inbox();
        let head = inbox.head(&me).await.unwrap();
        inbox.ack(&me, Ack::Upto(head), NOW).await.unwrap();
        drop((registry, inbox));
        end(embedded).await;
        for space in [Space::Ring, Space::Head, Space::Broadcast] {
            assert!(change(dir.path(), engine, space, None, |_| true) > 0);
        }
        without_watermark(dir.path(), engine);
        let embedded = accepting(dir.path(), engine);
        for n in 0..4u64 {
            commit(&embedded, append(1_000 + n, &lists[n as usize])).await;
        }
        let page = embedded.inbox().read(&me, None, 9, NOW).await.unwrap();
        let ids: Vec<_> = page.entries.iter().map(|e| e.message.id).collect();
        assert_eq!(ids, [1_000, 1_001, 1_002, 1_003].map(message_id));
    }
}

/// Only the records are gone that say how far topics, the list for all and what waits for devices reach.
#[tokio::test]
async fn what_is_left_of_a_list_is_read_without_its_record() {
    let me = reader("d1", Some("u1"));
    for engine in Engine::ALL {
        for (tags, value) in [("tap", None), ("tap", Some(b"?")), ("tapb", Some(b"?"))] {
            let dir = tempfile::tempdir().unwrap();
            let embedded = open(&options(dir.path(), engine)).unwrap();
            let registry = embedded.registry();
            let device = device_of("d1", "u1");
            registry.put_device(device, None).await.unwrap();
            let one = [device_id("d1")];
            registry.subscribe(&app(), &topic("t"), &one).await.unwrap();
            let lists = [
                Owner::Audience(Audience::All),
                Owner::Audience(Audience::Topic(topic("t"))),
            ];
            for n in 1..=4 {
                commit(&embedded, append(n, &lists[n as usize % 2])).await;
                let push = push_to("d1", 10 + n, "a", Urgency::Normal, Some(&n.to_string()));
                commit(
                    &embedded,
                    append_message(push, &Owner::Device(device_id("d1"))),
                )
                .await;
            }
            drop(registry);
            end(embedded).await;
            let tag = |key: &[u8]| key[app().as_str().len() + 1];
            let is_meant = |key: &[u8]| tags.as_bytes().contains(&tag(key));
            let value = value.map(<[u8; 1]>::as_slice);
            let changed = change(dir.path(), engine, Space::Head, value, is_meant);
            assert_eq!(changed, tags.len());
            without_watermark(dir.path(), engine);
            let embedded = accepting(dir.path(), engine);
            let inbox = embedded.inbox();
            let ids = async || -> Vec<_> {
                let page = inbox.read(&me, None, 20, NOW).await.unwrap();
                page.entries.iter().map(|e| e.message.id).collect()
            };
            let all = [1, 11, 2, 12, 3, 13, 4, 14].map(message_id);
            assert_eq!(ids().await, all, "{engine:?} {tags}");
            commit(&embedded, append(20, &lists[0])).await;
            assert_eq!(ids().await.last(), Some(&message_id(20)));
            drop(inbox);
            end(embedded).await;
        }
    }
}

fn job(n: u64) -> Job {
    Job {
        app: app(),
        message: message_id(n),
        kind: JobKind::Deliver {
            device: device_id("d1"),
        },
        due: at(n.cast_signed() - 1_000),
        leased: false,
    }
}

fn jobs(range: std::ops::RangeInclusive<u64>) -> WriteSet {
    WriteSet {
        // Says when it is, so that they are ready.
        events: vec![event(1, "d1", hongyan_core::Stage::Accepted)],
        jobs: range.map(job).collect(),
        ..WriteSet::default()
    }
}

/// How far a store had come is known neither from its chain nor from its watermark: its jobs still tell.
#[tokio::test]
async fn no_sheet_is_written_over_another() {
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let embedded = open(&options(dir.path(), engine)).unwrap();
        for n in 1..=10 {
            commit(&embedded, jobs(n..=n)).await;
        }
        end(embedded).await;
        assert!(change(dir.path(), engine, Space::Chain, None, |_| true) > 9);
        without_watermark(dir.path(), engine);
        let embedded = accepting(dir.path(), engine);
        for n in 11..=20 {
            commit(&embedded, jobs(n..=n)).await;
        }
        end(embedded).await;
        let embedded = open(&options(dir.path(), engine)).unwrap();
        let leased = embedded.work().lease(NOW, at(1), 99).await.unwrap();
        assert_eq!(leased.len(), 20, "{engine:?}");
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_lost_sheet() {
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let embedded = open(&options(dir.path(), engine)).unwrap();
        for n in [1, 4, 7] {
            commit(&embedded, jobs(n..=n + 2)).await;
            let set = WriteSet {
                jobs_done: vec![job(n).id()],
                ..WriteSet::default()
            };
            commit(&embedded, set).await;
        }
        end(embedded).await;
        let rows = files_of(dir.path(), engine).range(Space::Sheet, Range::forward(b"", None, 9));
        let which: Vec<_> = rows.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(which.len(), 3);
        let is = |n: usize| {
            let key = which[n].clone();
            move |other: &[u8]| other == key
        };
        assert_eq!(change(dir.path(), engine, Space::Sheet, None, is(0)), 1);
        let nonsense = Some(b"nonsense".as_slice());
        assert_eq!(change(dir.path(), engine, Space::Sheet, nonsense, is(2)), 1);
        let embedded = accepting(dir.path(), engine);
        for space in [Space::Sheet, Space::SheetDone] {
            let rows = embedded.store().prefix(space, b"", 9).unwrap();
            let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, which[1..2], "{engine:?} {space:?}");
        }
        let leased = embedded.work().lease(NOW, at(1), 99).await.unwrap();
        assert_eq!(leased, [job(5), job(6)]);
    }
}

/// A post that comes while its device is deleted is no loss, and goes in its time with all that it wrote.
#[tokio::test]
async fn a_push_to_a_deleted_device_leaves_nothing_behind() {
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let embedded = open(&options(dir.path(), engine)).unwrap();
        let registry = embedded.registry();
        for id in ["d1", "d2"] {
            let device = device_of(id, "u1");
            registry.put_device(device, None).await.unwrap();
        }
        let gone = registry.delete_device(&app(), &device_id("d1")).await;
        assert!(gone.unwrap());
        for (n, device) in [(1, "d1"), (2, "d1"), (3, "d2")] {
            let push = push_to(device, n, "a", Urgency::Normal, Some("news"));
            let owner = Owner::Device(device_id(device));
            commit(&embedded, append_message(push, &owner)).await;
        }
        let late = at(24 * HOUR).plus(hongyan_core::limits::LEDGER_TTL);
        while embedded
            .maintain(late.plus(std::time::Duration::from_secs(9)))
            .await
            .unwrap()
            > 0
        {}
        for space in [Space::Push, Space::Head] {
            let rows = embedded.store().prefix(space, b"", 99).unwrap();
            let of = |id: &[u8]| {
                let has = |key: &Vec<u8>| key.windows(id.len()).any(|part| part == id);
                rows.iter().filter(|(key, _)| has(key)).count()
            };
            assert_eq!((of(b"d1"), of(b"d2")), (0, 1), "{engine:?} {space:?}");
        }
    }
}
