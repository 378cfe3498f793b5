use super::*;
use crate::callback;
use crate::vendor::fixture;

fn config() -> Value {
    json!({"app_id": "104", "client_id": "c1", "client_secret": "s3cr3t"})
}

fn with(change: Value) -> Config {
    let mut config = config();
    let fields = change.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(fields);
    Config::read(&config).unwrap()
}

fn encoded_with(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let encoded = encode(config, outbound)?;
    let mut sent: Value = serde_json::from_slice(&encoded.with_tokens(&["a", "b\""])).unwrap();
    let tokens = sent.as_object_mut().unwrap().remove("token");
    assert_eq!(tokens, Some(json!(["a", "b\""])));
    assert_eq!(
        sent,
        Value::Object(encoded.body.clone()),
        "what is shown is what is sent"
    );
    Ok(encoded)
}

fn body(outbound: &Outbound) -> Value {
    let encoded = encoded_with(&with(json!({})), outbound).unwrap();
    Value::Object(encoded.body)
}

#[test]
fn golden_notification() {
    let id = "018f0000-0000-7000-8000-000000000001";
    let keys = Value::Object(payload::text_keys(&fixture::message()));
    assert_eq!(
        body(&fixture::outbound()),
        json!({
            "data": keys.to_string(),
            "android": {
                "ttl": "3600s", "biTag": id,
                "notification": {
                    "title": "Order 42", "body": "is on its way", "importance": "NORMAL",
                    "notifyId": payload::number_of(id), "clickAction": {"type": 3}, "group": "orders",
                },
            },
        })
    );
}

#[test]
fn golden_pass_through() {
    let body = body(&fixture::data_only());
    let data: Value = serde_json::from_str(body["data"].as_str().unwrap()).unwrap();
    assert_eq!(data["hy_data"], "{\"order\":42}");
    assert_eq!(
        body["android"],
        json!({"ttl": "3600s", "biTag": "018f0000-0000-7000-8000-000000000001"})
    );
}

#[test]
fn each_class_has_its_importance() {
    for (class, importance) in [
        (Class::Im, "NORMAL"),
        (Class::Transaction, "NORMAL"),
        (Class::Subscription, "NORMAL"),
        (Class::Marketing, "LOW"),
    ] {
        let mut message = fixture::message();
        message.class = class;
        message.notification.as_mut().unwrap().image = Some("https://x.example/a.png".to_owned());
        let shown = body(&fixture::of(message))["android"]["notification"].clone();
        assert_eq!(shown["importance"], importance, "{class:?}");
        assert_eq!(shown.get("image").is_some(), importance == "NORMAL");
    }
}

#[test]
fn what_is_not_granted_is_told_and_never_marked() {
    let extra = json!({"android": {"notification": {"importance": "NORMAL"}}});
    let outbound = fixture::with_vendor(NAME, &extra);
    let few = with(json!({"granted": ["im"]}));
    let encoded = encoded_with(&few, &outbound).unwrap();
    assert_eq!(encoded.body["android"]["notification"]["importance"], "LOW");
    let why = encoded.downgraded.unwrap();
    assert!(why.contains("transaction.order is not granted"), "{why}");
    let silent = encoded_with(&few, &fixture::data_only()).unwrap();
    assert_eq!(silent.downgraded, None, "without a text there is no class");
    let strict = with(json!({"granted": [], "strict_classes": true}));
    let refused = encode(&strict, &outbound).err().unwrap();
    assert_eq!(refused.0, Reason::ClassNotGranted);
    let override_ = with(json!({"granted": ["im"], "class_override": true}));
    let encoded = encoded_with(&override_, &outbound).unwrap();
    assert_eq!(
        encoded.body["android"]["notification"]["importance"],
        "NORMAL"
    );
}

#[test]
fn options_of_the_credential_shape_the_message() {
    let config = with(json!({
        "badge_class": "com.example.Main", "test": true, "title_chars_max": 5, "text_chars_max": 4,
        "click_intent": "intent://x/y#Intent;scheme=app;S.hy_id={hy_id};S.hy_url={hy_url};end",
    }));
    let encoded = encoded_with(&config, &fixture::outbound()).unwrap();
    let android = &encoded.body["android"];
    assert_eq!(android["targetUserType"], 1);
    let shown = &android["notification"];
    assert_eq!(
        (&shown["title"], &shown["body"]),
        (&json!("Orde…"), &json!("is …"))
    );
    let cut: Vec<_> = encoded
        .truncated
        .iter()
        .map(|t| (t.field, t.from, t.to))
        .collect();
    assert_eq!(cut, [("title", 8, 5), ("body", 13, 4)]);
    assert_eq!(
        shown["badge"],
        json!({"setNum": 3, "badgeClass": "com.example.Main"})
    );
    assert_eq!(
        shown["clickAction"],
        json!({"type": 1, "intent": "intent://x/y#Intent;scheme=app;S.hy_id=018f0000-0000-7000-8000-000000000001;S.hy_url=app%3A%2F%2Forder%2F42;end"})
    );
}

