use super::*;
use crate::payload;
use crate::vendor::fixture;

fn config() -> Value {
    json!({
        "key_id": "ABCDE12345", "team_id": "TEAM567890", "bundle_id": "com.example.app",
        "private_key": fixture::ec_pem(),
    })
}

fn encoded(outbound: &Outbound) -> Result<(Vec<String>, Value), (Reason, String)> {
    let encoded = encode(&Config::read(&config()).unwrap(), outbound)?;
    encoded.fits(encoded.push_type.bytes_max)?;
    let headers = encoded
        .headers
        .iter()
        .map(|(n, v)| format!("{n}: {v}"))
        .collect();
    Ok((headers, encoded.shown()))
}

#[test]
fn golden_alert() {
    let (headers, body) = encoded(&fixture::outbound()).unwrap();
    assert_eq!(
        headers,
        [
            "apns-push-type: alert",
            "apns-topic: com.example.app",
            "apns-priority: 10",
            "apns-expiration: 1767232800",
            "apns-collapse-id: 018f0000-0000-7000-8000-000000000001",
        ]
    );
    let user = payload::user_hash(
        &hongyan_core::AppId::parse("demo").unwrap(),
        &hongyan_core::UserId::parse("u1").unwrap(),
    );
    assert_eq!(
        body,
        json!({
            "aps": {
                "alert": {"title": "Order 42", "body": "is on its way"},
                "badge": 3, "sound": "default", "thread-id": "orders",
                "interruption-level": "active", "mutable-content": 1,
            },
            "hy_id": "018f0000-0000-7000-8000-000000000001",
            "hy_data": {"order": 42}, "hy_url": "app://order/42", "hy_user": user,
        })
    );
}

#[test]
fn golden_background_for_data_alone() {
    let (headers, body) = encoded(&fixture::data_only()).unwrap();
    assert_eq!(headers[0], "apns-push-type: background");
    assert_eq!(headers[2], "apns-priority: 5");
    assert_eq!(body["aps"], json!({"content-available": 1}));
    assert_eq!(body["hy_data"], json!({"order": 42}));
}

#[test]
fn each_class_has_its_marks() {
    use hongyan_core::Class;
    for (class, priority, level, sound) in [
        (Class::Im, "10", "active", true),
        (Class::Transaction, "10", "active", true),
        (Class::Subscription, "10", "active", true),
        (Class::Marketing, "5", "passive", false),
    ] {
        let mut message = fixture::message();
        message.class = class;
        let (headers, body) = encoded(&fixture::of(message)).unwrap();
        assert_eq!(headers[2], format!("apns-priority: {priority}"));
        assert_eq!(body["aps"]["interruption-level"], level);
        assert_eq!(body["aps"].get("sound").is_some(), sound);
    }
}

#[test]
fn every_push_type_has_its_topic() {
    for (name, topic) in [
        ("alert", "com.example.app"),
        ("background", "com.example.app"),
        ("voip", "com.example.app.voip"),
        ("complication", "com.example.app.complication"),
        ("fileprovider", "com.example.app.pushkit.fileprovider"),
        ("location", "com.example.app.location-query"),
        ("pushtotalk", "com.example.app.voip-ptt"),
        ("widgets", "com.example.app.push-type.widgets"),
        ("controls", "com.example.app.push-type.controls"),
    ] {
        let outbound = fixture::with_vendor(NAME, &json!({"push_type": name}));
        let (headers, _) = encoded(&outbound).unwrap();
        assert_eq!(headers[0], format!("apns-push-type: {name}"));
        assert_eq!(headers[1], format!("apns-topic: {topic}"));
    }
    let mdm = json!({"push_type": "mdm", "mdm": "magic", "topic": "com.apple.mgmt.x"});
    let (headers, body) = encoded(&fixture::with_vendor(NAME, &mdm)).unwrap();
    assert_eq!(headers[1], "apns-topic: com.apple.mgmt.x");
    assert_eq!(body, json!({"mdm": "magic"}));
}

