use hongyan_core::Class;

use super::body::china;
use super::*;
use crate::payload;
use crate::vendor::fixture;

const ID: &str = "018f0000-0000-7000-8000-000000000001";

fn config() -> Value {
    json!({
        "app_key": "key1", "master_secret": "s3cr3t", "channel_activity": "com.example.Push", "main_activity": "com.example.Main",
        "xiaomi_channels": {"transaction": {"channel_id": "100002", "template_id": "P2", "template_param": {"a": "{title}"}}},
        "android_channels": {"transaction": "orders"},
    })
}

fn encoded_with(config: &Value, outbound: &Outbound) -> Result<Value, (Reason, String)> {
    let config = Config::read(config).unwrap();
    let encoded = encode(&config, Some("https://push.example/cb"), outbound)?;
    let sent = |tokens: &[&str]| {
        let mut sent: Value =
            serde_json::from_slice(&encoded.with_tokens(tokens, fixture::NOW)).unwrap();
        let object = sent.as_object_mut().unwrap();
        assert_eq!(object.remove("timestamp"), Some(json!("1767229200")));
        let kind = object.remove("type").unwrap();
        let tokens = object.remove("device_tokens").unwrap();
        assert_eq!(
            sent,
            Value::Object(encoded.body.clone()),
            "what is shown is what is sent"
        );
        (kind, tokens)
    };
    assert_eq!(sent(&["a"]), (json!("unicast"), json!("a")));
    assert_eq!(sent(&["a", "b"]), (json!("listcast"), json!("a,b")));
    Ok(Value::Object(encoded.body.clone()))
}

fn encoded(outbound: &Outbound) -> Result<Value, (Reason, String)> {
    encoded_with(&config(), outbound)
}

#[test]
fn golden_android() {
    let keys = Value::Object(payload::text_keys(&fixture::message()));
    assert_eq!(
        encoded(&fixture::outbound()).unwrap(),
        json!({
            "appkey": "key1",
            "payload": {
                "display_type": "notification", "extra": keys,
                "body": {
                    "ticker": "Order 42", "title": "Order 42", "text": "is on its way", "after_open": "go_app",
                    "play_sound": "true", "play_vibrate": "true", "play_lights": "true", "set_badge": 3,
                },
            },
            "policy": {"expire_time": "2026-01-01 10:00:01"},
            "production_mode": "true", "category": 1, "description": ID,
            "channel_properties": {
                "channel_activity": "com.example.Push", "main_activity": "com.example.Main",
                "huawei_channel_category": "EXPRESS", "huawei_channel_importance": "NORMAL",
                "honor_channel_importance": "NORMAL", "oppo_category": "ORDER", "oppo_notify_level": "2",
                "vivo_category": "ORDER", "vivo_classification": "1", "meizu_msg_type": "1",
                "xiaomi_channel_id": "100002",
                "xiaomi_extra_properties": {"template_id": "P2", "template_param": "{\"a\":\"Order 42\"}"},
            },
            "local_properties": {"channel_id": "orders"},
            "receipt_url": "https://push.example/cb", "receipt_type": "3", "callback_params": {"hy_id": ID},
        })
    );
    let hidden = encoded(&fixture::data_only()).unwrap();
    assert_eq!(hidden["payload"]["display_type"], "message");
    assert!(
        hidden["payload"]["body"]["custom"]
            .as_str()
            .unwrap()
            .contains(ID)
    );
}

#[test]
fn golden_ios_and_harmony() {
    let mut ios = config();
    ios["platform"] = "ios".into();
    ios["production"] = false.into();
    let body = encoded_with(&ios, &fixture::outbound()).unwrap();
    assert_eq!(body["payload"]["hy_id"], ID);
    assert_eq!(
        body["payload"]["aps"],
        json!({"alert": {"title": "Order 42", "body": "is on its way"}, "sound": "default", "badge": 3,
               "thread-id": "orders", "interruption-level": "active"})
    );
    assert_eq!(body["policy"]["apns_collapse_id"], ID);
    assert_eq!(body["production_mode"], "false");
    assert!(body.get("channel_properties").is_none());
    let body = encoded_with(&ios, &fixture::data_only()).unwrap();
    assert_eq!(body["payload"]["aps"], json!({"content-available": 1}));
    let mut harmony = config();
    harmony["platform"] = "harmony".into();
    let body = encoded_with(&harmony, &fixture::outbound()).unwrap();
    assert_eq!(
        body["channel_properties"],
        json!({"harmony_channel_category": "EXPRESS"})
    );
    assert_eq!(body["payload"]["extra"]["hy_id"], ID);
}

