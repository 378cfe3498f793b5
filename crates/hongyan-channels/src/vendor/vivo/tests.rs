use hongyan_core::{Class, ClassDetail, MessageId};

use super::*;
use crate::vendor::fixture;

use hongyan_core::port::ReceiptKind;

const ID: &str = "018f0000-0000-7000-8000-000000000001";
const TOKEN: &str = "15100000000000000000001";

fn config() -> Value {
    json!({"app_id": 100_123, "app_key": "demo-app-key", "app_secret": "demo-app-secret"})
}

fn encoded_with(config: &Value, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    encode(&Config::read(config).unwrap(), None, outbound)
}

fn body_with(config: &Value, outbound: &Outbound) -> Value {
    Value::Object(encoded_with(config, outbound).unwrap().body)
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
        "1072977698eecb1ea94c067623a019b6"
    );
}

#[test]
fn golden_notification() {
    let read = Config::read(&config()).unwrap();
    let encoded = encode(
        &read,
        Some("https://push.example/cb?k=1"),
        &fixture::outbound(),
    )
    .unwrap();
    let keys = payload::text_keys(&fixture::message());
    let mut want = json!({
        "appId": 100_123, "title": "Order 42", "content": "is on its way", "notifyType": 4,
        "timeToLive": 3600, "classification": 1, "category": "ORDER",
        "notifyId": payload::number_of(ID), "skipType": 1, "clientCustomMap": keys,
        "extra": {"callback": "https://push.example/cb?k=1", "callback.param": ID},
    });
    assert_eq!(Value::Object(encoded.body.clone()), want);
    let single = encoded.single(TOKEN);
    assert_eq!(single["regId"], TOKEN);
    assert_eq!(single["requestId"].as_str().unwrap().len(), 32);
    assert_eq!(
        single,
        encoded.single(TOKEN),
        "a repeat is the same request"
    );
    assert_ne!(
        single["requestId"],
        encoded.single("15100000000000000000002")["requestId"]
    );
    // Receipts V1 are for single sends.
    want.as_object_mut().unwrap().remove("extra");
    assert_eq!(Value::Object(encoded.content()), want);
}

#[test]
fn receipts_of_the_second_kind_are_for_lists_too() {
    let mut config = config();
    config["callback_id"] = json!("17");
    let encoded = encoded_with(&config, &fixture::outbound()).unwrap();
    let want = json!({"callback.id": "17", "callback.param": ID});
    assert_eq!(encoded.body["extra"], want);
    assert_eq!(encoded.content()["extra"], want);
}

#[test]
fn each_class_has_its_marks() {
    for (class, detail, classification, category, notify) in [
        (Class::Im, None, 1, "IM", 4),
        (Class::Subscription, None, 1, "SUBSCRIPTION", 4),
        (Class::Marketing, None, 0, "MARKETING", 1),
        (Class::Transaction, None, 1, "ORDER", 4),
        (
            Class::Transaction,
            Some(ClassDetail::Account),
            1,
            "ACCOUNT",
            4,
        ),
        (
            Class::Transaction,
            Some(ClassDetail::Finance),
            1,
            "ACCOUNT",
            4,
        ),
        (
            Class::Transaction,
            Some(ClassDetail::Schedule),
            1,
            "TODO",
            4,
        ),
        (Class::Transaction, Some(ClassDetail::Work), 1, "TODO", 4),
        (
            Class::Transaction,
            Some(ClassDetail::Device),
            1,
            "DEVICE_REMINDER",
            4,
        ),
        (Class::Transaction, Some(ClassDetail::Travel), 1, "ORDER", 4),
        (
            Class::Transaction,
            Some(ClassDetail::Health),
            1,
            "DEVICE_REMINDER",
            4,
        ),
    ] {
        let body = body_with(&config(), &of(class, detail));
        assert_eq!(
            (
                &body["classification"],
                &body["category"],
                &body["notifyType"]
            ),
            (&json!(classification), &json!(category), &json!(notify)),
            "{class:?} {detail:?}"
        );
    }
    let mut config = config();
    config["granted"] = json!(["im"]);
    config["marketing_category"] = json!("CONTENT");
    let lower = encoded_with(&config, &of(Class::Transaction, None)).unwrap();
    assert_eq!(
        (&lower.body["classification"], &lower.body["category"]),
        (&json!(0), &json!("CONTENT"))
    );
    assert!(lower.downgraded.is_some());
    config["strict_classes"] = json!(true);
    let refused = encoded_with(&config, &of(Class::Transaction, None));
    assert_eq!(refused.unwrap_err().0, Reason::ClassNotGranted);
}

