use super::*;

fn phone(platform: &str, brand: &str) -> Phone {
    let mut phone = Phone::new(NewPhone::of(platform, brand, "", "u1"), 0).unwrap();
    phone.wish = 0;
    phone
}

fn push(message: &str) -> Push {
    Push {
        message: Some(message.to_owned()),
        title: format!("title of {message}"),
        body: "body".to_owned(),
        visible: true,
        collapse: None,
        expires_ms: 1_000_000,
        stored: true,
        receipt: None,
    }
}

fn patch(text: &str) -> PatchPhone {
    serde_json::from_str(text).unwrap()
}

#[test]
fn channels_follow_platform_and_brand() {
    let check = |platform, brand, want: &[Channel]| {
        assert_eq!(phone(platform, brand).channels, want, "{platform} {brand}");
    };
    check("ios", "apple", &[Channel::Apns]);
    check("android", "google", &[Channel::Fcm]);
    check("android", "Huawei", &[Channel::Huawei]);
    check("android", "redmi", &[Channel::Xiaomi]);
    check("harmony", "huawei", &[Channel::Harmony]);
    check("android", "OnePlus", &[Channel::Oppo]);
    check("android", "iqoo", &[Channel::Vivo]);
    check("web", "firefox", &[Channel::Webpush]);
    check("desktop", "linux", &[]);
    check("iot", "goose", &[]);
}