#[test]
fn each_class_has_its_marks() {
    for (class, category, huawei, level, vivo) in [
        (Class::Im, 1, "IM", "2", "1"),
        (Class::Transaction, 1, "EXPRESS", "2", "1"),
        (Class::Subscription, 1, "SUBSCRIPTION", "2", "1"),
        (Class::Marketing, 0, "MARKETING", "1", "0"),
    ] {
        let mut message = fixture::message();
        message.class = class;
        let body = encoded(&fixture::of(message)).unwrap();
        let properties = &body["channel_properties"];
        assert_eq!(body["category"], category);
        assert_eq!(properties["huawei_channel_category"], huawei);
        assert_eq!(properties["oppo_notify_level"], level);
        assert_eq!(properties["vivo_classification"], vivo);
        let rings = if class == Class::Marketing {
            "false"
        } else {
            "true"
        };
        assert_eq!(body["payload"]["body"]["play_sound"], rings);
    }
}

#[test]
fn marketing_is_never_lifted_by_the_sender() {
    let extra = json!({
        "device_tokens": "x", "type": "broadcast", "alias": "x", "filter": {}, "appkey": "other", "category": 1,
        "channel_properties": {"huawei_channel_category": "IM"}, "callback_params": {"hy_id": "forged"},
        "payload": {"body": {"sound": "bell"}, "extra": {"hy_id": "forged", "own": "1"}},
    });
    let mut outbound = fixture::with_vendor(NAME, &extra);
    let mut message = (*outbound.message).clone();
    message.class = Class::Marketing;
    outbound.message = Arc::new(message);
    let body = encoded(&outbound).unwrap();
    assert!(body.get("alias").is_none() && body.get("filter").is_none());
    assert_eq!(
        (&body["appkey"], &body["category"]),
        (&json!("key1"), &json!(0))
    );
    assert_eq!(
        body["channel_properties"]["huawei_channel_category"],
        "MARKETING"
    );
    assert_eq!(body["callback_params"]["hy_id"], ID);
    assert_eq!(body["payload"]["body"]["sound"], "bell");
    assert_eq!(body["payload"]["extra"]["hy_id"], ID);
    assert_eq!(body["payload"]["extra"]["own"], "1");
    let mut allowed = config();
    allowed["class_override"] = true.into();
    let body = encoded_with(&allowed, &outbound).unwrap();
    assert_eq!(body["channel_properties"]["huawei_channel_category"], "IM");
}

#[test]
fn too_large_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(2048)}).as_object().cloned();
    assert_eq!(
        encoded(&fixture::of(message)).unwrap_err().0,
        Reason::PayloadTooLarge
    );
}

#[test]
fn the_signature_is_of_method_address_body_and_secret() {
    // printf '%s' 'POSThttps://msgapi.umeng.com/api/send{"a":1}secret' | md5sum
    let got = sign(
        "POST",
        "https://msgapi.umeng.com/api/send",
        b"{\"a\":1}",
        b"secret",
    );
    assert_eq!(got, "03181942cb716fb4dd110d66a1ecf2d6");
    assert_eq!(china(fixture::NOW), "2026-01-01 09:00:00");
}

#[test]
fn tokens_are_of_one_platform() {
    assert!(Platform::Android.knows(&"A".repeat(44)));
    assert!(!Platform::Android.knows(&"A".repeat(43)));
    assert!(!Platform::Android.knows(&format!("{},", "A".repeat(43))));
    assert!(Platform::Ios.knows(&"a0".repeat(32)) && !Platform::Ios.knows(&"x0".repeat(32)));
    assert!(Platform::Harmony.knows("h") && !Platform::Harmony.knows(""));
}

