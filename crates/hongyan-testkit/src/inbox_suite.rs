//! The promises of [`Inbox`](hongyan_core::port::Inbox).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a case fails"
)]

use hongyan_core::limits::INBOX_LEN_MAX;
use hongyan_core::message::{Audience, Target};
use hongyan_core::port::{Ack, InboxPage, Owner, Reader, WriteSet};
use hongyan_core::{Cursor, Device, MessageId};

use crate::sample::*;
use crate::suite::{Ports, Subject, cases};

cases! { $ inbox_suite:
    order_is_acceptance_order_over_all_lists,
    pages_meet_without_gap_or_repetition,
    every_entry_can_be_resumed_after,
    a_ring_keeps_the_newest_and_says_what_was_lost,
    a_broadcast_reaches_subscribers_from_their_subscription_on,
    all_reaches_devices_from_their_registration_on,
    a_new_binding_sees_only_what_comes_after_it,
    a_stale_reader_does_not_see_its_former_user,
    a_message_to_users_is_given_to_them_alone,
    expired_and_recalled_entries_are_skipped,
    acked_entries_do_not_come_again,
    an_ack_by_id_leaves_the_others,
    acks_are_counted_once,
    foreign_and_future_acks_do_nothing,
    a_foreign_cursor_reads_from_the_acked_place,
    acks_survive_a_restart,
    what_is_acked_is_told_while_it_stands_in_the_lists,
    what_was_never_given_is_not_acked,
    a_registered_again_device_starts_anew,
    many_broadcasts_are_read_in_pages,
    the_head_is_where_reading_ends,
    messages_are_found_by_id,
    only_the_newest_of_a_collapse_key_is_given,
    the_newest_is_found_far_behind_the_page,
    an_ack_by_id_reaches_behind_many_broadcasts,
    an_ack_of_many_broadcasts_tells_them_all,
}

async fn store(ports: &Ports, sets: Vec<WriteSet>) {
    for result in ports.commit.commit(sets).await {
        result.unwrap();
    }
}

async fn read(ports: &Ports, reader: &Reader, after: Option<Cursor>, limit: usize) -> InboxPage {
    ports.inbox.read(reader, after, limit, NOW).await.unwrap()
}

fn ids(page: &InboxPage) -> Vec<MessageId> {
    page.entries.iter().map(|e| e.message.id).collect()
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<MessageId> {
    range.map(message_id).collect()
}

fn to_all() -> Owner {
    Owner::Audience(Audience::All)
}

fn to_topic(name: &str) -> Owner {
    Owner::Audience(Audience::Topic(topic(name)))
}

async fn bound(ports: &Ports, id: &str, user: &str) -> Reader {
    ports
        .registry
        .put_device(device_of(id, user), None)
        .await
        .unwrap();
    reader(id, Some(user))
}

async fn order_is_acceptance_order_over_all_lists(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    ports
        .registry
        .subscribe(&app(), &topic("t"), &[device_id("d1")])
        .await
        .unwrap();
    let lists = [
        user_list("u1"),
        to_all(),
        Owner::Device(device_id("d1")),
        to_topic("t"),
        user_list("u1"),
    ];
    let sets = (1..=20).map(|n| append(n, &lists[n as usize % lists.len()]));
    store(&ports, sets.collect()).await;
    store(
        &ports,
        (21..=30)
            .map(|n| append(n, &lists[n as usize % 5]))
            .collect(),
    )
    .await;
    assert_eq!(ids(&read(&ports, &me, None, 100).await), numbers(1..=30));
}

async fn pages_meet_without_gap_or_repetition(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let lists = [user_list("u1"), to_all(), user_list("u2")];
    let sets = (1..=50).map(|n| append(n, &lists[n as usize % 3]));
    store(&ports, sets.collect()).await;
    let want: Vec<_> = (1..=50).filter(|n| n % 3 != 2).map(message_id).collect();
    for limit in [1, 2, 7, 100] {
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let page = read(&ports, &me, after, limit).await;
            assert!(page.entries.len() <= limit);
            assert!(!page.reset);
            got.extend(ids(&page));
            after = Some(page.next);
            if !page.more {
                assert_eq!(page.next, page.head);
                break;
            }
        }
        assert_eq!(got, want, "limit {limit}");
        let end = read(&ports, &me, after, limit).await;
        assert!(end.entries.is_empty() && !end.more && end.lost == 0);
    }
}

