//! What vendors say after they took a push.

use std::time::Duration;

use hongyan_core::device::{Permission, TokenState};
use hongyan_core::port::{CallbackRequest, Receipt, ReceiptKind};
use hongyan_core::{CredentialName, DeviceId, MessageId, Reason, Secret};
use hongyan_dispatch::receipts::CallbackRefused;
use serde_json::json;

use crate::world::{World, channel, to_users, world};

fn delivered(token: &str, message: Option<MessageId>, vendor_id: Option<&str>) -> Receipt {
    Receipt {
        kind: ReceiptKind::Delivered,
        message,
        vendor_id: vendor_id.map(str::to_owned),
        token: Some(Secret::new(token)),
        at: None,
        detail: String::new(),
    }
}

async fn device(w: &World, id: &DeviceId) -> hongyan_core::Device {
    let found = w.ports.registry.devices(&w.app, std::slice::from_ref(id));
    found.await.unwrap().pop().flatten().unwrap()
}

impl World {
    pub(crate) async fn posts(
        &self,
        secret: Option<&str>,
        signed: Option<&str>,
        body: &str,
    ) -> Result<String, CallbackRefused> {
        let headers: Vec<(String, String)> = signed
            .map(|s| ("x-signed".to_owned(), s.to_owned()))
            .into_iter()
            .collect();
        let request = CallbackRequest {
            method: "POST",
            url: "https://push.example/v1/callbacks/demo/alpha",
            headers: &headers,
            body: body.as_bytes(),
            now: self.ports.clock.now(),
        };
        let receipts = self.dispatch.receipts();
        let alpha = channel("alpha");
        let taken = receipts.callback(&self.app, &alpha, None, secret, &request);
        taken.await.map(|c| c.body)
    }

    /// The secret of alpha's callback address.
    fn secret(&self) -> String {
        let default = CredentialName::parse("default").unwrap();
        let url = self
            .dispatch
            .credentials()
            .callback_url(&self.app, &channel("alpha"), &default)
            .unwrap();
        url.split_once("k=").unwrap().1.to_owned()
    }
}

#[tokio::test]
async fn a_receipt_is_a_stage_and_never_another_outcome() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let id = w.send(to_users(&["u1"])).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    let receipts = w.dispatch.receipts();
    let by_param = delivered("alpha-d1", Some(id), None);
    let noted = receipts
        .take(&w.app, &channel("alpha"), vec![by_param.clone(), by_param])
        .await
        .unwrap();
    assert_eq!((noted.known, noted.unknown), (2, 0));
    w.sees(id, "delivered").await;
    assert_eq!(w.outcomes(id, 1).await.len(), 1);
    let told = w.trace(id).await;
    let times = told.iter().filter(|t| t.starts_with("delivered")).count();
    assert_eq!(times, 1, "{told:?}");
}

#[tokio::test]
async fn the_vendors_own_id_names_the_message_too() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let id = w.send(to_users(&["u1"])).await;
    w.outcome(id).await;
    let news = vec![
        delivered("alpha-d1", None, Some("v1")),
        delivered("alpha-d1", None, Some("unheard of")),
        delivered("nobody's", None, Some("v1")),
    ];
    let noted = w
        .dispatch
        .receipts()
        .take(&w.app, &channel("alpha"), news)
        .await
        .unwrap();
    assert_eq!((noted.known, noted.unknown), (1, 2));
    w.sees(id, "delivered").await;
}

#[tokio::test]
async fn what_was_not_sent_that_way_is_unknown() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    let id = w.send(to_users(&["u1"])).await;
    w.outcome(id).await;
    let receipts = w.dispatch.receipts();
    let (alpha, beta) = (channel("alpha"), channel("beta"));
    let other_device = vec![delivered("alpha-d2", Some(id), None)];
    let noted = receipts.take(&w.app, &alpha, other_device).await;
    assert_eq!(noted.unwrap().known, 0);
    let other_channel = vec![delivered("alpha-d1", Some(id), None)];
    let noted = receipts.take(&w.app, &beta, other_channel).await;
    assert_eq!(noted.unwrap().known, 0);
    assert!(!w.trace(id).await.iter().any(|t| t.starts_with("delivered")));
}

