//! Messages that are taken back before they begin.

use std::time::Duration;

use hongyan_core::message::Target;
use hongyan_core::port::EventFilter;
use hongyan_core::{Reason, Stage, Topic};

use crate::world::{NOON, to, to_users, user, world};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn what_is_recalled_before_its_time_ends_at_once_on_each_device() {
    let w = world().await;
    let devices = [
        w.device("d1", Some("u1"), &["alpha"]).await,
        w.device("d2", Some("u1"), &[]).await,
        w.device("d3", Some("u2"), &["beta"]).await,
    ];
    let mut draft = to_users(&["u1", "u2", "nobody"]);
    draft.options.send_at = Some(NOON.plus(DAY));
    let id = w.send(draft).await;
    let done = w.dispatch.recall().recall(&w.app, id).await.unwrap();
    assert_eq!(done.stopped, 3, "{:?}", w.trace(id).await);
    let outcomes = w.outcomes(id, 4).await;
    let on = |device: &str| (device.to_owned(), Reason::Recalled);
    assert_eq!(
        outcomes,
        [
            (String::new(), Reason::NoDevice),
            on("d1"),
            on("d2"),
            on("d3")
        ]
    );
    assert_eq!(w.count(id, Stage::Dropped).await, 4);
    let of_user = EventFilter::MessageUser(id, user("u2"));
    let trace = w.ports.ledger.events(&w.app, of_user, 0, 10).await.unwrap();
    let last = trace
        .last()
        .expect("the user's trace says what became of it");
    assert_eq!(
        (last.stage, last.reason),
        (Stage::Dropped, Some(Reason::Recalled))
    );
    // Twice is once, and its time brings nothing more.
    let again = w.dispatch.recall().recall(&w.app, id).await.unwrap();
    assert_eq!(again.stopped, 0);
    w.pass(DAY);
    let marker = w.send(to_users(&["nobody"])).await;
    w.outcome(marker).await;
    assert_eq!(w.outcomes(id, 4).await.len(), 4);
    assert!(w.alpha.sent().is_empty() && w.beta.sent().is_empty());
    for device in devices {
        let inbox = w
            .ports
            .ledger
            .open_of_device(&w.app, &device, None, 9)
            .await;
        assert!(inbox.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_scheduled_broadcast_that_is_recalled_ends_on_its_subscribers() {
    let w = world().await;
    let topic = Topic::parse("news").unwrap();
    for id in ["d1", "d2"] {
        let device = w.device(id, None, &["alpha"]).await;
        let registry = &w.ports.registry;
        registry.subscribe(&w.app, &topic, &[device]).await.unwrap();
    }
    let mut draft = to(Target::Topic(topic));
    draft.options.send_at = Some(NOON.plus(DAY));
    let id = w.send(draft).await;
    let done = w.dispatch.recall().recall(&w.app, id).await.unwrap();
    assert_eq!(done.stopped, 2);
    let ended = w.outcomes(id, 2).await;
    assert!(ended.iter().all(|(_, reason)| *reason == Reason::Recalled));
}

#[tokio::test]
async fn what_is_recalled_takes_nobodys_place() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let keyed = || {
        let mut draft = to_users(&["u1"]);
        draft.options.collapse_key = Some("score".into());
        draft
    };
    let live = w.send(keyed()).await;
    w.sees(live, "sent_online").await;
    let mut later = keyed();
    later.options.send_at = Some(NOON.plus(DAY));
    let later = w.send(later).await;
    w.dispatch.recall().recall(&w.app, later).await.unwrap();
    assert_eq!(w.outcome(later).await, Reason::Recalled);
    w.ack(&d, Some("u1"), live).await;
    assert_eq!(w.outcome(live).await, Reason::Delivered);
}