async fn every_entry_can_be_resumed_after(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let lists = [user_list("u1"), to_all()];
    store(
        &ports,
        (1..=20)
            .map(|n| append(n, &lists[n as usize % 2]))
            .collect(),
    )
    .await;
    let page = read(&ports, &me, None, 100).await;
    for (i, entry) in page.entries.iter().enumerate() {
        let rest = read(&ports, &me, Some(entry.cursor), 100).await;
        assert_eq!(ids(&rest), numbers(i as u64 + 2..=20));
        let text = entry.cursor.to_string();
        assert_eq!(Cursor::parse(&text), Ok(entry.cursor));
    }
}

async fn a_ring_keeps_the_newest_and_says_what_was_lost(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let begin = read(&ports, &me, None, 10).await.next;
    let total = 3 * INBOX_LEN_MAX + 17;
    store(
        &ports,
        (1..=total).map(|n| append(n, &user_list("u1"))).collect(),
    )
    .await;
    for after in [None, Some(begin)] {
        let page = read(&ports, &me, after, 1_000).await;
        assert_eq!(page.lost, total - INBOX_LEN_MAX);
        assert_eq!(ids(&page), numbers(total - INBOX_LEN_MAX + 1..=total));
        let rest = read(&ports, &me, Some(page.next), 10).await;
        assert_eq!((rest.entries.len(), rest.lost), (0, 0));
    }
}

async fn a_broadcast_reaches_subscribers_from_their_subscription_on(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let other = bound(&ports, "d2", "u2").await;
    store(&ports, vec![append(1, &to_topic("t"))]).await;
    let one = [device_id("d1")];
    ports
        .registry
        .subscribe(&app(), &topic("t"), &one)
        .await
        .unwrap();
    store(
        &ports,
        vec![append(2, &to_topic("t")), append(3, &to_topic("s"))],
    )
    .await;
    assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(2..=2));
    assert!(ids(&read(&ports, &other, None, 10).await).is_empty());
    ports
        .registry
        .unsubscribe(&app(), &topic("t"), &one)
        .await
        .unwrap();
    assert!(ids(&read(&ports, &me, None, 10).await).is_empty());
    ports
        .registry
        .subscribe(&app(), &topic("t"), &one)
        .await
        .unwrap();
    store(&ports, vec![append(4, &to_topic("t"))]).await;
    assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(4..=4));
}

async fn all_reaches_devices_from_their_registration_on(subject: &mut dyn Subject) {
    let ports = subject.ports();
    store(&ports, vec![append(1, &to_all())]).await;
    ports.registry.put_device(device("d1"), None).await.unwrap();
    store(&ports, vec![append(2, &to_all())]).await;
    let me = reader("d1", None);
    assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(2..=2));
}

async fn a_new_binding_sees_only_what_comes_after_it(subject: &mut dyn Subject) {
    let ports = subject.ports();
    store(
        &ports,
        vec![append(1, &user_list("u1")), append(2, &user_list("u2"))],
    )
    .await;
    let me = bound(&ports, "d1", "u1").await;
    store(&ports, vec![append(3, &user_list("u1"))]).await;
    let page = read(&ports, &me, None, 10).await;
    assert_eq!(ids(&page), numbers(3..=3));
    for (version, user, n) in [(1, "u2", 4), (2, "u1", 5)] {
        let moved = Device {
            binding: version + 1,
            version: version + 1,
            ..device_of("d1", user)
        };
        ports
            .registry
            .put_device(moved, Some(version))
            .await
            .unwrap();
        let me = reader("d1", Some(user));
        assert!(ids(&read(&ports, &me, None, 10).await).is_empty(), "{user}");
        // A cursor of the earlier binding does not lead back into it.
        let old = read(&ports, &me, Some(page.entries[0].cursor), 10).await;
        assert!(old.reset && old.entries.is_empty());
        store(&ports, vec![append(n, &user_list(user))]).await;
        assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(n..=n));
    }
}

async fn a_stale_reader_does_not_see_its_former_user(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let stale = bound(&ports, "d1", "u1").await;
    let moved = Device {
        binding: 2,
        version: 2,
        ..device_of("d1", "u2")
    };
    ports.registry.put_device(moved, Some(1)).await.unwrap();
    store(&ports, vec![append(1, &user_list("u1"))]).await;
    assert!(ids(&read(&ports, &stale, None, 10).await).is_empty());
    let acked = ports
        .inbox
        .ack(&stale, Ack::Ids(vec![message_id(1)]), NOW)
        .await;
    assert!(acked.unwrap().is_empty());
}

