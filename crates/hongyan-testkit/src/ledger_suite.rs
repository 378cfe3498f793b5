//! The promises of [`Ledger`](hongyan_core::port::Ledger).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a case fails"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use hongyan_core::limits::LEDGER_TTL;
use hongyan_core::port::{CounterKey, CounterRow, DeliveryWrite, EventFilter, WriteSet};
use hongyan_core::{Event, Reason, Stage};

use crate::sample::*;
use crate::suite::{Ports, Subject, cases};

cases! { $ ledger_suite:
    events_are_numbered_in_commit_order,
    each_filter_finds_its_events,
    pages_meet_without_gap_or_repetition,
    counters_equal_the_events,
    a_new_event_wakes_who_waits,
    numbers_go_on_after_a_restart,
    a_delivery_reads_back_as_last_committed,
    deliveries_of_a_message_come_in_device_order,
    open_deliveries_of_a_device_are_found_until_they_end,
    open_deliveries_of_a_device_come_in_pages,
    a_collapse_key_finds_open_deliveries_only,
    what_is_old_enough_goes_and_the_rest_stays,
    a_trace_stays_whole_when_its_message_goes,
}

async fn append(ports: &Ports, events: Vec<Event>) {
    let set = WriteSet {
        events,
        ..WriteSet::default()
    };
    ports.commit.commit(vec![set]).await.remove(0).unwrap();
}

async fn find(ports: &Ports, filter: EventFilter, after: u64, limit: usize) -> Vec<Event> {
    ports
        .ledger
        .events(&app(), filter, after, limit)
        .await
        .unwrap()
}

async fn events_are_numbered_in_commit_order(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let stages = [
        Stage::Accepted,
        Stage::Targeted,
        Stage::SentOnline,
        Stage::Delivered,
    ];
    append(&ports, stages.map(|s| event(1, "d1", s)).to_vec()).await;
    append(&ports, vec![event(1, "d1", Stage::Clicked)]).await;
    let found = find(&ports, EventFilter::App, 0, 10).await;
    let got: Vec<_> = found.iter().map(|e| e.stage).collect();
    assert_eq!(got, [&stages[..], &[Stage::Clicked]].concat());
    assert!(found.windows(2).all(|w| w[0].seq < w[1].seq));
    assert_eq!(ports.ledger.head().await.unwrap(), found[4].seq);
    let given = Event {
        seq: found[0].seq,
        ..event(1, "d1", Stage::Accepted)
    };
    assert_eq!(found[0], given, "an event reads back as it was written");
}

async fn each_filter_finds_its_events(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let other_user = Event {
        user: Some(user_id("u2")),
        ..event(1, "d3", Stage::Delivered)
    };
    let bare = Event {
        user: None,
        device: None,
        ..event(2, "d1", Stage::Accepted)
    };
    let all = vec![
        event(1, "d1", Stage::Targeted),
        event(1, "d2", Stage::Targeted),
        event(2, "d1", Stage::Targeted),
        other_user,
        bare,
        event(1, "d1", Stage::Delivered),
    ];
    append(&ports, all).await;
    let base = find(&ports, EventFilter::App, 0, 10).await[0].seq;
    let (m1, m2) = (message_id(1), message_id(2));
    let (d1, u1) = (device_id("d1"), user_id("u1"));
    for (filter, want) in [
        (EventFilter::App, vec![0, 1, 2, 3, 4, 5]),
        (EventFilter::Message(m1), vec![0, 1, 3, 5]),
        (EventFilter::Message(m2), vec![2, 4]),
        (EventFilter::MessageUser(m1, u1.clone()), vec![0, 1, 5]),
        (EventFilter::MessageDevice(m1, d1.clone()), vec![0, 5]),
        (EventFilter::User(u1), vec![0, 1, 2, 5]),
        (EventFilter::Device(d1), vec![0, 2, 5]),
        (EventFilter::Device(device_id("unknown")), vec![]),
    ] {
        let found = find(&ports, filter.clone(), 0, 10).await;
        let got: Vec<_> = found.iter().map(|e| e.seq - base).collect();
        assert_eq!(got, want, "{filter:?}");
    }
    let elsewhere = ports
        .ledger
        .events(&app_id("other"), EventFilter::App, 0, 10)
        .await;
    assert!(elsewhere.unwrap().is_empty());
}

