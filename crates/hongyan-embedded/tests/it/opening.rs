//! Opening: who may, what is noticed, what it says.

use std::fs;
use std::path::Path;

use hongyan_core::port::{Ack, Job, JobKind, WriteSet};
use hongyan_embedded::store::watermark::{self, Watermark};
use hongyan_embedded::store::{Backend, Change, Durability, FjallBackend, Space, SqliteBackend};
use hongyan_embedded::{Embedded, Engine, OpenError};
use hongyan_testkit::sample::*;

use crate::sets;
use crate::subject::{open, options, ports};

async fn with_records(dir: &Path, engine: Engine) -> u32 {
    let embedded = open(&options(dir, engine)).unwrap();
    sets::commit(&ports(&embedded), 0..10, 10).await;
    embedded.close().await;
    embedded.store().epoch()
}

fn lost(result: Result<Embedded, OpenError>) -> String {
    match result {
        Err(e @ OpenError::Lost { .. }) => e.to_string(),
        other => panic!("it should have refused: {other:?}"),
    }
}

/// A store that is behind its watermark has lost acknowledged batches.
async fn behind_its_watermark(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let epoch = with_records(dir.path(), engine).await;
    let mut options = options(dir.path(), engine);
    let store = options.store_dir();
    let mark = Watermark::read(&store).unwrap().unwrap();
    assert!(mark.closed && mark.number > 0 && mark.epoch == epoch);
    let ahead = Watermark {
        number: mark.number + 7,
        ..mark
    };
    ahead.write(&store).unwrap();
    let said = lost(open(&options));
    assert!(
        said.contains("7 acknowledged batches are missing"),
        "{said}"
    );
    options.accept_loss = true;
    let embedded = open(&options).unwrap();
    assert_eq!(embedded.loss().unwrap().batches(), 7);
    assert_ne!(
        embedded.store().epoch(),
        epoch,
        "old cursors must be noticed"
    );
    sets::commit(&ports(&embedded), 10..12, 10).await;
    assert!(embedded.store().durable() > ahead.number);
    embedded.close().await;
    drop(embedded);
    options.accept_loss = false;
    let embedded = open(&options).unwrap();
    assert!(
        embedded.loss().is_none(),
        "an accepted loss is not reported again"
    );
    assert_eq!(sets::find(&ports(&embedded), 9).await, sets::Found::Whole);
    assert_eq!(sets::find(&ports(&embedded), 11).await, sets::Found::Whole);
}

#[tokio::test]
async fn fjall_behind_its_watermark() {
    behind_its_watermark(Engine::Fjall).await;
}

#[tokio::test]
async fn sqlite_behind_its_watermark() {
    behind_its_watermark(Engine::Sqlite).await;
}

#[tokio::test]
async fn a_missing_or_damaged_watermark_is_said() {
    for damaged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        with_records(dir.path(), Engine::Sqlite).await;
        let mut options = options(dir.path(), Engine::Sqlite);
        let path = watermark::path(&options.store_dir());
        if damaged {
            fs::write(&path, b"nonsense").unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let said = lost(open(&options));
        assert!(said.contains("WATERMARK"), "{said}");
        options.accept_loss = true;
        let embedded = open(&options).unwrap();
        assert_eq!(sets::find(&ports(&embedded), 9).await, sets::Found::Whole);
    }
}

/// Writes nonsense over a record, as damage below us would.
fn spoil(dir: &Path, engine: Engine, space: Space, key: &[u8]) {
    let store = options(dir, engine).store_dir();
    let backend: Box<dyn Backend> = match engine {
        Engine::Fjall => Box::new(FjallBackend::open(&store.join("fjall")).unwrap()),
        Engine::Sqlite => Box::new(SqliteBackend::open(&store).unwrap()),
    };
    assert!(backend.get(space, key).unwrap().is_some());
    let change = Change {
        space,
        key: key.to_vec(),
        value: Some(b"nonsense".to_vec()),
    };
    backend.write(&[change], Durability::Synced).unwrap();
}

#[tokio::test]
async fn another_layout_is_refused_and_left_as_it_is() {
    for engine in Engine::ALL {
        for (layout, advice) in [
            (1u64, "the program that made it"),
            (2, "the program that made it"),
            (99, "use a newer program"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let options = options(dir.path(), engine);
            let embedded = open(&options).unwrap();
            let write = move |txn: &mut hongyan_embedded::store::Txn<'_>| {
                txn.put_number(Space::Meta, b"layout", layout);
                Ok::<_, hongyan_core::StoreError>(())
            };
            use hongyan_embedded::store::{Admission, Urgency};
            let store = embedded.store();
            store
                .write(Admission::Normal, Urgency::Durable, 64, write)
                .await
                .unwrap();
            embedded.close().await;
            drop(embedded);
            for _ in 0..2 {
                let refused = open(&options).unwrap_err().to_string();
                let wanted = format!("has layout {layout}");
                assert!(refused.contains(&wanted), "{refused}");
                assert!(refused.contains(advice), "{refused}");
            }
        }
    }
}

