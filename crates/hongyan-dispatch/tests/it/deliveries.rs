//! One message, one device, one outcome.

use std::time::Duration;

use hongyan_core::device::TokenState;
use hongyan_core::message::{DeliveryMode, DeviceChoice, Target};
use hongyan_core::port::{Ack, Owner};
use hongyan_core::user::{Preferences, QuietHours};
use hongyan_core::verdict::Unsure;
use hongyan_core::{Class, Reason, StoreError, Topic, User, Verdict};
use hongyan_dispatch::intake::{AcceptError, IdempotencyKey};

use crate::world::{NOON, channel, device, to, to_users, user, world};

fn unavailable() -> Verdict {
    Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "503".into(),
        certainty: Unsure::NotTaken,
    }
}

#[tokio::test]
async fn a_device_without_a_session_gets_exactly_one_push() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    let id = w.send(to_users(&["u1"])).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!(w.alpha.sent().len() + w.beta.sent().len(), 1);
    assert_eq!(
        w.trace(id).await,
        [
            "accepted",
            "targeted",
            "sent_vendor@alpha",
            "accepted_by_vendor(accepted_by_vendor)@alpha"
        ]
    );
}

#[tokio::test]
async fn an_acked_session_means_no_vendor_call() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "sent_online").await;
    w.ack(&d, Some("u1"), id).await;
    assert_eq!(w.outcome(id).await, Reason::Delivered);
    w.pass(Duration::from_secs(3600));
    let marker = w.send(to_users(&["nobody"])).await;
    w.outcome(marker).await;
    assert!(w.alpha.sent().is_empty());
}

#[tokio::test]
async fn a_silent_session_falls_back_to_the_vendor_once() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "sent_online").await;
    w.pass(Duration::from_millis(4_999));
    assert!(w.alpha.sent().is_empty());
    w.pass(Duration::from_millis(1));
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!(w.alpha.sent().len(), 1);
    // The late ack is told, and changes nothing.
    w.ack(&d, Some("u1"), id).await;
    w.sees(id, "delivered").await;
    assert_eq!(w.outcomes(id, 1).await.len(), 1);
}

#[tokio::test]
async fn an_ack_that_overtakes_the_router_ends_the_delivery() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    for _ in 0..20 {
        let id = w.send(to_users(&["u1"])).await;
        w.ack(&d, Some("u1"), id).await;
        assert_eq!(w.outcome(id).await, Reason::Delivered);
    }
    assert!(w.alpha.sent().is_empty());
}

#[tokio::test]
async fn a_dead_token_leaves_a_tombstone_and_the_next_channel_is_tried() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    w.alpha.script([Verdict::TokenDead {
        reason: Reason::TokenInvalid,
        detail: "410".into(),
        since: None,
    }]);
    let id = w.send(to_users(&["u1"])).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!((w.alpha.sent().len(), w.beta.sent().len()), (1, 1));
    let found = w
        .ports
        .registry
        .devices(&w.app, &[d])
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    let state = found.token(&channel("alpha")).unwrap().state;
    assert!(matches!(
        state,
        TokenState::Dead {
            reason: Reason::TokenInvalid,
            ..
        }
    ));
    // The tombstone holds: the next message does not try alpha.
    let id = w.send(to_users(&["u1"])).await;
    w.outcome(id).await;
    assert_eq!(w.alpha.sent().len(), 1);
}

#[tokio::test]
async fn a_token_that_was_given_again_after_its_death_lives() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    let before = hongyan_core::Timestamp(NOON.millis() - 1);
    w.alpha.script([Verdict::TokenDead {
        reason: Reason::TokenInvalid,
        detail: "410".into(),
        since: Some(before),
    }]);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "retried").await;
    w.pass(Duration::from_secs(60));
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    let found = w
        .ports
        .registry
        .devices(&w.app, &[d])
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    assert!(found.token(&channel("alpha")).unwrap().is_active());
}

#[tokio::test]
async fn failures_are_tried_again_until_the_vendor_takes_it() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.script([unavailable(), unavailable()]);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "retried").await;
    w.pass(Duration::from_secs(60));
    let twice = || async {
        w.pass(Duration::from_secs(5));
        let trace = w.trace(id).await;
        trace
            .iter()
            .any(|t| t.starts_with("accepted_by"))
            .then_some(())
    };
    w.until(twice).await.expect("the third try is taken");
    assert_eq!(w.alpha.sent().len(), 3);
}

