//! What a channel changes of a message is told, or refused where the app wants it so.

use std::time::Duration;

use hongyan_core::verdict::Unsure;
use hongyan_core::{CredentialName, Reason, Stage, Verdict};
use hongyan_dispatch::credentials::NewCredential;
use hongyan_dispatch::explain::Would;

use crate::world::{World, channel, to_users, world};

async fn strict(w: &World) {
    let mut app = w.ports.registry.app(&w.app).await.unwrap().unwrap();
    let version = app.version;
    app.policy.strict_payload = true;
    app.version += 1;
    w.ports.registry.put_app(app, Some(version)).await.unwrap();
}

#[tokio::test]
async fn a_long_title_is_shortened_and_told_or_refused() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let mut draft = to_users(&["u1"]);
    draft.notification.as_mut().unwrap().title = "长".repeat(120);
    let id = w.send(draft.clone()).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    w.sees(id, "truncated(truncated)@alpha").await;

    strict(&w).await;
    let explainer = w.dispatch.explainer();
    let explained = explainer.explain(&w.app, draft.clone()).await.unwrap();
    let Would::Push {
        parcel: Err((reason, words)),
        ..
    } = &explained.devices[0].would
    else {
        unreachable!("{explained:?}")
    };
    assert_eq!(*reason, Reason::PayloadTooLarge);
    assert!(words.contains("title 120 to 100"), "{words}");
    let before = w.alpha.sent().len();
    let id = w.send(draft).await;
    assert_eq!(w.outcome(id).await, Reason::PayloadTooLarge);
    assert_eq!(w.alpha.sent().len(), before, "nothing left the house");
    let short = w.send(to_users(&["u1"])).await;
    assert_eq!(w.outcome(short).await, Reason::AcceptedByVendor);
}

/// The vendor counts bytes: as much of the body goes as has to, and `data` where that is not enough.
#[tokio::test]
async fn a_payload_of_too_many_bytes_is_shortened_and_told_or_refused() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let data = |bytes: usize| {
        let data = serde_json::json!({ "k": "x".repeat(bytes) });
        data.as_object().cloned()
    };
    let cases = [
        (2_000, None, vec![("body", 2_000)]),
        (2_000, data(1_000), vec![("body", 2_000)]),
        (30, data(5_000), vec![("data", 5_008)]),
        (2_000, data(4_000), vec![("body", 2_000), ("data", 4_008)]),
    ];
    let mut draft = to_users(&["u1"]);
    for (chars, data, cuts) in cases {
        draft.notification.as_mut().unwrap().body = "长".repeat(chars);
        draft.data = data;
        let explainer = w.dispatch.explainer();
        let explained = explainer.explain(&w.app, draft.clone()).await.unwrap();
        let Would::Push {
            parcel: Ok(parcel), ..
        } = &explained.devices[0].would
        else {
            unreachable!("{explained:?}")
        };
        let cut = parcel.truncated.iter().map(|cut| (cut.field, cut.from));
        assert_eq!(cut.collect::<Vec<_>>(), cuts);
        // Not a character more than needed: one is three bytes.
        let left = 4_096 - parcel.body.to_string().len();
        assert!(
            left < 3 || !parcel.truncated.iter().any(|cut| cut.field == "body"),
            "{left}"
        );
        let sent = w.alpha.sent().len();
        let id = w.send(draft.clone()).await;
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
        w.sees(id, "truncated(truncated)@alpha").await;
        assert_eq!(w.alpha.sent().len(), sent + 1);
    }
    strict(&w).await;
    let id = w.send(draft).await;
    assert_eq!(w.outcome(id).await, Reason::PayloadTooLarge);
}

/// A refusal of our own says nothing of the vendor: it must not close the breaker that failures open.
#[tokio::test]
async fn a_refusal_in_strict_mode_is_no_answer_of_the_vendor() {
    const FAILURES_THAT_OPEN: usize = 10;
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    strict(&w).await;
    w.alpha.always(Some(Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "503".into(),
        certainty: Unsure::NotTaken,
    }));
    let mut long = to_users(&["u1"]);
    long.notification.as_mut().unwrap().title = "长".repeat(120);
    for _ in 0..FAILURES_THAT_OPEN {
        let refused = w.send(long.clone()).await;
        assert_eq!(w.outcome(refused).await, Reason::PayloadTooLarge);
        let failed = w.send(to_users(&["u1"])).await;
        w.sees(failed, "retried(vendor_unavailable)@alpha").await;
    }
    let held = w.send(to_users(&["u1"])).await;
    w.sees(held, "held(breaker_open)@alpha").await;
}