async fn pages_meet_without_gap_or_repetition(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mixed = (0..90).map(|n| event(n % 3, "d1", Stage::Targeted));
    append(&ports, mixed.collect()).await;
    for filter in [
        EventFilter::App,
        EventFilter::Message(message_id(1)),
        EventFilter::MessageDevice(message_id(1), device_id("d1")),
    ] {
        let whole = find(&ports, filter.clone(), 0, 1_000).await;
        let (mut parts, mut after) = (Vec::new(), 0);
        loop {
            let page = find(&ports, filter.clone(), after, 7).await;
            let Some(last) = page.last() else { break };
            after = last.seq;
            parts.extend(page);
        }
        assert_eq!(parts, whole, "{filter:?}");
        assert!(whole.len() >= 30);
    }
}

fn sums(rows: Vec<CounterRow>) -> BTreeMap<CounterKey, u64> {
    rows.into_iter().map(|r| (r.key, r.count)).collect()
}

fn counted(events: &[Event]) -> BTreeMap<CounterKey, u64> {
    let mut sums = BTreeMap::new();
    for event in events {
        let key = CounterKey {
            day: event.at.day(),
            stage: event.stage,
            reason: event.reason,
            class: event.class,
            channel: event.channel.clone(),
            platform: event.platform,
            ends: event.r#final,
        };
        *sums.entry(key).or_default() += 1;
    }
    sums
}

async fn counters_equal_the_events(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mut all = Vec::new();
    for n in 0..40i64 {
        let stage = Stage::ALL[n as usize % 5];
        let mut one = event(n.unsigned_abs() % 3, "d1", stage);
        one.at = at(n % 4 * 24 * HOUR);
        one.reason = (n % 2 == 0).then_some(Reason::Expired);
        one.channel = (n % 3 == 0).then(|| channel("fcm"));
        all.push(one);
    }
    for slice in all.chunks(9) {
        append(&ports, slice.to_vec()).await;
    }
    let (first, last) = (NOW.day(), NOW.day() + 3);
    let rows = ports.ledger.counters(&app(), first, last).await.unwrap();
    assert_eq!(sums(rows), counted(&all));
    let rows = ports
        .ledger
        .counters(&app(), first + 1, first + 1)
        .await
        .unwrap();
    let of_day: Vec<_> = all
        .iter()
        .filter(|e| e.at.day() == first + 1)
        .cloned()
        .collect();
    assert_eq!(sums(rows), counted(&of_day));
    let rows = ports
        .ledger
        .message_counters(&app(), message_id(1))
        .await
        .unwrap();
    let of_message: Vec<_> = all
        .iter()
        .filter(|e| e.message == Some(message_id(1)))
        .cloned()
        .collect();
    assert_eq!(sums(rows), counted(&of_message));
}

async fn a_new_event_wakes_who_waits(subject: &mut dyn Subject) {
    let ports = subject.ports();
    append(&ports, vec![event(1, "d1", Stage::Accepted)]).await;
    let head = ports.ledger.head().await.unwrap();
    let limit = Duration::from_secs(20);
    ports.ledger.wait_after(head - 1).await;
    let waits = async { tokio::time::timeout(limit, ports.ledger.wait_after(head)).await };
    let (woken, ()) = tokio::join!(waits, append(&ports, vec![event(1, "d1", Stage::Clicked)]));
    assert!(woken.is_ok());
    assert!(ports.ledger.head().await.unwrap() > head);
}