#[tokio::test]
async fn a_callback_needs_the_vendors_signature_or_the_secret_of_its_address() {
    let w = world().await;
    let d1 = w.device("d1", Some("u1"), &["alpha"]).await;
    let id = w.send(to_users(&["u1"])).await;
    w.outcome(id).await;
    let body = json!({"token": "alpha-d1", "message": id.to_string(), "kind": "permission_off"});
    let body = body.to_string();
    for (secret, signed) in [(None, None), (Some("guess"), None), (None, Some("no"))] {
        let refused = w.posts(secret, signed, &body).await.unwrap_err();
        assert!(
            matches!(refused, CallbackRefused::Unproved(_)),
            "{refused:?}"
        );
    }
    // A stranger does not learn what could be read.
    let garbage = w.posts(None, None, "{").await.unwrap_err();
    assert!(
        matches!(garbage, CallbackRefused::Unproved(_)),
        "{garbage:?}"
    );
    assert_eq!(device(&w, &d1).await.permission, Permission::Granted);

    // The vendor, whose signature it is, is told; what it says is not called unproved.
    let garbled = w.posts(None, Some("yes"), "{").await.unwrap_err();
    assert!(
        matches!(garbled, CallbackRefused::Malformed(_)),
        "{garbled:?}"
    );
    let secret = w.secret();
    let garbage = w.posts(Some(&secret), None, "{").await.unwrap_err();
    assert!(
        matches!(garbage, CallbackRefused::Malformed(_)),
        "{garbage:?}"
    );
    let answer = w.posts(Some(&secret), None, &body).await.unwrap();
    assert_eq!(answer, r#"{"code":"0"}"#);
    w.sees(id, "undelivered(permission_off)@alpha").await;
    assert_eq!(device(&w, &d1).await.permission, Permission::Denied);
    assert_eq!(w.outcomes(id, 1).await.len(), 1, "the outcome stays");
    w.posts(None, Some("yes"), &body).await.unwrap();
}

#[tokio::test]
async fn a_token_that_the_vendor_no_longer_knows_dies_by_poll() {
    let w = world().await;
    let d1 = w.device("d1", Some("u1"), &["alpha"]).await;
    let dead = Receipt {
        kind: ReceiptKind::TokenInvalid,
        ..delivered("alpha-d1", None, None)
    };
    w.alpha.news([dead]);
    let default = CredentialName::parse("default").unwrap();
    let receipts = w.dispatch.receipts();
    let count = receipts.poll(&w.app, &channel("alpha"), &default).await;
    assert_eq!(count.unwrap(), 1);
    let held = device(&w, &d1).await;
    assert!(matches!(
        held.tokens[0].state,
        TokenState::Dead {
            reason: Reason::TokenInvalid,
            ..
        }
    ));
    let again = receipts.poll(&w.app, &channel("alpha"), &default).await;
    assert_eq!(again.unwrap(), 0);
}

#[tokio::test]
async fn without_a_receipt_in_time_the_next_channel_follows() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    let mut draft = to_users(&["u1"]);
    draft.options.channels.fallback_after_ms = Some(30_000);
    let id = w.send(draft.clone()).await;
    w.sees(id, "accepted_by_vendor@alpha").await;
    assert!(w.beta.sent().is_empty());
    w.pass(Duration::from_secs(31));
    w.sees(id, "fallback(receipt_timeout)@alpha").await;
    w.sees(id, "accepted_by_vendor@beta").await;
    w.pass(Duration::from_secs(31));
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!((w.alpha.sent().len(), w.beta.sent().len()), (1, 1));

    // A receipt ends the wait.
    let second = w.send(draft).await;
    w.sees(second, "accepted_by_vendor@alpha").await;
    let receipts = w.dispatch.receipts();
    let news = vec![delivered("alpha-d1", Some(second), None)];
    receipts
        .take(&w.app, &channel("alpha"), news)
        .await
        .unwrap();
    assert_eq!(w.outcome(second).await, Reason::Delivered);
    assert_eq!(w.beta.sent().len(), 1);
}

#[tokio::test]
async fn bad_news_makes_the_next_channel_follow_at_once() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    let mut draft = to_users(&["u1"]);
    draft.options.channels.fallback_after_ms = Some(3_600_000);
    let id = w.send(draft).await;
    w.sees(id, "accepted_by_vendor@alpha").await;
    let over = json!({"token": "alpha-d1", "message": id.to_string(), "kind": "over_quota"});
    w.posts(None, Some("yes"), &over.to_string()).await.unwrap();
    w.sees(id, "fallback(quota_exhausted)@alpha").await;
    w.sees(id, "accepted_by_vendor@beta").await;
}

