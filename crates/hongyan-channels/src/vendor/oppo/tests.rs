use hongyan_core::verdict::Unsure;
use hongyan_core::{ClassDetail, MessageId};

use super::*;
use crate::vendor::fixture;
use hongyan_core::Class;

const ID: &str = "018f0000-0000-7000-8000-000000000001";
const TOKEN: &str = "CN_0123456789abcdef0123456789ABCDEF";

fn config() -> Value {
    json!({"app_key": "demoAppKey", "master_secret": "demoMasterSecret"})
}

fn encoded_with(config: &Value, outbound: &Outbound) -> Result<Value, (Reason, String)> {
    let config = Config::read(config).unwrap();
    encode(&config, Some("https://push.example/cb?k=1"), outbound)
        .map(|e| Value::Object(e.notification))
}

fn encoded(outbound: &Outbound) -> Value {
    encoded_with(&config(), outbound).unwrap()
}

fn of(class: Class, detail: Option<ClassDetail>) -> Outbound {
    let mut message = fixture::message();
    (message.class, message.class_detail) = (class, detail);
    fixture::of(message)
}

#[test]
fn the_signature_is_the_documents() {
    let config = Config::read(&config()).unwrap();
    assert_eq!(
        config.sign(1_700_000_000_000),
        "ee41aeadaf8956866519e441542fe9c0bc2a895efa7b397216a80d2396e8c436"
    );
}

#[test]
fn golden_notification() {
    let config = Config::read(&config()).unwrap();
    let encoded = encode(
        &config,
        Some("https://push.example/cb?k=1"),
        &fixture::outbound(),
    );
    let encoded = encoded.unwrap();
    let keys = payload::text_keys(&fixture::message());
    let texts = payload::short_hash("Order 42\nis on its way", 4);
    assert_eq!(
        encoded.message_to(TOKEN),
        json!({
            "target_type": 2, "target_value": TOKEN,
            "notification": {
                "app_message_id": format!("{ID}-{texts}"), "style": 1,
                "title": "Order 42", "content": "is on its way",
                "notify_id": payload::number_of(ID), "off_line": true, "off_line_ttl": 3600,
                "click_action_type": 0,
                "action_parameters": Value::Object(keys).to_string(),
                "call_back_url": "https://push.example/cb?k=1", "call_back_parameter": ID,
                "category": "ORDER", "notify_level": 2,
            },
        })
    );
    let fields = encoded.fields();
    assert!(fields.contains(&("off_line", "true".to_owned())));
    assert!(fields.contains(&("notify_level", "2".to_owned())));
    assert!(fields.contains(&("title", "Order 42".to_owned())));
}

use crate::payload;

#[test]
fn each_class_has_its_category_and_level() {
    for (class, detail, category, level) in [
        (Class::Im, None, "IM", 2),
        (Class::Subscription, None, "SUBSCRIPTION", 2),
        (Class::Marketing, None, "MARKETING", 1),
        (Class::Transaction, Some(ClassDetail::Order), "ORDER", 2),
        (Class::Transaction, Some(ClassDetail::Account), "ACCOUNT", 2),
        (Class::Transaction, Some(ClassDetail::Finance), "ACCOUNT", 2),
        (Class::Transaction, Some(ClassDetail::Schedule), "TODO", 2),
        (Class::Transaction, Some(ClassDetail::Work), "TODO", 2),
        (
            Class::Transaction,
            Some(ClassDetail::Device),
            "DEVICE_REMINDER",
            2,
        ),
        (Class::Transaction, Some(ClassDetail::Travel), "ORDER", 2),
        (
            Class::Transaction,
            Some(ClassDetail::Health),
            "DEVICE_REMINDER",
            2,
        ),
    ] {
        let body = encoded(&of(class, detail));
        assert_eq!(
            (&body["category"], &body["notify_level"]),
            (&json!(category), &json!(level)),
            "{class:?} {detail:?}"
        );
        assert!(body.get("channel_id").is_none());
    }
}