#[test]
fn a_collapse_key_gives_a_message_the_place_of_another() {
    let mut message = fixture::message();
    message.options.collapse_key = Some("chat-42".to_owned());
    let shown = body(&fixture::of(message))["android"]["notification"].clone();
    assert_eq!(shown["notifyId"], payload::number_of("chat-42"));
}

#[test]
fn the_senders_fields_are_merged_last() {
    let extra = json!({
        "token": ["x"], "data": "{}",
        "android": {"ttl": "60s", "data": "{}", "biTag": "x", "notification": {"style": 1, "bigTitle": "b", "tag": "t"}},
    });
    let body = body(&fixture::with_vendor(NAME, &extra));
    assert!(body.get("token").is_none() && body["data"].as_str().unwrap().contains("hy_id"));
    let android = &body["android"];
    assert!(android.get("data").is_none(), "it would hide hy_id");
    assert_eq!(android["biTag"], "018f0000-0000-7000-8000-000000000001");
    assert_eq!(
        (&android["ttl"], &android["notification"]["tag"]),
        (&json!("60s"), &json!("t"))
    );
    let wrecked = fixture::with_vendor(NAME, &json!({"android": 7}));
    assert_eq!(
        super::encode(&with(json!({})), &wrecked).unwrap().body["android"],
        json!({"biTag": "018f0000-0000-7000-8000-000000000001"})
    );
}

#[test]
fn too_large_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(4096)}).as_object().cloned();
    let refused = encode(&with(json!({})), &fixture::of(message))
        .err()
        .unwrap();
    assert_eq!(refused.0, Reason::PayloadTooLarge);
}

#[test]
fn verdict_table() {
    let check = |status: u16, code: Value, want: &str| {
        let body = json!({"code": code, "message": "m"}).to_string();
        let decoded = decode(&fixture::answer(status, &body), fixture::NOW);
        assert_eq!(fixture::words(&decoded.rest), want, "{status} {code}");
    };
    for code in [
        json!(200),
        json!("200"),
        json!(0),
        json!("80000000"),
        json!(80_100_000),
    ] {
        check(200, code, "accepted");
    }
    for code in [400, 40_001, 40_099, 80_100_001, 80_100_003, 80_300_010] {
        check(200, json!(code), "refused payload_rejected");
    }
    for code in [401, 403, 404, 80_200_001, 80_200_003, 80_300_002] {
        check(200, json!(code), "credential_bad");
    }
    check(200, json!(80_300_007), "token_dead token_invalid");
    for code in [413, 80_300_008] {
        check(200, json!(code), "refused payload_too_large");
    }
    for code in [429, 503] {
        check(200, json!(code), "retry vendor_rate_limited not_taken");
    }
    for code in [500, 502, 504, 81_000_001, 7] {
        check(200, json!(code), "retry vendor_unavailable not_taken");
    }
    let plain = |status, body, want: &str| {
        let decoded = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&decoded.rest), want, "{status} {body}");
    };
    plain(400, "", "refused payload_rejected");
    plain(401, "", "credential_bad");
    plain(403, "", "credential_bad");
    plain(404, "<html>", "credential_bad");
    plain(413, "", "refused payload_too_large");
    plain(429, "", "retry vendor_rate_limited not_taken");
    plain(503, "", "retry vendor_rate_limited not_taken");
    plain(500, "", "retry vendor_unavailable not_taken");
    plain(502, "{\"code\":200}", "retry vendor_unavailable not_taken");
    plain(200, "<html>", "retry vendor_unavailable maybe_taken");
}

#[test]
fn a_partial_failure_names_its_tokens() {
    let of = |data: Value| {
        let body = json!({"code": 200, "message": "ok", "data": data}).to_string();
        decode(&fixture::answer(200, &body), fixture::NOW)
    };
    let decoded = of(json!({
        "sendResult": true, "requestId": "r1", "failTokens": ["f"], "expireTokens": ["e"],
    }));
    assert_eq!(decoded.rest, accepted(Some("r1")));
    assert_eq!(
        fixture::words(&decoded.named["e"]),
        "token_dead token_invalid"
    );
    assert_eq!(
        fixture::words(&decoded.named["f"]),
        "refused payload_rejected"
    );
    assert!(decoded.named["f"].detail().contains("200 ok"));
    let part = json!({"code": 80_100_000, "msg": "part of the tokens are of another app", "data": {
        "requestId": "r2", "failTokens": ["f"],
    }});
    let part = decode(&fixture::answer(200, &part.to_string()), fixture::NOW);
    let told = part.named["f"].detail();
    assert!(
        told.contains("80100000 part of the tokens are of another app"),
        "{told}"
    );
    let unsaid = of(json!({"sendResult": false, "failTokens": [], "expireTokens": []}));
    assert_eq!(
        fixture::words(&unsaid.rest),
        "retry vendor_unavailable not_taken"
    );
    let dead = of(json!({"sendResult": false, "expireTokens": ["e"]}));
    let many = vec![dead.named["e"].clone(); 10];
    let spared = vendor::spare_tokens(many, wrong_app);
    assert_eq!(fixture::words(&spared[0]), "refused token_environment");
}

