//! Of messages with one collapse key only the newest is delivered.

use std::sync::Arc;
use std::time::Duration;

use hongyan_core::draft::Draft;
use hongyan_core::message::DeviceChoice;
use hongyan_core::port::{
    InboxAppend, Job, JobKind, NewChannel, Owner, Post, PushEntry, Pushes, WriteSet,
};
use hongyan_core::push::{PUSHES_PER_CHANNEL_MAX, PushEncoding, Urgency};
use hongyan_core::{MessageId, Reason};

use crate::world::{NOON, Plain, World, to_users, user, world};

fn keyed(mut draft: Draft) -> Draft {
    draft.options.collapse_key = Some("score".into());
    draft
}

async fn batch(w: &World, drafts: Vec<Draft>) -> Vec<MessageId> {
    let intake = w.dispatch.intake();
    intake.accept(&w.app, drafts, None).await.unwrap().ids
}

#[tokio::test]
async fn of_two_that_are_planned_together_the_older_is_never_sent() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    for _ in 0..10 {
        let before = w.alpha.sent().len();
        let ids = batch(&w, vec![keyed(to_users(&["u1"])); 3]).await;
        assert!(ids.is_sorted(), "the order of the drafts");
        assert_eq!(w.outcome(ids[2]).await, Reason::AcceptedByVendor);
        assert_eq!(w.outcome(ids[0]).await, Reason::Collapsed);
        assert_eq!(w.outcome(ids[1]).await, Reason::Collapsed);
        assert_eq!(w.alpha.sent().len(), before + 1);
        assert_eq!(
            w.trace(ids[0]).await.len(),
            3,
            "accepted, targeted, dropped"
        );
    }
}

#[tokio::test]
async fn the_older_gives_way_though_it_is_routed_later() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let newer = w.send(keyed(to_users(&["u1"]))).await;
    w.sees(newer, "sent_online").await;
    // One that was accepted before and whose routing was held up.
    let id = MessageId(uuid::Uuid::from_u128(newer.0.as_u128() - (1 << 80)));
    let older = keyed(to_users(&["u1"])).into_message(w.app.clone(), id, NOON);
    let route = Job {
        app: w.app.clone(),
        message: id,
        kind: JobKind::Route {
            owner: Owner::User(user("u1")),
        },
        due: NOON,
        leased: false,
    };
    let set = WriteSet {
        messages: vec![Arc::new(older)],
        jobs: vec![route],
        ..WriteSet::default()
    };
    w.ports.commit.commit(vec![set]).await.remove(0).unwrap();
    assert_eq!(w.outcome(id).await, Reason::Collapsed);
    w.ack(&d, Some("u1"), newer).await;
    assert_eq!(w.outcome(newer).await, Reason::Delivered);
}

#[tokio::test]
async fn another_device_of_the_user_keeps_what_only_it_gets() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.pass(Duration::from_secs(1));
    w.device("d2", Some("u1"), &["alpha"]).await;
    let mut latest = keyed(to_users(&["u1"]));
    latest.options.devices = DeviceChoice::Latest;
    let ids = batch(&w, vec![keyed(to_users(&["u1"])), latest]).await;
    assert_eq!(
        w.outcomes(ids[0], 2).await,
        [
            ("d1".to_owned(), Reason::AcceptedByVendor),
            ("d2".to_owned(), Reason::Collapsed)
        ]
    );
    assert_eq!(
        w.outcomes(ids[1], 1).await,
        [("d2".to_owned(), Reason::AcceptedByVendor)]
    );
}

/// A push ends as what happened to it also when that was before anybody routed it.
#[tokio::test]
async fn a_push_that_gave_way_before_it_was_routed_ends_as_that() {
    let w = world().await;
    let d = w.device("d1", None, &[]).await;
    let root = "https://push.example".to_owned();
    let endpoints = w.dispatch.endpoints(Arc::new(Plain), root, false);
    let new = NewChannel {
        app: w.app.clone(),
        device: d.clone(),
        channel: None,
        label: None,
        vapid: None,
        description: None,
    };
    let to = endpoints.open(new).await.unwrap().endpoint;
    let held = w.trouble.hold("lease");
    held.reached().await;
    let post = |topic: Option<&str>| Post {
        ttl_s: 3_600,
        urgency: Urgency::VeryLow,
        topic: topic.map(str::to_owned),
        encoding: PushEncoding::Aes128gcm,
        body: bytes::Bytes::from_static(b"x"),
    };
    let replaced = endpoints.post(&to, post(Some("score"))).await.unwrap();
    let newest = endpoints.post(&to, post(Some("score"))).await.unwrap();
    // Others came, and the process that took them in did not live to tell.
    let more = (0..PUSHES_PER_CHANNEL_MAX).map(|n| WriteSet {
        inbox: vec![InboxAppend {
            app: w.app.clone(),
            owner: Owner::Device(d.clone()),
            message: MessageId(uuid::Uuid::from_u128(n.into())),
            expires_at: NOON.plus(Duration::from_secs(3_600)),
            push: Some(PushEntry {
                channel: to.channel.clone(),
                urgency: Urgency::Normal,
                topic: None,
            }),
        }],
        ..WriteSet::default()
    });
    for result in w.ports.commit.commit(more.collect()).await {
        result.unwrap();
    }
    held.go_on();
    assert_eq!(w.outcome(replaced).await, Reason::Collapsed);
    assert_eq!(w.outcome(newest).await, Reason::Overflowed);
    let trace = w.trace(newest).await;
    assert_eq!(trace, ["accepted", "dropped(overflowed)"]);
}