#[test]
fn rights_levels_and_categories_follow_the_credential() {
    let mut config = config();
    config["granted"] = json!(["im"]);
    config["banner"] = json!(["im"]);
    config["marketing_category"] = json!("NEWS");
    let body = encoded_with(&config, &of(Class::Im, None)).unwrap();
    assert_eq!(
        (&body["category"], &body["notify_level"]),
        (&json!("IM"), &json!(16))
    );
    let read = Config::read(&config).unwrap();
    let lower = encode(&read, None, &of(Class::Transaction, None)).unwrap();
    assert_eq!(
        (
            &lower.notification["category"],
            &lower.notification["notify_level"]
        ),
        (&json!("NEWS"), &json!(1))
    );
    assert!(lower.downgraded.unwrap().contains("transaction.order"));
    config["strict_classes"] = json!(true);
    let refused = encoded_with(&config, &of(Class::Transaction, None));
    assert_eq!(refused.unwrap_err().0, Reason::ClassNotGranted);
}

#[test]
fn the_older_scheme_has_channels_instead() {
    let mut config = config();
    config["classification"] = json!("channel");
    config["channel_id"] = json!("private_1");
    let body = encoded_with(&config, &of(Class::Im, None)).unwrap();
    assert_eq!(body["channel_id"], "private_1");
    assert!(body.get("category").is_none() && body.get("notify_level").is_none());
    let body = encoded_with(&config, &of(Class::Marketing, None)).unwrap();
    assert!(body.get("channel_id").is_none(), "marketing is public");
    config["channel_id"] = json!({"transaction.finance": "money", "marketing": "news"});
    for (class, detail, want) in [
        (
            Class::Transaction,
            Some(ClassDetail::Finance),
            json!("money"),
        ),
        (Class::Transaction, None, Value::Null),
        (Class::Marketing, None, json!("news")),
    ] {
        let body = encoded_with(&config, &of(class, detail)).unwrap();
        let got = body.get("channel_id").cloned().unwrap_or_default();
        assert_eq!(got, want, "{class:?}");
    }
}

#[test]
fn private_templates_get_their_variables() {
    let mut config = config();
    config["templates"] = json!({"transaction": {
        "template_id": "T1", "title_parameters": {"what": "{title}"},
        "content_parameters": {"state": "{body}!"},
    }});
    let body = encoded_with(&config, &fixture::outbound()).unwrap();
    assert_eq!(body["private_msg_template_id"], "T1");
    assert_eq!(body["private_title_parameters"], "{\"what\":\"Order 42\"}");
    assert_eq!(
        body["private_content_parameters"],
        "{\"state\":\"is on its way!\"}"
    );
    let body = encoded_with(&config, &of(Class::Im, None)).unwrap();
    assert!(body.get("private_msg_template_id").is_none());
}

#[test]
fn long_texts_choose_the_long_style_and_are_cut_there() {
    let check = |title: usize, text: usize, style: i64, cut: &[(&str, usize, usize)]| {
        let mut message = fixture::message();
        let shown = message.notification.as_mut().unwrap();
        (shown.title, shown.body) = ("鸿".repeat(title), "雁".repeat(text));
        let config = Config::read(&config()).unwrap();
        let encoded = encode(&config, None, &fixture::of(message)).unwrap();
        assert_eq!(encoded.notification["style"], style);
        let told: Vec<_> = encoded
            .truncated
            .iter()
            .map(|t| (t.field, t.from, t.to))
            .collect();
        assert_eq!(told, cut);
    };
    check(50, 50, 1, &[]);
    check(51, 51, 2, &[("title", 51, 50)]);
    check(1, 128, 2, &[]);
    check(1, 129, 2, &[("body", 129, 128)]);
}