async fn a_message_to_users_is_given_to_them_alone(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let own = Owner::Device(device_id("d1"));
    let foreign = message_to(1, Target::Users(vec![user_id("u2")]));
    let mine = message_to(2, Target::Users(vec![user_id("u1")]));
    let sets = vec![append_message(foreign, &own), append_message(mine, &own)];
    store(&ports, sets).await;
    assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(2..=2));
}

async fn expired_and_recalled_entries_are_skipped(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    for owner in [user_list("u1"), to_all()] {
        let mut short = message_to(1, target_of(&owner));
        short.expires_at = at(-1);
        let sets = vec![
            append_message(short, &owner),
            append(2, &owner),
            append(3, &owner),
        ];
        store(&ports, sets).await;
        let recall = WriteSet {
            recalled: vec![(app(), message_id(2), at(9))],
            ..WriteSet::default()
        };
        store(&ports, vec![recall]).await;
        let page = read(&ports, &me, None, 10).await;
        assert_eq!(ids(&page), numbers(3..=3), "{owner:?}");
        assert_eq!(page.next, page.head);
        let when = ports.inbox.recalled(&app(), message_id(2)).await.unwrap();
        assert_eq!(when, Some(at(9)));
        assert_eq!(
            ports.inbox.recalled(&app(), message_id(3)).await.unwrap(),
            None
        );
        ports
            .inbox
            .ack(&me, Ack::Upto(page.next), NOW)
            .await
            .unwrap();
    }
}

async fn acked_entries_do_not_come_again(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let other = bound(&ports, "d2", "u1").await;
    let lists = [user_list("u1"), to_all()];
    store(
        &ports,
        (1..=10)
            .map(|n| append(n, &lists[n as usize % 2]))
            .collect(),
    )
    .await;
    let page = read(&ports, &me, None, 4).await;
    let acked = ports
        .inbox
        .ack(&me, Ack::Upto(page.next), NOW)
        .await
        .unwrap();
    assert_eq!(acked, numbers(1..=4));
    assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(5..=10));
    assert_eq!(ids(&read(&ports, &other, None, 10).await), numbers(1..=10));
}

async fn an_ack_by_id_leaves_the_others(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let lists = [user_list("u1"), to_all()];
    store(
        &ports,
        (1..=6).map(|n| append(n, &lists[n as usize % 2])).collect(),
    )
    .await;
    let some = vec![message_id(2), message_id(5), message_id(99)];
    let acked = ports.inbox.ack(&me, Ack::Ids(some), NOW).await.unwrap();
    assert_eq!(acked, [message_id(2), message_id(5)]);
    let left = [1, 3, 4, 6].map(message_id);
    assert_eq!(ids(&read(&ports, &me, None, 10).await), left);
    let acked = ports
        .inbox
        .ack(&me, Ack::Ids(left.to_vec()), NOW)
        .await
        .unwrap();
    assert_eq!(acked, left);
    assert!(ids(&read(&ports, &me, None, 10).await).is_empty());
    store(
        &ports,
        vec![append(7, &user_list("u1")), append(8, &to_all())],
    )
    .await;
    assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(7..=8));
}

async fn acks_are_counted_once(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    store(
        &ports,
        (1..=4).map(|n| append(n, &user_list("u1"))).collect(),
    )
    .await;
    let page = read(&ports, &me, None, 10).await;
    let (three, upto) = (Ack::Ids(vec![message_id(3)]), Ack::Upto(page.next));
    let ack = |ack: Ack| ports.inbox.ack(&me, ack, NOW);
    assert_eq!(ack(three.clone()).await.unwrap(), [message_id(3)]);
    assert!(ack(three.clone()).await.unwrap().is_empty());
    assert_eq!(ack(upto.clone()).await.unwrap(), [1, 2, 4].map(message_id));
    assert!(ack(upto).await.unwrap().is_empty());
    assert!(ack(three).await.unwrap().is_empty());
}

