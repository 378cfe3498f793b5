//! Honor against its simulator.

use hongyan_core::port::{Clock, ReceiptKind};
use hongyan_core::{Class, Reason, Secret};
use hongyan_sandbox::{Channel as Vendor, Fault, FaultKind, ReceiptAddress, TokenState};
use hongyan_testkit::channel_suite::words;
use serde_json::{Value, json};

use super::{DEAD, World, renews_once_under_load, survives, takes_everything, tells_tokens_apart};
use crate::message::{self, WallClock};
use crate::posts::Posts;
use crate::stand_in::{Act, StandIn};

#[tokio::test]
async fn everything_is_taken_and_trouble_is_survived() {
    let world = World::start(Vendor::Honor).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (TokenState::OtherApp, "refused payload_rejected"),
        ],
    )
    .await;
    survives(
        &world,
        &[
            // Over the day's limit Honor says success; its receipt tells the truth.
            (FaultKind::QuotaExhausted, "accepted"),
        ],
    )
    .await;
    renews_once_under_load(&world).await;
    let dead = world.tokens(12, DEAD);
    let verdicts = world.send(message::message(Class::Im), dead).await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
}

#[tokio::test]
async fn a_clock_that_differs_is_told() {
    let world = World::start(Vendor::Honor).await;
    assert_eq!(world.send_one().await, "accepted");
    let rules = json!({"clock_skew_s": -1});
    world.handle.set_rules(Vendor::Honor, &rules).unwrap();
    assert_eq!(world.send_one().await, "retry vendor_unavailable not_taken");
}

#[tokio::test]
async fn an_access_token_that_ends_is_replaced() {
    let world = World::start(Vendor::Honor).await;
    let rules = json!({"token_life_s": 0});
    world.handle.set_rules(Vendor::Honor, &rules).unwrap();
    // Every token is dead on arrival: it is renewed once, then the credential is in doubt.
    assert_eq!(world.send_one().await, "credential_bad");
    world.handle.set_rules(Vendor::Honor, &json!({})).unwrap();
    assert_eq!(world.send_one().await, "accepted");
}

#[tokio::test]
async fn receipts_come_back_as_news_of_our_message() {
    let world = World::start(Vendor::Honor).await;
    let posts = Posts::listen().await;
    let address = ReceiptAddress {
        url: posts.url.clone(),
        username: None,
        key: None,
    };
    world.handle.set_receipts(Vendor::Honor, Some(address));
    let token = world.tokens(1, TokenState::Valid);
    let sent = message::message(Class::Transaction);
    assert_eq!(world.send(sent.clone(), token.clone()).await, ["accepted"]);
    let fault = Fault::times(FaultKind::QuotaExhausted, 1);
    world.handle.inject(Vendor::Honor, fault).unwrap();
    let over = message::message(Class::Marketing);
    assert_eq!(world.send(over.clone(), token.clone()).await, ["accepted"]);
    let now = WallClock.now();
    let receipts = posts.receipts(&*world.channel, now, 2).await;
    let told: Vec<_> = receipts.iter().map(|r| (r.message, r.kind)).collect();
    assert_eq!(
        told,
        [
            (Some(sent.id), ReceiptKind::Delivered),
            (Some(over.id), ReceiptKind::Failed(Reason::QuotaExhausted)),
        ]
    );
    assert!(
        receipts
            .iter()
            .all(|r| r.token == Some(Secret::new(token[0].clone())))
    );
    let callback = posts.wait(2).await[0].read(&*world.channel, now).unwrap();
    assert!(!callback.signed);
    assert_eq!(callback.body, r#"{"code":"0","message":"success"}"#);
}

/// How many tokens one request takes is unverified, so that a smaller number must do as well.
#[tokio::test]
async fn a_batch_is_halved_until_it_is_taken() {
    let stand_in = StandIn::start(|seen| {
        if seen.path == "/auth/token" {
            let token = json!({"access_token": "a", "expires_in": 3600, "token_type": "Bearer"});
            return Act::Answer(200, Vec::new(), token.to_string());
        }
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        let body = match body["token"].as_array().unwrap().len() {
            0..=3 => json!({"code": 200, "data": {"sendResult": true, "requestId": "r"}}),
            _ => json!({"code": 80_300_010, "message": "too many tokens"}),
        };
        Act::Answer(200, Vec::new(), body.to_string())
    })
    .await;
    let egress = message::egress(&stand_in.ca_pem);
    let config = json!({"app_id": "104", "client_id": "c", "client_secret": "s"});
    let channel = message::open(&egress, "honor", &config, &stand_in.endpoint);
    let outbound = message::outbound(message::message(Class::Im));
    let tokens = (0..10).map(|n| format!("BAEAAAAAB.token-{n}"));
    let batch = message::batch(outbound, tokens);
    let verdicts = channel.send(&batch, super::PATIENCE).await;
    let verdicts: Vec<_> = verdicts.iter().map(words).collect();
    assert_eq!(verdicts, vec!["accepted"; 10]);
    let sizes: Vec<usize> = stand_in
        .seen()
        .iter()
        .filter_map(|seen| serde_json::from_slice::<Value>(&seen.body).ok())
        .map(|body| body["token"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [10, 5, 2, 3, 5, 2, 3]);
}