#[test]
fn tokens_have_a_shape() {
    assert!(is_token("BAEAAAAAB.jk-_:=+/0123456789"));
    for wrong in ["short", "has spaces in the middle", "", &"x".repeat(513)] {
        assert!(!is_token(wrong), "{wrong}");
    }
}

fn called(config: &Config, body: &str) -> Result<Vec<Receipt>, CallbackError> {
    receipts(config, body.as_bytes())
}

#[test]
fn receipts_are_read_in_every_spelling() {
    let id = "018f0000-0000-7000-8000-000000000001";
    let body = json!({"statuses": [
        {"biTag": id, "appid": "104", "token": "t1", "status": 0, "timestamp": 1_700_000_000_000_i64, "requestId": "r1"},
        {"bi_tag": id, "appid": 104, "token": "t2", "status": "5", "timestamp": "1700000000001", "unknown": {}},
        {"biTag": "other", "token": "t3", "status": 102},
        {"status": 77}, {}, 5,
    ]});
    let read = called(&with(json!({})), &body.to_string()).unwrap();
    let kinds: Vec<_> = read.iter().map(|r| r.kind).collect();
    let quota = ReceiptKind::Failed(Reason::QuotaExhausted);
    let other = ReceiptKind::Other;
    assert_eq!(
        kinds,
        [
            ReceiptKind::Delivered,
            ReceiptKind::TokenInvalid,
            quota,
            other,
            other,
            other
        ]
    );
    assert_eq!(read[0].message, callback::message(id));
    assert_eq!(read[1].message, callback::message(id));
    assert_eq!(read[2].message, None);
    assert_eq!(read[0].at, Some(Timestamp(1_700_000_000_000)));
    assert_eq!(read[1].at, Some(Timestamp(1_700_000_000_001)));
    assert_eq!(read[0].vendor_id.as_deref(), Some("r1"));
    assert_eq!(read[0].token, Some(Secret::new("t1")));
    assert_eq!(read[0].detail, "result 0");
    let table = [
        (6, ReceiptKind::PermissionOff),
        (15, ReceiptKind::Failed(Reason::Collapsed)),
    ];
    for (status, kind) in table {
        let body = json!({"statuses": [{"status": status}]}).to_string();
        assert_eq!(called(&with(json!({})), &body).unwrap()[0].kind, kind);
    }
}

#[test]
fn the_meaning_of_receipts_can_be_set() {
    let config = with(json!({"receipt_statuses": {"300": "delivered", "0": "other"}}));
    let body = json!({"statuses": [{"status": 300}, {"status": 0}]}).to_string();
    let kinds: Vec<_> = called(&config, &body)
        .unwrap()
        .iter()
        .map(|r| r.kind)
        .collect();
    assert_eq!(kinds, [ReceiptKind::Delivered, ReceiptKind::Other]);
}

#[test]
fn what_is_no_post_of_receipts_is_refused() {
    let config = with(json!({}));
    for body in ["", "{", "[]", "{\"statuses\": {}}", "\u{feff}"] {
        assert!(
            matches!(called(&config, body), Err(CallbackError::Malformed(_))),
            "{body}"
        );
    }
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Honor::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(
        Value::Object(shown),
        json!({"app_id": "104", "client_id": "c1"})
    );
    assert!(!format!("{:?}", with(json!({}))).contains("s3cr3t"));
    let bad = json!({
        "app_id": "a/b", "granted": ["news"], "batch": 1001, "title_chars_max": "x", "token_url": "http://x",
        "receipt_statuses": {"x": "delivered", "1": "lost"}, "typo": 1,
    });
    assert_eq!(
        fixture::paths(&vendor.check_config(&bad).unwrap_err()),
        [
            "app_id",
            "client_id",
            "client_secret",
            "granted/0",
            "batch",
            "title_chars_max",
            "token_url",
            "receipt_statuses/1",
            "receipt_statuses/x",
            "typo",
        ]
    );
}
