//! Receipts of Xiaomi, its list of invalid regIds, and classes without a channel.

use std::time::Duration;

use hongyan_core::port::{Clock, LimitOf, ReceiptKind};
use hongyan_core::{Class, Reason, Secret};
use hongyan_sandbox::{
    AppState, Channel as Vendor, Fault, FaultKind, NewPhone, PatchPhone, TokenState,
};
use serde_json::json;

use super::{DEAD, PATIENCE, World, counts_tell};
use crate::message::{self, WallClock};
use crate::posts::Posts;

#[tokio::test]
async fn receipts_come_back_as_news_of_our_message() {
    let posts = Posts::listen().await;
    let world = World::start_at(Vendor::Xiaomi, Some(&posts.url), |_| {}).await;
    let phone = NewPhone::of("android", "xiaomi", "", "u");
    let phone = world.handle.add_phone(phone).await.unwrap();
    let alive = world.handle.phone_tokens(&phone.id).unwrap()[&Vendor::Xiaomi].clone();
    let dead = world.tokens(1, DEAD).remove(0);
    let sent = message::message(Class::Im);
    let verdicts = world
        .send(sent.clone(), vec![alive.clone(), dead.clone()])
        .await;
    assert_eq!(verdicts, ["accepted"; 2]);
    posts.wait(2).await;
    world.handle.click(&phone.id, 1).await.unwrap();
    posts.wait(3).await;
    let denied = PatchPhone {
        permission: Some("denied".to_owned()),
        state: Some(AppState::Killed),
        ..PatchPhone::default()
    };
    world.handle.patch_phone(&phone.id, denied).await.unwrap();
    let unseen = message::message(Class::Im);
    world.send(unseen.clone(), vec![alive.clone()]).await;
    let receipts = posts.receipts(&*world.channel, WallClock.now(), 4).await;
    let mut told: Vec<_> = receipts
        .iter()
        .map(|r| (r.message, format!("{:?}", r.kind), r.token.clone().unwrap()))
        .collect();
    told.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let row = |message: &hongyan_core::Message, kind: &str, token: &str| {
        (Some(message.id), kind.to_owned(), Secret::new(token))
    };
    let mut want = vec![
        row(&sent, "Clicked", &alive),
        row(&sent, "Delivered", &alive),
        row(&sent, "TokenInvalid", &dead),
        row(&unseen, "PermissionOff", &alive),
    ];
    want.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    assert_eq!(told, want);
    assert!(receipts.iter().all(|r| r.vendor_id.is_some()));
}

#[tokio::test]
async fn a_quota_that_is_used_up_on_one_device_is_told_later() {
    let posts = Posts::listen().await;
    let world = World::start_at(Vendor::Xiaomi, Some(&posts.url), |_| {}).await;
    world.handle.set_device_limits(true);
    let token = world.tokens(1, TokenState::Valid);
    for _ in 0..6 {
        let sent = message::message(Class::Marketing);
        assert_eq!(world.send(sent, token.clone()).await, ["accepted"]);
    }
    let receipts = posts.receipts(&*world.channel, WallClock.now(), 6).await;
    let over = ReceiptKind::Failed(Reason::QuotaExhausted);
    assert_eq!(receipts.iter().filter(|r| r.kind == over).count(), 1);
}

#[tokio::test]
async fn invalid_regids_are_fetched_once() {
    let world = World::start(Vendor::Xiaomi).await;
    let dead = world.tokens(2, DEAD);
    let mut tokens = world.tokens(1, TokenState::Valid);
    tokens.extend(dead.clone());
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    assert_eq!(verdicts, ["accepted"; 3]);
    let receipts = world.channel.poll(PATIENCE).await.unwrap();
    let told: Vec<_> = receipts.iter().map(|r| r.token.clone().unwrap()).collect();
    assert_eq!(told, dead.into_iter().map(Secret::new).collect::<Vec<_>>());
    assert!(receipts.iter().all(|r| r.kind == ReceiptKind::TokenInvalid));
    assert!(world.channel.poll(PATIENCE).await.unwrap().is_empty());
    world.clock.advance(Duration::from_secs(600));
    for kind in [FaultKind::AuthExpired, FaultKind::Unavailable] {
        let fault = Fault::times(kind, 1);
        world.handle.inject(Vendor::Xiaomi, fault).unwrap();
        assert!(world.channel.poll(PATIENCE).await.is_err(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_class_without_a_channel_goes_through_marketings() {
    let world = World::start_with(Vendor::Xiaomi, |config| {
        config["channels"] = json!({"marketing": "200001"});
    })
    .await;
    world.handle.set_xiaomi_rules(true, true);
    let sent = message::message(Class::Transaction);
    let verdicts = world.send(sent, world.tokens(1, TokenState::Valid)).await;
    assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
}

#[tokio::test]
async fn the_tracer_tells_where_nothing_is_posted() {
    let world = World::start(Vendor::Xiaomi).await;
    assert_eq!(world.channel.hears(), Some(false));
    counts_tell(&world, Duration::from_secs(60)).await;
    let traces = |world: &World| {
        let requests = world.handle.requests(Vendor::Xiaomi);
        let traced = requests.iter().filter(|r| r.path.contains("/v1/trace/"));
        traced.count()
    };
    assert!(traces(&world) > 0);
    // With an address for receipts nobody asks, unless told to.
    for (tracer, asks) in [("auto", false), ("always", true), ("never", false)] {
        let posts = Posts::listen().await;
        let world = World::start_at(Vendor::Xiaomi, Some(&posts.url), |config| {
            config["tracer"] = tracer.into();
        })
        .await;
        assert_eq!(world.send_one().await, "accepted");
        world.clock.advance(Duration::from_secs(60));
        world.channel.poll(PATIENCE).await.unwrap();
        assert_eq!(traces(&world) > 0, asks, "{tracer}");
    }
}

#[tokio::test]
async fn invalid_regids_are_not_fetched_more_often_than_xiaomi_likes() {
    let world = World::start(Vendor::Xiaomi).await;
    let fetched = |world: &World| {
        let requests = world.handle.requests(Vendor::Xiaomi);
        let fetched = requests.iter().filter(|r| r.path.contains("feedback"));
        fetched.count()
    };
    for (after, want) in [(0, 1), (60, 1), (500, 1), (40, 2)] {
        world.clock.advance(Duration::from_secs(after));
        assert!(world.channel.poll(PATIENCE).await.unwrap().is_empty());
        assert_eq!(fetched(&world), want);
    }
}

#[tokio::test]
async fn the_daily_limit_is_the_one_that_xiaomi_names() {
    let world = World::start(Vendor::Xiaomi).await;
    let token = world.tokens(1, TokenState::Valid);
    let send = async |class| {
        world
            .send(message::message(class), token.clone())
            .await
            .remove(0)
    };
    // A private message has none.
    assert_eq!(send(Class::Im).await, "accepted");
    assert_eq!(world.channel.limits(), []);
    world.handle.set_xiaomi_quota("200001", Some(2));
    let told = || {
        let limits = world.channel.limits();
        let told = limits.iter().map(|l| (l.of, l.limit, l.used));
        told.collect::<Vec<_>>()
    };
    assert_eq!(send(Class::Marketing).await, "accepted");
    assert_eq!(told(), [(LimitOf::Marketing, 2, Some(1))]);
    assert_eq!(send(Class::Marketing).await, "accepted");
    assert_eq!(send(Class::Marketing).await, "quota_exhausted");
    assert_eq!(told(), [(LimitOf::Marketing, 2, Some(2))]);
}
