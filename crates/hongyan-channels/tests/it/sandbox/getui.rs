//! Sends through Getui against its simulator.

use hongyan_core::Class;
use hongyan_core::port::{Clock as _, LimitOf, ReceiptKind};
use hongyan_sandbox::{
    Channel as Vendor, Endpoint, Fault, FaultKind, NewPhone, ReceiptAddress, TokenState,
};
use hongyan_testkit::channel_suite::words;

use super::{DEAD, PATIENCE, World, survives, takes_everything, tells_tokens_apart};
use crate::message::{self, WallClock};
use crate::posts::Posts;

fn calls(world: &World, end: &str) -> usize {
    let requests = world.handle.requests(Vendor::Getui);
    requests.iter().filter(|r| r.path.ends_with(end)).count()
}

#[tokio::test]
async fn getui() {
    let world = World::start(Vendor::Getui).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    let foreign = world.tokens(12, TokenState::OtherApp);
    let verdicts = world.send(message::message(Class::Im), foreign).await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
    survives(
        &world,
        &[
            (FaultKind::Unavailable, "retry vendor_unavailable not_taken"),
            (
                FaultKind::RateLimited,
                "retry vendor_rate_limited not_taken",
            ),
            (FaultKind::QuotaExhausted, "quota_exhausted"),
            (FaultKind::TokenInvalid, "token_dead token_invalid"),
            (FaultKind::AuthExpired, "accepted"),
            (FaultKind::Reset, "retry vendor_unavailable maybe_taken"),
            (FaultKind::Malformed, "retry vendor_unavailable maybe_taken"),
        ],
    )
    .await;
}

#[tokio::test]
async fn getui_renews_its_token_once_under_load() {
    let world = World::start(Vendor::Getui).await;
    assert_eq!(world.send_one().await, "accepted");
    let before = calls(&world, "/auth");
    let mut slow = Fault::always(FaultKind::Slow);
    (slow.delay_ms, slow.endpoint) = (Some(200), Endpoint::Auth);
    world.handle.inject(Vendor::Getui, slow).unwrap();
    let expired = Fault::times(FaultKind::AuthExpired, 1);
    world.handle.inject(Vendor::Getui, expired).unwrap();
    let verdicts = futures_util::future::join_all((0..40).map(|_| world.send_one())).await;
    assert_eq!(verdicts, vec!["accepted"; 40]);
    assert_eq!(calls(&world, "/auth"), before + 1);
}

#[tokio::test]
async fn getui_makes_one_task_for_all_batches_of_a_message() {
    let world = World::start(Vendor::Getui).await;
    let sent = message::message(Class::Subscription);
    for _ in 0..3 {
        let tokens = world.tokens(5, TokenState::Valid);
        assert_eq!(world.send(sent.clone(), tokens).await, ["accepted"; 5]);
    }
    assert_eq!(calls(&world, "/push/list/message"), 1);
    assert_eq!(calls(&world, "/push/list/cid"), 3);
}

#[tokio::test]
async fn getui_replaces_a_repeat_and_withdraws() {
    let world = World::start(Vendor::Getui).await;
    let phone = NewPhone {
        channels: Some(vec!["getui".to_owned()]),
        ..NewPhone::of("android", "samsung", "", "u")
    };
    let phone = world.handle.add_phone(phone).await.unwrap();
    let token = world.handle.phone_tokens(&phone.id).unwrap()[&Vendor::Getui].clone();
    let sent = message::message(Class::Transaction);
    for _ in 0..2 {
        let verdicts = world.send(sent.clone(), vec![token.clone()]).await;
        assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
    }
    let tray = world.handle.tray(&phone.id).unwrap();
    assert_eq!((tray.len(), tray[0].copies), (1, 2));
    assert_eq!(tray[0].message, Some(sent.id.to_string()));
    let batch = message::batch(message::outbound(sent.clone()), [token]);
    let recalled = world.channel.recall(&sent, &batch.recipients, PATIENCE);
    assert_eq!(
        words(&recalled.await.unwrap()[0]),
        "accepted",
        "{:?}",
        world.last()
    );
    assert!(world.handle.tray(&phone.id).unwrap()[0].gone);
}

