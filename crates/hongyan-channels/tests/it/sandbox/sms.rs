//! Text messages through every provider against its simulator.

use hongyan_channels::vendor;
use hongyan_core::port::{Clock as _, OpenCredential, Receipt, ReceiptKind};
use hongyan_core::{AppId, CredentialName, Reason, Secret};
use hongyan_sandbox::{NewPhone, ReceiptAddress};

use super::*;
use crate::message::WallClock;
use crate::posts::Posts;

const PROVIDERS: [Vendor; 4] = [
    Vendor::Twilio,
    Vendor::AliyunSms,
    Vendor::TencentSms,
    Vendor::Smpp,
];

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..400 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what} did not come");
}

/// The next receipts: from the posts of a provider, or from its session.
async fn receipts(world: &World, posted: &Posts) -> Vec<Receipt> {
    until("a receipt", async || {
        let polled = world.channel.poll(PATIENCE).await.unwrap();
        if !polled.is_empty() {
            return Some(polled);
        }
        let read: Vec<Receipt> = posted
            .take()
            .iter()
            .flat_map(|post| {
                let read = post.read(world.channel.as_ref(), WallClock.now());
                read.unwrap().receipts
            })
            .collect();
        (!read.is_empty()).then_some(read)
    })
    .await
}

/// A simulator whose receipts go to a listener.
async fn start(vendor: Vendor, change: impl Fn(&mut Value)) -> (World, Posts) {
    let mut world = World::start_with(vendor, &change).await;
    let posted = Posts::listen().await;
    let url = posted.url.clone();
    let console: ReceiptAddress = serde_json::from_value(json!({"url": url})).unwrap();
    world.handle.set_receipts(vendor, Some(console));
    let mut config = config(&world.handle, vendor);
    change(&mut config);
    let vendors = vendor::all(&message::egress(world.handle.ca_pem()));
    let sms = vendors.iter().find(|v| v.id().as_str() == "sms").unwrap();
    world.channel = sms
        .open(OpenCredential {
            app: AppId::parse("demo").unwrap(),
            name: CredentialName::parse("default").unwrap(),
            config: Secret::new(config.to_string()),
            endpoint: Some(world.handle.vendors_url()),
            callback: Some(url),
        })
        .unwrap();
    (world, posted)
}

#[tokio::test]
async fn every_provider_takes_texts_and_tells_what_became_of_them() {
    for vendor in PROVIDERS {
        let (world, posted) = start(vendor, |_| {}).await;
        let report = world.channel.check(PATIENCE).await;
        assert!(report.ok, "{vendor} {report:?}");
        let sent = message::message(Class::Im);
        let numbers = world.tokens(1, TokenState::Valid);
        assert_eq!(
            world.send(sent.clone(), numbers.clone()).await,
            ["accepted"],
            "{vendor} {:?}",
            world.last()
        );
        let told = receipts(&world, &posted).await;
        assert_eq!(told.len(), 1, "{vendor} {told:?}");
        assert_eq!(told[0].kind, ReceiptKind::Delivered, "{vendor}");
        assert!(told[0].vendor_id.is_some(), "{vendor}");
        if vendor != Vendor::TencentSms {
            assert_eq!(told[0].message, Some(sent.id), "{vendor}");
        }
        let token = told[0].token.as_ref().unwrap();
        assert_eq!(token.expose_str(), Some(numbers[0].as_str()), "{vendor}");
        for class in Class::ALL {
            let verdicts = world
                .send(message::message(class), world.tokens(2, TokenState::Valid))
                .await;
            assert_eq!(
                verdicts,
                ["accepted"; 2],
                "{vendor} {class:?} {:?}",
                world.last()
            );
        }
        let many = world
            .send(
                message::message(Class::Im),
                world.tokens(150, TokenState::Valid),
            )
            .await;
        assert_eq!(many, vec!["accepted"; 150], "{vendor}");
        // Bad numbers among good ones; people write numbers in many ways.
        let mut mixed = world.tokens(2, TokenState::Valid);
        mixed.extend(world.tokens(1, DEAD));
        mixed.push("not a number".to_owned());
        mixed.push("0086 138-0013-8123".to_owned());
        let verdicts = world.send(message::message(Class::Im), mixed).await;
        let dead = "token_dead token_invalid";
        assert_eq!(
            verdicts,
            ["accepted", "accepted", dead, dead, "accepted"],
            "{vendor}"
        );
    }
}

