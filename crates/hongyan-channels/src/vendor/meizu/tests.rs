use super::*;
use crate::vendor::fixture;

const ID: &str = "018f0000-0000-7000-8000-000000000001";

fn config() -> Value {
    json!({"app_id": "100999", "app_secret": "demoAppSecret"})
}

fn with(change: &Value) -> Value {
    let mut all = config();
    let fields = change.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(fields);
    all
}

fn encoded_as(change: &Value, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    encode(&Config::read(&with(change)).unwrap(), outbound)
}

fn message_json(outbound: &Outbound) -> Value {
    let encoded = encoded_as(&json!({}), outbound).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&encoded.text).unwrap(),
        encoded.message
    );
    encoded.message
}

#[test]
fn the_signature_is_the_papers() {
    let check = |parameters: &[(&str, &str)], want: &str| {
        let parameters = parameters.iter().copied().collect();
        assert_eq!(sign(&parameters, &Secret::new("demoAppSecret")), want);
    };
    check(
        &[("pushIds", "A1"), ("appId", "100999"), ("taskId", "20457")],
        "d6669d5ccd116ec5b95307774625ec5f",
    );
    check(
        &[
            ("appId", "100999"),
            (
                "messageJson",
                r#"{"noticeBarInfo":{"noticeMsgType":1,"title":"Hi","content":"你好"},"pushTimeInfo":{"offLine":1,"validTime":24}}"#,
            ),
            (
                "pushIds",
                "AA00000000000000000000000000000000000000000001,AA00000000000000000000000000000000000000000002",
            ),
        ],
        "31a3e2f4e1def11328e71b45690be7d5",
    );
}

#[test]
fn golden_notification() {
    let encoded = encoded_as(&json!({}), &fixture::outbound()).unwrap();
    assert_eq!(
        encoded.message,
        json!({
            "noticeBarInfo": {"noticeMsgType": 1, "title": "Order 42", "content": "is on its way"},
            "clickTypeInfo": {"clickType": 0, "parameters": payload::text_keys(&fixture::message())},
            "advanceInfo": {"notifyKey": notify_key(ID)},
            "pushTimeInfo": {"offLine": 1, "validTime": 1},
        })
    );
    let config = Config::read(&config()).unwrap();
    let sent = encoded.with_tokens(&config, &["a", "b"]);
    let sent = crate::callback::form(&sent);
    let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["appId", "messageJson", "pushIds", "sign"]);
    assert_eq!(
        crate::callback::field(&sent, "messageJson"),
        Some(encoded.text.as_str())
    );
    assert_eq!(crate::callback::field(&sent, "pushIds"), Some("a,b"));
}

#[test]
fn each_class_has_its_type() {
    for (class, kind, silent) in [
        (Class::Im, 1, false),
        (Class::Transaction, 1, false),
        (Class::Subscription, 1, false),
        (Class::Marketing, 0, true),
    ] {
        let mut message = fixture::message();
        message.class = class;
        let body = message_json(&fixture::of(message));
        assert_eq!(body["noticeBarInfo"]["noticeMsgType"], kind, "{class:?}");
        let sound = body.pointer("/advanceInfo/notificationType/sound");
        assert_eq!(sound, silent.then(|| json!(0)).as_ref());
    }
}

#[test]
fn what_is_not_private_goes_out_as_public_and_is_never_upgraded() {
    let extra = json!({"noticeBarInfo": {"noticeMsgType": 1}});
    let outbound = fixture::with_vendor(NAME, &extra);
    let few = encoded_as(&json!({"granted": ["im"]}), &outbound).unwrap();
    assert_eq!(few.message["noticeBarInfo"]["noticeMsgType"], 0);
    assert!(few.downgraded.unwrap().contains("transaction.order"));
    let allowed = json!({"granted": ["im"], "class_override": true});
    let allowed = encoded_as(&allowed, &outbound).unwrap();
    assert_eq!(allowed.message["noticeBarInfo"]["noticeMsgType"], 1);
    let strict = json!({"granted": [], "strict_classes": true});
    assert_eq!(
        encoded_as(&strict, &outbound).unwrap_err().0,
        Reason::ClassNotGranted
    );
}