#[tokio::test]
async fn tries_are_bounded_and_a_refusal_without_fallback_is_final() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    let mut draft = to_users(&["u1"]);
    draft.options.channels.fallback = false;
    w.alpha.script([Verdict::Refused {
        reason: Reason::PayloadRejected,
        detail: "no".into(),
    }]);
    let id = w.send(draft).await;
    assert_eq!(w.outcome(id).await, Reason::PayloadRejected);
    assert!(w.beta.sent().is_empty());
}

#[tokio::test]
async fn who_cannot_be_reached_is_said_with_the_reason() {
    let w = world().await;
    w.device("d1", Some("u1"), &[]).await;
    let (none, bare) = (
        w.send(to_users(&["nobody"])).await,
        w.send(to_users(&["u1"])).await,
    );
    assert_eq!(w.outcome(none).await, Reason::NoDevice);
    assert_eq!(w.outcome(bare).await, Reason::NoChannel);
}

#[tokio::test]
async fn quiet_hours_hold_until_the_window_opens() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let quiet = QuietHours {
        start: "11:00".into(),
        end: "13:00".into(),
        classes: vec![Class::Marketing],
    };
    let stored = w
        .ports
        .registry
        .users(&w.app, &[user("u1")])
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    let preferences = Preferences {
        quiet_hours: Some(quiet),
        ..Default::default()
    };
    let changed = User {
        preferences,
        version: stored.version + 1,
        ..stored.clone()
    };
    w.ports
        .registry
        .put_user(changed, Some(stored.version))
        .await
        .unwrap();
    let mut draft = to_users(&["u1"]);
    draft.class = Class::Marketing;
    let held = w.send(draft).await;
    w.sees(held, "held(quiet_hours)").await;
    let urgent = w.send(to_users(&["u1"])).await;
    assert_eq!(
        w.outcome(urgent).await,
        Reason::AcceptedByVendor,
        "another class passes"
    );
    w.pass(Duration::from_secs(3600));
    assert_eq!(w.outcome(held).await, Reason::AcceptedByVendor);
}

#[tokio::test]
async fn a_scheduled_message_waits_and_then_reaches_inbox_and_vendor() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let mut draft = to_users(&["u1"]);
    draft.options.send_at = Some(NOON.plus(Duration::from_secs(600)));
    let id = w.send(draft).await;
    assert!(w.presence.hints().is_empty());
    w.pass(Duration::from_secs(600));
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!(w.presence.hints().len(), 1);
}

#[tokio::test]
async fn a_hint_says_where_its_entry_stands_unless_it_takes_the_place_of_others() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let first = w.send(to_users(&["u1", "u2"])).await;
    let second = w.send(to_users(&["u1"])).await;
    let mut draft = to_users(&["u1"]);
    draft.options.collapse_key = Some("k".into());
    w.send(draft).await;
    let found: Vec<_> = w
        .presence
        .hints()
        .into_iter()
        .map(|hint| {
            let fresh = hint.fresh.map(|f| (f.after, f.place, f.message.id));
            (hint.owner, fresh)
        })
        .collect();
    let of = |name: &str| Owner::User(user(name));
    assert_eq!(
        found,
        [
            (of("u1"), Some((0, 1, first))),
            (of("u2"), Some((0, 1, first))),
            (of("u1"), Some((1, 2, second))),
            (of("u1"), None),
        ]
    );
}

#[tokio::test]
async fn time_to_live_ends_what_waits() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let mut draft = to_users(&["u1"]);
    draft.options.delivery = DeliveryMode::OnlineOnly;
    draft.options.ttl_s = Some(60);
    let id = w.send(draft).await;
    w.sees(id, "held(waiting_for_session)").await;
    w.pass(Duration::from_secs(60));
    assert_eq!(w.outcome(id).await, Reason::Expired);
    assert!(w.alpha.sent().is_empty());
}

