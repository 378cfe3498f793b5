//! A process that ends between an acknowledgement and the end of its delivery.

use std::time::Duration;

use hongyan_core::Reason;
use hongyan_core::port::{Ack, SessionSink};
use hongyan_core::session::{SessionEvent, SessionSaid};
use hongyan_core::{DeviceId, MessageId, SessionId};

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
