//! A process that ends between an acknowledgement and the end of its delivery.

use std::time::Duration;

use hongyan_core::limits::INBOX_LEN_MAX;
use hongyan_core::port::{Ack, SessionSink};
use hongyan_core::session::{SessionEvent, SessionSaid};
use hongyan_core::verdict::Unsure;
use hongyan_core::{DeviceId, MessageId, Reason, SessionId, Verdict};

use crate::world::{World, to_users, user, world};

/// What the gateway writes of an acknowledgement, and no more.
async fn cut_short(w: &mut World, device: &DeviceId, message: MessageId) {
    let reader = w.reader(device, "u1");
    let now = w.ports.clock.now();
    let acked = w.ports.inbox.ack(&reader, Ack::Ids(vec![message]), now);
    assert_eq!(acked.await.unwrap(), [message]);
    w.pass(Duration::from_millis(1));
    w.restart();
}

/// The same of an acknowledgement of all that is there.
async fn cut_short_all(w: &mut World, device: &DeviceId) {
    let head = w.inbox(device, "u1").await.head;
    let (reader, now) = (w.reader(device, "u1"), w.ports.clock.now());
    let acked = w.ports.inbox.ack(&reader, Ack::Upto(head), now);
    acked.await.unwrap();
    w.pass(Duration::from_millis(1));
    w.restart();
}

async fn comes_back(w: &World, device: &DeviceId) {
    let up = SessionEvent {
        app: w.app.clone(),
        device: device.clone(),
        user: Some(user("u1")),
        what: SessionSaid::Up(SessionId(7)),
    };
    w.dispatch.feedback().accept(vec![up]).await;
}

#[tokio::test]
async fn what_was_acknowledged_before_a_crash_ends_when_its_device_comes_back() {
    let mut w = world().await;
    let d = w.device("d1", Some("u1"), &[]).await;
    w.presence.connect(&w.app, &d);
    let (acked, silent) = (
        w.send(to_users(&["u1"])).await,
        w.send(to_users(&["u1"])).await,
    );
    let mut replaced = to_users(&["u1"]);
    replaced.options.collapse_key = Some("k".into());
    let replaced = w.send(replaced).await;
    for id in [acked, silent, replaced] {
        w.sees(id, "sent_online").await;
    }
    cut_short(&mut w, &d, acked).await;
    comes_back(&w, &d).await;
    assert_eq!(w.outcome(acked).await, Reason::Delivered);
    // The others wait on.
    for id in [silent, replaced] {
        let all = w.ports.ledger.deliveries_of(&w.app, id, None, 9).await;
        assert!(all.unwrap().iter().all(|d| d.outcome().is_none()));
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_crash_is_not_pushed() {
    let mut w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let (acked, silent) = (
        w.send(to_users(&["u1"])).await,
        w.send(to_users(&["u1"])).await,
    );
    w.sees(acked, "sent_online").await;
    w.sees(silent, "sent_online").await;
    w.presence.gone(&w.app, &d);
    cut_short(&mut w, &d, acked).await;
    w.pass(Duration::from_secs(60));
    assert_eq!(w.outcome(acked).await, Reason::Delivered);
    assert_eq!(w.outcome(silent).await, Reason::AcceptedByVendor);
    let pushed: Vec<_> = w.alpha.sent().iter().map(|sent| sent.message).collect();
    assert_eq!(pushed, [silent]);
}

/// A device that was away for long is told of a gap, and acknowledges what comes after it.
#[tokio::test]
async fn what_left_the_ring_unread_was_not_acknowledged() {
    let mut w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let lost = w.send(to_users(&["u1"])).await;
    w.sees(lost, "sent_online").await;
    let mut last = lost;
    for _ in 0..INBOX_LEN_MAX {
        last = w.send(to_users(&["u1"])).await;
    }
    w.sees(last, "sent_online").await;
    w.presence.gone(&w.app, &d);
    cut_short_all(&mut w, &d).await;
    comes_back(&w, &d).await;
    assert_eq!(w.outcome(last).await, Reason::Delivered);
    w.pass(Duration::from_secs(60));
    assert_eq!(w.outcome(lost).await, Reason::AcceptedByVendor);
}

#[tokio::test]
async fn what_was_acknowledged_while_it_waited_for_its_vendor_is_not_pushed() {
    let mut w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.always(Some(Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: Some(Duration::from_secs(600)),
        detail: "away".into(),
        certainty: Unsure::NotTaken,
    }));
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "retried(vendor_unavailable)@alpha").await;
    w.alpha.always(None);
    cut_short(&mut w, &d, id).await;
    comes_back(&w, &d).await;
    assert_eq!(w.outcome(id).await, Reason::Delivered);
    assert_eq!(w.alpha.sent().len(), 1, "that was before");
}

#[tokio::test]
async fn a_damaged_inbox_keeps_nothing_from_being_pushed() {
    let mut w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "sent_online").await;
    w.presence.gone(&w.app, &d);
    w.trouble.corrupt("acked");
    w.pass(Duration::from_millis(1));
    w.restart();
    w.pass(Duration::from_secs(60));
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert!(w.trouble.calls("acked") > 0);
}