#[test]
fn lives_are_whole_hours() {
    for (seconds, want) in [
        (1, json!({"offLine": 0})),
        (299, json!({"offLine": 0})),
        (300, json!({"offLine": 1, "validTime": 1})),
        (1799, json!({"offLine": 1, "validTime": 1})),
        (1800, json!({"offLine": 1, "validTime": 1})),
        (5399, json!({"offLine": 1, "validTime": 1})),
        (5400, json!({"offLine": 1, "validTime": 2})),
        (5 * 3600, json!({"offLine": 1, "validTime": 5})),
        (100 * 3600, json!({"offLine": 1, "validTime": 72})),
    ] {
        let mut message = fixture::message();
        message.expires_at = fixture::NOW.plus(Duration::from_secs(seconds));
        assert_eq!(
            message_json(&fixture::of(message))["pushTimeInfo"],
            want,
            "{seconds}"
        );
    }
}

#[test]
fn options_of_the_credential_shape_the_message() {
    let config = json!({"click_uri": "app://x?hy_id={hy_id}&u={hy_url}", "native_bar": true});
    let body = encoded_as(&config, &fixture::outbound()).unwrap().message;
    assert_eq!(body["noticeBarInfo"]["noticeBarType"], 2);
    assert_eq!(body["clickTypeInfo"]["clickType"], 2);
    assert_eq!(
        body["clickTypeInfo"]["url"],
        format!("app://x?hy_id={ID}&u=app%3A%2F%2Forder%2F42")
    );
    let config = json!({"click_activity": "com.example.Main"});
    let body = encoded_as(&config, &fixture::outbound()).unwrap().message;
    assert_eq!(body["clickTypeInfo"]["activity"], "com.example.Main");
    assert_eq!(body["clickTypeInfo"]["parameters"]["hy_id"], ID);
}

#[test]
fn long_texts_are_shortened_and_told() {
    let mut message = fixture::message();
    let shown = message.notification.as_mut().unwrap();
    shown.title = "鸿".repeat(33);
    shown.body = "雁".repeat(101);
    let encoded = encoded_as(&json!({}), &fixture::of(message)).unwrap();
    let cut: Vec<_> = encoded
        .truncated
        .iter()
        .map(|t| (t.field, t.from, t.to))
        .collect();
    assert_eq!(cut, [("title", 33, 32), ("body", 101, 100)]);
}

#[test]
fn a_newer_message_takes_the_place_of_an_older_one() {
    let mut message = fixture::message();
    message.options.collapse_key = Some("chat-42".to_owned());
    let key = message_json(&fixture::of(message))["advanceInfo"]["notifyKey"].clone();
    assert_eq!(key, notify_key("chat-42"));
    let shaped = |k: &str| k.len() == 8 && k.bytes().all(|b| b.is_ascii_alphanumeric());
    assert!(shaped(&notify_key("a")) && shaped(&notify_key("")));
    assert_ne!(notify_key("a"), notify_key("b"));
}

#[test]
fn messages_without_a_text_need_a_right() {
    let refused = encoded_as(&json!({}), &fixture::data_only()).unwrap_err();
    assert_eq!(refused.0, Reason::PayloadRejected);
    let allowed = encoded_as(&json!({"pass_through": true}), &fixture::data_only()).unwrap();
    assert_eq!(allowed.path, SILENT_PATH);
    assert!(allowed.message["content"].as_str().unwrap().contains(ID));
    let mut message = fixture::message();
    message.notification = None;
    message.data = json!({"x": "y".repeat(2000)}).as_object().cloned();
    let large = encoded_as(&json!({"pass_through": true}), &fixture::of(message)).unwrap_err();
    assert_eq!(large.0, Reason::PayloadTooLarge);
}