#[tokio::test]
async fn damaged_records_are_named_and_can_be_given_up() {
    let message = [b"app\0".as_slice(), message_id(3).0.as_bytes()].concat();
    let cases: [(Space, &[u8], &str); 4] = [
        (Space::Message, &message, "keyspace message"),
        (Space::Chain, &1u64.to_be_bytes(), "1-1"),
        (Space::Meta, b"epoch", "keyspace meta"),
        (Space::Meta, b"layout", "keyspace meta"),
    ];
    for engine in Engine::ALL {
        for (space, key, named) in cases {
            let dir = tempfile::tempdir().unwrap();
            let epoch = with_records(dir.path(), engine).await;
            spoil(dir.path(), engine, space, key);
            let mut options = options(dir.path(), engine);
            let said = lost(open(&options));
            assert!(said.contains(named), "{said}");
            options.accept_loss = true;
            let embedded = open(&options).unwrap();
            assert!(embedded.loss().is_some());
            assert_ne!(embedded.store().epoch(), epoch);
            assert!(embedded.verify().await.unwrap().is_empty());
            let ports = ports(&embedded);
            let want = if space == Space::Message {
                sets::Found::Torn
            } else {
                sets::Found::Whole
            };
            assert_eq!(sets::find(&ports, 3).await, want);
            assert_eq!(sets::find(&ports, 4).await, sets::Found::Whole);
            drop((ports, embedded));
            options.accept_loss = false;
            assert!(open(&options).unwrap().loss().is_none());
        }
    }
}

/// A record that goes bad while the store runs is an error for who reads it, by name.
#[tokio::test]
async fn a_record_that_goes_bad_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = open(&options(dir.path(), Engine::Sqlite)).unwrap();
    let ports = ports(&embedded);
    sets::commit(&ports, 0..5, 10).await;
    let message = [b"app\0".as_slice(), message_id(3).0.as_bytes()].concat();
    spoil(dir.path(), Engine::Sqlite, Space::Message, &message);
    let read = ports.inbox.message(&app(), message_id(3)).await;
    let Err(hongyan_core::StoreError::Corrupt { entity, .. }) = read else {
        panic!("{read:?}");
    };
    assert_eq!(entity, "message");
    let named = embedded.verify().await.unwrap();
    assert!(
        named.len() == 1 && named[0].contains("message"),
        "{named:?}"
    );
    let files = tempfile::tempdir().unwrap();
    let backup = embedded.backup(files.path().join("b")).await;
    assert!(backup.is_err(), "a backup is whole or it is none");
}

/// A job that goes bad holds up no other, and is not lost.
#[tokio::test]
async fn a_job_that_goes_bad_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = open(&options(dir.path(), Engine::Sqlite)).unwrap();
    let ports = ports(&embedded);
    let job = |n| Job {
        app: app(),
        message: message_id(n),
        kind: JobKind::Deliver {
            device: device_id("d1"),
        },
        due: at(n.cast_signed()),
        leased: false,
    };
    let set = WriteSet {
        jobs: vec![job(1), job(2), job(3)],
        ..WriteSet::default()
    };
    ports.commit.commit(vec![set]).await.remove(0).unwrap();
    let id = job(2).id().0;
    spoil(dir.path(), Engine::Sqlite, Space::Job, id.as_bytes());
    let leased = ports.work.lease(at(10), at(20), 9).await.unwrap();
    assert_eq!(leased, [job(1), job(2), job(3)]);
    assert!(
        ports
            .work
            .lease(at(10), at(20), 9)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(embedded.verify().await.unwrap().is_empty(), "it is mended");
}

/// Jobs that share a record are not lost in silence, however large the store is.
#[tokio::test]
async fn jobs_that_are_lost_are_named() {
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        with_records(dir.path(), engine).await;
        let mut options = options(dir.path(), engine);
        options.verify_bytes_max = 0;
        let sheet = |engine| {
            let store = options.store_dir();
            let backend: Box<dyn Backend> = match engine {
                Engine::Fjall => Box::new(FjallBackend::open(&store.join("fjall")).unwrap()),
                Engine::Sqlite => Box::new(SqliteBackend::open(&store).unwrap()),
            };
            let range = hongyan_embedded::store::Range::forward(b"", None, 1);
            backend.range(Space::Sheet, range).unwrap().remove(0).0
        };
        let key = sheet(engine);
        spoil(dir.path(), engine, Space::Sheet, &key);
        let said = lost(open(&options));
        assert!(said.contains("keyspace sheet"), "{said}");
        options.accept_loss = true;
        let embedded = open(&options).unwrap();
        assert!(embedded.loss().is_some());
        assert!(embedded.verify().await.unwrap().is_empty());
    }
}

