use hongyan_core::device::{Permission, Token, TokenState};
use hongyan_core::draft::Draft;
use hongyan_core::message::{Notification, Options, Target};
use hongyan_core::{Class, DeviceId, MessageId, Timestamp, UserId};

use super::*;

const START: Timestamp = Timestamp(1_772_366_400_000);
/// When receipts had their time.
const LATER: Timestamp = Timestamp(START.0 + 2 * RIPE_AFTER_MS);

const BUILT_IN: [&str; 7] = ["apns", "fcm", "huawei", "xiaomi", "oppo", "jpush", "sms"];

fn id(name: &str) -> ChannelId {
    ChannelId::parse(name).unwrap()
}

fn device(brand: &str, tokens: &[&str]) -> Device {
    Device {
        app: AppId::parse("a").unwrap(),
        id: DeviceId::parse("d1").unwrap(),
        package: None,
        platform: Platform::Android,
        brand: Some(brand.to_owned()),
        model: None,
        locale: Some("zh-Hans-CN".to_owned()),
        timezone: None,
        app_version: None,
        permission: Permission::Granted,
        tags: Default::default(),
        tokens: tokens
            .iter()
            .map(|name| Token {
                channel: id(name),
                token: "t".into(),
                credential: None,
                environment: None,
                state: TokenState::Active,
                paused: false,
                updated_at: Timestamp(0),
            })
            .collect(),
        user: None,
        binding: 1,
        secret_hash: [0; 32],
        scram: None,
        created_at: Timestamp(0),
        last_seen: Timestamp(0),
        version: 1,
    }
}

fn message(class: Class, wanted: &[&str]) -> Message {
    let mut options = Options::default();
    options.channels.order = wanted.iter().map(|c| id(c)).collect();
    Draft {
        to: Target::Users(vec![UserId::parse("u").unwrap()]),
        class,
        class_detail: None,
        notification: Some(Notification::default()),
        data: None,
        options,
    }
    .into_message(
        AppId::parse("a").unwrap(),
        MessageId(uuid::Uuid::nil()),
        Timestamp(0),
    )
}

fn ordered(
    message: &Message,
    device: &Device,
    policy: &AppPolicy,
    learned: &Learned,
) -> Vec<String> {
    ordered_at(message, device, policy, learned, LATER)
}

fn ordered_at(
    message: &Message,
    device: &Device,
    policy: &AppPolicy,
    learned: &Learned,
    at: Timestamp,
) -> Vec<String> {
    let built_in = BUILT_IN.map(id);
    let scores = learned.scores(&device.app);
    order(message, device, policy, &built_in, &scores, at)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_makers_channel_is_first_google_is_late_and_sms_is_asked_for() {
    let none = Learned::default();
    let check = |brand: &str, policy: &AppPolicy, class, wanted: &[&str], want: &[&str]| {
        let device = device(brand, &["sms", "fcm", "jpush", "xiaomi"]);
        let got = ordered(&message(class, wanted), &device, policy, &none);
        assert_eq!(got, want, "{brand} {policy:?} {wanted:?}");
    };
    let auto = AppPolicy::default();
    check("Redmi", &auto, Class::Im, &[], &["xiaomi", "jpush", "fcm"]);
    check("google", &auto, Class::Im, &[], &["fcm", "xiaomi", "jpush"]);
    check("nokia", &auto, Class::Im, &[], &["xiaomi", "jpush", "fcm"]);
    let abroad = AppPolicy {
        fcm_first: true,
        ..AppPolicy::default()
    };
    check(
        "redmi",
        &abroad,
        Class::Im,
        &[],
        &["fcm", "xiaomi", "jpush"],
    );
    let texts = AppPolicy {
        sms_fallback: vec![Class::Transaction],
        ..AppPolicy::default()
    };
    check(
        "redmi",
        &texts,
        Class::Transaction,
        &[],
        &["xiaomi", "jpush", "fcm", "sms"],
    );
    check(
        "redmi",
        &texts,
        Class::Marketing,
        &[],
        &["xiaomi", "jpush", "fcm"],
    );
    let named = AppPolicy {
        channel_order: vec![id("jpush"), id("oppo")],
        ..AppPolicy::default()
    };
    check("redmi", &named, Class::Im, &[], &["jpush", "xiaomi", "fcm"]);
    check("redmi", &named, Class::Im, &["sms", "fcm"], &["sms", "fcm"]);
}

#[test]
fn what_was_measured_moves_a_channel_for_its_phones_only() {
    let learned = Learned::default();
    let redmi = device("redmi", &["xiaomi", "jpush"]);
    let nokia = device("nokia", &["xiaomi", "jpush"]);
    let auto = AppPolicy::default();
    let im = message(Class::Im, &[]);
    for n in 0..1_000 {
        // A third arrives through the maker's channel, nearly all through the other.
        if n % 3 == 0 {
            learned.delivered(&id("xiaomi"), &redmi, START);
        }
        if n % 20 != 0 {
            learned.delivered(&id("jpush"), &redmi, START);
        }
        learned.accepted(&id("xiaomi"), &redmi, START);
        learned.accepted(&id("jpush"), &redmi, START);
    }
    let now = |at| ordered_at(&im, &redmi, &auto, &learned, at);
    assert_eq!(
        now(START),
        ["xiaomi", "jpush"],
        "receipts are still on their way"
    );
    assert_eq!(now(LATER), ["jpush", "xiaomi"]);
    assert_eq!(ordered(&im, &nokia, &auto, &learned), ["xiaomi", "jpush"]);
    let elsewhere = Device {
        locale: Some("de-DE".to_owned()),
        ..redmi.clone()
    };
    assert_eq!(
        ordered(&im, &elsewhere, &auto, &learned),
        ["xiaomi", "jpush"]
    );
    // What nobody uses any more is forgotten in time, and tried again.
    let days_later = Timestamp(START.millis() + 5 * 86_400_000);
    assert_eq!(now(days_later), ["xiaomi", "jpush"]);
}

#[test]
fn silence_of_a_channel_without_receipts_says_nothing_also_once_they_are_switched_on() {
    let learned = Learned::default();
    let redmi = device("redmi", &["xiaomi", "jpush"]);
    for _ in 0..5_000 {
        learned.accepted(&id("xiaomi"), &redmi, START);
    }
    let im = message(Class::Im, &[]);
    let got = || ordered(&im, &redmi, &AppPolicy::default(), &learned);
    assert_eq!(got(), ["xiaomi", "jpush"]);
    learned.delivered(&id("xiaomi"), &redmi, START);
    assert_eq!(got(), ["xiaomi", "jpush"]);
}

#[test]
fn groups_are_bounded() {
    let learned = Learned::default();
    for n in 0..GROUPS_MAX + 100 {
        learned.delivered(&id("fcm"), &device(&format!("maker{n}"), &["fcm"]), START);
    }
    assert_eq!(
        learned.scores(&AppId::parse("a").unwrap()).0.len(),
        GROUPS_MAX
    );
}