#[test]
fn live_activities_are_checked() {
    let start = json!({
        "push_type": "liveactivity", "event": "start", "attributes_type": "Flight",
        "attributes": {"no": "XY1"}, "content_state": {"gate": "B7"}, "stale_date": 1,
    });
    let (headers, body) = encoded(&fixture::with_vendor(NAME, &start)).unwrap();
    assert_eq!(
        headers[1],
        "apns-topic: com.example.app.push-type.liveactivity"
    );
    assert_eq!(headers.len(), 4, "no collapse id");
    assert_eq!(body["aps"]["timestamp"], 1_767_229_200);
    assert_eq!(body["aps"]["content-state"], json!({"gate": "B7"}));
    assert_eq!(body["aps"]["attributes-type"], "Flight");
    assert!(body["aps"]["alert"].is_object());
    for bad in [
        json!({"push_type": "liveactivity"}),
        json!({"push_type": "liveactivity", "event": "update"}),
        json!({"push_type": "liveactivity", "event": "start", "content_state": {}}),
    ] {
        let (reason, _) = encoded(&fixture::with_vendor(NAME, &bad)).unwrap_err();
        assert_eq!(reason, Reason::PayloadRejected, "{bad}");
    }
}

#[test]
fn live_activities_are_held_against_apples_types() {
    let live = |more: &[(&str, Value)]| {
        let mut fields = json!({"push_type": "liveactivity", "event": "update", "content_state": {"gate": "B7"}});
        for (name, value) in more {
            fields[*name] = value.clone();
        }
        encoded(&fixture::with_vendor(NAME, &fields))
    };
    live(&[("stale_date", json!(1)), ("relevance_score", json!(80.5))]).unwrap();
    live(&[
        ("event", json!("end")),
        ("content_state", Value::Null),
        ("dismissal_date", json!(0)),
    ])
    .unwrap();
    for (field, value) in [
        ("content_state", json!("B7")),
        ("stale_date", json!("soon")),
        ("dismissal_date", json!(1.5)),
        ("timestamp", json!("now")),
        ("relevance_score", json!("high")),
        ("attributes", json!({})),
        ("input_push_token", json!(1)),
        ("event", json!("begin")),
    ] {
        let (reason, words) = live(&[(field, value)]).unwrap_err();
        assert_eq!(reason, Reason::PayloadRejected, "{field}: {words}");
    }
    let start = [
        ("event", json!("start")),
        ("attributes_type", json!("Flight")),
        ("attributes", json!({"no": "XY1"})),
        ("input_push_channel", json!("abc=")),
    ];
    let (_, body) = live(&start).unwrap();
    assert_eq!(body["aps"]["input-push-channel"], "abc=");
}

#[test]
fn an_activitys_time_is_the_messages_own() {
    let fields = json!({"push_type": "liveactivity", "event": "update", "content_state": {}});
    let mut late = fixture::with_vendor(NAME, &fields);
    late.now = late.now.plus(Duration::from_secs(600));
    let (_, body) = encoded(&late).unwrap();
    assert_eq!(body["aps"]["timestamp"], fixture::NOW.seconds());
    let mut message = (*late.message).clone();
    message.options.send_at = Some(fixture::NOW.plus(Duration::from_secs(300)));
    let (_, body) = encoded(&fixture::of(message)).unwrap();
    assert_eq!(body["aps"]["timestamp"], fixture::NOW.seconds() + 300);
}

#[test]
fn calls_are_for_now_or_never() {
    for (name, want) in [
        ("voip", "0"),
        ("pushtotalk", "0"),
        ("location", "1767232800"),
    ] {
        let outbound = fixture::with_vendor(NAME, &json!({"push_type": name}));
        let (headers, _) = encoded(&outbound).unwrap();
        assert_eq!(headers[3], format!("apns-expiration: {want}"));
    }
}