#[test]
fn lives_are_within_a_minute_and_a_day() {
    for (life_s, want) in [(1, 60), (3600, 3600), (30 * 86_400, 86_400)] {
        let mut outbound = fixture::outbound();
        outbound.expires_at = outbound.now.plus(Duration::from_secs(life_s));
        assert_eq!(body_with(&config(), &outbound)["timeToLive"], want);
    }
}

#[test]
fn long_texts_are_shortened_and_told() {
    let mut message = fixture::message();
    let shown = message.notification.as_mut().unwrap();
    (shown.title, shown.body) = ("鸿".repeat(41), "雁".repeat(101));
    let cut = |config: &Value| {
        let encoded = encoded_with(config, &fixture::of(message.clone())).unwrap();
        let told: Vec<_> = encoded
            .truncated
            .iter()
            .map(|t| (t.field, t.from, t.to))
            .collect();
        told
    };
    assert_eq!(cut(&config()), [("title", 41, 40), ("body", 101, 100)]);
    let mut strict = config();
    strict["half_widths"] = json!(true);
    assert_eq!(cut(&strict), [("title", 82, 40), ("body", 202, 100)]);
}

#[test]
fn a_tap_opens_the_configured_intent() {
    let mut config = config();
    config["click_intent"] = json!("intent://x/y#Intent;S.hy_id={hy_id};S.hy_url={hy_url};end");
    let body = body_with(&config, &fixture::outbound());
    assert_eq!(body["skipType"], 4);
    assert_eq!(
        body["skipContent"],
        format!("intent://x/y#Intent;S.hy_id={ID};S.hy_url=app%3A%2F%2Forder%2F42;end")
    );
}

#[test]
fn test_messages_and_badges_are_settings() {
    let mut config = config();
    (config["test"], config["add_badge"]) = (json!(true), json!(true));
    let read = Config::read(&config).unwrap();
    let encoded = encode(&read, Some("https://push.example/cb"), &fixture::outbound()).unwrap();
    assert!(encoded.test() && encoded.body["addBadge"] == json!(true));
    assert!(
        !encoded.body.contains_key("extra"),
        "no receipts of test messages"
    );
}

#[test]
fn the_senders_fields_are_merged_last() {
    let extra = json!({
        "networkType": 1, "regId": "x", "alias": "y", "appId": 5, "requestId": "z", "classification": 0,
        "category": "NEWS", "clientCustomMap": {"own": 1, "hy_id": "forged", "gone": null},
    });
    let mut outbound = fixture::with_vendor(NAME, &extra);
    let body = body_with(&config(), &outbound);
    assert_eq!(
        (&body["networkType"], &body["appId"]),
        (&json!(1), &json!(100_123))
    );
    assert_eq!(body["clientCustomMap"]["own"], "1");
    assert_eq!(body["clientCustomMap"]["hy_id"], ID);
    for absent in ["regId", "alias", "requestId"] {
        assert!(body.get(absent).is_none(), "{absent}");
    }
    let of_class = |fields: &Value| {
        let mut message = fixture::message();
        message.class = Class::Marketing;
        let channel = hongyan_core::ChannelId::parse(NAME).unwrap();
        message
            .options
            .vendor
            .insert(channel, fields.as_object().unwrap().clone());
        fixture::of(message)
    };
    outbound = of_class(&json!({"classification": 1, "category": "IM"}));
    let body = body_with(&config(), &outbound);
    assert_eq!(
        (&body["classification"], &body["category"]),
        (&json!(0), &json!("MARKETING"))
    );
    let mut allowed = config();
    allowed["class_override"] = json!(true);
    let body = body_with(&allowed, &outbound);
    assert_eq!(
        (&body["classification"], &body["category"]),
        (&json!(1), &json!("IM"))
    );
    let body = body_with(&config(), &of_class(&json!({"category": "SOCIAL"})));
    assert_eq!(
        (&body["classification"], &body["category"]),
        (&json!(0), &json!("SOCIAL"))
    );
}

#[test]
fn what_vivo_cannot_take_is_never_sent() {
    let data_only = encoded_with(&config(), &fixture::data_only());
    assert_eq!(data_only.unwrap_err().0, Reason::PayloadRejected);
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(1024)}).as_object().cloned();
    let large = encoded_with(&config(), &fixture::of(message));
    assert_eq!(large.unwrap_err().0, Reason::PayloadTooLarge);
}

