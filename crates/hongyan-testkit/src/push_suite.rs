//! The promises of [`Inbox`](hongyan_core::port::Inbox) about pushes: what waits for a device's channels.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a case fails"
)]

use hongyan_core::limits::INBOX_LEN_MAX;
use hongyan_core::port::{Ack, InboxPage, Owner, PushedOut, Reader, WriteSet};
use hongyan_core::push::{PUSHES_PER_CHANNEL_MAX, PUSHES_PER_DEVICE_MAX, Urgency};
use hongyan_core::{Cursor, MessageId, Reason, Timestamp};

use crate::sample::*;
use crate::suite::{Ports, Subject, cases};

cases! { $ push_suite:
    a_push_waits_apart_from_the_ring,
    up_05_of_too_many_of_a_channel_the_oldest_of_the_lowest_urgency_goes,
    a_flooded_channel_does_not_push_out_the_others,
    expired_pushes_go_first,
    a_push_takes_the_place_of_its_topic,
    it_is_known_why_a_push_is_gone_and_what_became_of_it,
    what_was_acked_makes_room,
    recalled_pushes_and_those_of_closed_channels_wait_no_longer,
    acks_by_id_pass_over_nothing_behind_many_pushes,
    acks_by_id_reach_behind_many_pushes,
    an_ack_of_many_pushes_tells_them_all,
    a_push_behind_many_broadcasts_is_acked_with_them,
    pushes_and_broadcasts_share_a_cursor,
    a_device_that_is_forgotten_leaves_no_pushes,
    up_16_a_push_is_for_who_held_the_device_when_it_was_posted,
}

async fn store(ports: &Ports, sets: Vec<WriteSet>) -> Vec<PushedOut> {
    let committed = ports.commit.commit(sets).await;
    committed
        .into_iter()
        .flat_map(|result| result.unwrap().pushed_out)
        .collect()
}

async fn read(ports: &Ports, after: Option<Cursor>, limit: usize) -> InboxPage {
    let me = reader("d1", Some("u1"));
    ports.inbox.read(&me, after, limit, NOW).await.unwrap()
}

/// Everything that waits, in order.
async fn waiting(ports: &Ports) -> Vec<MessageId> {
    let (mut got, mut after) = (Vec::new(), None);
    loop {
        let page = read(ports, after, 500).await;
        got.extend(page.entries.iter().map(|e| e.message.id));
        after = Some(page.next);
        if !page.more {
            return got;
        }
    }
}