#[test]
fn tokens_say_what_they_are_for() {
    use Address::{Broadcast, Device};
    for (token, want) in [
        ("00ff", Device(None, "00ff")),
        ("00FF", Device(None, "00FF")),
        ("voip:00ff", Device(Some("voip"), "00ff")),
        ("liveactivity:00ff", Device(Some("liveactivity"), "00ff")),
        (
            "broadcast:dHN0LXNyY2gtY2hubA==",
            Broadcast("dHN0LXNyY2gtY2hubA=="),
        ),
    ] {
        assert_eq!(Address::parse(token), Ok(want));
    }
    let long = format!("broadcast:{}", "A".repeat(257));
    for bad in [
        "",
        "0",
        "xyz",
        "voip:",
        "voip:0",
        "fax:00",
        "broadcast:",
        "broadcast:a b",
        &long,
    ] {
        assert!(Address::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_senders_fields_are_merged_last() {
    let extra = json!({
        "interruption_level": "time-sensitive", "subtitle": "s", "priority": 5, "collapse_id": "k",
        "aps": {"badge": null, "alert": {"loc-key": "K"}}, "own": [1], "hy_id": "forged",
    });
    let (headers, body) = encoded(&fixture::with_vendor(NAME, &extra)).unwrap();
    assert!(headers.contains(&"apns-priority: 5".to_owned()));
    assert!(headers.contains(&"apns-collapse-id: k".to_owned()));
    assert_eq!(body["aps"]["interruption-level"], "time-sensitive");
    assert_eq!(body["aps"]["alert"]["subtitle"], "s");
    assert_eq!(body["aps"]["alert"]["loc-key"], "K");
    assert!(body["aps"].get("badge").is_none());
    assert_eq!(body["own"], json!([1]));
    assert_eq!(body["hy_id"], "018f0000-0000-7000-8000-000000000001");
}

#[test]
fn what_apple_would_refuse_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(4096)}).as_object().cloned();
    let (reason, words) = encoded(&fixture::of(message)).unwrap_err();
    assert_eq!(reason, Reason::PayloadTooLarge);
    assert!(words.contains("4096"), "{words}");
    for bad in [
        json!({"push_type": "telegram"}),
        json!({"push_type": 1}),
        json!({"priority": 7}),
        json!({"push_type": "background", "priority": 10}),
        json!({"push_type": "background", "priority": 1}),
        json!({"push_type": "background", "priority": "10"}),
        json!({"topic": {"a": 1}}),
        json!({"topic": ""}),
        json!({"topic": " "}),
        json!({"collapse_id": "a\nb"}),
        json!({"collapse_id": ""}),
        json!({"expiration": -1}),
        json!({"expiration": 1.5}),
        json!({"expiration": "tomorrow"}),
        json!({"expiration": ""}),
    ] {
        let (reason, words) = encoded(&fixture::with_vendor(NAME, &bad)).unwrap_err();
        assert_eq!(reason, Reason::PayloadRejected, "{bad}");
        assert!(words.contains("vendor.apns."), "{words}");
    }
}

#[test]
fn background_pushes_are_never_urgent() {
    let mut message = fixture::message();
    message.notification = None;
    message.options.priority = Some(hongyan_core::message::Priority::High);
    let (headers, _) = encoded(&fixture::of(message)).unwrap();
    assert_eq!(headers[2], "apns-priority: 5");
    for expiration in [json!(0), json!("1767232801")] {
        let fields = json!({"push_type": "background", "priority": 5, "expiration": expiration});
        let (headers, _) = encoded(&fixture::with_vendor(NAME, &fields)).unwrap();
        let want = expiration.as_str().unwrap_or("0");
        assert_eq!(headers[3], format!("apns-expiration: {want}"));
    }
}

