use hongyan_core::port::ReceiptKind;
use hongyan_core::{Class, ClassDetail};

use super::*;
use crate::payload;
use crate::vendor::fixture;

const ID: &str = "018f0000-0000-7000-8000-000000000001";

fn config() -> Value {
    json!({
        "app_key": "7d431e42dfa6a6d693ac2d04", "master_secret": "5e987ac6d2e04d95a9d8f0d1", "vip": true,
        "xiaomi_channels": {"transaction": {"channel_id": "100002", "template_id": "P2", "template_param": {"a": "{title}"}}},
        "android_channels": {"transaction": "orders"}, "badge_class": "com.example.Main", "distribution": "first_ospush",
    })
}

fn encoded_with(config: &Value, outbound: &Outbound) -> Result<Value, (Reason, String)> {
    let config = Config::read(config).unwrap();
    let encoded = encode(&config, Some("https://push.example/cb"), outbound)?;
    let mut sent: Value =
        serde_json::from_slice(&encoded.with_tokens(&["a", "b"], Some("c"))).unwrap();
    let object = sent.as_object_mut().unwrap();
    let audience = object.remove("audience");
    assert_eq!(audience, Some(json!({"registration_id": ["a", "b"]})));
    assert_eq!(object.remove("cid"), Some(json!("c")));
    assert_eq!(
        sent,
        Value::Object(encoded.body),
        "what is shown is what is sent"
    );
    Ok(sent)
}

fn encoded(outbound: &Outbound) -> Result<Value, (Reason, String)> {
    encoded_with(&config(), outbound)
}

#[test]
fn golden_notification() {
    let keys = Value::Object(payload::text_keys(&fixture::message()));
    assert_eq!(
        encoded(&fixture::outbound()).unwrap(),
        json!({
            "platform": ["android", "ios", "hmos"],
            "notification": {
                "alert": "is on its way",
                "android": {
                    "alert": "is on its way", "title": "Order 42", "extras": keys, "priority": 0, "alert_type": -1,
                    "channel_id": "orders", "badge_set_num": 3, "badge_class": "com.example.Main",
                },
                "ios": {
                    "alert": {"title": "Order 42", "body": "is on its way"}, "extras": keys, "sound": "default",
                    "interruption-level": "active", "badge": 3, "thread-id": "orders",
                },
                "hmos": {
                    "alert": "is on its way", "title": "Order 42", "category": "EXPRESS", "extras": keys,
                    "badge_set_num": 3,
                },
            },
            "options": {
                "time_to_live": 3600, "apns_production": true, "apns_collapse_id": ID, "classification": 1,
                "third_party_channel": {
                    "huawei": {"category": "EXPRESS", "importance": "NORMAL", "distribution": "first_ospush"},
                    "honor": {"importance": "NORMAL", "distribution": "first_ospush"},
                    "oppo": {"category": "ORDER", "notify_level": 2, "distribution": "first_ospush"},
                    "vivo": {"category": "ORDER", "classification": 1, "distribution": "first_ospush"},
                    "xiaomi": {"channel_id": "100002", "mi_template_id": "P2",
                               "mi_template_param": "{\"a\":\"Order 42\"}", "distribution": "first_ospush"},
                    "meizu": {"distribution": "first_ospush"},
                },
            },
            "callback": {"url": "https://push.example/cb", "type": 3, "params": {"hy_id": ID}},
        })
    );
    // The public documentation's example.
    let basic = Config::read(&config()).unwrap().basic();
    assert_eq!(
        basic,
        "Basic N2Q0MzFlNDJkZmE2YTZkNjkzYWMyZDA0OjVlOTg3YWM2ZDJlMDRkOTVhOWQ4ZjBkMQ=="
    );
}

#[test]
fn golden_data_message() {
    let body = encoded(&fixture::data_only()).unwrap();
    assert!(body.get("notification").is_none());
    let content = body["message"]["msg_content"].as_str().unwrap();
    assert!(content.contains("hy_data") && content.contains(ID));
}