async fn foreign_and_future_acks_do_nothing(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let other = bound(&ports, "d2", "u2").await;
    store(
        &ports,
        vec![append(1, &user_list("u1")), append(2, &user_list("u2"))],
    )
    .await;
    let mine = read(&ports, &me, None, 10).await.next;
    let theirs = read(&ports, &other, None, 10).await.next;
    let future = Cursor {
        user: mine.user + 5,
        ..mine
    };
    let elsewhere = Cursor {
        epoch: mine.epoch ^ 1,
        ..mine
    };
    let foreign = Ack::Ids(vec![message_id(2)]);
    for ack in [
        Ack::Upto(theirs),
        Ack::Upto(future),
        Ack::Upto(elsewhere),
        foreign,
    ] {
        let acked = ports.inbox.ack(&me, ack.clone(), NOW).await.unwrap();
        assert!(acked.is_empty(), "{ack:?}");
    }
    assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(1..=1));
    store(&ports, vec![append(3, &user_list("u1"))]).await;
    assert_eq!(
        ids(&read(&ports, &me, None, 10).await),
        [1, 3].map(message_id)
    );
}

async fn what_is_acked_is_told_while_it_stands_in_the_lists(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let other = bound(&ports, "d2", "u1").await;
    let (user, own) = (user_list("u1"), Owner::Device(device_id("d1")));
    store(&ports, vec![append(1, &to_topic("t"))]).await;
    let (app, one) = (app(), [device_id("d1")]);
    let subscribed = ports.registry.subscribe(&app, &topic("t"), &one).await;
    subscribed.unwrap();
    let mut short = message_to(6, target_of(&user));
    short.expires_at = at(-1);
    let sets = vec![
        append(2, &user),
        append(3, &own),
        append(4, &to_all()),
        append(5, &to_topic("t")),
        append_message(short, &user),
        keyed(7, &user, "score"),
        append(8, &user),
        append(9, &user),
    ];
    store(&ports, sets).await;
    let told = async |reader: &Reader| {
        let all: Vec<_> = (1..=120).map(message_id).collect();
        ports.inbox.acked(reader, &all, NOW).await.unwrap()
    };
    assert!(told(&me).await.is_empty());
    let some = Ack::Ids([3, 5, 9].map(message_id).to_vec());
    ports.inbox.ack(&me, some, NOW).await.unwrap();
    assert_eq!(told(&me).await, [3, 5, 9].map(message_id));
    let upto = Ack::Upto(read(&ports, &me, None, 10).await.head);
    ports.inbox.ack(&me, upto, NOW).await.unwrap();
    let recall = WriteSet {
        recalled: vec![(app, message_id(8), NOW)],
        ..WriteSet::default()
    };
    store(&ports, vec![recall]).await;
    // Not what came before the subscription, what expired, what collapses, what was recalled.
    assert_eq!(told(&me).await, [2, 3, 4, 5, 9].map(message_id));
    assert!(told(&other).await.is_empty());
    // What left the ring may have left it before it was fetched.
    let more = 100 + INBOX_LEN_MAX - 2;
    store(&ports, (101..=more).map(|n| append(n, &user)).collect()).await;
    assert_eq!(told(&me).await, [3, 4, 5, 9].map(message_id));
    store(
        &ports,
        vec![append(more + 1, &user), append(more + 2, &user)],
    )
    .await;
    let upto = Ack::Upto(read(&ports, &me, None, 10).await.head);
    ports.inbox.ack(&me, upto, NOW).await.unwrap();
    let mut want = [3, 4, 5].map(message_id).to_vec();
    want.extend((101..=120).map(message_id));
    assert_eq!(told(&me).await, want);
    // Whoever holds it next has acknowledged nothing of what was for another.
    let moved = Device {
        binding: 2,
        version: 2,
        ..device_of("d1", "u2")
    };
    ports.registry.put_device(moved, Some(1)).await.unwrap();
    let next = reader("d1", Some("u2"));
    assert_eq!(told(&next).await, [3, 4, 5].map(message_id));
}

async fn a_foreign_cursor_reads_from_the_acked_place(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    store(
        &ports,
        (1..=5).map(|n| append(n, &user_list("u1"))).collect(),
    )
    .await;
    let two = read(&ports, &me, None, 2).await.next;
    ports.inbox.ack(&me, Ack::Upto(two), NOW).await.unwrap();
    let head = read(&ports, &me, None, 10).await.head;
    let elsewhere = Cursor {
        epoch: head.epoch ^ 1,
        ..head
    };
    let strange = Cursor {
        reader: head.reader ^ 1,
        ..head
    };
    for cursor in [elsewhere, strange] {
        let page = read(&ports, &me, Some(cursor), 10).await;
        assert!(page.reset);
        assert_eq!(ids(&page), numbers(3..=5));
    }
    let page = read(&ports, &me, Some(head), 10).await;
    assert!(!page.reset && page.entries.is_empty());
}

