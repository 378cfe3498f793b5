//! Backups: of one instant, whole or refused, restored into either engine.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hongyan_embedded::{BackupError, Engine, check, restore};
use hongyan_testkit::sample::*;

use crate::sets::{self, Found};
use crate::subject::{Local, open, options, ports};

/// A backup taken under load holds everything acknowledged before it began, and nothing in part.
async fn under_load(engine: Engine) {
    let local = Local::fresh(engine);
    let ports_here = ports(local.embedded());
    let me = device_of("d9", "someone");
    ports_here
        .registry
        .put_device(me.clone(), None)
        .await
        .unwrap();
    sets::commit(&ports_here, 0..40, 200).await;
    let (stop, next) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(40)),
    );
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (ports, stop, next) = (ports_here.clone(), stop.clone(), next.clone());
        writers.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let n = next.fetch_add(1, Ordering::SeqCst);
                ports
                    .commit
                    .commit(vec![sets::full(n, 200)])
                    .await
                    .remove(0)
                    .unwrap();
            }
        });
    }
    while next.load(Ordering::SeqCst) < 100 {
        tokio::task::yield_now().await;
    }
    let acked = next.load(Ordering::SeqCst) - 4;
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("hongyan.backup");
    let summary = local.embedded().backup(path.clone()).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    writers.join_all().await;
    let total = next.load(Ordering::SeqCst);
    assert_eq!(check(&path).unwrap(), summary);
    assert_eq!(summary.bytes, fs::metadata(&path).unwrap().len());
    for into in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(restore(&path, dir.path(), into).unwrap(), summary);
        let again = restore(&path, dir.path(), into);
        assert!(
            matches!(again, Err(BackupError::NotEmpty { .. })),
            "{again:?}"
        );
        let restored = open(&options(dir.path(), into)).unwrap();
        assert_ne!(restored.store().epoch(), local.embedded().store().epoch());
        let ports = ports(&restored);
        let mut whole = 0;
        for n in 0..total {
            match sets::find(&ports, n).await {
                Found::Whole => whole += 1,
                Found::Missing => assert!(n >= acked, "set {n} was acknowledged before"),
                other => panic!("set {n} is {other:?}"),
            }
        }
        assert!(whole >= acked);
        let stored = ports
            .registry
            .devices(&app(), &[device_id("d9")])
            .await
            .unwrap();
        assert_eq!(stored, [Some(me.clone())]);
        // It goes on from there.
        let more = total..total + 5;
        sets::commit(&ports, more.clone(), 10).await;
        drop(ports);
        restored.close().await;
        drop(restored);
        let restored = open(&options(dir.path(), into)).unwrap();
        let ports = crate::subject::ports(&restored);
        assert_eq!(sets::find(&ports, more.start).await, Found::Whole);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fjall_is_backed_up_under_load() {
    under_load(Engine::Fjall).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_backed_up_under_load() {
    under_load(Engine::Sqlite).await;
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_made() {
    let local = Local::fresh(Engine::Sqlite);
    sets::commit(&ports(local.embedded()), 0..5, 50).await;
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("whole");
    local.embedded().backup(path.clone()).await.unwrap();
    let whole = fs::read(&path).unwrap();
    let damaged = files.path().join("damaged");
    let dir = files.path().join("data");
    let mut cases: Vec<Vec<u8>> = (0..whole.len())
        .step_by(97)
        .map(|i| whole[..i].to_vec())
        .collect();
    for i in (0..whole.len())
        .step_by(61)
        .chain(whole.len() - 50..whole.len())
    {
        let mut flipped = whole.clone();
        flipped[i] ^= 0x10;
        cases.push(flipped);
    }
    for (i, bytes) in cases.into_iter().enumerate() {
        fs::write(&damaged, bytes).unwrap();
        let result = restore(&damaged, &dir, Engine::Sqlite);
        assert!(result.is_err(), "case {i}");
        assert!(!dir.exists(), "case {i}");
    }
}