#[test]
fn one_content_is_stored_once_a_day_and_part_of_its_life() {
    let after = |seconds| {
        let mut later = fixture::outbound();
        later.now = later.now.plus(Duration::from_secs(seconds));
        encoded_with(&config(), &later).unwrap()
    };
    let encoded = after(60);
    let key = encoded.content_key(fixture::NOW);
    assert_eq!(key, after(120).content_key(fixture::NOW));
    assert_ne!(key, after(600).content_key(fixture::NOW));
    let tomorrow = fixture::NOW.plus(Duration::from_secs(16 * 3600));
    assert_ne!(
        encoded.content_key(fixture::NOW),
        encoded.content_key(tomorrow)
    );
}

fn decoded(body: &Value) -> Decoded {
    decode(
        &fixture::answer(200, &body.to_string()),
        fixture::NOW,
        false,
    )
}

#[test]
fn verdict_table() {
    let check = |codes: &[i64], want: &str| {
        for code in codes {
            let said = decoded(&json!({"result": code, "desc": "d", "taskId": 5}));
            assert_eq!(fixture::words(&said.rest), want, "{code}");
            let said = decoded(&json!({"result": code.to_string(), "desc": "d"}));
            assert_eq!(fixture::words(&said.rest), want, "{code} as text");
        }
    };
    check(&[0], "accepted");
    check(&[10_000, 10_094], "credential_bad");
    check(
        &[10_040, 10_500, 10_599, 1, 99_999],
        "retry vendor_unavailable not_taken",
    );
    check(&[10_070, 10_073, 10_252, 10_254], "quota");
    // NOW is 09:00 in Beijing: 22 hours to seven o'clock.
    let night = decoded(&json!({"result": 10_071, "desc": "d"})).rest;
    assert!(matches!(
        night,
        Verdict::QuotaExhausted { until: Some(left), .. } if left == Duration::from_secs(22 * 3600)
    ));
    check(&[10_072], "retry vendor_rate_limited not_taken");
    check(
        &[10_054, 10_085, 10_096, 10_097, 10_104, 10_101, 10_199],
        "refused payload_rejected",
    );
    check(&[10_302], "token_dead token_invalid");
    let plain = |status, body, want: &str| {
        let said = decode(&fixture::answer(status, body), fixture::NOW, false);
        assert_eq!(fixture::words(&said.rest), want, "{status} {body}");
    };
    plain(500, "", "retry vendor_unavailable not_taken");
    plain(429, "", "retry vendor_rate_limited not_taken");
    plain(401, "", "credential_bad");
    plain(404, "", "credential_bad");
    plain(400, "", "refused payload_rejected");
    plain(200, "<html>", "retry vendor_unavailable maybe_taken");
    let id = decoded(&json!({"result": 0, "taskId": 700_000_000_000_000_001_i64})).rest;
    assert_eq!(
        id,
        Verdict::Accepted {
            vendor_id: Some("700000000000000001".to_owned())
        }
    );
}

#[test]
fn invalid_users_are_named_in_every_form() {
    let body = json!({"result": 0, "desc": "请求成功", "requestId": "r", "invalidUsers": [
        {"status": 1, "userid": "a"}, {"status": 2, "userid": "b"}, {"status": 3, "userid": "c"},
        {"status": "4", "userid": "d"},
    ]});
    let said = decoded(&body);
    assert_eq!(fixture::words(&said.rest), "accepted");
    for (token, want) in [
        ("a", "token_dead token_invalid"),
        ("b", "token_dead token_invalid"),
        ("c", "token_dead token_invalid"),
        ("d", "refused payload_rejected"),
    ] {
        assert_eq!(fixture::words(&said.named[token]), want, "{token}");
    }
    let kept = decode(&fixture::answer(200, &body.to_string()), fixture::NOW, true);
    assert_eq!(fixture::words(&kept.named["c"]), "refused token_invalid");
    let one = decoded(
        &json!({"result": 10302, "desc": "regId不合法", "invalidUser": {"status": 1, "userid": "a"}}),
    );
    assert_eq!(fixture::words(&one.named["a"]), "token_dead token_invalid");
    let data = decoded(&json!({"result": 0, "data": [{"status": 2, "userid": "a"}]}));
    assert!(data.named.contains_key("a"));
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
    let body = json!({
        "1": {"param": ID, "targets": "r1,r2", "ackTime": "1700000000000", "ackType": "0"},
        "2": {"param": "foreign", "targets": "r3", "ackTime": 5, "ackType": "0", "subErrorCode": "17"},
        "3": {"targets": "r4", "ackType": "daily limit"},
    });
    let callback = heard(&body.to_string()).unwrap();
    assert!(!callback.signed);
    let answer: Value = serde_json::from_str(&callback.body).unwrap();
    assert_eq!(answer, json!({"errno": 0, "errmsg": "success"}));
    let told: Vec<_> = callback
        .receipts
        .iter()
        .map(|r| {
            let token = r.token.as_ref().and_then(Secret::expose_str).unwrap_or("");
            (token, r.kind, r.message, r.vendor_id.as_deref())
        })
        .collect();
    let id = MessageId::parse(ID).ok();
    assert_eq!(
        told,
        [
            ("r1", ReceiptKind::Delivered, id, Some("1")),
            ("r2", ReceiptKind::Delivered, id, Some("1")),
            ("r3", ReceiptKind::Other, None, Some("2")),
            (
                "r4",
                ReceiptKind::Failed(Reason::QuotaExhausted),
                None,
                Some("3")
            ),
        ]
    );
    assert_eq!(callback.receipts[0].at, Some(Timestamp(1_700_000_000_000)));
    let crowd = vec!["r"; receipts::RECEIPTS_MAX + 1].join(",");
    for bad in [
        "",
        "x",
        "[]",
        r#"{"1":2}"#,
        &json!({"1": {"targets": crowd}}).to_string(),
    ] {
        assert!(heard(bad).is_err(), "{}", &bad[..bad.len().min(20)]);
    }
}

