//! Write sets that touch every keyspace of the commit point, and whether they are there.

use hongyan_core::Stage;
use hongyan_core::StoreError;
use hongyan_core::port::{DeliveryWrite, EventFilter, Job, JobKind, WriteSet};
use hongyan_testkit::sample::*;
use hongyan_testkit::suite::Ports;

/// A set with a message, an inbox entry, a job, a delivery and an event. Users have a few each, so
/// that no ring overflows.
pub(crate) fn full(n: u64, filler: usize) -> WriteSet {
    let owner = user_list(&user_of(n));
    let mut message = message_to(n, target_of(&owner));
    // Text that no compression shortens much.
    let noise = (0..filler as u64).map(|i| {
        let mixed = (n * 1_000_003 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        char::from(b'!' + (mixed >> 57) as u8 % 90)
    });
    let text = serde_json::Value::String(noise.collect());
    message.data = Some([("text".to_owned(), text)].into_iter().collect());
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
        ..append_message(message, &owner)
    }
}

fn user_of(n: u64) -> String {
    format!("u{}", n / 50)
}

/// What became of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Whole,
    Missing,
    /// Some parts, but not others.
    Torn,
    /// A read failed with an error: noticed.
    Unreadable,
}

pub(crate) async fn find(ports: &Ports, n: u64) -> Found {
    match parts(ports, n).await {
        Ok([1, 1, 1, 1, 1]) => Found::Whole,
        Ok([0, 0, 0, 0, 0]) => Found::Missing,
        Ok(_) => Found::Torn,
        Err(_) => Found::Unreadable,
    }
}

async fn parts(ports: &Ports, n: u64) -> Result<[usize; 5], StoreError> {
    let id = message_id(n);
    let message = ports.inbox.message(&app(), id).await?.is_some();
    let jobs = ports.work.of_message(&app(), id, 9).await?.len();
    let filter = EventFilter::Message(id);
    let events = ports.ledger.events(&app(), filter, 0, 9).await?.len();
    let keys = [(id, device_id("d1"))];
    let delivery = ports.ledger.deliveries(&app(), &keys).await?[0].is_some();
    let reader = reader("d1", Some(&user_of(n)));
    let page = ports.inbox.read(&reader, None, 1_000, NOW).await?;
    let entries = page.entries.iter().filter(|e| e.message.id == id).count();
    Ok([
        usize::from(message),
        jobs,
        events,
        usize::from(delivery),
        entries,
    ])
}

/// Commits sets with these numbers, many at a time.
pub(crate) async fn commit(ports: &Ports, numbers: std::ops::Range<u64>, filler: usize) {
    let numbers: Vec<u64> = numbers.collect();
    for some in numbers.chunks(20) {
        let sets = some.iter().map(|n| full(*n, filler)).collect();
        for result in ports.commit.commit(sets).await {
            result.unwrap();
        }
    }
}