async fn ack(ports: &Ports, ack: Ack) -> Vec<MessageId> {
    let me: Reader = reader("d1", Some("u1"));
    ports.inbox.ack(&me, ack, NOW).await.unwrap()
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<MessageId> {
    range.map(message_id).collect()
}

async fn bound(ports: &Ports) {
    let device = device_of("d1", "u1");
    ports.registry.put_device(device, None).await.unwrap();
}

fn own_list() -> Owner {
    Owner::Device(device_id("d1"))
}

/// A set that stores push `n`.
fn pushed(n: u64, channel: &str, urgency: Urgency, topic: Option<&str>) -> WriteSet {
    let message = push_to("d1", n, channel, urgency, topic);
    append_message(message, &own_list())
}

fn plain(n: u64, channel: &str) -> WriteSet {
    pushed(n, channel, Urgency::Normal, None)
}

fn messages(out: &[PushedOut]) -> Vec<MessageId> {
    out.iter().map(|one| one.message).collect()
}

async fn a_push_waits_apart_from_the_ring(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let pushes = 3 * INBOX_LEN_MAX;
    let mut sets = vec![append(1, &own_list()), append(2, &user_list("u1"))];
    sets.extend((3..3 + pushes).map(|n| plain(n, "a")));
    sets.push(append(3 + pushes, &own_list()));
    assert_eq!(store(&ports, sets).await, []);
    assert_eq!(read(&ports, None, 10).await.lost, 0);
    assert_eq!(waiting(&ports).await, numbers(1..=3 + pushes));
}

async fn up_05_of_too_many_of_a_channel_the_oldest_of_the_lowest_urgency_goes(
    subject: &mut dyn Subject,
) {
    let ports = subject.ports();
    bound(&ports).await;
    let most = PUSHES_PER_CHANNEL_MAX;
    let sets = (1..=most).map(|n| match n {
        10 | 20 => pushed(n, "a", Urgency::Low, None),
        30 => pushed(n, "a", Urgency::VeryLow, None),
        40 => pushed(n, "a", Urgency::High, None),
        _ => plain(n, "a"),
    });
    assert_eq!(store(&ports, sets.collect()).await, []);
    let more = (1..=5).map(|n| pushed(most + n, "a", Urgency::High, None));
    let out = store(&ports, more.collect()).await;
    assert_eq!(messages(&out), [30, 10, 20, 1, 2].map(message_id));
    assert!(out.iter().all(|one| one.reason == Reason::Overflowed));
    // Nothing more important is there to make room for what matters least.
    let out = store(&ports, vec![pushed(most + 6, "a", Urgency::VeryLow, None)]).await;
    assert_eq!(messages(&out), [message_id(most + 6)]);
    assert_eq!(
        ports.inbox.message(&app(), message_id(30)).await.unwrap(),
        None
    );
    let left = waiting(&ports).await;
    assert_eq!(left.len() as u64, most);
    assert_eq!(left[0], message_id(3));
    let first = read(&ports, None, 10).await;
    assert_eq!(first.lost, 6, "who begins anew is told");
    let next = read(&ports, Some(first.next), 10).await;
    assert_eq!(next.lost, 0, "once");
    let acked = ack(&ports, Ack::Upto(first.head)).await;
    assert_eq!(acked, left);
    assert_eq!(read(&ports, None, 10).await.lost, 0, "it is up to date");
}

async fn a_flooded_channel_does_not_push_out_the_others(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let full = PUSHES_PER_DEVICE_MAX / PUSHES_PER_CHANNEL_MAX;
    let mut sets = vec![pushed(1, "small", Urgency::VeryLow, None)];
    let channels = (0..full).flat_map(|c| (0..PUSHES_PER_CHANNEL_MAX).map(move |n| (c, n)));
    let of = |c: u64, n: u64| 2 + c * PUSHES_PER_CHANNEL_MAX + n;
    // One less in each of the others than in the first: it is the one with the most.
    sets.extend(
        channels
            .filter(|(c, n)| *c == 0 || *n > 0)
            .map(|(c, n)| plain(of(c, n), &format!("big-{c}"))),
    );
    let waits = sets.len() as u64;
    assert_eq!(store(&ports, sets).await, []);
    let more = (waits..=PUSHES_PER_DEVICE_MAX).map(|n| plain(1_000_000 + n, "small"));
    let out = store(&ports, more.collect()).await;
    assert_eq!(messages(&out), [message_id(of(0, 0))]);
    assert_eq!(waiting(&ports).await.len() as u64, PUSHES_PER_DEVICE_MAX);
}

async fn expired_pushes_go_first(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let most = PUSHES_PER_CHANNEL_MAX;
    let short = |n: u64| {
        let mut message = push_to("d1", n, "a", Urgency::High, None);
        message.expires_at = at(1_000);
        append_message(message, &own_list())
    };
    let mut sets: Vec<_> = (1..most).map(|n| plain(n, "a")).collect();
    sets.push(short(most));
    assert_eq!(store(&ports, sets).await, []);
    let late = |n: u64, now: Timestamp| {
        let mut message = push_to("d1", n, "a", Urgency::Normal, None);
        message.accepted_at = now;
        append_message(message, &own_list())
    };
    let out = store(&ports, vec![late(most + 1, at(2_000))]).await;
    assert_eq!(out, [], "what has expired is no loss");
    let out = store(&ports, vec![late(most + 2, at(2_000))]).await;
    assert_eq!(messages(&out), numbers(1..=1));
}

async fn a_push_takes_the_place_of_its_topic(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let about = |n: u64, channel: &str| pushed(n, channel, Urgency::Normal, Some("news"));
    let sets = vec![about(1, "a"), about(2, "b"), plain(3, "a"), about(4, "a")];
    let out = store(&ports, sets).await;
    assert_eq!(messages(&out), numbers(1..=1));
    assert_eq!(out[0].reason, Reason::Collapsed);
    assert_eq!(waiting(&ports).await, numbers(2..=4));
    let page = read(&ports, None, 10).await;
    assert_eq!(page.lost, 0, "what was replaced is not lost");
    assert_eq!(ack(&ports, Ack::Ids(numbers(4..=4))).await, numbers(4..=4));
    let out = store(&ports, vec![about(5, "a")]).await;
    assert_eq!(out, [], "what was acked is not replaced");
    assert_eq!(waiting(&ports).await, [2, 3, 5].map(message_id));
}

async fn it_is_known_why_a_push_is_gone_and_what_became_of_it(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let most = PUSHES_PER_CHANNEL_MAX;
    let accepted = |n: u64, channel: &str, topic: Option<&str>| WriteSet {
        events: vec![event(n, "d1", hongyan_core::Stage::Accepted)],
        ..pushed(n, channel, Urgency::Low, topic)
    };
    // Replaced in the batch in which it came, perhaps, and in a later one.
    let news = Some("news");
    let sets = vec![accepted(1, "a", news), accepted(2, "a", news)];
    store(&ports, sets).await;
    store(&ports, vec![accepted(3, "a", news)]).await;
    store(&ports, vec![accepted(4, "b", None)]).await;
    store(&ports, (5..=most + 4).map(|n| plain(n, "b")).collect()).await;
    drop(ports);
    subject.restart().await;
    let ports = subject.ports();
    let whys = [Reason::Collapsed, Reason::Collapsed, Reason::Overflowed];
    for (n, why) in [1, 2, 4].into_iter().zip(whys) {
        let id = message_id(n);
        let gone = ports.inbox.pushed_out(&app(), id).await.unwrap();
        assert_eq!(gone, Some(why), "{n}");
        assert_eq!(ports.inbox.message(&app(), id).await.unwrap(), None);
        assert_eq!(ports.inbox.recalled(&app(), id).await.unwrap(), None);
        // A recall finds nothing to take back.
        let recall = WriteSet {
            recalled: vec![(app(), id, NOW)],
            ..WriteSet::default()
        };
        store(&ports, vec![recall]).await;
        assert_eq!(ports.inbox.recalled(&app(), id).await.unwrap(), None);
        let filter = hongyan_core::port::EventFilter::Message(id);
        let trace = ports.ledger.events(&app(), filter, 0, 9).await.unwrap();
        assert_eq!(trace.len(), 1, "{n}");
        let counters = ports.ledger.message_counters(&app(), id).await.unwrap();
        assert_eq!(counters.iter().map(|c| c.count).sum::<u64>(), 1, "{n}");
    }
    for n in [3, 5, 999_999] {
        let gone = ports.inbox.pushed_out(&app(), message_id(n)).await;
        assert_eq!(gone.unwrap(), None, "{n}");
    }
}

async fn what_was_acked_makes_room(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let most = PUSHES_PER_CHANNEL_MAX;
    store(&ports, (1..=most).map(|n| plain(n, "a")).collect()).await;
    // By place, and by id far behind it.
    let page = read(&ports, None, 3).await;
    assert_eq!(ack(&ports, Ack::Upto(page.next)).await, numbers(1..=3));
    let far = numbers(900..=901);
    assert_eq!(ack(&ports, Ack::Ids(far.clone())).await, far);
    assert_eq!(ack(&ports, Ack::Ids(far)).await, [], "they are acked once");
    drop(ports);
    subject.restart().await;
    let ports = subject.ports();
    let more = (1..=6).map(|n| plain(most + n, "a")).collect();
    let out = store(&ports, more).await;
    assert_eq!(messages(&out), numbers(4..=4), "the sixth is one too many");
    let mut want = numbers(5..=most + 6);
    want.retain(|id| !numbers(900..=901).contains(id));
    assert_eq!(waiting(&ports).await, want);
}

async fn recalled_pushes_and_those_of_closed_channels_wait_no_longer(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let sets = vec![plain(1, "a"), plain(2, "b"), plain(3, "a"), plain(4, "b")];
    store(&ports, sets).await;
    let recall = WriteSet {
        recalled: vec![(app(), message_id(1), NOW)],
        ..WriteSet::default()
    };
    store(&ports, vec![recall]).await;
    assert_eq!(waiting(&ports).await, numbers(2..=4));
    let (device, channel) = (device_id("d1"), push_channel("b"));
    let registry = &ports.registry;
    registry
        .end_endpoint(&app(), &device, &channel, NOW)
        .await
        .unwrap();
    assert_eq!(waiting(&ports).await, numbers(3..=3));
    assert_eq!(ack(&ports, Ack::Ids(numbers(1..=4))).await, numbers(3..=3));
}

async fn acks_by_id_pass_over_nothing_behind_many_pushes(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let mut sets: Vec<_> = (1..=600).map(|n| plain(n, "a")).collect();
    sets.push(append(601, &user_list("u1")));
    sets.push(append(602, &own_list()));
    sets.push(append(
        603,
        &Owner::Audience(hongyan_core::message::Audience::All),
    ));
    store(&ports, sets).await;
    for n in 1..=600 {
        assert_eq!(ack(&ports, Ack::Ids(numbers(n..=n))).await, numbers(n..=n));
        if n % 100 == 1 {
            assert_eq!(waiting(&ports).await, numbers(n + 1..=603), "{n}");
        }
    }
    assert_eq!(waiting(&ports).await, numbers(601..=603));
    let acked = ack(&ports, Ack::Ids(numbers(601..=603))).await;
    assert_eq!(acked, numbers(601..=603));
}

async fn acks_by_id_reach_behind_many_pushes(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let all = Owner::Audience(hongyan_core::message::Audience::All);
    let mut sets: Vec<_> = (1..=600).map(|n| plain(n, "a")).collect();
    sets.push(append(601, &user_list("u1")));
    sets.push(append(602, &own_list()));
    sets.push(append(603, &all));
    sets.push(append(604, &own_list()));
    store(&ports, sets).await;
    for n in [602, 601, 603] {
        assert_eq!(ack(&ports, Ack::Ids(numbers(n..=n))).await, numbers(n..=n));
        assert_eq!(ack(&ports, Ack::Ids(numbers(n..=n))).await, [], "once");
    }
    let mut want = numbers(1..=600);
    want.extend(numbers(604..=604));
    assert_eq!(waiting(&ports).await, want);
    let head = read(&ports, None, 1).await.head;
    assert_eq!(ack(&ports, Ack::Upto(head)).await, want);
    assert_eq!(waiting(&ports).await, []);
}

async fn an_ack_of_many_pushes_tells_them_all(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let total = 2 * PUSHES_PER_CHANNEL_MAX + 500;
    let channel = |n| if n % 3 == 0 { "a" } else { "b" };
    let channel = |n| if n % 3 == 1 { "c" } else { channel(n) };
    let mut sets: Vec<_> = (1..=total).map(|n| plain(n, channel(n))).collect();
    sets.insert(1_700, append(total + 1, &user_list("u1")));
    store(&ports, sets).await;
    let want = waiting(&ports).await;
    assert_eq!(want.len() as u64, total + 1);
    let head = read(&ports, None, 1).await.head;
    assert_eq!(ack(&ports, Ack::Upto(head)).await, want);
    assert_eq!(ack(&ports, Ack::Upto(head)).await, []);
    assert_eq!(waiting(&ports).await, []);
    let ids = want.iter().take(3).copied().collect();
    assert_eq!(ack(&ports, Ack::Ids(ids)).await, []);
}

async fn a_push_behind_many_broadcasts_is_acked_with_them(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let all = Owner::Audience(hongyan_core::message::Audience::All);
    let about = |n: u64| pushed(n, "a", Urgency::Normal, Some("news"));
    let mut sets: Vec<_> = (1..=1_100).map(|n| append(n, &all)).collect();
    sets.push(about(1_101));
    store(&ports, sets).await;
    let head = read(&ports, None, 1).await.head;
    let acked = ack(&ports, Ack::Upto(head)).await;
    assert_eq!(acked, numbers(1..=1_101));
    let out = store(&ports, vec![about(1_102)]).await;
    assert_eq!(out, [], "what was acked is not replaced");
    assert_eq!(waiting(&ports).await, numbers(1_102..=1_102));
}

async fn pushes_and_broadcasts_share_a_cursor(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let all = Owner::Audience(hongyan_core::message::Audience::All);
    let sets = vec![
        plain(1, "a"),
        append(2, &all),
        plain(3, "b"),
        append(4, &all),
    ];
    store(&ports, sets).await;
    for limit in 1..=4 {
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let page = read(&ports, after, limit).await;
            got.extend(page.entries.iter().map(|e| e.message.id));
            after = Some(page.next);
            if !page.more {
                break;
            }
        }
        assert_eq!(got, numbers(1..=4), "limit {limit}");
    }
    assert_eq!(ack(&ports, Ack::Ids(numbers(2..=3))).await, numbers(2..=3));
    assert_eq!(waiting(&ports).await, [1, 4].map(message_id));
    let first = read(&ports, None, 1).await;
    assert_eq!(ack(&ports, Ack::Upto(first.next)).await, numbers(1..=1));
    assert_eq!(waiting(&ports).await, numbers(4..=4));
    // Another device of the same app sees the broadcasts and none of these pushes.
    let other = reader("d2", Some("u2"));
    let page = ports.inbox.read(&other, None, 10, NOW).await.unwrap();
    let seen: Vec<_> = page.entries.iter().map(|e| e.message.id).collect();
    assert!(!seen.contains(&message_id(3)));
}