async fn acks_survive_a_restart(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    store(
        &ports,
        (1..=6).map(|n| append(n, &user_list("u1"))).collect(),
    )
    .await;
    let page = read(&ports, &me, None, 2).await;
    ports
        .inbox
        .ack(&me, Ack::Upto(page.next), NOW)
        .await
        .unwrap();
    ports
        .inbox
        .ack(&me, Ack::Ids(vec![message_id(5)]), NOW)
        .await
        .unwrap();
    drop(ports);
    subject.restart().await;
    let ports = subject.ports();
    assert_eq!(
        ids(&read(&ports, &me, None, 10).await),
        [3, 4, 6].map(message_id)
    );
    let resumed = read(&ports, &me, Some(page.next), 10).await;
    assert!(!resumed.reset, "a restart is not another life of the store");
}

async fn what_was_never_given_is_not_acked(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let mut short = message_to(1, Target::Users(vec![user_id("u1")]));
    short.expires_at = at(-1);
    let sets = vec![
        append_message(short, &user_list("u1")),
        append(2, &user_list("u1")),
        append(3, &to_topic("not-mine")),
    ];
    store(&ports, sets).await;
    let page = read(&ports, &me, None, 10).await;
    let acked = ports
        .inbox
        .ack(&me, Ack::Upto(page.next), NOW)
        .await
        .unwrap();
    assert_eq!(acked, numbers(2..=2));
}

async fn a_registered_again_device_starts_anew(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let own = Owner::Device(device_id("d1"));
    store(&ports, (1..=9).map(|n| append(n, &own)).collect()).await;
    let old = read(&ports, &me, None, 10).await.next;
    ports
        .registry
        .delete_device(&app(), &device_id("d1"))
        .await
        .unwrap();
    let me = bound(&ports, "d1", "u1").await;
    assert!(ids(&read(&ports, &me, None, 10).await).is_empty());
    store(&ports, vec![append(10, &own)]).await;
    let page = read(&ports, &me, Some(old), 10).await;
    assert_eq!(ids(&page), numbers(10..=10));
}

async fn many_broadcasts_are_read_in_pages(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    for name in ["t", "s"] {
        ports
            .registry
            .subscribe(&app(), &topic(name), &[device_id("d1")])
            .await
            .unwrap();
    }
    let lists = [to_all(), to_topic("t"), to_topic("s"), to_topic("other")];
    store(
        &ports,
        (1..=600)
            .map(|n| append(n, &lists[n as usize % 4]))
            .collect(),
    )
    .await;
    let want: Vec<_> = (1..=600).filter(|n| n % 4 != 3).map(message_id).collect();
    let (mut got, mut after) = (Vec::new(), None);
    loop {
        let page = read(&ports, &me, after, 10).await;
        got.extend(ids(&page));
        after = Some(page.next);
        if !page.more {
            break;
        }
    }
    assert_eq!(got, want);
}

async fn the_head_is_where_reading_ends(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let empty = ports.inbox.head(&me).await.unwrap();
    store(
        &ports,
        vec![append(1, &user_list("u1")), append(2, &to_all())],
    )
    .await;
    let head = ports.inbox.head(&me).await.unwrap();
    assert!(head.covers(&empty) && head != empty);
    assert_eq!(read(&ports, &me, None, 10).await.next, head);
}