#[test]
fn where_lists_have_run_out_each_device_is_a_request() {
    let vendor = Vivo::new(&fixture::egress());
    let sender = Sender {
        pool: h1::Pool::new(&vendor.egress, Origin::parse(ENDPOINT).unwrap()),
        egress: vendor.egress.clone(),
        callback: None,
        callback_too_long: false,
        tokens: TokenCache::with_pace(TOKEN_PACE),
        contents: Stored::new(CONTENT_REUSE),
        no_lists_until: AtomicI64::new(0),
        config: Config::read(&config()).unwrap(),
    };
    let requests = || [1, 2, 500].map(|devices| sender.requests(devices));
    let say = |code: i64| {
        let body = json!({"result": code, "desc": "d"}).to_string();
        sender.judge(&fixture::answer(200, &body));
    };
    say(10_070);
    assert_eq!(requests(), [1, 2, 2]);
    say(NO_LISTS);
    assert_eq!(requests(), [1, 2, 500]);
    // What it counts as what is the class as which a message goes out.
    assert_eq!(
        sender.counts_as(Class::Subscription, None),
        CountedAs::Service
    );
    assert_eq!(
        sender.counts_as(Class::Marketing, None),
        CountedAs::Marketing
    );
}

/// Which of five hundred single sends are made where the quota is used up after so many.
async fn sent_of_500(quota: usize) -> (usize, usize) {
    let tokens: Vec<String> = (0..500).map(|n| format!("{n:023}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let verdicts = one_by_one(&tokens, |_| async {
        let before = asked.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        match before < quota {
            true => Verdict::Accepted { vendor_id: None },
            false => Verdict::QuotaExhausted {
                until: None,
                detail: "10070".to_owned(),
            },
        }
    });
    let verdicts = verdicts.await;
    assert_eq!(verdicts.len(), 500);
    let unasked = verdicts.iter().filter(|v| !v.is_of_vendor());
    let unasked: Vec<_> = unasked.map(Verdict::reason).collect();
    assert!(unasked.iter().all(|r| *r == Reason::QuotaExhausted));
    (asked.into_inner(), unasked.len())
}

#[tokio::test]
async fn nobody_goes_on_after_the_word_that_the_quota_is_used_up() {
    assert_eq!(sent_of_500(500).await, (500, 0));
    assert_eq!(sent_of_500(0).await, (1, 499), "the first tells for all");
    // Those that are under way when the word comes had been sent.
    let (asked, unasked) = sent_of_500(150).await;
    assert!((151..=251).contains(&asked), "{asked}");
    assert_eq!(asked + unasked, 500);
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Vivo::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(
        Value::Object(shown),
        json!({"app_id": 100_123, "app_key": "demo-app-key"})
    );
    let bad = json!({
        "app_id": "x", "app_key": "k", "marketing_category": "IM", "inactive": "x", "typo": 1,
        "callback": format!("https://x.example/{}", "y".repeat(128)),
    });
    let faults = vendor.check_config(&bad).unwrap_err();
    assert_eq!(
        fixture::paths(&faults),
        [
            "app_id",
            "app_secret",
            "marketing_category",
            "callback",
            "inactive",
            "typo"
        ]
    );
}