#[test]
fn the_senders_fields_are_merged_last() {
    let extra = json!({
        "restrictedPackageNames": "com.example", "vipInfo": {"subtitle": "s"}, "extra": {"callback": "https://x"},
        "clickTypeInfo": {"parameters": null}, "advanceInfo": {"fixDisplay": 1},
    });
    let config = json!({"callback": "https://push.example/cb"});
    let encoded = encoded_as(&config, &fixture::with_vendor(NAME, &extra)).unwrap();
    assert_eq!(encoded.packages.as_deref(), Some("com.example"));
    assert_eq!(encoded.message["vipInfo"]["subtitle"], "s");
    assert_eq!(
        encoded.message["clickTypeInfo"]["parameters"],
        json!({"hy_id": ID})
    );
    assert_eq!(
        encoded.message["extra"],
        json!({"callback": "https://push.example/cb", "callback.param": ID, "callback.type": 3})
    );
}

#[test]
fn too_large_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(4096)}).as_object().cloned();
    let refused = encoded_as(&json!({}), &fixture::of(message)).unwrap_err();
    assert_eq!(refused.0, Reason::PayloadTooLarge);
}

#[test]
fn the_servers_address_is_used_once_the_console_knows_it() {
    let of = |change: Value, offered: &str| {
        let channel = Meizu::new(&fixture::egress())
            .open(OpenCredential {
                app: hongyan_core::AppId::parse("demo").unwrap(),
                name: hongyan_core::CredentialName::parse("default").unwrap(),
                config: Secret::new(with(&change).to_string()),
                endpoint: None,
                callback: Some(offered.to_owned()),
            })
            .unwrap();
        let body = channel.preview(&fixture::outbound()).unwrap().body;
        let url = body.pointer("/messageJson/extra/callback");
        url.and_then(Value::as_str).map(str::to_owned)
    };
    let server = "https://server.example/v1/callbacks/demo/meizu?key=k";
    assert_eq!(of(json!({}), server), None);
    let shown = "https://server.example/v1/callbacks/demo/meizu?…";
    let told = of(json!({"receipt_token": "t"}), server);
    assert_eq!(told.as_deref(), Some(shown), "the secret stays here");
    let own = json!({"receipt_token": "t", "callback": "https://own.example/cb"});
    assert_eq!(of(own, server).as_deref(), Some("https://own.example/cb"));
    let long = format!("{server}{}", "x".repeat(128));
    assert_eq!(of(json!({"receipt_token": "t"}), &long), None);
}

#[test]
fn verdict_table() {
    let check = |code: Value, want: &str| {
        let body = json!({"code": code, "message": "m", "value": "", "msgId": "1"}).to_string();
        let decoded = decode(&fixture::answer(200, &body), fixture::NOW);
        assert_eq!(fixture::words(&decoded.rest), want, "{code}");
    };
    check(json!("200"), "accepted");
    check(json!(200), "accepted");
    for code in ["300", "500", "1001", "4711"] {
        check(json!(code), "retry vendor_unavailable not_taken");
    }
    for code in ["1003", "110010"] {
        check(json!(code), "retry vendor_rate_limited not_taken");
    }
    for code in ["1005", "110004", "110031", "110032", "110053"] {
        check(json!(code), "refused payload_rejected");
    }
    for code in ["1006", "110000", "110001", "110009", "110033"] {
        check(json!(code), "credential_bad");
    }
    for code in ["110002", "110003"] {
        check(json!(code), "token_dead token_invalid");
    }
    for code in ["110019", "110051"] {
        check(json!(code), "quota");
    }
    let plain = |status, body, want: &str| {
        let decoded = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&decoded.rest), want, "{status} {body}");
    };
    plain(500, "", "retry vendor_unavailable not_taken");
    plain(429, "", "retry vendor_rate_limited not_taken");
    plain(403, "", "credential_bad");
    plain(404, "", "credential_bad");
    plain(413, "", "refused payload_rejected");
    plain(200, "<html>", "retry vendor_unavailable maybe_taken");
}