#[tokio::test]
async fn getui_tells_which_tokens_live() {
    let world = World::start(Vendor::Getui).await;
    let mut tokens = world.tokens(1, TokenState::Valid);
    tokens.extend(world.tokens(1, TokenState::OtherApp));
    tokens.push("a/b".to_owned());
    let tokens: Vec<_> = tokens.into_iter().map(hongyan_core::Secret::new).collect();
    let probed = world.channel.probe(&tokens, PATIENCE).await.unwrap();
    let probed: Vec<String> = probed.iter().map(words).collect();
    let dead = "token_dead token_invalid";
    assert_eq!(probed, ["accepted", dead, dead]);
}

#[tokio::test]
async fn getui_receipts_come_back() {
    let posts = Posts::listen().await;
    let world = World::start(Vendor::Getui).await;
    let url = posts.url.clone();
    let (username, key) = (None, None);
    let address = ReceiptAddress { url, username, key };
    world.handle.set_receipts(Vendor::Getui, Some(address));
    let sent = message::message(Class::Im);
    let tokens = world.tokens(2, TokenState::Valid);
    assert_eq!(world.send(sent.clone(), tokens).await, ["accepted"; 2]);
    let now = WallClock.now();
    for receipt in posts.receipts(&*world.channel, now, 2).await {
        assert_eq!(
            (receipt.kind, receipt.message),
            (ReceiptKind::Delivered, Some(sent.id))
        );
        assert!(receipt.vendor_id.as_ref().unwrap().starts_with("RASL_"));
    }
    let seen = posts.wait(2).await;
    assert!(!seen[0].read(&*world.channel, now).unwrap().signed);
    let mut forged = seen[0].clone();
    let text = String::from_utf8(forged.body.to_vec()).unwrap();
    forged.body = text.replace("\"cid\":\"", "\"cid\":\"0").into();
    assert!(forged.read(&*world.channel, now).is_err());
}

#[tokio::test]
async fn getui_with_wrong_keys() {
    for field in ["/app_key", "/master_secret"] {
        let world = World::start_with(Vendor::Getui, |config| {
            *config.pointer_mut(field).unwrap() = "WRONG12345".into();
        })
        .await;
        let report = world.channel.check(PATIENCE).await;
        assert!(!report.ok, "{field} {report:?}");
        assert_eq!(world.send_one().await, "credential_bad");
    }
}

#[tokio::test]
async fn getui_says_that_the_clock_is_wrong() {
    let world = World::start(Vendor::Getui).await;
    world.handle.advance(std::time::Duration::from_secs(3600));
    let report = world.channel.check(PATIENCE).await;
    assert!(!report.ok && report.detail.contains("clock"), "{report:?}");
}

#[tokio::test]
async fn the_makers_quotas_are_asked_for() {
    let world = World::start(Vendor::Getui).await;
    assert_eq!(world.channel.limits(), []);
    world.channel.ask_limits(PATIENCE).await.unwrap();
    let limits = world.channel.limits();
    assert!(limits.iter().all(|l| l.of == LimitOf::Part));
    let told: Vec<_> = limits
        .into_iter()
        .map(|l| (l.part, l.limit, l.used))
        .collect();
    assert_eq!(
        told,
        [
            ("op".to_owned(), 10_000, Some(0)),
            ("vv".to_owned(), 10_000, Some(0)),
            ("xm".to_owned(), 10_000, Some(0)),
        ]
    );
    let fault = Fault::times(FaultKind::Unavailable, 1);
    world.handle.inject(Vendor::Getui, fault).unwrap();
    assert!(world.channel.ask_limits(PATIENCE).await.is_err());
}