#[test]
fn an_id_is_of_one_message_and_one_token() {
    let message = fixture::message().id;
    let other = hongyan_core::MessageId::parse("018f0000-0000-7000-8000-000000000002").unwrap();
    let id = encoding::apns_id(message, "00ff");
    assert_eq!(id, encoding::apns_id(message, "00ff"));
    assert_ne!(id, encoding::apns_id(message, "00fe"));
    assert_ne!(id, encoding::apns_id(other, "00ff"));
}

#[test]
fn verdict_table() {
    let check = |status: u16, reason: &str, want: &str| {
        let body = if reason.is_empty() {
            String::new()
        } else {
            json!({"reason": reason}).to_string()
        };
        let verdict = decode(&fixture::answer(status, &body), fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {reason}");
    };
    check(200, "", "accepted");
    for reason in [
        "BadCollapseId",
        "BadExpirationDate",
        "BadMessageId",
        "BadPriority",
        "DuplicateHeaders",
        "InvalidPushType",
        "MissingDeviceToken",
        "PayloadEmpty",
        "BadRequestPayload",
        "NewReason",
        "",
    ] {
        check(400, reason, "refused payload_rejected");
    }
    check(400, "BadDeviceToken", "token_dead token_invalid");
    check(400, "DeviceTokenNotForTopic", "refused token_environment");
    for reason in ["ChannelNotRegistered", "BadChannelId"] {
        check(400, reason, "token_dead token_invalid");
    }
    for reason in ["MissingChannelId", "MissingPushType", "BadRequestParams"] {
        check(400, reason, "refused payload_rejected");
    }
    check(
        503,
        "Service Unavailable",
        "retry vendor_unavailable not_taken",
    );
    check(403, "TopicMismatch", "credential_bad");
    for reason in [
        "BadTopic",
        "MissingTopic",
        "TopicDisallowed",
        "FeatureNotEnabled",
    ] {
        check(400, reason, "credential_bad");
    }
    check(400, "IdleTimeout", "retry vendor_unavailable not_taken");
    for reason in [
        "BadCertificate",
        "BadCertificateEnvironment",
        "Forbidden",
        "InvalidProviderToken",
        "MissingProviderToken",
        "BadEnvironmentKeyIdInToken",
        "BadEnvironmentKeyInToken",
        "",
    ] {
        check(403, reason, "credential_bad");
    }
    check(
        403,
        "ExpiredProviderToken",
        "retry vendor_unavailable not_taken",
    );
    check(
        403,
        "UnrelatedKeyIdInToken",
        "retry vendor_unavailable not_taken",
    );
    check(404, "BadPath", "credential_bad");
    check(405, "MethodNotAllowed", "credential_bad");
    check(410, "Unregistered", "token_dead token_invalid");
    check(410, "ExpiredToken", "token_dead token_invalid");
    check(413, "PayloadTooLarge", "refused payload_too_large");
    check(
        429,
        "TooManyProviderTokenUpdates",
        "retry vendor_rate_limited not_taken",
    );
    // One device's.
    check(429, "TooManyRequests", "device_limited 60s");
    check(
        500,
        "InternalServerError",
        "retry vendor_unavailable not_taken",
    );
    check(
        503,
        "ServiceUnavailable",
        "retry vendor_unavailable not_taken",
    );
    check(503, "Shutdown", "retry vendor_unavailable not_taken");
    check(502, "", "retry vendor_unavailable not_taken");
}

#[test]
fn a_dead_token_is_told_with_its_time() {
    let body = r#"{"reason":"Unregistered","timestamp":1767229200123}"#;
    let verdict = decode(&fixture::answer(410, body), fixture::NOW);
    assert_eq!(
        verdict.detail(),
        "410 Unregistered since 2026-01-01T01:00:00.123Z"
    );
}

#[test]
fn a_batch_of_bad_tokens_kills_none() {
    let bad = decode(
        &fixture::answer(400, r#"{"reason":"BadDeviceToken"}"#),
        fixture::NOW,
    );
    let few = vendor::spare_tokens(vec![bad.clone(); 9], wrong_environment);
    assert!(few.iter().all(|v| v.reason() == Reason::TokenInvalid));
    let all = vendor::spare_tokens(vec![bad.clone(); 10], wrong_environment);
    assert!(
        all.iter()
            .all(|v| fixture::words(v) == "refused token_environment")
    );
    let mut mixed = vec![bad; 10];
    mixed.push(accepted(None));
    assert_eq!(
        vendor::spare_tokens(mixed.clone(), wrong_environment),
        mixed
    );
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Apns::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(
        Value::Object(shown),
        json!({"auth": "token", "key_id": "ABCDE12345", "team_id": "TEAM567890",
               "bundle_id": "com.example.app", "environment": "production"})
    );
    let bad = json!({"key_id": "x", "private_key": "p", "environment": "moon", "extra": 1});
    let faults = vendor.check_config(&bad).unwrap_err();
    assert_eq!(
        fixture::paths(&faults),
        [
            "bundle_id",
            "environment",
            "key_id",
            "team_id",
            "private_key",
            "extra"
        ]
    );
    assert!(
        vendor
            .check_config(&json!({"certificate": "c", "private_key": "p", "bundle_id": "b"}))
            .is_err()
    );
}

#[test]
fn channels_are_managed_where_apple_says_or_the_endpoint_does() {
    use Environment::{Production, Sandbox};
    let rows = [
        (
            None,
            Production,
            "https://api-manage-broadcast.push.apple.com:2196",
        ),
        (
            None,
            Sandbox,
            "https://api-manage-broadcast.sandbox.push.apple.com:2195",
        ),
        // The port that is made for firewalls is one for sending.
        (
            Some("https://api.push.apple.com:2197"),
            Production,
            "https://api-manage-broadcast.push.apple.com:2196",
        ),
        (
            Some("https://apns.example:8443"),
            Sandbox,
            "https://apns.example:8443",
        ),
    ];
    for (own, environment, want) in rows {
        assert_eq!(manage::endpoint(own, environment), want, "{own:?}");
    }
}

/// The refusals of Apple's page on channels, and what becomes of each.
#[test]
fn refusals_of_channel_management() {
    use hongyan_core::port::BroadcastError;
    let word = |status: u16, reason: &str| {
        let answer = Answer {
            status,
            headers: http::HeaderMap::new(),
            body: json!({"reason": reason}).to_string().into(),
        };
        match manage::failure(&answer, Timestamp(0)) {
            BroadcastError::NotFound => "not found",
            BroadcastError::Full { .. } => "full",
            BroadcastError::Vendor(Verdict::CredentialBad { .. }) => "credential",
            BroadcastError::Vendor(Verdict::Refused { .. }) => "refused",
            BroadcastError::Vendor(Verdict::Retry { .. }) => "later",
            BroadcastError::Vendor(other) => panic!("{other:?}"),
        }
    };
    let rows = [
        (400, "ChannelNotRegistered", "not found"),
        (400, "BadChannelId", "not found"),
        (400, "MissingChannelId", "refused"),
        (400, "CannotCreateChannelConfig", "full"),
        (400, "FeatureNotEnabled", "credential"),
        (400, "TopicDisallowed", "credential"),
        (403, "TopicMismatch", "credential"),
        (403, "InvalidProviderToken", "credential"),
        (404, "BadPath", "credential"),
        (410, "Unregistered", "credential"),
        (400, "BadRequestParams", "refused"),
        (400, "BadRequestPayload", "refused"),
        (400, "MissingPushType", "refused"),
        (400, "MissingChannelQueueSize", "refused"),
        (429, "TooManyRequests", "later"),
        (500, "InternalServerError", "later"),
        (503, "Service Unavailable", "later"),
        (200, "", "later"),
    ];
    for (status, reason, want) in rows {
        assert_eq!(word(status, reason), want, "{status} {reason}");
    }
}