async fn numbers_go_on_after_a_restart(subject: &mut dyn Subject) {
    let ports = subject.ports();
    append(&ports, vec![event(1, "d1", Stage::Accepted); 3]).await;
    let head = ports.ledger.head().await.unwrap();
    drop(ports);
    subject.restart().await;
    let ports = subject.ports();
    assert_eq!(ports.ledger.head().await.unwrap(), head);
    append(&ports, vec![event(1, "d1", Stage::Targeted)]).await;
    let later = find(&ports, EventFilter::App, head, 10).await;
    assert_eq!(later.len(), 1);
}

async fn a_delivery_reads_back_as_last_committed(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let first = delivery(1, "d1");
    let second = ended(&first, Reason::Delivered);
    for (delivery, expected) in [(first, None), (second.clone(), Some(0))] {
        let set = WriteSet {
            deliveries: vec![DeliveryWrite {
                delivery: delivery.clone(),
                expected,
            }],
            ..WriteSet::default()
        };
        ports.commit.commit(vec![set]).await.remove(0).unwrap();
        let keys = [
            (message_id(1), device_id("d2")),
            (message_id(1), device_id("d1")),
        ];
        let found = ports.ledger.deliveries(&app(), &keys).await.unwrap();
        assert_eq!(found, [None, Some(delivery)]);
    }
}

async fn put(ports: &Ports, deliveries: Vec<hongyan_core::delivery::Delivery>) {
    let deliveries = deliveries
        .into_iter()
        .map(|delivery| DeliveryWrite {
            expected: delivery.version.checked_sub(1),
            delivery,
        })
        .collect();
    let set = WriteSet {
        deliveries,
        ..WriteSet::default()
    };
    ports.commit.commit(vec![set]).await.remove(0).unwrap();
}

async fn deliveries_of_a_message_come_in_device_order(subject: &mut dyn Subject) {
    let ports = subject.ports();
    put(&ports, ["b", "a", "c"].map(|d| delivery(1, d)).to_vec()).await;
    put(&ports, vec![delivery(2, "a")]).await;
    let mut got = Vec::new();
    loop {
        let after = got.last().cloned();
        let page = ports
            .ledger
            .deliveries_of(&app(), message_id(1), after, 2)
            .await
            .unwrap();
        if page.is_empty() {
            break;
        }
        got.extend(page.into_iter().map(|d| d.device));
    }
    assert_eq!(got, ["a", "b", "c"].map(device_id));
}

async fn open_deliveries_of_a_device_are_found_until_they_end(subject: &mut dyn Subject) {
    let ports = subject.ports();
    put(
        &ports,
        vec![delivery(1, "d1"), delivery(2, "d1"), delivery(1, "d2")],
    )
    .await;
    let open = || async {
        ports
            .ledger
            .open_of_device(&app(), &device_id("d1"), None, 10)
            .await
            .unwrap()
    };
    let pair = |n| (message_id(n), device_id("d1"));
    assert_eq!(open().await, [pair(1), pair(2)]);
    put(&ports, vec![ended(&delivery(1, "d1"), Reason::Expired)]).await;
    assert_eq!(open().await, [pair(2)]);
    let late = ended(&ended(&delivery(1, "d1"), Reason::Expired), Reason::Expired);
    put(&ports, vec![late]).await;
    assert_eq!(
        open().await,
        [pair(2)],
        "news after the end do not open it again"
    );
}

async fn open_deliveries_of_a_device_come_in_pages(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mut all: Vec<_> = (1..=7).map(|n| delivery(n, "d1")).collect();
    all.push(delivery(4, "d"));
    all.push(delivery(4, "d11"));
    put(&ports, all).await;
    let (mut got, mut after) = (Vec::new(), None);
    loop {
        let page = ports
            .ledger
            .open_of_device(&app(), &device_id("d1"), after, 3)
            .await
            .unwrap();
        assert!(page.len() <= 3);
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        got.extend(page);
    }
    let want: Vec<_> = (1..=7).map(|n| (message_id(n), device_id("d1"))).collect();
    assert_eq!(got, want);
}