#[test]
fn each_class_has_its_marks() {
    let rows = [
        (Class::Im, None, "IM 1 1", "IM 2 IM 1"),
        (
            Class::Transaction,
            Some(ClassDetail::Finance),
            "FINANCE 1 0",
            "ACCOUNT 2 ACCOUNT 1",
        ),
        (
            Class::Subscription,
            None,
            "SUBSCRIPTION 1 0",
            "SUBSCRIPTION 2 SUBSCRIPTION 1",
        ),
        (
            Class::Marketing,
            None,
            "MARKETING 0 -1",
            "MARKETING 1 MARKETING 0",
        ),
    ];
    for (class, detail, huawei, others) in rows {
        let mut message = fixture::message();
        (message.class, message.class_detail) = (class, detail);
        let body = encoded(&fixture::of(message)).unwrap();
        let makers = &body["options"]["third_party_channel"];
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let got = [
            &makers["huawei"]["category"],
            &body["options"]["classification"],
            &body["notification"]["android"]["priority"],
        ];
        assert_eq!(got.map(text).join(" "), huawei);
        let got = [
            &makers["oppo"]["category"],
            &makers["oppo"]["notify_level"],
            &makers["vivo"]["category"],
            &makers["vivo"]["classification"],
        ];
        assert_eq!(got.map(text).join(" "), others);
        assert_eq!(
            body["notification"]["hmos"]["category"],
            makers["huawei"]["category"]
        );
    }
}

#[test]
fn what_is_not_granted_goes_out_as_marketing() {
    let mut granted = config();
    granted["granted"] = json!(["im"]);
    let read = Config::read(&granted).unwrap();
    let encoded = encode(&read, None, &fixture::outbound()).unwrap();
    assert!(encoded.downgraded.is_some());
    assert_eq!(encoded.body["options"]["classification"], 0);
    granted["strict_classes"] = true.into();
    let read = Config::read(&granted).unwrap();
    let refused = encode(&read, None, &fixture::outbound()).err().unwrap();
    assert_eq!(refused.0, Reason::ClassNotGranted);
}

#[test]
fn marketing_is_never_lifted_by_the_sender() {
    let extra = json!({
        "audience": "all", "cid": "x", "platform": ["android"],
        "options": {"classification": 1, "sendno": 7, "third_party_channel": {
            "huawei": {"category": "IM", "importance": "NORMAL", "large_icon": "x"}, "xiaomi": {"channel_id": "100001"},
            "nio": {"classification": 1}, "vivo": "text"}},
        "notification": {"android": {"channel_id": "x", "extras": {"own": 1, "hy_id": "forged"}}, "hmos": {"category": "IM"}},
        "callback": {"params": {"hy_id": "forged"}},
    });
    let mut outbound = fixture::with_vendor(NAME, &extra);
    let mut message = (*outbound.message).clone();
    message.class = Class::Marketing;
    outbound.message = Arc::new(message);
    let mut plain = config();
    plain["platforms"] = json!(["android", "hmos"]);
    let body = encoded_with(&plain, &outbound).unwrap();
    let makers = &body["options"]["third_party_channel"];
    assert_eq!(body["options"]["classification"], 0);
    assert_eq!(body["options"]["sendno"], 7);
    assert_eq!(makers["huawei"]["category"], "MARKETING");
    assert_eq!(makers["huawei"]["importance"], "LOW");
    assert_eq!(makers["huawei"]["large_icon"], "x");
    assert!(makers["xiaomi"].get("channel_id").is_none());
    assert!(makers["nio"].get("classification").is_none());
    assert_eq!(makers["vivo"]["classification"], 0);
    let android = &body["notification"]["android"];
    assert!(android.get("channel_id").is_none());
    assert_eq!(
        (&android["extras"]["own"], &android["extras"]["hy_id"]),
        (&json!(1), &json!(ID))
    );
    assert_eq!(body["notification"]["hmos"]["category"], "MARKETING");
    assert_eq!(body["callback"]["params"]["hy_id"], ID);
    plain["class_override"] = true.into();
    let body = encoded_with(&plain, &outbound).unwrap();
    assert_eq!(
        body["options"]["third_party_channel"]["huawei"]["category"],
        "IM"
    );
}

