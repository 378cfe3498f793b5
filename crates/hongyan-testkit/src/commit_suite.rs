//! The promises of [`Commit`](hongyan_core::port::Commit).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a case fails"
)]

use hongyan_core::port::{
    CommitError, DeliveryWrite, EventFilter, Idempotency, Job, JobKind, WriteSet,
};
use hongyan_core::{Reason, Stage, Timestamp};

use crate::sample::*;
use crate::suite::{Ports, Subject, cases};

cases! { $ commit_suite:
    a_set_is_whole_and_survives_a_restart,
    a_refused_set_changes_nothing_and_holds_up_nobody,
    a_delivery_is_written_once_per_version,
    places_are_dense_in_call_order,
    numbers_grow,
    an_idempotency_key_is_answered_as_promised,
    an_idempotency_key_is_forgotten_after_its_time,
    concurrent_sets_with_one_key_are_one_set,
    concurrent_appends_have_every_place_once,
}

fn full(n: u64) -> WriteSet {
    let job = Job {
        app: app(),
        message: message_id(n),
        kind: JobKind::Deliver {
            device: device_id("d1"),
        },
        due: NOW,
        leased: false,
    };
    WriteSet {
        jobs: vec![job],
        deliveries: vec![DeliveryWrite {
            delivery: delivery(n, "d1"),
            expected: None,
        }],
        events: vec![event(n, "d1", Stage::Accepted)],
        ..append(n, &user_list("u1"))
    }
}

fn promise(key: &str, body: u8, expires_at: Timestamp) -> Idempotency {
    Idempotency {
        app: app(),
        key: key.to_owned(),
        body_hash: [body; 32],
        answer: vec![body, 1, 2],
        expires_at,
    }
}

/// Whether everything of set `n` is there (`true`) or nothing (`false`).
async fn is_there(ports: &Ports, n: u64) -> bool {
    let id = message_id(n);
    let message = ports.inbox.message(&app(), id).await.unwrap().is_some();
    let jobs = ports.work.of_message(&app(), id, 9).await.unwrap().len();
    let events = ports
        .ledger
        .events(&app(), EventFilter::Message(id), 0, 9)
        .await
        .unwrap()
        .len();
    let keys = [(id, device_id("d1"))];
    let delivery = ports.ledger.deliveries(&app(), &keys).await.unwrap()[0].is_some();
    let page = ports
        .inbox
        .read(&reader("d1", Some("u1")), None, 1_000, NOW)
        .await
        .unwrap();
    let entries = page.entries.iter().filter(|e| e.message.id == id).count();
    let parts = [
        usize::from(message),
        jobs,
        events,
        usize::from(delivery),
        entries,
    ];
    assert!(
        parts == [1; 5] || parts == [0; 5],
        "set {n} is there in part: {parts:?}"
    );
    message
}

async fn a_set_is_whole_and_survives_a_restart(subject: &mut dyn Subject) {
    let ports = subject.ports();
    ports.commit.commit(vec![full(1)]).await.remove(0).unwrap();
    assert!(is_there(&ports, 1).await);
    assert!(!is_there(&ports, 2).await);
    drop(ports);
    subject.restart().await;
    assert!(is_there(&subject.ports(), 1).await);
}

async fn a_refused_set_changes_nothing_and_holds_up_nobody(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mut stale = full(2);
    stale.deliveries[0].expected = Some(7);
    let known = WriteSet {
        idempotency: Some(promise("k", 1, at(HOUR))),
        ..full(4)
    };
    let again = WriteSet {
        idempotency: Some(promise("k", 1, at(HOUR))),
        ..full(5)
    };
    let results = ports
        .commit
        .commit(vec![full(1), stale, full(3), known, again])
        .await;
    assert!(
        results[0].is_ok() && results[2].is_ok() && results[3].is_ok(),
        "{results:?}"
    );
    assert!(matches!(results[1], Err(CommitError::Stale)), "{results:?}");
    assert!(
        matches!(results[4], Err(CommitError::Known { .. })),
        "{results:?}"
    );
    for (n, want) in [(1, true), (2, false), (3, true), (4, true), (5, false)] {
        assert_eq!(is_there(&ports, n).await, want, "set {n}");
    }
}

async fn a_delivery_is_written_once_per_version(subject: &mut dyn Subject) {
    let ports = subject.ports();
    ports.commit.commit(vec![full(1)]).await.remove(0).unwrap();
    let write = |reason| WriteSet {
        deliveries: vec![DeliveryWrite {
            delivery: ended(&delivery(1, "d1"), reason),
            expected: Some(0),
        }],
        ..WriteSet::default()
    };
    // Both decided on the same version; only one final outcome can be.
    let both = vec![write(Reason::Delivered), write(Reason::Expired)];
    let results = ports.commit.commit(both).await;
    assert!(
        results[0].is_ok() && matches!(results[1], Err(CommitError::Stale)),
        "{results:?}"
    );
    let keys = [(message_id(1), device_id("d1"))];
    let stored = ports
        .ledger
        .deliveries(&app(), &keys)
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(stored.outcome(), Some(Reason::Delivered));
    let again = ports.commit.commit(vec![full(1)]).await.remove(0);
    assert!(matches!(again, Err(CommitError::Stale)), "{again:?}");
}

