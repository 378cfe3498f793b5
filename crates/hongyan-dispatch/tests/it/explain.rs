//! What `explain` says is what then happens.

use std::time::Duration;

use hongyan_core::message::DeliveryMode;
use hongyan_core::port::Dice;
use hongyan_core::user::{Preferences, QuietHours};
use hongyan_core::{Class, Reason, Stage, User, Verdict};
use hongyan_dispatch::explain::Would;
use hongyan_testkit::fake::SeededDice;

use crate::world::{to_users, user, world};

/// What the trace begins with if this happens.
fn words(would: &Would) -> Vec<String> {
    match would {
        Would::Online { .. } => vec!["sent_online".to_owned()],
        Would::Both { beside } => {
            let mut all = vec!["sent_online".to_owned()];
            all.extend(words(beside));
            all
        }
        Would::Push { channel, .. } => vec![format!("sent_vendor@{channel}")],
        Would::Hold { reason, .. } => vec![format!("held({reason})")],
        Would::End(reason) => vec![format!("dropped({reason})")],
    }
}

/// Two hundred situations drawn from a fixed seed: tokens, sessions, preferences, modes and classes.
#[tokio::test]
async fn explain_says_what_then_happens() {
    let w = world().await;
    let dice = SeededDice::new(20_260_301);
    for n in 0..200 {
        let (name, holder) = (format!("d{n}"), format!("u{n}"));
        let channels: &[&str] = [
            &["alpha"][..],
            &["beta"],
            &["alpha", "beta"],
            &["gamma"],
            &[],
        ][usize::try_from(dice.below(5)).unwrap()];
        let d = w.device(&name, Some(&holder), channels).await;
        let online = dice.below(2) == 0;
        if online {
            w.presence.connect(&w.app, &d);
        }
        if dice.below(4) == 0 {
            let found = w
                .ports
                .registry
                .users(&w.app, &[user(&holder)])
                .await
                .unwrap();
            let found = found.into_iter().next().flatten().unwrap();
            let quiet = QuietHours {
                start: "11:00".into(),
                end: "13:00".into(),
                classes: vec![Class::Marketing],
            };
            let preferences = if dice.below(2) == 0 {
                Preferences {
                    muted_classes: vec![Class::Marketing],
                    ..Default::default()
                }
            } else {
                Preferences {
                    quiet_hours: Some(quiet),
                    timezone: Some("UTC".into()),
                    ..Default::default()
                }
            };
            let version = found.version;
            let muted = User {
                preferences,
                version: version + 1,
                ..found
            };
            w.ports
                .registry
                .put_user(muted, Some(version))
                .await
                .unwrap();
        }
        let mut draft = to_users(&[&holder]);
        draft.class = [Class::Im, Class::Marketing][usize::try_from(dice.below(2)).unwrap()];
        draft.options.delivery = [
            DeliveryMode::OnlineFirst,
            DeliveryMode::OnlineOnly,
            DeliveryMode::OfflineOnly,
            DeliveryMode::Both,
        ][usize::try_from(dice.below(4)).unwrap()];
        draft.options.push.enabled =
            draft.options.delivery == DeliveryMode::OfflineOnly || dice.below(5) > 0;
        let said = w
            .dispatch
            .explainer()
            .explain(&w.app, draft.clone())
            .await
            .unwrap();
        let said = words(&said.devices[0].would);
        let id = w.send(draft.clone()).await;
        let happened = w
            .until(|| async {
                let trace = w.trace(id).await.into_iter();
                let decided = trace.filter(|t| {
                    ["sent_", "held", "dropped"]
                        .iter()
                        .any(|word| t.starts_with(word))
                });
                let decided: Vec<_> = decided.take(said.len()).collect();
                (decided.len() == said.len()).then_some(decided)
            })
            .await
            .unwrap_or_else(|| panic!("situation {n}: {said:?} of {draft:?}"));
        let told = w.count(id, Stage::SentOnline).await;
        let online = said.iter().filter(|word| *word == "sent_online").count();
        assert_eq!(told, online, "situation {n}: {draft:?}");
        assert_eq!(said, happened, "situation {n}: {draft:?}");
    }
}

#[tokio::test]
async fn explain_names_what_follows_a_silent_session_and_sends_nothing() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let said = w
        .dispatch
        .explainer()
        .explain(&w.app, to_users(&["u1", "nobody"]))
        .await
        .unwrap();
    assert_eq!(said.devices.len(), 2);
    let Would::Online { otherwise, .. } = &said.devices[0].would else {
        panic!("{said:?}")
    };
    let Would::Push { parcel, .. } = otherwise.as_ref() else {
        panic!("{otherwise:?}")
    };
    assert_eq!(parcel.as_ref().unwrap().body["title"], "hello");
    assert!(matches!(
        said.devices[1].would,
        Would::End(Reason::NoDevice)
    ));
    assert!(w.alpha.sent().is_empty());
}

#[tokio::test]
async fn what_goes_both_ways_is_told_and_counted_on_both() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let mut draft = to_users(&["u1"]);
    draft.options.delivery = DeliveryMode::Both;
    let said = w.dispatch.explainer().explain(&w.app, draft.clone()).await;
    let said = said.unwrap();
    assert_eq!(
        words(&said.devices[0].would),
        ["sent_online", "sent_vendor@alpha"]
    );
    let id = w.send(draft).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!(
        w.trace(id).await,
        [
            "accepted",
            "targeted",
            "sent_online",
            "sent_vendor@alpha",
            "accepted_by_vendor(accepted_by_vendor)@alpha"
        ]
    );
    assert_eq!(w.count(id, Stage::SentOnline).await, 1);
}

/// The vendor's refusal comes long before a person's phone has answered: the connection has its time all the same.
#[tokio::test]
async fn what_the_vendor_refuses_may_still_be_acknowledged() {
    let refused = || Verdict::Refused {
        reason: Reason::PayloadRejected,
        detail: "no".to_owned(),
    };
    for (acks, fallback) in [(true, true), (true, false), (false, true), (false, false)] {
        let w = world().await;
        // Another channel is there; without fallback it is not taken.
        let channels: &[&str] = if fallback {
            &["alpha"]
        } else {
            &["alpha", "beta"]
        };
        let d = w.device("d1", Some("u1"), channels).await;
        w.presence.connect(&w.app, &d);
        w.alpha.script([refused()]);
        let mut draft = to_users(&["u1"]);
        draft.options.delivery = DeliveryMode::Both;
        draft.options.channels.fallback = fallback;
        let id = w.send(draft).await;
        w.sees(id, "held(waiting_for_session)").await;
        if acks {
            w.ack(&d, Some("u1"), id).await;
            assert_eq!(w.outcome(id).await, Reason::Delivered);
        } else {
            w.pass(Duration::from_secs(60));
            assert_eq!(w.outcome(id).await, Reason::PayloadRejected);
        }
        assert_eq!((w.alpha.sent().len(), w.beta.sent().len()), (1, 0));
    }
}