#[test]
fn too_large_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(2500)}).as_object().cloned();
    let outbound = fixture::of(message);
    let refused = encoded(&outbound).unwrap_err();
    assert_eq!(refused.0, Reason::PayloadTooLarge);
    assert!(refused.1.contains("iOS"), "{}", refused.1);
    let mut android = config();
    android["platforms"] = json!(["android"]);
    assert!(
        encoded_with(&android, &outbound).is_ok(),
        "the app has no iOS"
    );
}

#[test]
fn verdict_table() {
    let check = |status: u16, code: i64, want: &str| {
        let body = json!({"error": {"code": code, "message": "m"}}).to_string();
        let verdict = decode(&fixture::answer(status, &body), fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {code}");
    };
    for (status, code) in [
        (500, 1000),
        (500, 7000),
        (503, 7030),
        (500, 8200),
        (503, 8203),
        (500, 10),
    ] {
        check(status, code, "retry vendor_unavailable not_taken");
    }
    check(503, 1030, "retry vendor_unavailable maybe_taken");
    for code in [1001, 1002, 1003, 1009, 1035, 2006, 2007, 7002, 7013, 4711] {
        check(400, code, "refused payload_rejected");
    }
    for code in [1004, 1008, 1020, 2003, 2004, 7001, 7004, 7008, 8101, 3001] {
        check(401, code, "credential_bad");
    }
    check(400, 1005, "refused payload_too_large");
    check(400, 1011, "token_dead token_invalid");
    check(400, 1012, "quota");
    check(403, 2008, "quota");
    check(403, 2005, "refused quota_exhausted");
    check(429, 2002, "retry vendor_rate_limited not_taken");
    check(500, 4711, "retry vendor_unavailable not_taken");
    let plain = |status, body, want: &str| {
        let verdict = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {body}");
    };
    plain(200, r#"{"sendno":"0","msg_id":"1"}"#, "accepted");
    plain(200, r#"{"sendno":0,"msg_id":1}"#, "accepted");
    plain(200, "{}", "retry vendor_unavailable maybe_taken");
    plain(410, "", "credential_bad");
    plain(504, "<html>", "retry vendor_unavailable not_taken");
    let mut limited = fixture::answer(429, r#"{"error":{"code":2002,"message":"m"}}"#);
    limited
        .headers
        .insert("x-rate-limit-reset", HeaderValue::from_static("17"));
    let verdict = decode(&limited, fixture::NOW);
    assert_eq!(
        fixture::words(&verdict),
        "retry vendor_rate_limited 17s not_taken"
    );
    for (status, body, want) in [
        (429, "", "retry vendor_rate_limited 17s not_taken"),
        (502, "", "retry vendor_unavailable not_taken"),
        (
            500,
            r#"{"error":{"code":1000,"message":"m"}}"#,
            "retry vendor_unavailable not_taken",
        ),
    ] {
        let mut answer = fixture::answer(status, body);
        answer.headers = limited.headers.clone();
        let verdict = decode(&answer, fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {body}");
    }
}

#[test]
fn a_malformed_id_is_found_in_the_words() {
    let words = "The registration_id 140fe1da9e22a23f92f is invalid!";
    assert_eq!(
        named_in(words, &["a", "140fe1da9e22a23f92f"]),
        ["140fe1da9e22a23f92f"]
    );
    assert!(named_in(words, &["140fe1da9e22a23f92", "3"]).is_empty());
}

fn post(authorization: Option<&str>, body: &str) -> Result<Callback, CallbackError> {
    let basic = Config::read(&config()).unwrap().basic();
    let headers: Vec<(String, String)> = authorization
        .map(|value| ("authorization".to_owned(), value.replace("{basic}", &basic)))
        .into_iter()
        .collect();
    let request = CallbackRequest {
        method: "POST",
        url: "https://push.example/cb",
        headers: &headers,
        body: body.as_bytes(),
        now: fixture::NOW,
    };
    callback::read(&basic, &request)
}

#[test]
fn receipts_are_read_when_their_signature_holds() {
    let item = json!([
        {"type": 1, "msgid": "18", "registration_id": "1507bfd3f7c466c355c", "sent_time": 1_767_229_200, "params": {"hy_id": ID}},
        {"type": "2", "msg_id": 18, "rid": "x", "params": {}},
        {"type": 8, "msgid": "18"}, {"type": 1}, 7,
    ])
    .to_string();
    let read = post(Some("{basic}"), &item).unwrap();
    assert!(read.signed);
    let kinds: Vec<ReceiptKind> = read.receipts.iter().map(|r| r.kind).collect();
    assert_eq!(
        kinds,
        [
            ReceiptKind::Delivered,
            ReceiptKind::Clicked,
            ReceiptKind::Other
        ]
    );
    let first = &read.receipts[0];
    assert_eq!(first.message.unwrap().to_string(), ID);
    assert_eq!(first.at, Some(fixture::NOW));
    assert_eq!(
        first.token.as_ref().unwrap().expose_str(),
        Some("1507bfd3f7c466c355c")
    );
    assert_eq!(read.receipts[1].vendor_id.as_deref(), Some("18"));
    assert!(!post(None, &item).unwrap().signed);
    let wrong = post(Some("Basic eDp5"), &item).unwrap_err();
    assert!(matches!(wrong, CallbackError::Signature(_)));
    for body in ["", "7", "<html>", "\"x\""] {
        let malformed = post(Some("{basic}"), body).unwrap_err();
        assert!(
            matches!(malformed, CallbackError::SignedMalformed(_)),
            "{body}"
        );
        let unsigned = post(None, body).unwrap_err();
        assert!(matches!(unsigned, CallbackError::Malformed(_)), "{body}");
    }
}

#[test]
fn a_question_about_the_address_is_echoed() {
    let ask = |url: &str| {
        let request = CallbackRequest {
            method: "GET",
            url,
            headers: &[],
            body: b"",
            now: fixture::NOW,
        };
        callback::read("Basic x", &request).map(|answer| answer.body)
    };
    let url = "https://push.example/cb?key=k&echostr=571fd1bfaadc4919a652d56d13925e0f";
    assert_eq!(ask(url).unwrap(), "571fd1bfaadc4919a652d56d13925e0f");
    assert!(ask("https://push.example/cb?echostr=<script>").is_err());
    assert!(ask("https://push.example/cb").is_err());
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Jpush::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(shown["app_key"], "7d431e42dfa6a6d693ac2d04");
    assert!(!Value::Object(shown).to_string().contains("5e987"));
    let bad = json!({
        "app_key": "a b", "zone": "moon", "cid": "x", "distribution": "x", "ios_bytes_max": 9, "apns_production": "no",
        "platforms": ["symbian"], "granted": ["x"], "callback": "http://x", "typo": 1,
    });
    let mut faults = fixture::paths(&vendor.check_config(&bad).unwrap_err())
        .iter()
        .map(|path| (*path).to_owned())
        .collect::<Vec<_>>();
    faults.sort();
    let want = [
        "apns_production",
        "app_key",
        "callback",
        "cid",
        "distribution",
        "granted/0",
        "ios_bytes_max",
        "master_secret",
        "platforms",
        "typo",
        "zone",
    ];
    assert_eq!(faults, want);
}