/// A device has acknowledged a place whose record is lost: what comes next is not taken for acknowledged.
#[tokio::test]
async fn what_follows_a_lost_place_reaches_the_inbox() {
    let ring = |tail: &[u8]| [b"app\0uu1\0", tail].concat();
    let cases = [
        (20u64, Space::Ring, ring(&[20])),
        (40, Space::Head, ring(&[])),
        (40, Space::Ring, ring(&[33])),
    ];
    for engine in Engine::ALL {
        for (len, space, key) in &cases {
            let dir = tempfile::tempdir().unwrap();
            let mut options = options(dir.path(), engine);
            let embedded = open(&options).unwrap();
            let reader = reader("d1", Some("u1"));
            let inbox = embedded.inbox();
            let send = async |embedded: &Embedded, n| {
                let owner = user_list("u1");
                let set = append_message(message_to(n, target_of(&owner)), &owner);
                let done = embedded.commit().commit(vec![set]).await.remove(0);
                done.unwrap();
            };
            for n in 1..=*len {
                send(&embedded, n).await;
            }
            let head = inbox.head(&reader).await.unwrap();
            let ack = Ack::Upto(head);
            inbox.ack(&reader, ack, NOW).await.unwrap();
            embedded.close().await;
            drop((inbox, embedded));
            spoil(dir.path(), engine, *space, key);
            options.accept_loss = true;
            let embedded = open(&options).unwrap();
            assert!(embedded.loss().is_some());
            send(&embedded, 99).await;
            let page = embedded.inbox().read(&reader, None, 9, NOW).await.unwrap();
            let ids: Vec<_> = page.entries.iter().map(|e| e.message.id).collect();
            assert_eq!(ids, [message_id(99)], "{engine:?} {space:?}");
        }
    }
}

#[tokio::test]
async fn an_emptied_store_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    with_records(dir.path(), Engine::Fjall).await;
    let options = options(dir.path(), Engine::Fjall);
    fs::remove_dir_all(options.store_dir().join("fjall")).unwrap();
    let said = lost(open(&options));
    assert!(said.contains("missing"), "{said}");
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), Engine::Sqlite);
    let first = Embedded::open(&options).unwrap();
    let second = Embedded::open(&options);
    let Err(e @ OpenError::Locked(_)) = second else {
        panic!("{second:?}");
    };
    assert!(
        e.to_string().contains("another process uses the store"),
        "{e}"
    );
    drop(first);
    open(&options).unwrap();
}

#[tokio::test]
async fn the_other_engine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    with_records(dir.path(), Engine::Sqlite).await;
    let other = open(&options(dir.path(), Engine::Fjall));
    let Err(e @ OpenError::OtherEngine { .. }) = other else {
        panic!("{other:?}");
    };
    assert!(e.to_string().contains("store.engine = \"sqlite\""), "{e}");
}

#[tokio::test]
async fn a_deletion_that_was_interrupted_is_finished() {
    use hongyan_embedded::store::{Admission, Urgency};
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), Engine::Fjall);
    let embedded = open(&options).unwrap();
    sets::commit(&ports(&embedded), 0..10, 10).await;
    let note = |txn: &mut hongyan_embedded::store::Txn<'_>| {
        txn.put(Space::Deleting, b"app\0", []);
        Ok::<_, hongyan_core::StoreError>(())
    };
    let store = embedded.store();
    store
        .write(Admission::Normal, Urgency::Durable, 64, note)
        .await
        .unwrap();
    embedded.close().await;
    drop(embedded);
    let embedded = open(&options).unwrap();
    assert!(embedded.maintain(NOW).await.unwrap() > 0);
    assert_eq!(embedded.maintain(NOW).await.unwrap(), 0);
    let ports = ports(&embedded);
    for n in 0..10 {
        assert_eq!(sets::find(&ports, n).await, sets::Found::Missing);
    }
    ports
        .registry
        .put_app(app_record("app", 1), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn expired_messages_go_with_their_broadcasts() {
    use hongyan_core::limits::LEDGER_TTL;
    use hongyan_core::message::Audience;
    use hongyan_core::port::Owner;
    let dir = tempfile::tempdir().unwrap();
    let embedded = open(&options(dir.path(), Engine::Sqlite)).unwrap();
    let ports = ports(&embedded);
    let all = Owner::Audience(Audience::All);
    let sets = (0..700).map(|n| append(n, &all)).collect();
    for result in ports.commit.commit(sets).await {
        result.unwrap();
    }
    let end = at(24 * HOUR).plus(LEDGER_TTL);
    assert_eq!(embedded.maintain(end).await.unwrap(), 0);
    assert_eq!(
        embedded
            .maintain(hongyan_core::Timestamp(end.0 + 1))
            .await
            .unwrap(),
        700
    );
    assert_eq!(
        ports.inbox.message(&app(), message_id(5)).await.unwrap(),
        None
    );
    use hongyan_embedded::store::View;
    for space in [Space::Broadcast, Space::BroadcastOf, Space::Message] {
        assert!(
            embedded.store().prefix(space, b"", 10).unwrap().is_empty(),
            "{space:?}"
        );
    }
}