#[tokio::test]
async fn a_post_that_comes_again_changes_nothing() {
    for kind in [
        "delivered",
        "displayed",
        "clicked",
        "over_quota",
        "permission_off",
        "token_invalid",
    ] {
        let w = world().await;
        let d1 = w.device("d1", Some("u1"), &["alpha"]).await;
        let id = w.send(to_users(&["u1"])).await;
        w.outcome(id).await;
        let body = json!({"token": "alpha-d1", "message": id.to_string(), "kind": kind});
        let body = body.to_string();
        w.posts(None, Some("yes"), &body).await.unwrap();
        let first = (
            w.trace(id).await,
            device(&w, &d1).await,
            w.ports.ledger.head().await.unwrap(),
        );
        assert!(first.0.len() > 3, "{kind}: {:?}", first.0);
        for _ in 0..3 {
            w.posts(None, Some("yes"), &body).await.unwrap();
        }
        let then = (
            w.trace(id).await,
            device(&w, &d1).await,
            w.ports.ledger.head().await.unwrap(),
        );
        assert_eq!(first, then, "{kind}");
    }
}

#[tokio::test]
async fn a_token_that_was_given_again_survives_an_old_post() {
    let w = world().await;
    let d1 = w.device("d1", Some("u1"), &["alpha"]).await;
    let receipts = w.dispatch.receipts();
    let dead = Receipt {
        kind: ReceiptKind::TokenInvalid,
        at: Some(hongyan_core::Timestamp(crate::world::NOON.0 - 1)),
        ..delivered("alpha-d1", None, None)
    };
    let noted = receipts.take(&w.app, &channel("alpha"), vec![dead]).await;
    assert_eq!(noted.unwrap().known, 1);
    assert!(device(&w, &d1).await.tokens[0].is_active());
}

#[tokio::test]
async fn a_burst_of_deaths_by_poll_is_held_back_and_told() {
    let w = world().await;
    let ids: Vec<String> = (0..150).map(|n| format!("d{n}")).collect();
    w.import(&ids, &["alpha"]).await;
    let dead = |id: &String| Receipt {
        kind: ReceiptKind::TokenInvalid,
        ..delivered(&format!("alpha-{id}"), None, None)
    };
    let living = async |w: &World| {
        let ids: Vec<DeviceId> = ids.iter().map(|id| crate::world::device(id)).collect();
        let devices = w.ports.registry.devices(&w.app, &ids).await.unwrap();
        let tokens = devices.into_iter().flatten().map(|d| d.tokens[0].clone());
        tokens.filter(|t| t.is_active()).count()
    };
    let default = CredentialName::parse("default").unwrap();
    let receipts = w.dispatch.receipts();
    let alpha = channel("alpha");
    w.alpha.news(ids.iter().map(dead));
    receipts.poll(&w.app, &alpha, &default).await.unwrap();
    assert_eq!(living(&w).await, 50, "a hundred are believed");
    // The same again is no news of those that are dead, and still not believed of the others.
    w.alpha.news(ids.iter().map(dead));
    receipts.poll(&w.app, &alpha, &default).await.unwrap();
    assert_eq!(living(&w).await, 50);
    // Devices that were reached vouch for the vendor.
    for n in 0..20 {
        w.device(&format!("l{n}"), Some(&format!("u{n}")), &["alpha"])
            .await;
        let id = w.send(to_users(&[&format!("u{n}")])).await;
        w.outcome(id).await;
        let news = vec![delivered(&format!("alpha-l{n}"), Some(id), None)];
        receipts.take(&w.app, &alpha, news).await.unwrap();
    }
    w.alpha.news(ids.iter().map(dead));
    receipts.poll(&w.app, &alpha, &default).await.unwrap();
    assert_eq!(living(&w).await, 0);
}

#[tokio::test]
async fn the_vendors_id_alone_names_a_personal_message() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let id = w.send(to_users(&["u1"])).await;
    w.outcome(id).await;
    let told = Receipt {
        token: None,
        ..delivered("", None, Some("v1"))
    };
    let receipts = w.dispatch.receipts();
    let noted = receipts.take(&w.app, &channel("alpha"), vec![told]).await;
    assert_eq!(noted.unwrap().known, 1);
    w.sees(id, "delivered").await;
}
