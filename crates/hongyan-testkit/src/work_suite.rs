//! The promises of [`Work`](hongyan_core::port::Work).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a case fails"
)]

use std::time::Duration;

use hongyan_core::port::{Job, JobKind, WriteSet};
use hongyan_core::{MessageId, Timestamp};

use crate::sample::*;
use crate::suite::{Ports, Subject, cases};

cases! { $ work_suite:
    due_jobs_come_earliest_first_and_not_before_their_time,
    a_lease_holds_until_it_ends,
    a_restart_makes_leased_jobs_due,
    the_same_id_is_moved,
    a_finished_job_is_gone,
    an_earlier_job_is_found_after_later_ones_were_taken,
    jobs_of_a_message_are_found,
    open_jobs_are_counted,
    a_new_job_wakes_who_waits,
    two_takers_never_share_a_job,
    a_write_set_can_finish_and_enqueue_the_same_job,
}

fn job(n: u64, due: Timestamp) -> Job {
    Job {
        app: app(),
        message: message_id(n),
        kind: JobKind::Route {
            owner: user_list("u1"),
        },
        due,
        leased: false,
    }
}

async fn enqueue(ports: &Ports, jobs: Vec<Job>) {
    let set = WriteSet {
        jobs,
        ..WriteSet::default()
    };
    ports.commit.commit(vec![set]).await.remove(0).unwrap();
}

async fn finish(ports: &Ports, jobs: &[Job]) {
    let set = WriteSet {
        jobs_done: jobs.iter().map(Job::id).collect(),
        ..WriteSet::default()
    };
    ports.commit.commit(vec![set]).await.remove(0).unwrap();
}

async fn lease(ports: &Ports, now: i64, until: i64, limit: usize) -> Vec<MessageId> {
    let jobs = ports.work.lease(at(now), at(until), limit).await.unwrap();
    jobs.into_iter().map(|j| j.message).collect()
}

async fn due_jobs_come_earliest_first_and_not_before_their_time(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let jobs = [(1, 30), (2, 10), (3, 20), (4, 41)];
    enqueue(&ports, jobs.map(|(n, due)| job(n, at(due))).to_vec()).await;
    assert_eq!(ports.work.next_due().await.unwrap(), Some(at(10)));
    assert!(lease(&ports, 9, 1_000, 10).await.is_empty());
    assert_eq!(lease(&ports, 10, 1_000, 10).await, [message_id(2)]);
    assert_eq!(lease(&ports, 40, 1_000, 1).await, [message_id(3)]);
    assert_eq!(lease(&ports, 40, 1_000, 9).await, [message_id(1)]);
    assert_eq!(ports.work.next_due().await.unwrap(), Some(at(41)));
}

async fn a_lease_holds_until_it_ends(subject: &mut dyn Subject) {
    let ports = subject.ports();
    enqueue(&ports, vec![job(1, at(0)), job(2, at(5))]).await;
    assert_eq!(lease(&ports, 10, 100, 1).await, [message_id(1)]);
    assert_eq!(lease(&ports, 10, 200, 9).await, [message_id(2)]);
    assert!(lease(&ports, 99, 300, 9).await.is_empty());
    assert_eq!(ports.work.next_due().await.unwrap(), Some(at(100)));
    assert_eq!(lease(&ports, 100, 300, 9).await, [message_id(1)]);
    assert_eq!(lease(&ports, 250, 400, 9).await, [message_id(2)]);
}

async fn a_restart_makes_leased_jobs_due(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let held = Job {
        leased: true,
        ..job(3, at(900))
    };
    enqueue(&ports, vec![job(1, at(0)), job(2, at(500)), held]).await;
    assert_eq!(lease(&ports, 10, 1_000, 9).await, [message_id(1)]);
    drop(ports);
    subject.restart().await;
    let ports = subject.ports();
    let mut due = lease(&ports, 10, 1_000, 9).await;
    due.sort();
    assert_eq!(
        due,
        [1, 3].map(message_id),
        "what waits for its time still waits"
    );
    assert_eq!(ports.work.next_due().await.unwrap(), Some(at(500)));
}

async fn the_same_id_is_moved(subject: &mut dyn Subject) {
    let ports = subject.ports();
    for due in [50, 10, 70] {
        enqueue(&ports, vec![job(1, at(due))]).await;
        assert_eq!(ports.work.next_due().await.unwrap(), Some(at(due)));
    }
    assert_eq!(lease(&ports, 60, 100, 9).await, []);
    let held = Job {
        leased: true,
        ..job(1, at(80))
    };
    enqueue(&ports, vec![held]).await;
    assert_eq!(ports.work.next_due().await.unwrap(), Some(at(80)));
    assert_eq!(lease(&ports, 80, 100, 9).await, [message_id(1)]);
    enqueue(&ports, vec![job(1, at(20))]).await;
    assert_eq!(
        lease(&ports, 80, 200, 9).await,
        [message_id(1)],
        "moved out of its lease"
    );
    assert_eq!(ports.work.open().await.unwrap(), 1);
}