/// What the channel says by itself, of a message or of a token, is not the vendor's word either, and was not sent to it.
#[tokio::test]
async fn a_channels_own_refusal_is_no_answer_of_the_vendor() {
    const FAILURES_THAT_OPEN: usize = 10;
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let failing = Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "503".into(),
        certainty: Unsure::NotTaken,
    };
    for n in 0..FAILURES_THAT_OPEN {
        w.alpha.refuses(Some((
            Reason::PayloadTooLarge,
            "5000 bytes of at most 4096",
        )));
        let refused = w.send(to_users(&["u1"])).await;
        assert_eq!(w.outcome(refused).await, Reason::PayloadTooLarge);
        w.alpha.refuses(None);
        w.alpha.script([Verdict::no_token("one of alpha's")]);
        let user = format!("strange-{n}");
        w.device(&user, Some(&user), &["alpha"]).await;
        let strange = w.send(to_users(&[&user])).await;
        assert_eq!(w.outcome(strange).await, Reason::TokenInvalid);
        for id in [refused, strange] {
            assert_eq!(w.count(id, Stage::SentVendor).await, 0);
        }
        w.alpha.script([failing.clone()]);
        let failed = w.send(to_users(&["u1"])).await;
        w.sees(failed, "retried(vendor_unavailable)@alpha").await;
    }
    let held = w.send(to_users(&["u1"])).await;
    w.sees(held, "held(breaker_open)@alpha").await;
    assert_eq!(w.count(held, Stage::SentVendor).await, 0);
}

/// The mark that a text is about to leave does not say that it did: the channel may keep it, as a wake-up that comes too soon.
#[tokio::test]
async fn a_text_that_its_channel_keeps_was_not_sent() {
    let w = world().await;
    w.device("d1", Some("u1"), &["texts"]).await;
    w.texts.script([Verdict::Retry {
        reason: Reason::FrequencyCap,
        after: Some(Duration::from_secs(600)),
        detail: "woken before".into(),
        certainty: Unsure::NotTaken,
    }]);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "retried(frequency_cap)@texts").await;
    assert_eq!(w.count(id, Stage::SentVendor).await, 0);
    let end = w.outcome_in_steps(id, Duration::from_secs(60)).await;
    assert_eq!(end, Reason::AcceptedByVendor);
    assert_eq!(w.count(id, Stage::SentVendor).await, 1);
}

#[tokio::test]
async fn a_class_that_is_not_granted_is_told() {
    let w = world().await;
    w.alpha.downgrades("im is not granted: sent as marketing");
    let default = CredentialName::parse("default").unwrap();
    let new = NewCredential {
        config: serde_json::json!({"secret": "s"}),
        endpoint: None,
        limits: Default::default(),
    };
    let credentials = w.dispatch.credentials();
    credentials
        .put(&w.app, &channel("alpha"), &default, new)
        .await
        .unwrap();
    w.device("d1", Some("u1"), &["alpha"]).await;
    let id = w.send(to_users(&["u1"])).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    w.sees(id, "class_downgraded(class_downgraded)@alpha").await;
}

/// What a channel answers instead of its vendor, because of what that said before, holds nobody else up and is no call.
#[tokio::test]
async fn an_answer_instead_of_the_vendor_holds_nobody_up() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let closed = Verdict::Retry {
        reason: Reason::VendorRateLimited,
        after: Some(Duration::from_secs(3_600)),
        detail: "not at this hour".into(),
        certainty: Unsure::NotTaken,
    };
    for _ in 0..20 {
        w.alpha.script([closed.clone().unasked()]);
        let kept = w.send(to_users(&["u1"])).await;
        w.sees(kept, "retried(vendor_rate_limited)@alpha").await;
        assert_eq!(w.count(kept, Stage::SentVendor).await, 0);
        // The clock stands still: a pause of the lane would not end.
        let next = w.send(to_users(&["u1"])).await;
        assert_eq!(w.outcome(next).await, Reason::AcceptedByVendor);
    }
}

/// Now or never: it is tried at once, and the vendor does not keep it.
#[tokio::test]
async fn a_time_to_live_of_nothing_is_tried_once() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let mut draft = to_users(&["u1"]);
    draft.options.ttl_s = Some(0);
    let id = w.send(draft).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
}