async fn a_device_that_is_forgotten_leaves_no_pushes(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    store(&ports, (1..=30).map(|n| plain(n, "a")).collect()).await;
    let registry = &ports.registry;
    assert!(
        registry
            .delete_device(&app(), &device_id("d1"))
            .await
            .unwrap()
    );
    bound(&ports).await;
    assert_eq!(waiting(&ports).await, []);
    store(&ports, vec![plain(31, "a")]).await;
    assert_eq!(waiting(&ports).await, numbers(31..=31));
}

async fn up_16_a_push_is_for_who_held_the_device_when_it_was_posted(subject: &mut dyn Subject) {
    let ports = subject.ports();
    bound(&ports).await;
    let held = |n: u64, holder: Option<&str>| {
        let mut message = push_to("d1", n, "a", Urgency::Normal, None);
        if let Some(push) = &mut message.push {
            push.holder = holder.map(user_id);
        }
        append_message(message, &own_list())
    };
    let sets = vec![held(1, Some("u1")), held(2, None), held(3, Some("u1"))];
    store(&ports, sets).await;
    assert_eq!(waiting(&ports).await, numbers(1..=3));
    // The device changes hands: its addresses stay good, and what nobody was named for is for whoever holds it.
    let moved = hongyan_core::Device {
        binding: 2,
        version: 2,
        ..device_of("d1", "u2")
    };
    ports.registry.put_device(moved, Some(1)).await.unwrap();
    store(&ports, vec![held(4, Some("u2"))]).await;
    for user in [Some("u2"), None] {
        let page = ports.inbox.read(&reader("d1", user), None, 10, NOW).await;
        let ids: Vec<_> = page.unwrap().entries.iter().map(|e| e.message.id).collect();
        let want: &[u64] = if user.is_some() { &[2, 4] } else { &[2] };
        assert_eq!(ids, want.iter().map(|n| message_id(*n)).collect::<Vec<_>>());
    }
    // What is given to nobody is not acknowledged by anybody.
    let me = reader("d1", Some("u2"));
    let page = ports.inbox.read(&me, None, 10, NOW).await.unwrap();
    let acked = ports.inbox.ack(&me, Ack::Upto(page.head), NOW).await;
    assert_eq!(acked.unwrap(), [message_id(2), message_id(4)]);
}