async fn a_finished_job_is_gone(subject: &mut dyn Subject) {
    let ports = subject.ports();
    enqueue(&ports, vec![job(1, at(0)), job(2, at(0))]).await;
    finish(&ports, &[job(1, at(0)), job(99, at(0))]).await;
    assert_eq!(lease(&ports, 10, 20, 9).await, [message_id(2)]);
    finish(&ports, &[job(2, at(0))]).await;
    assert!(lease(&ports, 1_000, 2_000, 9).await.is_empty());
    assert_eq!(ports.work.next_due().await.unwrap(), None);
}

async fn an_earlier_job_is_found_after_later_ones_were_taken(subject: &mut dyn Subject) {
    let ports = subject.ports();
    for round in 0..20u64 {
        let base = i64::try_from(1_000 - round * 10).unwrap();
        enqueue(&ports, vec![job(round, at(base))]).await;
        assert_eq!(ports.work.next_due().await.unwrap(), Some(at(base)));
        assert_eq!(lease(&ports, 2_000, 9_000, 9).await, [message_id(round)]);
        finish(&ports, &[job(round, at(base))]).await;
    }
}

async fn jobs_of_a_message_are_found(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let deliver = |device: &str| Job {
        kind: JobKind::Deliver {
            device: device_id(device),
        },
        ..job(1, at(50))
    };
    let broadcast = Job {
        kind: JobKind::Broadcast {
            after: Some(device_id("x")),
        },
        ..job(1, at(60))
    };
    let all = vec![job(1, at(5)), broadcast, deliver("d1"), deliver("d2")];
    enqueue(&ports, all.clone()).await;
    enqueue(&ports, vec![job(2, at(0))]).await;
    let mut found = ports
        .work
        .of_message(&app(), message_id(1), 10)
        .await
        .unwrap();
    let due = |j: &Job| (j.due, j.id());
    let mut want = all;
    found.sort_by_key(due);
    want.sort_by_key(due);
    assert_eq!(found, want);
    let first = ports.work.of_message(&app(), message_id(1), 2).await;
    let first = first.unwrap();
    assert_eq!(first.len(), 2);
    assert!(
        first
            .iter()
            .all(|j| !matches!(j.kind, JobKind::Deliver { .. })),
        "those that look for devices come first"
    );
    let leased = ports.work.lease(at(100), at(200), 9).await.unwrap();
    assert_eq!(leased.len(), 5);
    let held = ports.work.of_message(&app(), message_id(1), 9).await;
    assert_eq!(held.unwrap().len(), 4, "a leased job is open");
    assert!(
        ports
            .work
            .of_message(&app(), message_id(3), 2)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn open_jobs_are_counted(subject: &mut dyn Subject) {
    let ports = subject.ports();
    enqueue(&ports, (0..10).map(|n| job(n, at(0))).collect()).await;
    lease(&ports, 10, 20, 4).await;
    finish(&ports, &[job(0, at(0)), job(1, at(0)), job(1, at(0))]).await;
    assert_eq!(ports.work.open().await.unwrap(), 8);
}

async fn a_new_job_wakes_who_waits(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let work = ports.work.clone();
    let waits = async { tokio::time::timeout(Duration::from_secs(20), work.changed()).await };
    let (woken, ()) = tokio::join!(waits, enqueue(&ports, vec![job(1, at(0))]));
    assert!(woken.is_ok());
}

async fn two_takers_never_share_a_job(subject: &mut dyn Subject) {
    let ports = subject.ports();
    enqueue(&ports, (0..200).map(|n| job(n, at(0))).collect()).await;
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let ports = ports.clone();
        takers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let some = lease(&ports, 10, 1_000, 7).await;
                if some.is_empty() {
                    return mine;
                }
                mine.extend(some);
            }
        });
    }
    let mut all = takers.join_all().await.concat();
    all.sort();
    assert_eq!(all, (0..200).map(message_id).collect::<Vec<_>>());
}

async fn a_write_set_can_finish_and_enqueue_the_same_job(subject: &mut dyn Subject) {
    let ports = subject.ports();
    enqueue(&ports, vec![job(1, at(0))]).await;
    let again = job(1, at(70));
    let set = WriteSet {
        jobs_done: vec![again.id()],
        jobs: vec![again],
        ..WriteSet::default()
    };
    ports.commit.commit(vec![set]).await.remove(0).unwrap();
    assert_eq!(ports.work.next_due().await.unwrap(), Some(at(70)));
    assert_eq!(ports.work.open().await.unwrap(), 1);
}