#[tokio::test]
async fn the_latest_device_and_the_first_ack_are_enough() {
    let w = world().await;
    let d1 = w.device("d1", Some("u1"), &["alpha"]).await;
    w.pass(Duration::from_secs(10));
    let d2 = w.device("d2", Some("u1"), &["alpha"]).await;
    let mut latest = to_users(&["u1"]);
    latest.options.devices = DeviceChoice::Latest;
    let id = w.send(latest).await;
    assert_eq!(
        w.outcomes(id, 1).await,
        [("d2".to_owned(), Reason::AcceptedByVendor)]
    );
    w.presence.connect(&w.app, &d1);
    w.presence.connect(&w.app, &d2);
    let mut first = to_users(&["u1"]);
    first.options.devices = DeviceChoice::FirstAck;
    let id = w.send(first).await;
    w.sees(id, "sent_online").await;
    w.ack(&d2, Some("u1"), id).await;
    assert_eq!(
        w.outcomes(id, 2).await,
        [
            ("d1".to_owned(), Reason::Cancelled),
            ("d2".to_owned(), Reason::Delivered)
        ]
    );
}

#[tokio::test]
async fn a_newer_message_with_the_same_collapse_key_takes_the_place() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let mut draft = to_users(&["u1"]);
    draft.options.collapse_key = Some("score".into());
    let older = w.send(draft.clone()).await;
    w.sees(older, "sent_online").await;
    w.pass(Duration::from_millis(10));
    let newer = w.send(draft).await;
    assert_eq!(w.outcome(older).await, Reason::Collapsed);
    w.ack(&d, Some("u1"), newer).await;
    assert_eq!(w.outcome(newer).await, Reason::Delivered);
}

#[tokio::test]
async fn a_recall_stops_what_has_not_left() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "sent_online").await;
    let recalled = w.dispatch.recall().recall(&w.app, id).await.unwrap();
    assert_eq!(recalled.stopped, 1);
    assert_eq!(w.outcome(id).await, Reason::Recalled);
    assert_eq!(w.presence.recalled(), [id]);
    // What the vendor has is withdrawn.
    w.presence.gone(&w.app, &d);
    let id = w.send(to_users(&["u1"])).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!(
        w.dispatch
            .recall()
            .recall(&w.app, id)
            .await
            .unwrap()
            .withdrawn,
        1
    );
}

#[tokio::test]
async fn a_recall_leaves_a_mark_where_its_message_stood() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &[]).await;
    w.presence.connect(&w.app, &d);
    let read = || w.inbox(&d, "u1");
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "sent_online").await;
    w.ack(&d, Some("u1"), id).await;
    assert_eq!(w.outcome(id).await, Reason::Delivered);
    let unread = w.send(to_users(&["u1"])).await;
    w.sees(unread, "sent_online").await;
    let recall = w.dispatch.recall();
    for id in [id, unread, id] {
        recall.recall(&w.app, id).await.unwrap();
    }
    let page = read().await;
    let marks: Vec<_> = page.entries.iter().map(|e| e.message.recalls).collect();
    assert_eq!(marks, [Some(id), Some(unread)], "once each, and no message");
    let first = &page.entries[0].message;
    assert!(first.expires_at > w.ports.clock.now().plus(Duration::from_secs(6 * 86_400)));
    // It is told with its place, so that who has everything before it needs no read.
    let hints = w.presence.hints();
    let fresh: Vec<_> = hints
        .iter()
        .filter_map(|hint| hint.fresh.as_ref())
        .collect();
    let told = |recalled| {
        fresh
            .iter()
            .find(|one| one.message.recalls == Some(recalled))
    };
    assert!(told(id).is_some_and(|one| one.place == one.after + 1));
    // It is no message to whoever asks, and who has it is no delivery.
    let mark = first.id;
    let refused = recall.recall(&w.app, mark).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );
    let acked = w
        .ports
        .inbox
        .ack(
            &w.reader(&d, "u1"),
            Ack::Upto(page.head),
            w.ports.clock.now(),
        )
        .await;
    assert_eq!(acked.unwrap().len(), 2);
    w.ack(&d, Some("u1"), mark).await;
    let after = w.send(to_users(&["u1"])).await;
    w.sees(after, "sent_online").await;
    assert!(w.events(mark).await.is_empty());
    // Nobody has what waits for its time.
    let mut later = to_users(&["u1"]);
    later.options.send_at = Some(w.ports.clock.now().plus(Duration::from_secs(3600)));
    let later = w.send(later).await;
    recall.recall(&w.app, later).await.unwrap();
    assert!(
        read()
            .await
            .entries
            .iter()
            .all(|e| e.message.recalls != Some(later))
    );
}