#[test]
fn a_tap_opens_what_the_credential_says() {
    let mut config = config();
    config["click_action"] = json!("com.example.OPEN");
    let body = encoded_with(&config, &fixture::outbound()).unwrap();
    assert_eq!(
        (&body["click_action_type"], &body["click_action_activity"]),
        (&json!(1), &json!("com.example.OPEN"))
    );
    config["click_action"] = Value::Null;
    config["click_activity"] = json!("com.example.Main");
    let body = encoded_with(&config, &fixture::outbound()).unwrap();
    assert_eq!(body["click_action_type"], 4);
}

#[test]
fn the_senders_fields_are_merged_last() {
    let extra = json!({
        "show_ttl": 3600, "style": 1, "target_value": "x", "registration_id": "x", "category": "IM",
        "notify_level": 16, "channel_id": "private", "app_message_id": "y",
        "action_parameters": {"own": 1, "hy_id": "forged"},
    });
    let mut outbound = fixture::with_vendor(NAME, &extra);
    let body = encoded(&outbound);
    assert_eq!(body["show_ttl"], 3600);
    assert_eq!(
        (&body["category"], &body["notify_level"]),
        (&json!("IM"), &json!(16))
    );
    let parameters: Value =
        serde_json::from_str(body["action_parameters"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&parameters["own"], &parameters["hy_id"]),
        (&json!(1), &json!(ID))
    );
    assert!(body.get("target_value").is_none() && body.get("registration_id").is_none());
    assert!(body["app_message_id"].as_str().unwrap().starts_with(ID));
    let mut message = (*outbound.message).clone();
    message.class = Class::Marketing;
    outbound.message = Arc::new(message);
    let body = encoded(&outbound);
    assert_eq!(
        (&body["category"], &body["notify_level"]),
        (&json!("MARKETING"), &json!(1))
    );
    assert!(body.get("channel_id").is_none());
    let mut allowed = config();
    allowed["class_override"] = json!(true);
    let body = encoded_with(&allowed, &outbound).unwrap();
    assert_eq!(body["category"], "IM");
    // A sender may choose among the public categories.
    let mut message = (*outbound.message).clone();
    let news = json!({"category": "NEWS", "notify_level": 2});
    let channel = hongyan_core::ChannelId::parse(NAME).unwrap();
    message
        .options
        .vendor
        .insert(channel, news.as_object().unwrap().clone());
    let body = encoded(&fixture::of(message));
    assert_eq!(
        (&body["category"], &body["notify_level"]),
        (&json!("NEWS"), &json!(1))
    );
}

#[test]
fn what_oppo_cannot_take_is_never_sent() {
    let data_only = encoded_with(&config(), &fixture::data_only());
    assert_eq!(data_only.unwrap_err().0, Reason::PayloadRejected);
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(4000)}).as_object().cloned();
    let large = encoded_with(&config(), &fixture::of(message));
    assert_eq!(large.unwrap_err().0, Reason::PayloadTooLarge);
}

#[test]
fn one_content_is_stored_again_when_its_life_has_passed_for_a_part() {
    let config = Config::read(&config()).unwrap();
    let key = |outbound: &Outbound| encode(&config, None, outbound).unwrap().content_key();
    let after = |seconds| {
        let mut later = fixture::outbound();
        later.now = later.now.plus(Duration::from_secs(seconds));
        later
    };
    let first = after(60);
    assert_eq!(key(&first), key(&after(120)));
    assert_ne!(key(&first), key(&after(600)));
    let mut other = fixture::outbound();
    other.body = Some("est en route".to_owned());
    assert_ne!(key(&first), key(&other));
}

fn said(body: &Value) -> String {
    let answer = fixture::answer(200, &body.to_string());
    fixture::words(&decode(&answer, fixture::NOW, &[]).rest)
}