#[test]
fn verdict_table() {
    let check = |codes: &[u32], want: &str| {
        for code in codes {
            let data = json!({"error_code": code.to_string(), "error_msg": "m"});
            let body = json!({"ret": "FAIL", "data": data}).to_string();
            let verdict = decode(&fixture::answer(400, &body), fixture::NOW);
            assert_eq!(fixture::words(&verdict), want, "{code}");
        }
    };
    check(
        &[
            1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
            1015, 1016, 1017, 1019, 1022, 1024, 1026, 1027, 1028, 2001, 2002, 2003, 2005, 2008,
            2009, 2010, 2011, 2015, 2016, 2017, 2018, 2019, 2024, 2025, 2029, 2030, 2031, 2039,
            2040, 2046, 2047, 2048, 2049, 2053, 5002, 10089, 99999,
        ],
        "refused payload_rejected",
    );
    check(
        &[
            1000, 1018, 1020, 2000, 2004, 2006, 2007, 2021, 2027, 2032, 2033, 2034, 2035, 2036,
            2052, 2054, 5001, 5007, 5008, 5009, 5010, 6001, 6002,
        ],
        "credential_bad",
    );
    check(&[2012], "quota");
    check(&[2026, 2050], "retry vendor_rate_limited not_taken");
    check(
        &[
            2013, 2014, 2020, 2023, 2028, 2038, 3000, 3001, 3002, 3003, 3004, 6003, 6004,
        ],
        "retry vendor_unavailable not_taken",
    );
    check(&[2022], "refused payload_too_large");
    check(
        &[4010, 4014, 4020, 4025, 4026, 5000, 5005],
        "token_dead token_invalid",
    );
    let plain = |status, body, want: &str| {
        let verdict = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {body}");
    };
    plain(
        200,
        r#"{"ret":"SUCCESS","data":{"msg_id":"uu1"}}"#,
        "accepted",
    );
    plain(400, "<html>", "refused payload_rejected");
    plain(503, "", "retry vendor_unavailable not_taken");
    plain(404, "", "credential_bad");
    plain(200, "{}", "retry vendor_unavailable maybe_taken");
}

#[test]
fn receipts_are_read() {
    let body = json!([
        {"msg_id": "uu1", "device_token": "t", "type": 1, "ts": 1_767_229_200_000_i64, "callback_params": {"hy_id": ID}},
        {"task_id": "us1", "type": "2", "callback_params": format!("{{\"hy_id\":\"{ID}\"}}")},
        {"msg_id": "uu1", "type": 3}, {"type": 1}, 7,
    ]);
    let read = receipts(body.to_string().as_bytes()).unwrap();
    assert!(!read.signed);
    let kinds: Vec<ReceiptKind> = read.receipts.iter().map(|r| r.kind).collect();
    assert_eq!(
        kinds,
        [
            ReceiptKind::Delivered,
            ReceiptKind::Clicked,
            ReceiptKind::Dismissed
        ]
    );
    for receipt in &read.receipts[..2] {
        assert_eq!(receipt.message.unwrap().to_string(), ID);
    }
    assert_eq!(read.receipts[0].at, Some(fixture::NOW));
    assert_eq!(read.receipts[1].vendor_id.as_deref(), Some("us1"));
    assert!(receipts(b"<html>").is_err() && receipts(b"7").is_err());
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Umeng::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(
        (&shown["app_key"], &shown["platform"]),
        (&json!("key1"), &json!("android"))
    );
    assert!(!Value::Object(shown).to_string().contains("s3cr3t"));
    let bad = json!({"app_key": "a b", "platform": "symbian", "payload_bytes_max": 1, "production": 1, "typo": 1});
    let faults = vendor.check_config(&bad).unwrap_err();
    let want = [
        "app_key",
        "master_secret",
        "platform",
        "payload_bytes_max",
        "production",
        "typo",
    ];
    assert_eq!(fixture::paths(&faults), want);
}

#[test]
fn only_ios_replaces_a_push_by_its_repeat() {
    let repeats = |platform: &str| {
        let mut config = config();
        config["platform"] = platform.into();
        let opened = Umeng::new(&fixture::egress()).open(OpenCredential {
            app: hongyan_core::AppId::parse("demo").unwrap(),
            name: hongyan_core::CredentialName::parse("default").unwrap(),
            config: Secret::new(config.to_string()),
            endpoint: None,
            callback: None,
        });
        opened.unwrap().repeats()
    };
    assert_eq!(repeats("ios"), Some(true));
    assert_eq!(repeats("android"), Some(false));
    assert_eq!(repeats("harmony"), Some(false));
}
