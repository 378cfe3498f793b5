//! What is written while another batch is on its way to the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hongyan_core::StoreError;
use hongyan_core::port::{Commit, CommitError, Committed, JobId, WriteSet};
use hongyan_embedded::Engine;
use hongyan_testkit::sample::*;
use tokio::task::JoinHandle;

use crate::fault::{Rig, rig, until};
use crate::sets;
use crate::subject::{Local, ports};

fn send(commit: &Arc<dyn Commit>, set: WriteSet) -> JoinHandle<Result<Committed, CommitError>> {
    let commit = Arc::clone(commit);
    tokio::spawn(async move { commit.commit(vec![set]).await.remove(0) })
}

/// Sends a set and waits until the engine has begun to write it, which it does not finish.
async fn send_off(rig: &Rig, set: WriteSet) -> JoinHandle<Result<Committed, CommitError>> {
    rig.control.set_shut(true);
    let before = rig.control.writes.load(Ordering::SeqCst);
    let sent = send(&rig.embedded.commit(), set);
    until("the engine is asked", || {
        rig.control.writes.load(Ordering::SeqCst) > before
    })
    .await;
    sent
}

fn done(n: u64) -> WriteSet {
    let job = sets::full(n, 1).jobs.remove(0);
    WriteSet {
        jobs_done: vec![job.id()],
        ..WriteSet::default()
    }
}

#[tokio::test]
async fn a_job_that_ends_while_it_is_still_on_its_way_is_never_handed_out() {
    for engine in Engine::ALL {
        let rig = rig(engine);
        let ports = ports(&rig.embedded);
        let made = send_off(&rig, sets::full(1, 10)).await;
        let end = send(&ports.commit, done(1));
        // It is queued before the question is.
        tokio::task::yield_now().await;
        let (until, work) = (NOW.plus(Duration::from_secs(60)), ports.work.clone());
        let asked = tokio::spawn(async move { work.lease(NOW, until, 9).await });
        tokio::task::yield_now().await;
        rig.control.set_shut(false);
        made.await.unwrap().unwrap();
        end.await.unwrap().unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), []);
        assert_eq!(ports.work.lease(NOW, until, 9).await.unwrap(), []);
        assert_eq!(ports.work.open().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_second_first_version_is_a_conflict_even_before_the_first_is_there() {
    let rig = rig(Engine::Fjall);
    let registry = rig.embedded.registry();
    let made = send_off(&rig, sets::full(1, 10)).await;
    let put = |registry: &Arc<dyn hongyan_core::port::Registry>| {
        let registry = Arc::clone(registry);
        tokio::spawn(async move { registry.put_device(device("d1"), None).await })
    };
    let (one, other) = (put(&registry), put(&registry));
    tokio::task::yield_now().await;
    rig.control.set_shut(false);
    made.await.unwrap().unwrap();
    let results = [one.await.unwrap(), other.await.unwrap()];
    let refused = |r: &&Result<(), StoreError>| matches!(r, Err(StoreError::Conflict { .. }));
    assert_eq!(results.iter().filter(refused).count(), 1, "{results:?}");
}

#[tokio::test]
async fn places_go_on_behind_a_batch_that_is_on_its_way() {
    for engine in Engine::ALL {
        let rig = rig(engine);
        let commit = rig.embedded.commit();
        let mut sent = vec![send_off(&rig, append(1, &user_list("u1"))).await];
        for n in 2..40 {
            sent.push(send(&commit, append(n, &user_list("u1"))));
        }
        tokio::task::yield_now().await;
        rig.control.set_shut(false);
        let mut places = Vec::new();
        for sent in sent {
            places.extend(sent.await.unwrap().unwrap().places);
        }
        assert_eq!(places, (1..40).collect::<Vec<u64>>());
    }
}

/// Whoever sleeps until jobs change is woken for each, however batches follow one another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_job_is_offered_to_somebody_who_sleeps() {
    const EACH: u64 = 60;
    for engine in Engine::ALL {
        let local = Local::fresh(engine);
        let ports = ports(local.embedded());
        for task in 0..8 {
            let commit = ports.commit.clone();
            tokio::spawn(async move {
                for n in task * EACH..(task + 1) * EACH {
                    let results = commit.commit(vec![sets::full(n, 10)]).await;
                    assert!(results[0].is_ok(), "{results:?}");
                }
            });
        }
        let lease_until = NOW.plus(Duration::from_secs(3_600));
        let mut taken: BTreeMap<JobId, u32> = BTreeMap::new();
        while taken.len() < 8 * EACH as usize {
            let jobs = ports.work.lease(NOW, lease_until, 16).await.unwrap();
            if jobs.is_empty() {
                let changed = ports.work.changed();
                let woken = tokio::time::timeout(Duration::from_secs(60), changed).await;
                assert!(
                    woken.is_ok(),
                    "{} were taken, then nobody woke us",
                    taken.len()
                );
            }
            let ids: Vec<JobId> = jobs.iter().map(|job| job.id()).collect();
            for id in &ids {
                *taken.entry(id.clone()).or_default() += 1;
            }
            let ended = WriteSet {
                jobs_done: ids,
                ..WriteSet::default()
            };
            tokio::spawn({
                let commit = ports.commit.clone();
                async move { commit.commit(vec![ended]).await.remove(0).unwrap() }
            });
        }
        assert!(taken.values().all(|times| *times == 1), "{taken:?}");
        // The last ends are under way.
        let last = ports.commit.commit(vec![append(9_999, &user_list("u"))]);
        last.await.remove(0).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while ports.work.open().await.unwrap() > 0 {
            assert!(std::time::Instant::now() < deadline, "jobs are left");
            tokio::task::yield_now().await;
        }
    }
}