#[test]
fn verdict_table() {
    let check = |codes: &[i64], want: &str| {
        for code in codes {
            assert_eq!(said(&json!({"code": code, "message": "m"})), want, "{code}");
            let text = json!({"code": code.to_string(), "message": "m"});
            assert_eq!(said(&text), want, "{code} as text");
        }
    };
    check(&[0, 32], "accepted");
    check(&[-1, 18, 19], "retry vendor_unavailable not_taken");
    check(&[-2, 55], "retry vendor_rate_limited not_taken");
    check(&[13], "retry vendor_rate_limited 10s not_taken");
    check(
        &[
            11, 12, 14, 15, 16, 17, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, 59,
        ],
        "credential_bad",
    );
    check(&[33], "quota");
    check(
        &[25, 31, 34, 40, 41, 51, 67, 10_002, 10_003, 10_004, 20_000],
        "refused payload_rejected",
    );
    check(&[10_000, 10_001], "token_dead token_invalid");
    let plain = |status, body, want: &str| {
        let decoded = decode(&fixture::answer(status, body), fixture::NOW, &[]);
        assert_eq!(fixture::words(&decoded.rest), want, "{status} {body}");
    };
    plain(502, "<html>", "retry vendor_unavailable not_taken");
    plain(429, "", "retry vendor_rate_limited not_taken");
    plain(403, "", "credential_bad");
    plain(404, "", "credential_bad");
    plain(413, "", "refused payload_rejected");
    plain(200, "<html>", "retry vendor_unavailable maybe_taken");
}