async fn a_collapse_key_finds_open_deliveries_only(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let with = |n, key: Option<&str>| {
        let mut one = delivery(n, "d1");
        one.collapse_key = key.map(str::to_owned);
        one
    };
    put(
        &ports,
        vec![with(1, Some("a")), with(2, Some("b")), with(3, None)],
    )
    .await;
    put(
        &ports,
        vec![with(4, Some("a")), with(5, Some("aa")), with(6, Some(""))],
    )
    .await;
    put(&ports, vec![ended(&with(1, Some("a")), Reason::Delivered)]).await;
    for (key, want) in [("a", vec![4]), ("b", vec![2]), ("", vec![6]), ("c", vec![])] {
        let id = device_id("d1");
        let found = ports
            .ledger
            .open_with_collapse_key(&app(), &id, key)
            .await
            .unwrap();
        let want: Vec<_> = want.into_iter().map(message_id).collect();
        assert_eq!(found, want, "{key:?}");
    }
}

async fn what_is_old_enough_goes_and_the_rest_stays(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mut all = Vec::new();
    for day in 0..4 {
        for _ in 0..300 {
            all.push(Event {
                at: at(day * 24 * HOUR),
                ..event(1, "d1", Stage::Targeted)
            });
        }
    }
    append(&ports, all).await;
    let mut gone = 0;
    loop {
        let some = ports.ledger.expire(at(2 * 24 * HOUR)).await.unwrap();
        gone += some;
        if some == 0 {
            break;
        }
    }
    assert!(gone >= 600, "{gone}");
    for filter in [EventFilter::App, EventFilter::Device(device_id("d1"))] {
        let left = find(&ports, filter, 0, 10_000).await;
        assert_eq!(left.len(), 600);
        assert!(left.iter().all(|e| e.at.day() >= NOW.day() + 2));
    }
    let rows = ports
        .ledger
        .counters(&app(), NOW.day(), NOW.day() + 9)
        .await
        .unwrap();
    let total: u64 = rows.iter().map(|r| r.count).sum();
    assert_eq!(total, 600, "counters equal the events");
    assert!(rows.iter().all(|r| r.key.day >= NOW.day() + 2));
}

/// Events go by whole days: a message that lived for an hour goes some hours before what happened to it.
async fn a_trace_stays_whole_when_its_message_goes(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let mut sets = Vec::new();
    for n in 1..=200 {
        let mut message = message_to(n, target_of(&user_list("u1")));
        message.expires_at = at(HOUR);
        sets.push(WriteSet {
            events: vec![event(n, "d1", Stage::Accepted)],
            ..append_message(message, &user_list("u1"))
        });
    }
    for result in ports.commit.commit(sets).await {
        result.unwrap();
    }
    append(&ports, vec![event(7, "d1", Stage::Delivered)]).await;
    subject.maintain(at(HOUR + 1).plus(LEDGER_TTL)).await;
    drop(ports);
    subject.restart().await;
    let ports = subject.ports();
    for n in [1, 7, 64, 65, 200] {
        let id = message_id(n);
        assert_eq!(ports.inbox.message(&app(), id).await.unwrap(), None);
        let trace = find(&ports, EventFilter::Message(id), 0, 10).await;
        let stages: Vec<_> = trace.iter().map(|e| e.stage).collect();
        let mut want = vec![Stage::Accepted];
        want.extend((n == 7).then_some(Stage::Delivered));
        assert_eq!(stages, want, "{n}");
        let counters = ports.ledger.message_counters(&app(), id).await.unwrap();
        let counted: u64 = counters.iter().map(|c| c.count).sum();
        assert_eq!(counted, want.len() as u64, "{n}");
    }
    while ports.ledger.expire(at(24 * HOUR)).await.unwrap() > 0 {}
    for n in [1, 7, 200] {
        let id = message_id(n);
        let counters = ports.ledger.message_counters(&app(), id).await.unwrap();
        assert!(counters.is_empty(), "{n}");
    }
}
