//! Sends through JPush against its simulator.

use hongyan_core::port::{Clock as _, LimitOf, OpenCredential, ReceiptKind};
use hongyan_core::{AppId, Class, CredentialName, Secret};
use hongyan_sandbox::{Channel as Vendor, Fault, FaultKind, NewPhone, TokenState};
use hongyan_testkit::channel_suite::words;

use super::{DEAD, PATIENCE, World, survives, takes_everything, tells_tokens_apart};
use crate::message::{self, WallClock};
use crate::posts::Posts;

impl World {
    /// A channel whose receipts are posted to this address.
    pub(super) async fn start_called(vendor: Vendor, callback: &str) -> Self {
        let mut world = Self::start(vendor).await;
        let config = super::config(&world.handle, vendor);
        let egress = message::egress(world.handle.ca_pem());
        let vendors = hongyan_channels::vendor::all(&egress);
        let name = vendor.as_str();
        let vendor = vendors.iter().find(|v| v.id().as_str() == name).unwrap();
        world.channel = vendor
            .open(OpenCredential {
                app: AppId::parse("demo").unwrap(),
                name: CredentialName::parse("default").unwrap(),
                config: Secret::new(config.to_string()),
                endpoint: Some(world.handle.vendors_url()),
                callback: Some(callback.to_owned()),
            })
            .unwrap();
        world
    }
}

#[tokio::test]
async fn jpush() {
    let world = World::start(Vendor::Jpush).await;
    takes_everything(&world).await;
    // Among living ones JPush leaves out a device that is gone, and says nothing.
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "accepted"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    let dead = world.tokens(2, DEAD);
    let verdicts = world.send(message::message(Class::Im), dead).await;
    assert_eq!(verdicts, ["token_dead token_invalid"; 2]);
    let foreign = world.tokens(12, TokenState::OtherApp);
    let verdicts = world.send(message::message(Class::Im), foreign).await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
    survives(
        &world,
        &[
            (FaultKind::QuotaExhausted, "quota_exhausted"),
            (FaultKind::AuthExpired, "credential_bad"),
            // Repeated at once with the same cid.
            (FaultKind::Reset, "accepted"),
            (FaultKind::Malformed, "accepted"),
        ],
    )
    .await;
}

#[tokio::test]
async fn jpush_repeats_a_call_whose_answer_is_lost_and_shows_it_once() {
    let world = World::start(Vendor::Jpush).await;
    let phone = NewPhone {
        channels: Some(vec!["jpush".to_owned()]),
        ..NewPhone::of("android", "samsung", "", "u")
    };
    let phone = world.handle.add_phone(phone).await.unwrap();
    let token = world.handle.phone_tokens(&phone.id).unwrap()[&Vendor::Jpush].clone();
    let sent = message::message(Class::Transaction);
    // Numbers are fetched with the first push.
    assert_eq!(world.send_one().await, "accepted");
    let lost = Fault::times(FaultKind::Reset, 1);
    world.handle.inject(Vendor::Jpush, lost).unwrap();
    let verdicts = world.send(sent.clone(), vec![token.clone()]).await;
    assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
    let tray = world.handle.tray(&phone.id).unwrap();
    assert_eq!(
        (tray.len(), tray[0].copies),
        (1, 1),
        "the cid swallows the repeat"
    );
    assert_eq!(tray[0].message, Some(sent.id.to_string()));
    assert_eq!(
        (tray[0].title.as_str(), tray[0].body.as_str()),
        ("Order 42", "is on its way")
    );
    let batch = message::batch(message::outbound(sent.clone()), [token]);
    let recalled = world.channel.recall(&sent, &batch.recipients, PATIENCE);
    let recalled = recalled.await.unwrap();
    assert_eq!(words(&recalled[0]), "accepted", "{:?}", world.last());
    assert!(world.handle.tray(&phone.id).unwrap()[0].gone);
    let never = message::message(Class::Im);
    let unknown = world.channel.recall(&never, &batch.recipients, PATIENCE);
    assert_eq!(
        words(&unknown.await.unwrap()[0]),
        "refused payload_rejected"
    );
}