#[test]
fn the_quota_opens_again_at_midnight_in_beijing() {
    let answer = fixture::answer(200, r#"{"code":33,"message":"m"}"#);
    let Verdict::QuotaExhausted { until, .. } = decode(&answer, fixture::NOW, &[]).rest else {
        panic!("a quota verdict is wanted")
    };
    // NOW is 09:00 in Beijing.
    assert_eq!(until, Some(Duration::from_secs(15 * 3600)));
}

#[test]
fn lists_name_whom_they_left_out() {
    let of = |body: Value, asked: &[&str]| {
        decode(
            &fixture::answer(200, &body.to_string()),
            fixture::NOW,
            asked,
        )
    };
    let broadcast = of(
        json!({"code": 0, "message": "Success", "data": {"message_id": "m", "task_id": "t", "10000": ["a"], "10001": ["b"]}}),
        &["a", "b", "c"],
    );
    assert_eq!(
        broadcast.rest,
        Verdict::Accepted {
            vendor_id: Some("m".to_owned())
        }
    );
    for token in ["a", "b"] {
        assert_eq!(
            fixture::words(&broadcast.named[token]),
            "token_dead token_invalid"
        );
    }
    let batch = of(
        json!({"code": 0, "data": [
            {"messageId": "m1", "registrationId": "a"},
            {"registrationId": "b", "errorCode": 10000, "errorMessage": "Invalid RegistrationId"},
            {"messageId": "m3"},
        ]}),
        &["a", "b", "c", "d"],
    );
    assert_eq!(
        batch.named["c"],
        Verdict::Accepted {
            vendor_id: Some("m3".to_owned())
        }
    );
    assert_eq!(
        fixture::words(&batch.named["b"]),
        "token_dead token_invalid"
    );
    assert!(matches!(
        batch.rest,
        Verdict::Retry {
            certainty: Unsure::MaybeTaken,
            ..
        }
    ));
}

#[test]
fn registration_ids_are_known_by_their_shape_and_region() {
    let hex = "0123456789abcdef0123456789ABCDEF";
    for (token, valid, home) in [
        (hex.to_owned(), true, true),
        (hex[..24].to_owned(), true, true),
        (format!("CN_{hex}"), true, true),
        (format!("OPPO_CN_{hex}"), true, true),
        (format!("EUEX_{hex}"), true, false),
        (format!("IN_{hex}"), true, false),
        (format!("realme_IN_{hex}"), true, false),
        (format!("cn_{hex}"), false, false),
        (format!("A_B_C_{hex}"), false, false),
        (hex[..31].to_owned(), false, true),
        ("a;b".to_owned(), false, true),
        (String::new(), false, true),
    ] {
        assert_eq!(is_registration_id(&token), valid, "{token}");
        assert_eq!(is_home(&token), home, "{token}");
    }
}

fn heard(body: &str) -> Result<Callback, CallbackError> {
    read_callback(&CallbackRequest {
        method: "POST",
        url: "https://push.example/cb?k=1",
        headers: &[],
        body: body.as_bytes(),
        now: fixture::NOW,
    })
}

#[test]
fn receipts_are_read() {
    let body = json!([
        {"messageId": "m", "appId": "a", "taskId": "t", "registrationIds": "r1, r2",
         "eventTime": "1700000000000", "param": ID, "eventType": "push_arrive"},
        {"messageId": "m", "registrationIds": "r3", "eventTime": 1, "eventType": "regid_invalid"},
        {"messageId": "m", "registrationIds": "r4", "param": "foreign", "eventType": "user_daily_limit"},
        {"messageId": "m", "registrationIds": "r5", "eventType": "something"},
    ]);
    let callback = heard(&body.to_string()).unwrap();
    assert!(!callback.signed && callback.body.is_empty());
    let told: Vec<_> = callback
        .receipts
        .iter()
        .map(|r| {
            let token = r.token.as_ref().and_then(Secret::expose_str).unwrap_or("");
            (token, r.kind, r.message)
        })
        .collect();
    let id = MessageId::parse(ID).ok();
    assert_eq!(
        told,
        [
            ("r1", ReceiptKind::Delivered, id),
            ("r2", ReceiptKind::Delivered, id),
            ("r3", ReceiptKind::TokenInvalid, None),
            ("r4", ReceiptKind::Failed(Reason::QuotaExhausted), None),
            ("r5", ReceiptKind::Other, None),
        ]
    );
    assert_eq!(callback.receipts[0].at, Some(Timestamp(1_700_000_000_000)));
    assert_eq!(callback.receipts[0].vendor_id.as_deref(), Some("m"));
    let crowd = vec!["r"; receipts::RECEIPTS_MAX + 1].join(",");
    for bad in [
        "",
        "x",
        "1",
        "[1]",
        &json!([{"registrationIds": crowd}]).to_string(),
    ] {
        assert!(heard(bad).is_err(), "{}", &bad[..bad.len().min(20)]);
    }
    assert_eq!(heard("[]").unwrap().receipts, []);
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Oppo::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(Value::Object(shown), json!({"app_key": "demoAppKey"}));
    let bad = json!({
        "app_key": "k", "classification": "x", "banner": ["marketing"], "marketing_category": "IM",
        "channel_id": {"news": "1"}, "templates": {"im": {"x": 1}}, "lists": "x", "typo": 1,
        "click_action": "a", "click_activity": "b", "callback": format!("https://x.example/{}", "y".repeat(200)),
    });
    let faults = vendor.check_config(&bad).unwrap_err();
    assert_eq!(
        fixture::paths(&faults),
        [
            "master_secret",
            "classification",
            "banner/0",
            "marketing_category",
            "channel_id/news",
            "templates/im/template_id",
            "templates/im/x",
            "click_activity",
            "lists",
            "callback",
            "typo"
        ]
    );
}

#[test]
fn an_app_is_over_its_call_limit_when_it_is_told_so_for_ten_minutes() {
    let at = |seconds| fixture::NOW.plus(Duration::from_secs(seconds));
    let over = |codes: &[(u64, i64)]| {
        let mut limited = Limited::default();
        let mut heard = codes.iter();
        heard
            .find(|(seconds, code)| limited.is_over(*code, at(*seconds)))
            .map(|(seconds, _)| *seconds)
    };
    let each_minute: Vec<_> = (0..15).map(|n| (n * 60, 13)).collect();
    assert_eq!(over(&each_minute), Some(600));
    let mut between = each_minute.clone();
    between[8].1 = 0;
    assert_eq!(over(&between), None, "it was taken between");
    assert_eq!(
        over(&[(0, 13), (900, 13), (3_600, 13)]),
        None,
        "an idle app"
    );
}