#[test]
fn targets_are_named_in_either_shape() {
    let of = |value: Value| {
        let body = json!({"code": "200", "value": value, "msgId": "m1"}).to_string();
        decode(&fixture::answer(200, &body), fixture::NOW)
    };
    for (code, want) in [
        ("201", "refused payload_rejected"),
        ("501", "retry vendor_unavailable not_taken"),
        ("513", "retry vendor_unavailable not_taken"),
        ("518", "retry vendor_rate_limited not_taken"),
        ("519", "retry vendor_rate_limited not_taken"),
        ("520", "accepted"),
        ("110002", "token_dead token_invalid"),
        ("110003", "token_dead token_invalid"),
        ("110005", "refused payload_rejected"),
        ("110010", "refused permission_off"),
        ("110011", "refused quota_exhausted"),
        ("777", "refused payload_rejected"),
    ] {
        let lists = of(json!({code: ["a", "b"]}));
        assert_eq!(lists.rest, crate::answer::accepted(Some("m1")));
        assert_eq!(fixture::words(&lists.named["b"]), want, "{code}");
        let codes = of(json!({"a": code, "b": code.parse::<i64>().unwrap()}));
        assert_eq!(fixture::words(&codes.named["a"]), want, "{code}");
        assert_eq!(fixture::words(&codes.named["b"]), want, "{code}");
        let text = of(json!({code: ["a"]}).to_string().into());
        assert_eq!(fixture::words(&text.named["a"]), want, "{code}");
    }
    for value in [json!({}), json!(""), json!(null), json!([1])] {
        assert!(of(value).named.is_empty());
    }
    let dead = vec![of(json!({"110003": ["a"]})).named["a"].clone(); 10];
    let spared = vendor::spare_tokens(dead, verdicts::wrong_app);
    assert_eq!(fixture::words(&spared[0]), "refused token_environment");
}

fn called(token: Option<&str>, fields: &[(&str, &str)]) -> Result<Callback, CallbackError> {
    let body = texts::form(fields.iter().copied());
    receipts::read(body.as_bytes(), token.map(Secret::new).as_ref())
}

#[test]
fn receipts_are_read_and_their_token_is_checked() {
    use hongyan_core::port::ReceiptKind as K;
    let cb = json!({
        "m1-1": {"param": ID, "type": 1, "targets": ["a", "b"]},
        "m1-2": {"param": ID, "type": "2", "targets": "a"},
        "m-2-9": {"param": "other", "type": 9, "targets": ["c"]},
        "m3": 5,
    })
    .to_string();
    let read = called(Some("t0k"), &[("cb", &cb), ("access_token", "t0k")]).unwrap();
    assert!(read.signed);
    let mut told: Vec<_> = read
        .receipts
        .iter()
        .map(|r| (r.vendor_id.as_deref().unwrap(), r.kind, r.message.is_some()))
        .collect();
    told.sort_by_key(|(id, kind, _)| (id.to_owned(), format!("{kind:?}")));
    assert_eq!(
        told,
        [
            ("m-2", K::Other, false),
            ("m1", K::Clicked, true),
            ("m1", K::Delivered, true),
            ("m1", K::Delivered, true),
        ]
    );
    assert!(!called(None, &[("cb", &cb)]).unwrap().signed);
    for fields in [
        &[("cb", cb.as_str()), ("access_token", "other")][..],
        &[("cb", &cb)],
    ] {
        let told = called(Some("t0k"), fields);
        assert!(matches!(told, Err(CallbackError::Signature(_))));
    }
    for fields in [&[][..], &[("cb", "[]")], &[("cb", "{")], &[("data", "{}")]] {
        let told = called(None, fields);
        assert!(
            matches!(told, Err(CallbackError::Malformed(_))),
            "{fields:?}"
        );
    }
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Meizu::new(&fixture::egress());
    let shown = vendor
        .check_config(&with(&json!({"receipt_token": "s3cr3t"})))
        .unwrap();
    assert_eq!(Value::Object(shown), json!({"app_id": "100999"}));
    let read = Config::read(&with(&json!({"receipt_token": "s3cr3t"}))).unwrap();
    assert!(!format!("{read:?}").contains("s3cr3t"));
    let bad = json!({
        "app_id": "x", "region": "moon", "click_uri": "a", "click_activity": "b", "callback": "http://x",
        "message_bytes_max": 1, "typo": 1,
    });
    assert_eq!(
        fixture::paths(&vendor.check_config(&bad).unwrap_err()),
        [
            "app_id",
            "app_secret",
            "region",
            "click_uri",
            "callback",
            "message_bytes_max",
            "typo"
        ]
    );
}