/// Nobody knows of the repeat either: from here on only a receipt tells.
#[tokio::test]
async fn jpush_repeats_once() {
    let world = World::start(Vendor::Jpush).await;
    // Numbers are fetched with the first push.
    assert_eq!(world.send_one().await, "accepted");
    // What the repeat is answered says nothing of the first call, unless it was taken.
    for (second, want) in [
        (None, "accepted"),
        (
            Some(FaultKind::Reset),
            "retry vendor_unavailable maybe_taken",
        ),
        (
            Some(FaultKind::Unavailable),
            "retry vendor_unavailable maybe_taken",
        ),
        (
            Some(FaultKind::RateLimited),
            "retry vendor_unavailable maybe_taken",
        ),
        (
            Some(FaultKind::QuotaExhausted),
            "retry vendor_unavailable maybe_taken",
        ),
    ] {
        for kind in [Some(FaultKind::Reset), second].into_iter().flatten() {
            let fault = Fault::times(kind, 1);
            world.handle.inject(Vendor::Jpush, fault).unwrap();
        }
        assert_eq!(world.send_one().await, want, "{second:?}");
        assert!(world.handle.faults(Vendor::Jpush).is_empty(), "{second:?}");
    }
}

#[tokio::test]
async fn jpush_tells_which_tokens_live() {
    let world = World::start(Vendor::Jpush).await;
    let mut tokens = world.tokens(1, TokenState::Valid);
    tokens.extend(world.tokens(1, DEAD));
    tokens.extend(world.tokens(1, TokenState::OtherApp));
    tokens.push("a/b".to_owned());
    let tokens: Vec<_> = tokens.into_iter().map(Secret::new).collect();
    let probed = world.channel.probe(&tokens, PATIENCE).await.unwrap();
    let probed: Vec<String> = probed.iter().map(words).collect();
    let dead = "token_dead token_invalid";
    assert_eq!(probed, ["accepted", dead, dead, dead]);
}

#[tokio::test]
async fn jpush_receipts_come_back() {
    let posts = Posts::listen().await;
    let world = World::start_called(Vendor::Jpush, &posts.url).await;
    let sent = message::message(Class::Im);
    let token = world.tokens(1, TokenState::Valid);
    assert_eq!(world.send(sent.clone(), token.clone()).await, ["accepted"]);
    let now = WallClock.now();
    let read = posts.wait(1).await[0].read(&*world.channel, now).unwrap();
    assert!(read.signed);
    let receipt = &read.receipts[0];
    assert_eq!(
        (receipt.kind, receipt.message),
        (ReceiptKind::Delivered, Some(sent.id))
    );
    assert_eq!(
        receipt.token.as_ref().unwrap().expose_str(),
        Some(token[0].as_str())
    );
    let mut forged = posts.wait(1).await.remove(0);
    for (name, value) in &mut forged.headers {
        if name == "authorization" {
            value.push('x');
        }
    }
    assert!(forged.read(&*world.channel, now).is_err());
}

#[tokio::test]
async fn jpush_with_wrong_keys() {
    for field in ["/app_key", "/master_secret"] {
        let world = World::start_with(Vendor::Jpush, |config| {
            *config.pointer_mut(field).unwrap() = "WRONG12345".into();
        })
        .await;
        let report = world.channel.check(PATIENCE).await;
        assert!(!report.ok, "{field} {report:?}");
        assert_eq!(world.send_one().await, "credential_bad");
    }
}

#[tokio::test]
async fn the_makers_quotas_are_asked_for() {
    let world = World::start(Vendor::Jpush).await;
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
            ("oppo operation".to_owned(), 10_000, Some(0)),
            ("vivo operation".to_owned(), 10_000, Some(0)),
            ("xiaomi operation".to_owned(), 10_000, Some(0)),
        ]
    );
    let fault = Fault::times(FaultKind::Unavailable, 1);
    world.handle.inject(Vendor::Jpush, fault).unwrap();
    assert!(world.channel.ask_limits(PATIENCE).await.is_err());
}