#[tokio::test]
async fn recalls_at_the_same_time_leave_one_mark() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &[]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "sent_online").await;
    let recall = w.dispatch.recall();
    let all = (0..8).map(|_| recall.recall(&w.app, id));
    let all = futures_util::future::join_all(all.collect::<Vec<_>>()).await;
    let stopped: u64 = all.into_iter().map(|done| done.unwrap().stopped).sum();
    assert!(stopped >= 1);
    let page = w.inbox(&d, "u1").await;
    let marks: Vec<_> = page.entries.iter().map(|e| e.message.recalls).collect();
    assert_eq!(marks, [Some(id)]);
    assert_eq!(w.count(id, hongyan_core::Stage::Recalled).await, 1);
}

/// It may begin while the recall is written, so that its devices are told as if it had.
#[tokio::test]
async fn the_recall_of_what_begins_in_a_moment_leaves_a_mark_and_ends_each_target_once() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    let mut soon = to_users(&["u1", "nobody"]);
    soon.options.send_at = Some(w.ports.clock.now().plus(Duration::from_secs(1)));
    let soon = w.send(soon).await;
    let recall = w.dispatch.recall();
    let begin = async {
        w.sees(soon, "recalled").await;
        w.pass(Duration::from_secs(1));
    };
    let (done, ()) = tokio::join!(recall.recall(&w.app, soon), begin);
    assert_eq!(done.unwrap().stopped, 1);
    assert!(w.alpha.sent().is_empty());
    assert_eq!(w.outcomes(soon, 2).await.len(), 2);
    let page = w.inbox(&d, "u1").await;
    let marks: Vec<_> = page.entries.iter().map(|e| e.message.recalls).collect();
    assert_eq!(marks, [Some(soon)]);
}

#[tokio::test]
async fn a_topic_reaches_its_subscribers_in_batches() {
    let w = world().await;
    let topic = Topic::parse("news").unwrap();
    let mut ids = Vec::new();
    for n in 0..250 {
        ids.push(w.device(&format!("d{n:03}"), None, &["alpha"]).await);
    }
    w.device("other", None, &["alpha"]).await;
    w.ports
        .registry
        .subscribe(&w.app, &topic, &ids)
        .await
        .unwrap();
    let id = w.send(to(Target::Topic(topic))).await;
    assert_eq!(w.outcomes(id, 250).await.len(), 250);
    let sent = w.alpha.sent();
    assert!(!sent.iter().any(|s| s.device == device("other")));
    let calls = sent.iter().map(|s| s.call).max().unwrap() + 1;
    assert!(calls <= 250 / 25, "{calls} calls for 250 tokens");
    let everyone = w.send(to(Target::All)).await;
    assert_eq!(w.outcomes(everyone, 251).await.len(), 251);
}

#[tokio::test]
async fn the_same_idempotency_key_is_one_message() {
    let w = world().await;
    let key = |body: u8| {
        Some(IdempotencyKey {
            key: "k".into(),
            body_hash: [body; 32],
        })
    };
    let intake = w.dispatch.intake();
    let first = intake
        .accept(&w.app, vec![to_users(&["u1"])], key(1))
        .await
        .unwrap();
    let again = intake
        .accept(&w.app, vec![to_users(&["u1"])], key(1))
        .await
        .unwrap();
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.ids, again.ids);
    let other = intake.accept(&w.app, vec![to_users(&["u1"])], key(2)).await;
    assert!(matches!(other, Err(AcceptError::KeyReused)));
}

#[tokio::test]
async fn counters_equal_the_events() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u1"), &[]).await;
    let id = w.send(to_users(&["u1", "nobody"])).await;
    w.outcomes(id, 3).await;
    let events = w.events(id).await;
    let counters = w.ports.ledger.message_counters(&w.app, id).await.unwrap();
    assert_eq!(
        counters.iter().map(|c| c.count).sum::<u64>(),
        events.len() as u64
    );
    for row in counters {
        let same = events.iter().filter(|e| {
            (e.stage, e.reason, &e.channel, e.platform, e.class)
                == (
                    row.key.stage,
                    row.key.reason,
                    &row.key.channel,
                    row.key.platform,
                    row.key.class,
                )
        });
        assert_eq!(same.count() as u64, row.count, "{:?}", row.key);
    }
}