#[tokio::test]
async fn the_fate_of_a_text_is_told() {
    for vendor in PROVIDERS {
        let (world, posted) = start(vendor, |_| {}).await;
        let expired = match vendor {
            Vendor::Twilio => ReceiptKind::Failed(Reason::VendorUnavailable),
            _ => ReceiptKind::Failed(Reason::Expired),
        };
        let lost = match vendor {
            Vendor::Twilio => ReceiptKind::TokenInvalid,
            _ => ReceiptKind::Failed(Reason::RetriesExhausted),
        };
        for (last, want) in [("0002", lost), ("0003", expired)] {
            let number = format!("+861380013{last}");
            assert_eq!(
                world.send(message::message(Class::Im), vec![number]).await,
                ["accepted"]
            );
            assert_eq!(
                receipts(&world, &posted).await[0].kind,
                want,
                "{vendor} {last}"
            );
        }
        // Told twice, and each time the same.
        let twice = vec!["+8613800130007".to_owned()];
        assert_eq!(
            world.send(message::message(Class::Im), twice).await,
            ["accepted"]
        );
        let told = receipts(&world, &posted).await;
        assert!(told.iter().all(|r| r == &told[0]), "{vendor}: {told:?}");
    }
}

#[tokio::test]
async fn every_provider_survives_its_bad_days() {
    let not_taken = "retry vendor_unavailable not_taken";
    let limited = "retry vendor_rate_limited not_taken";
    let unsure = "retry vendor_unavailable maybe_taken";
    for vendor in PROVIDERS {
        let world = World::start(vendor).await;
        let quota = match vendor {
            Vendor::Twilio | Vendor::Smpp => limited,
            _ => "quota_exhausted",
        };
        let expired = match vendor {
            Vendor::Twilio => "credential_bad",
            // The session opens anew.
            Vendor::Smpp => not_taken,
            // Signed anew by their clock.
            _ => "accepted",
        };
        // A server at fault may have sent the text; a centre that answers did not.
        let unavailable = match vendor {
            Vendor::Smpp => not_taken,
            _ => unsure,
        };
        // An unbind does not say what became of what was under way.
        let goes = if vendor == Vendor::Smpp {
            unsure
        } else {
            "accepted"
        };
        survives(
            &world,
            &[
                (FaultKind::Unavailable, unavailable),
                (FaultKind::QuotaExhausted, quota),
                (FaultKind::AuthExpired, expired),
                (FaultKind::Goaway, goes),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn wrong_credentials_of_providers_are_told() {
    let rows = [
        (Vendor::Twilio, "auth_token", "0"),
        (Vendor::AliyunSms, "access_key_secret", "0"),
        (Vendor::AliyunSms, "sign_name", "other"),
        (Vendor::TencentSms, "secret_key", "0"),
        (Vendor::TencentSms, "sdk_app_id", "14"),
        (Vendor::Smpp, "password", "wrong"),
        (Vendor::Smpp, "system_id", "wrong"),
    ];
    for (vendor, field, value) in rows {
        let world = World::start_with(vendor, |config| config[field] = value.into()).await;
        // A signature of the account is only looked at when something is sent.
        if field != "sign_name" {
            let report = world.channel.check(PATIENCE).await;
            assert!(!report.ok, "{vendor} {field} {report:?}");
        }
        assert_eq!(
            world.send_one().await,
            "credential_bad",
            "{vendor} {field} {:?}",
            world.last()
        );
    }
}

#[tokio::test]
async fn long_texts_arrive_whole() {
    let text = format!("{} 完", "鸿雁传书 {title} ^€".repeat(20));
    for concatenation in ["udh", "udh16", "sar", "payload"] {
        let (world, posted) = start(Vendor::Smpp, |config| {
            config["concatenation"] = concatenation.into()
        })
        .await;
        let phone = world.handle.add_phone(sms_phone()).await.unwrap();
        let number = world.handle.phone_tokens(&phone.id).unwrap()[&Vendor::Sms].clone();
        for body in [text.clone(), "plain [text] ".repeat(30)] {
            let mut sent = message::message(Class::Im);
            sent.notification.as_mut().unwrap().body = body.clone();
            assert_eq!(
                world.send(sent, vec![number.clone()]).await,
                ["accepted"],
                "{:?}",
                world.last()
            );
            let tray = until("the text", async || {
                let mut tray = world.handle.tray(&phone.id).unwrap();
                tray.pop().filter(|entry| entry.body.contains(body.trim()))
            })
            .await;
            assert_eq!(
                (tray.via.as_str(), tray.title.as_str()),
                ("sms", ""),
                "{concatenation}"
            );
            let told = receipts(&world, &posted).await;
            assert_eq!(told.len(), 1, "one for all parts: {told:?}");
            assert_eq!(told[0].kind, ReceiptKind::Delivered);
        }
    }
}

fn sms_phone() -> NewPhone {
    let mut phone = NewPhone::of("android", "samsung", "Feature phone", "olivia");
    phone.channels = Some(vec!["sms".to_owned()]);
    phone
}

#[tokio::test]
async fn a_wake_up_says_nothing_and_comes_seldom() {
    let wake = |config: &mut Value| {
        config["mode"] = "signal".into();
        config["wake_key"] = "a secret of some length".into();
    };
    let world = World::start_with(Vendor::Smpp, wake).await;
    let numbers = world.tokens(2, TokenState::Valid);
    assert_eq!(
        world
            .send(message::message(Class::Im), numbers.clone())
            .await,
        ["accepted"; 2]
    );
    let seen = world.last().body;
    assert_eq!(
        (&seen["port"], &seen["data_coding"]),
        (&json!(16_000), &json!(4))
    );
    let frame = seen["text"].as_str().unwrap();
    assert!(frame.len() == 44 && frame.starts_with("0100"), "{frame}");
    // The next message waits for its turn with the same devices.
    let again = world.send(message::message(Class::Im), numbers).await;
    assert_eq!(again, ["retry frequency_cap not_taken"; 2]);
    let world = World::start_with(Vendor::Twilio, wake).await;
    assert_eq!(world.send_one().await, "accepted");
    let text = world.last().body["Body"].as_str().unwrap().to_owned();
    assert!(text.starts_with("#P1:AQ") && text.len() == 34, "{text}");
}

#[tokio::test]
async fn a_bound_session_is_one_and_comes_back() {
    let world = World::start(Vendor::Smpp).await;
    for _ in 0..3 {
        assert_eq!(world.send_one().await, "accepted");
    }
    let binds = || {
        let requests = world.handle.requests(Vendor::Smpp);
        requests.iter().filter(|r| r.path == "/bind").count()
    };
    assert_eq!(binds(), 1);
    world
        .handle
        .inject(Vendor::Smpp, Fault::times(FaultKind::Goaway, 1))
        .unwrap();
    assert_eq!(
        world.send_one().await,
        "retry vendor_unavailable maybe_taken"
    );
    assert_eq!(world.send_one().await, "accepted");
    assert_eq!(binds(), 2);
}

#[tokio::test]
async fn a_session_begins_without_an_order() {
    let world = World::start(Vendor::Smpp).await;
    assert!(world.channel.poll(PATIENCE).await.unwrap().is_empty());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let bound = || {
        let requests = world.handle.requests(Vendor::Smpp);
        requests.iter().any(|r| r.path == "/bind")
    };
    while !bound() {
        assert!(tokio::time::Instant::now() < deadline, "no bind in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.send_one().await, "accepted");
}