async fn places_are_dense_in_call_order(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let sets = (1..=20).map(|n| append(n, &user_list(["u1", "u2"][n as usize % 2])));
    let mut places = [Vec::new(), Vec::new()];
    for (n, result) in (1..=20).zip(ports.commit.commit(sets.collect()).await) {
        places[n % 2].extend(result.unwrap().places);
    }
    for places in places {
        assert_eq!(places, (1..=10).collect::<Vec<u64>>());
    }
}

async fn numbers_grow(subject: &mut dyn Subject) {
    let mut last = 0;
    for n in 0..6 {
        let ports = subject.ports();
        let done = ports
            .commit
            .commit(vec![append(n, &user_list("u1"))])
            .await
            .remove(0);
        let number = done.unwrap().number;
        assert!(number > last, "{number} after {last}");
        last = number;
        drop(ports);
        if n == 3 {
            subject.restart().await;
        }
    }
}

async fn an_idempotency_key_is_answered_as_promised(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let set = |n, body| WriteSet {
        idempotency: Some(promise("k", body, at(24 * HOUR))),
        ..append(n, &user_list("u1"))
    };
    assert_eq!(
        ports.commit.idempotent(&app(), "k", NOW).await.unwrap(),
        None
    );
    ports
        .commit
        .commit(vec![set(1, 1)])
        .await
        .remove(0)
        .unwrap();
    drop(ports);
    subject.restart().await;
    let ports = subject.ports();
    let known = ports.commit.idempotent(&app(), "k", NOW).await.unwrap();
    assert_eq!(known, Some(([1; 32], vec![1, 1, 2])));
    assert_eq!(
        ports
            .commit
            .idempotent(&app_id("other"), "k", NOW)
            .await
            .unwrap(),
        None
    );
    for body in [1, 2] {
        match ports.commit.commit(vec![set(2, body)]).await.remove(0) {
            Err(CommitError::Known { body_hash, answer }) => {
                assert_eq!((body_hash, answer), ([1; 32], vec![1, 1, 2]));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        ports.inbox.message(&app(), message_id(2)).await.unwrap(),
        None
    );
}

async fn an_idempotency_key_is_forgotten_after_its_time(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let set = |n, now: i64| {
        let mut message = message_to(n, target_of(&user_list("u1")));
        message.accepted_at = at(now);
        WriteSet {
            idempotency: Some(promise("k", 1, at(now + HOUR))),
            ..append_message(message, &user_list("u1"))
        }
    };
    ports
        .commit
        .commit(vec![set(1, 0)])
        .await
        .remove(0)
        .unwrap();
    let (commit, app) = (ports.commit.clone(), app());
    let known = |now: i64| commit.idempotent(&app, "k", at(now));
    assert!(known(HOUR - 1).await.unwrap().is_some());
    assert!(known(HOUR).await.unwrap().is_none());
    subject.maintain(at(HOUR - 1)).await;
    assert!(known(HOUR - 1).await.unwrap().is_some());
    let ports = subject.ports();
    ports
        .commit
        .commit(vec![set(2, HOUR)])
        .await
        .remove(0)
        .unwrap();
    subject.maintain(at(HOUR + 1)).await;
    let renewed = ports
        .commit
        .idempotent(&app, "k", at(HOUR + 2))
        .await
        .unwrap();
    assert!(
        renewed.is_some(),
        "the sweep of the first promise leaves the second alone"
    );
    subject.maintain(at(3 * HOUR)).await;
    assert!(
        ports
            .commit
            .idempotent(&app, "k", NOW)
            .await
            .unwrap()
            .is_none()
    );
}

async fn concurrent_sets_with_one_key_are_one_set(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..20 {
        let commit = ports.commit.clone();
        callers.spawn(async move {
            let set = WriteSet {
                idempotency: Some(promise("k", 1, at(HOUR))),
                ..append(n, &user_list("u1"))
            };
            commit.commit(vec![set]).await.remove(0).is_ok()
        });
    }
    let winners = callers
        .join_all()
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(winners, 1);
    let page = ports
        .inbox
        .read(&reader("d1", Some("u1")), None, 100, NOW)
        .await
        .unwrap();
    assert_eq!(page.entries.len(), 1);
}

async fn concurrent_appends_have_every_place_once(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..50 {
        let commit = ports.commit.clone();
        callers.spawn(async move {
            let done = commit
                .commit(vec![append(n, &user_list("u1"))])
                .await
                .remove(0);
            done.unwrap().places[0]
        });
    }
    let mut places = callers.join_all().await;
    places.sort_unstable();
    assert_eq!(places, (1..=50).collect::<Vec<u64>>());
}