#[test]
fn a_background_app_keeps_its_connection_for_the_grace_of_its_platform() {
    let check = |platform: &str, at_ms: i64, want: bool| {
        let mut phone = phone(platform, "x");
        phone.apply(&patch(r#"{"state":"background"}"#), 0).unwrap();
        assert_eq!(
            phone.may_connect(at_ms).0,
            want,
            "{platform} after {at_ms} ms"
        );
    };
    check("ios", 9_999, true);
    check("ios", 10_000, false);
    check("android", 179_999, true);
    check("android", 180_000, false);
    check("harmony", 60_000, false);
    check("desktop", i64::MAX, true);
    check("iot", i64::MAX, true);
}

#[test]
fn what_keeps_an_app_from_connecting() {
    let check = |change: &str, want: bool| {
        let mut phone = phone("android", "google");
        phone.apply(&patch(change), 0).unwrap();
        assert_eq!(phone.may_connect(0).0, want, "{change}");
    };
    check(r#"{}"#, true);
    check(r#"{"network":"off"}"#, false);
    check(r#"{"installed":false}"#, false);
    check(r#"{"state":"killed"}"#, false);
    check(r#"{"permission":"denied"}"#, true);
    check(r#"{"user":null}"#, true);
}

#[test]
fn wrong_values_are_refused_and_change_nothing() {
    for wrong in [
        r#"{"network":"slow"}"#,
        r#"{"permission":"maybe"}"#,
        r#"{"user":""}"#,
    ] {
        let mut phone = phone("ios", "apple");
        let before = phone.view();
        assert!(phone.apply(&patch(wrong), 0).is_err(), "{wrong}");
        assert_eq!(phone.view(), before, "{wrong}");
    }
}

#[test]
fn a_message_is_shown_once_whatever_brings_it() {
    let mut phone = phone("android", "google");
    assert_eq!(phone.take_push(Channel::Fcm, push("m1"), 5), Shown::New);
    let notification = Some(("t".to_owned(), "b".to_owned()));
    assert_eq!(phone.take_message("m1", notification, None, 6), Shown::Copy);
    assert_eq!(phone.take_push(Channel::Fcm, push("m1"), 7), Shown::Copy);
    assert_eq!(phone.tray.len(), 1);
    assert_eq!(phone.tray[0].copies, 3);
    assert_eq!(phone.tray[0].via, "fcm");
    let displayed: Vec<_> = phone
        .reports
        .iter()
        .map(|(message, kind)| (message.as_str(), *kind))
        .collect();
    assert_eq!(displayed, [("m1", ReportKind::Displayed)]);
}

#[test]
fn only_platforms_that_run_code_report_what_they_display() {
    let check = |platform, brand, channel, state: &str, want: usize| {
        let mut phone = phone(platform, brand);
        phone
            .apply(&patch(&format!(r#"{{"state":"{state}"}}"#)), 0)
            .unwrap();
        phone.take_push(channel, push("m"), 0);
        assert_eq!(phone.reports.len(), want, "{channel} {state}");
        assert_eq!(phone.tray.len(), 1, "{channel} {state}");
    };
    check("ios", "apple", Channel::Apns, "killed", 1);
    check("android", "google", Channel::Fcm, "background", 1);
    check("android", "huawei", Channel::Huawei, "killed", 0);
    check("android", "huawei", Channel::Huawei, "foreground", 1);
    check("harmony", "huawei", Channel::Harmony, "background", 0);
    check("android", "xiaomi", Channel::Xiaomi, "killed", 0);
}

#[test]
fn without_permission_only_the_app_on_the_screen_shows() {
    let mut phone = phone("ios", "apple");
    phone
        .apply(&patch(r#"{"permission":"denied","state":"killed"}"#), 0)
        .unwrap();
    assert_eq!(phone.take_push(Channel::Apns, push("m1"), 0), Shown::Denied);
    assert!(phone.tray.is_empty());
    phone.apply(&patch(r#"{"state":"foreground"}"#), 0).unwrap();
    assert_eq!(phone.take_push(Channel::Apns, push("m1"), 0), Shown::New);
}

#[test]
fn apple_holds_the_newest_only_and_google_a_hundred() {
    let mut apple = phone("ios", "apple");
    for n in 0..3 {
        apple.hold(Channel::Apns, push(&format!("m{n}")), 0);
    }
    let held: Vec<_> = apple
        .stored
        .iter()
        .filter_map(|(_, push)| push.message.clone())
        .collect();
    assert_eq!(held, ["m2"]);

    let mut google = phone("android", "google");
    for n in 0..100 {
        google.hold(Channel::Fcm, push(&format!("m{n}")), 0);
    }
    assert_eq!(google.stored.len(), 100);
    google.hold(Channel::Fcm, push("one too many"), 0);
    assert_eq!(google.stored.len(), 1);

    let mut huawei = phone("android", "huawei");
    for n in 0..125 {
        huawei.hold(Channel::Huawei, push(&format!("m{n}")), 0);
    }
    assert_eq!(huawei.stored.len(), limits::STORED_PUSHES_MAX);
    let collapsing = || Push {
        collapse: Some("group 1".to_owned()),
        ..push("c")
    };
    huawei.hold(Channel::Huawei, collapsing(), 0);
    huawei.hold(Channel::Huawei, collapsing(), 0);
    let same = huawei
        .stored
        .iter()
        .filter(|(_, push)| push.collapse.is_some())
        .count();
    assert_eq!(same, 1);
}

#[test]
fn a_click_opens_the_app_and_is_reported_once() {
    let mut phone = phone("android", "xiaomi");
    phone.apply(&patch(r#"{"state":"killed"}"#), 0).unwrap();
    phone.take_push(Channel::Xiaomi, push("m"), 0);
    assert!(phone.click(9, 0).is_none());
    assert!(phone.click(1, 0).is_some());
    assert!(phone.click(1, 0).is_some());
    assert_eq!(phone.state, AppState::Foreground);
    assert_eq!(phone.reports, [("m".to_owned(), ReportKind::Clicked)]);
}

#[test]
fn a_newer_push_of_the_same_key_replaces_and_a_recall_removes() {
    let mut phone = phone("ios", "apple");
    let keyed = |message: &str| Push {
        collapse: Some("chat".to_owned()),
        ..push(message)
    };
    phone.take_push(Channel::Apns, keyed("m1"), 0);
    phone.take_push(Channel::Apns, keyed("m2"), 0);
    let gone = |phone: &Phone| {
        phone
            .tray
            .iter()
            .map(|entry| entry.gone)
            .collect::<Vec<_>>()
    };
    assert_eq!(gone(&phone), [true, false]);
    phone.recall("m2");
    assert_eq!(gone(&phone), [true, true]);
}

#[test]
fn the_tray_is_bounded_and_numbers_grow() {
    let mut phone = phone("ios", "apple");
    for n in 0..limits::TRAY_MAX + 3 {
        phone.take_push(Channel::Apns, push(&format!("m{n}")), 0);
    }
    assert_eq!(phone.tray.len(), limits::TRAY_MAX);
    assert_eq!(phone.tray[0].n, 4);
    assert!(phone.reports.len() <= limits::PHONE_ORDERS_MAX);
}

#[test]
fn the_record_survives_the_file() {
    let mut phone = phone("ios", "apple");
    phone.take_push(Channel::Apns, push("m"), 0);
    phone.hold(Channel::Apns, push("n"), 0);
    let text = serde_json::to_string(&phone).unwrap();
    let back: Phone = serde_json::from_str(&text).unwrap();
    assert_eq!(back.view(), phone.view());
    assert_eq!(back.tray, phone.tray);
    assert_eq!(back.stored, phone.stored);
}
