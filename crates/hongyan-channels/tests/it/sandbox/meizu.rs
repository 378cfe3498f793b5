//! Meizu against its simulator.

use std::sync::{Arc, Mutex};

use hongyan_core::port::{CallbackError, Clock, ReceiptKind};
use hongyan_core::{Class, Secret};
use hongyan_sandbox::{
    AppState, Channel as Vendor, FaultKind, NewPhone, PatchPhone, ReceiptAddress, TokenState,
};
use hongyan_testkit::channel_suite::words;
use serde_json::json;

use super::{DEAD, World, survives, takes_everything, tells_tokens_apart};
use crate::message::{self, WallClock};
use crate::posts::Posts;
use crate::stand_in::{Act, StandIn};

#[tokio::test]
async fn everything_is_taken_and_trouble_is_survived() {
    let world =
        World::start_with(Vendor::Meizu, |config| config["pass_through"] = true.into()).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    survives(
        &world,
        &[
            (FaultKind::QuotaExhausted, "quota_exhausted"),
            (FaultKind::AuthExpired, "credential_bad"),
        ],
    )
    .await;
    let foreign = world.tokens(12, TokenState::OtherApp);
    let verdicts = world.send(message::message(Class::Im), foreign).await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
}

#[tokio::test]
async fn quotas_of_a_device_and_of_the_app() {
    let world = World::start(Vendor::Meizu).await;
    world.handle.set_device_limits(true);
    let token = world.tokens(1, TokenState::Valid);
    let mut told = Vec::new();
    for _ in 0..4 {
        let sent = message::message(Class::Marketing);
        told.push(world.send(sent, token.clone()).await.remove(0));
    }
    let over = "refused quota_exhausted";
    assert_eq!(told, ["accepted", "accepted", "accepted", over]);
    let private = message::message(Class::Im);
    assert_eq!(world.send(private, token.clone()).await, ["accepted"]);
    world.handle.set_device_limits(false);
    let rules = json!({"per_day": 0, "switched_off": token});
    world.handle.set_rules(Vendor::Meizu, &rules).unwrap();
    assert_eq!(world.send_one().await, "quota_exhausted");
    let rules = json!({"switched_off": token});
    world.handle.set_rules(Vendor::Meizu, &rules).unwrap();
    let sent = message::message(Class::Im);
    assert_eq!(world.send(sent, token).await, ["refused permission_off"]);
}

#[tokio::test]
async fn receipts_come_back_as_news_of_our_message() {
    let posts = Posts::listen().await;
    let world = World::start_at(Vendor::Meizu, Some(&posts.url), |config| {
        config["receipt_token"] = "t0k3n".into();
    })
    .await;
    world
        .handle
        .set_rules(Vendor::Meizu, &json!({"registered_only": true}))
        .unwrap();
    assert_eq!(world.send_one().await, "refused payload_rejected");
    let address = ReceiptAddress {
        url: posts.url.clone(),
        username: None,
        key: Some("t0k3n".to_owned()),
    };
    world.handle.set_receipts(Vendor::Meizu, Some(address));
    let phone = NewPhone::of("android", "meizu", "", "u");
    let phone = world.handle.add_phone(phone).await.unwrap();
    let token = world.handle.phone_tokens(&phone.id).unwrap()[&Vendor::Meizu].clone();
    let killed = PatchPhone {
        state: Some(AppState::Killed),
        ..PatchPhone::default()
    };
    world.handle.patch_phone(&phone.id, killed).await.unwrap();
    let sent = message::message(Class::Im);
    let verdicts = world.send(sent.clone(), vec![token.clone()]).await;
    assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
    posts.wait(1).await;
    world.handle.click(&phone.id, 1).await.unwrap();
    let now = WallClock.now();
    let receipts = posts.receipts(&*world.channel, now, 2).await;
    let told: Vec<_> = receipts.iter().map(|r| (r.message, r.kind)).collect();
    assert_eq!(
        told,
        [
            (Some(sent.id), ReceiptKind::Delivered),
            (Some(sent.id), ReceiptKind::Clicked),
        ]
    );
    assert!(
        receipts
            .iter()
            .all(|r| r.token == Some(Secret::new(token.as_str())))
    );
    let mut forged = posts.wait(2).await.remove(0);
    assert!(forged.read(&*world.channel, now).unwrap().signed);
    let body = String::from_utf8(forged.body.to_vec()).unwrap();
    forged.body = body.replace("t0k3n", "other").into();
    let told = forged.read(&*world.channel, now);
    assert!(matches!(told, Err(CallbackError::Signature(_))), "{told:?}");
}

#[tokio::test]
async fn a_redirect_is_followed_once() {
    let place = Arc::new(Mutex::new(String::new()));
    let stand_in = StandIn::start({
        let place = place.clone();
        move |seen| {
            let body = match seen.path.as_str() {
                "/elsewhere" => json!({"code": "200", "value": {}, "msgId": "m"}),
                _ => json!({"code": "300", "redirect": *place.lock().unwrap()}),
            };
            Act::Answer(200, Vec::new(), body.to_string())
        }
    })
    .await;
    let egress = message::egress(&stand_in.ca_pem);
    let config = json!({"app_id": "1", "app_secret": "s"});
    let channel = message::open(&egress, "meizu", &config, &stand_in.endpoint);
    let outbound = message::outbound(message::message(Class::Im));
    let batch = message::batch(outbound, ["AA00000000000000000000001".to_owned()]);
    for (path, want) in [
        ("/elsewhere", "accepted"),
        ("/round/and/round", "retry vendor_unavailable not_taken"),
    ] {
        *place.lock().unwrap() = format!("{}{path}", stand_in.endpoint);
        let verdicts = channel.send(&batch, super::PATIENCE).await;
        assert_eq!(words(&verdicts[0]), want, "{path}");
    }
    let seen = stand_in.seen();
    assert_eq!(seen.len(), 4);
    assert!(
        seen.iter()
            .all(|s| s.method == "POST" && s.body == seen[0].body)
    );
}
