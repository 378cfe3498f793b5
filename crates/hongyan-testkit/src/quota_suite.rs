//! The promises of [`Quota`](hongyan_core::port::Quota).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a case fails"
)]

use crate::sample::*;
use crate::suite::{Subject, cases};

cases! { $ quota_suite:
    never_more_than_the_limit_whoever_asks_at_once,
    what_was_given_back_can_be_taken_again,
    windows_and_keys_are_apart,
    grants_survive_a_restart,
    a_window_lasts_until_the_latest_end_that_was_said,
    the_grant_says_what_is_left,
}

const END: i64 = 24 * HOUR;

async fn never_more_than_the_limit_whoever_asks_at_once(subject: &mut dyn Subject) {
    let quota = subject.ports().quota;
    let mut takers = tokio::task::JoinSet::new();
    for n in 0..50u64 {
        let quota = quota.clone();
        takers.spawn(async move {
            let grant = quota.take("k", NOW, at(END), 100, n % 7).await.unwrap();
            assert!(grant.granted <= n % 7);
            grant.granted
        });
    }
    let total: u64 = takers.join_all().await.into_iter().sum();
    assert_eq!(total, 100);
    assert_eq!(quota.used("k", NOW).await.unwrap(), 100);
}

async fn what_was_given_back_can_be_taken_again(subject: &mut dyn Subject) {
    let quota = subject.ports().quota;
    let take = |want| quota.take("k", NOW, at(END), 10, want);
    assert_eq!(take(10).await.unwrap().granted, 10);
    assert_eq!(take(1).await.unwrap().granted, 0);
    quota.give_back("k", NOW, 4).await.unwrap();
    assert_eq!(take(9).await.unwrap().granted, 4);
    quota.give_back("k", NOW, 1_000).await.unwrap();
    assert_eq!(
        take(1_000).await.unwrap().granted,
        10,
        "never above the limit"
    );
    quota.give_back("unknown", NOW, 5).await.unwrap();
    assert_eq!(quota.used("unknown", NOW).await.unwrap(), 0);
}

async fn windows_and_keys_are_apart(subject: &mut dyn Subject) {
    let quota = subject.ports().quota;
    for (key, start) in [("k", 0), ("k", END), ("k/1", 0), ("", 0)] {
        let grant = quota
            .take(key, at(start), at(start + END), 3, 3)
            .await
            .unwrap();
        assert_eq!(grant.granted, 3, "{key} {start}");
    }
}

async fn a_window_lasts_until_the_latest_end_that_was_said(subject: &mut dyn Subject) {
    let quota = subject.ports().quota;
    for end in [END, 4 * END, END] {
        quota.take("k", NOW, at(end), 10, 1).await.unwrap();
    }
    drop(quota);
    for (now, used) in [(2 * END, 3), (4 * END - 1, 3), (6 * END, 0)] {
        subject.maintain(at(now)).await;
        assert_eq!(subject.ports().quota.used("k", NOW).await.unwrap(), used);
    }
}

async fn grants_survive_a_restart(subject: &mut dyn Subject) {
    let quota = subject.ports().quota;
    quota.take("k", NOW, at(END), 10, 7).await.unwrap();
    drop(quota);
    subject.restart().await;
    let quota = subject.ports().quota;
    assert_eq!(quota.used("k", NOW).await.unwrap(), 7);
    assert_eq!(
        quota.take("k", NOW, at(END), 10, 7).await.unwrap().granted,
        3
    );
    drop(quota);
    subject.maintain(at(END - 1)).await;
    assert_eq!(subject.ports().quota.used("k", NOW).await.unwrap(), 10);
    subject.maintain(at(2 * END)).await;
    assert_eq!(subject.ports().quota.used("k", NOW).await.unwrap(), 0);
}

async fn the_grant_says_what_is_left(subject: &mut dyn Subject) {
    let quota = subject.ports().quota;
    let grant = quota.take("k", NOW, at(END), 10, 4).await.unwrap();
    assert_eq!(
        (grant.granted, grant.left, grant.resets_at),
        (4, 6, at(END))
    );
    let none = quota.take("k", NOW, at(END), 10, 0).await.unwrap();
    assert_eq!((none.granted, none.left), (0, 6));
    let lowered = quota.take("k", NOW, at(END), 2, 1).await.unwrap();
    assert_eq!((lowered.granted, lowered.left), (0, 0));
}