async fn messages_are_found_by_id(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mut message = message_to(1, Target::All);
    message.data = Some(
        [("k".to_owned(), serde_json::json!([1, "二", null]))]
            .into_iter()
            .collect(),
    );
    store(&ports, vec![append_message(message.clone(), &to_all())]).await;
    let found = ports
        .inbox
        .message(&app(), message.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(*found, message);
    let ids = [
        (app(), message_id(2)),
        (app(), message.id),
        (app_id("other"), message.id),
    ];
    let found = ports.inbox.messages(&ids).await.unwrap();
    let found: Vec<_> = found.iter().map(|m| m.as_ref().map(|m| m.id)).collect();
    assert_eq!(found, [None, Some(message.id), None]);
}

fn keyed(n: u64, owner: &Owner, key: &str) -> WriteSet {
    let mut message = message_to(n, target_of(owner));
    message.options.collapse_key = Some(key.to_owned());
    append_message(message, owner)
}

async fn only_the_newest_of_a_collapse_key_is_given(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let (user, own) = (user_list("u1"), Owner::Device(device_id("d1")));
    let sets = vec![
        keyed(1, &user, "score"),
        keyed(2, &user, "weather"),
        append(3, &user),
        keyed(4, &user, "score"),
        // What is for whoever holds the device does not take the place of what is for a person.
        keyed(5, &own, "score"),
        keyed(6, &to_all(), "score"),
        keyed(7, &own, "score"),
    ];
    store(&ports, sets).await;
    let want = [2, 3, 4, 7].map(message_id);
    for limit in [1, 2, 10] {
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let page = read(&ports, &me, after, limit).await;
            got.extend(ids(&page));
            after = Some(page.next);
            if !page.more {
                assert_eq!(page.next, page.head);
                break;
            }
        }
        assert_eq!(got, want, "limit {limit}");
    }
    // What was not given is not acked, and is not in the way of the acked place.
    let page = read(&ports, &me, None, 10).await;
    let acked = ports
        .inbox
        .ack(&me, Ack::Ids(want[..3].to_vec()), NOW)
        .await;
    assert_eq!(acked.unwrap(), want[..3]);
    let acked = ports.inbox.ack(&me, Ack::Upto(page.next), NOW).await;
    assert_eq!(acked.unwrap(), want[3..]);
    assert!(ids(&read(&ports, &me, None, 10).await).is_empty());
    // An acked one does not keep its successor back.
    store(&ports, vec![keyed(8, &user, "score")]).await;
    assert_eq!(ids(&read(&ports, &me, None, 10).await), numbers(8..=8));
}

async fn the_newest_is_found_far_behind_the_page(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let mut sets = vec![keyed(1, &to_all(), "score")];
    sets.extend((2..=300).map(|n| append(n, &to_all())));
    sets.push(keyed(301, &to_all(), "score"));
    store(&ports, sets).await;
    let (mut got, mut after) = (Vec::new(), None);
    loop {
        let page = read(&ports, &me, after, 10).await;
        got.extend(ids(&page));
        after = Some(page.next);
        if !page.more {
            break;
        }
    }
    assert_eq!(got, numbers(2..=301));
}

async fn an_ack_by_id_reaches_behind_many_broadcasts(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let mut sets: Vec<_> = (1..=600).map(|n| append(n, &to_all())).collect();
    sets.push(append(601, &user_list("u1")));
    sets.push(append(602, &Owner::Device(device_id("d1"))));
    sets.push(append(603, &user_list("u1")));
    store(&ports, sets).await;
    let ack = |n| ports.inbox.ack(&me, Ack::Ids(numbers(n..=n)), NOW);
    for n in [603, 602] {
        assert_eq!(ack(n).await.unwrap(), numbers(n..=n));
        assert_eq!(ack(n).await.unwrap(), [], "once");
    }
    let mut got = Vec::new();
    let mut after = None;
    loop {
        let page = read(&ports, &me, after, 100).await;
        got.extend(ids(&page));
        after = Some(page.next);
        if !page.more {
            break;
        }
    }
    assert_eq!(got, numbers(1..=601));
    let upto = Ack::Upto(after.unwrap());
    let acked = ports.inbox.ack(&me, upto, NOW).await.unwrap();
    assert_eq!(acked, numbers(1..=601));
}

async fn an_ack_of_many_broadcasts_tells_them_all(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let me = bound(&ports, "d1", "u1").await;
    let mut next = 1;
    for broadcasts in [1_000, 2_300] {
        let end = next + broadcasts;
        let mut sets: Vec<_> = (next..end).map(|n| append(n, &to_all())).collect();
        sets.push(append(end, &user_list("u1")));
        sets.push(append(end + 1, &Owner::Device(device_id("d1"))));
        store(&ports, sets).await;
        let upto = Ack::Upto(read(&ports, &me, None, 1).await.head);
        let acked = ports.inbox.ack(&me, upto, NOW).await.unwrap();
        assert_eq!(acked, numbers(next..=end + 1));
        assert!(ids(&read(&ports, &me, None, 1).await).is_empty());
        next = end + 2;
    }
}
