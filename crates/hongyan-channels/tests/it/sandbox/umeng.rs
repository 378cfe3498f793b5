//! Sends through Umeng against its simulator.

use hongyan_core::Class;
use hongyan_core::port::{Clock as _, ReceiptKind};
use hongyan_sandbox::{Channel as Vendor, FaultKind, NewPhone, TokenState};

use super::{DEAD, PATIENCE, World, survives, takes_everything, tells_tokens_apart};
use crate::message::{self, WallClock};
use crate::posts::Posts;

#[tokio::test]
async fn umeng() {
    let world = World::start(Vendor::Umeng).await;
    takes_everything(&world).await;
    // Umeng takes what is for a device that is gone.
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "accepted"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    let verdicts = world
        .send(message::message(Class::Im), vec!["short".to_owned()])
        .await;
    assert_eq!(verdicts, ["token_dead token_invalid"]);
    let foreign = world.tokens(12, TokenState::OtherApp);
    let verdicts = world.send(message::message(Class::Im), foreign).await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
    survives(
        &world,
        &[
            (FaultKind::QuotaExhausted, "quota_exhausted"),
            (FaultKind::AuthExpired, "retry vendor_unavailable not_taken"),
        ],
    )
    .await;
}

#[tokio::test]
async fn umeng_reaches_a_phone() {
    let world = World::start(Vendor::Umeng).await;
    let phone = NewPhone {
        channels: Some(vec!["umeng".to_owned()]),
        ..NewPhone::of("android", "samsung", "", "u")
    };
    let phone = world.handle.add_phone(phone).await.unwrap();
    let token = world.handle.phone_tokens(&phone.id).unwrap()[&Vendor::Umeng].clone();
    let sent = message::message(Class::Transaction);
    let verdicts = world.send(sent.clone(), vec![token]).await;
    assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
    let tray = world.handle.tray(&phone.id).unwrap();
    assert_eq!(tray[0].message, Some(sent.id.to_string()));
    assert_eq!(
        (tray[0].title.as_str(), tray[0].body.as_str()),
        ("Order 42", "is on its way")
    );
}

#[tokio::test]
async fn umeng_receipts_come_back() {
    let posts = Posts::listen().await;
    let world = World::start_called(Vendor::Umeng, &posts.url).await;
    let sent = message::message(Class::Im);
    let token = world.tokens(1, TokenState::Valid);
    assert_eq!(world.send(sent.clone(), token).await, ["accepted"]);
    let now = WallClock.now();
    let read = posts.wait(1).await[0].read(&*world.channel, now).unwrap();
    assert!(!read.signed, "the address's secret proves it");
    let receipt = &read.receipts[0];
    assert_eq!(
        (receipt.kind, receipt.message),
        (ReceiptKind::Delivered, Some(sent.id))
    );
    assert!(receipt.vendor_id.as_ref().unwrap().starts_with("uu"));
}

#[tokio::test]
async fn umeng_with_wrong_keys() {
    for field in ["/app_key", "/master_secret"] {
        let world = World::start_with(Vendor::Umeng, |config| {
            *config.pointer_mut(field).unwrap() = "WRONG12345".into();
        })
        .await;
        let report = world.channel.check(PATIENCE).await;
        assert!(!report.ok, "{field} {report:?}");
        assert_eq!(world.send_one().await, "credential_bad");
    }
}

#[tokio::test]
async fn umeng_says_that_the_clock_is_wrong() {
    let world = World::start(Vendor::Umeng).await;
    world.handle.advance(std::time::Duration::from_secs(3600));
    let report = world.channel.check(PATIENCE).await;
    assert!(!report.ok && report.detail.contains("clock"), "{report:?}");
}
