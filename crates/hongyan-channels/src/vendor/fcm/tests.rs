use super::*;
use crate::vendor::fixture;

fn config() -> Value {
    json!({
        "type": "service_account", "project_id": "demo-1", "private_key_id": "k1",
        "private_key": fixture::RSA_PEM, "client_email": "a@demo-1.iam.gserviceaccount.com",
        "token_uri": TOKEN_URI, "universe_domain": "googleapis.com",
        "android_channels": {"transaction": "orders", "transaction.finance": "money"},
    })
}

fn encoded(outbound: &Outbound) -> Result<Value, (Reason, String)> {
    let encoded = encode(&Config::read(&config()).unwrap(), outbound)?;
    let mut sent: Value = serde_json::from_slice(&encoded.with_token("T\"1")).unwrap();
    let token = sent["message"].as_object_mut().unwrap().remove("token");
    assert_eq!(token, Some("T\"1".into()));
    assert_eq!(sent, encoded.body, "what is shown is what is sent");
    Ok(sent)
}

#[test]
fn golden_notification() {
    let user = payload::user_hash(
        &hongyan_core::AppId::parse("demo").unwrap(),
        &hongyan_core::UserId::parse("u1").unwrap(),
    );
    assert_eq!(
        encoded(&fixture::outbound()).unwrap(),
        json!({"message": {
            "data": {
                "hy_id": "018f0000-0000-7000-8000-000000000001", "hy_data": "{\"order\":42}",
                "hy_url": "app://order/42", "hy_user": user,
            },
            "notification": {"title": "Order 42", "body": "is on its way"},
            "android": {
                "priority": "HIGH", "ttl": "3600s",
                "notification": {
                    "channel_id": "orders", "notification_count": 3, "sound": "default",
                    "notification_priority": "PRIORITY_DEFAULT",
                    "tag": "018f0000-0000-7000-8000-000000000001",
                },
            },
            "apns": {
                "headers": {
                    "apns-priority": "10", "apns-expiration": "1767232800",
                    "apns-collapse-id": "018f0000-0000-7000-8000-000000000001",
                },
                "payload": {"aps": {
                    "badge": 3, "sound": "default", "thread-id": "orders",
                    "interruption-level": "active", "mutable-content": 1,
                }},
            },
            "webpush": {"headers": {"TTL": "3600", "Urgency": "high"}},
        }})
    );
}

#[test]
fn golden_data_message() {
    let body = encoded(&fixture::data_only()).unwrap();
    assert!(body["message"].get("notification").is_none());
    assert_eq!(
        body["message"]["android"],
        json!({"priority": "HIGH", "ttl": "3600s"})
    );
    let apns = &body["message"]["apns"];
    assert_eq!(
        apns["headers"]["apns-priority"], "5",
        "it is a background push"
    );
    assert_eq!(apns["payload"], json!({"aps": {"content-available": 1}}));
}

#[test]
fn iphones_and_browsers_get_what_their_services_take() {
    let long = "a chat ".repeat(20);
    for (key, id, topic) in [
        ("chat-42", "chat-42".to_owned(), "chat-42".to_owned()),
        (
            long.as_str(),
            payload::short_hash(&long, 16),
            payload::short_hash(&long, 16),
        ),
    ] {
        let mut message = fixture::message();
        message.class = hongyan_core::Class::Marketing;
        message.options.collapse_key = Some(key.to_owned());
        message.options.ttl_s = Some(0);
        let body = encoded(&fixture::of(message)).unwrap();
        assert_eq!(
            body["message"]["apns"]["headers"],
            json!({"apns-priority": "5", "apns-expiration": "0", "apns-collapse-id": id})
        );
        assert_eq!(
            body["message"]["webpush"]["headers"],
            json!({"TTL": "0", "Urgency": "low", "Topic": topic})
        );
        assert!(id.len() <= 64 && topic.len() <= 32);
        let aps = &body["message"]["apns"]["payload"]["aps"];
        assert_eq!(aps["interruption-level"], "passive");
        assert!(aps.get("sound").is_none());
    }
}

#[test]
fn the_senders_fields_for_iphones_and_browsers_come_last() {
    let extra = json!({
        "apns": {"headers": {"APNS-Priority": "5"}, "payload": {"aps": {"badge": null, "category": "c"}}},
        "webpush": {"headers": {"ttl": "7"}, "fcm_options": {"link": "https://a.example"}},
    });
    let body = encoded(&fixture::with_vendor(NAME, &extra)).unwrap();
    let (apns, webpush) = (&body["message"]["apns"], &body["message"]["webpush"]);
    assert_eq!(apns["headers"]["APNS-Priority"], "5");
    assert!(apns["headers"].get("apns-priority").is_none());
    assert_eq!(apns["headers"]["apns-expiration"], "1767232800");
    assert_eq!(apns["payload"]["aps"]["category"], "c");
    assert_eq!(apns["payload"]["aps"]["sound"], "default");
    assert!(apns["payload"]["aps"].get("badge").is_none());
    assert_eq!(webpush["headers"], json!({"Urgency": "high", "ttl": "7"}));
    assert_eq!(webpush["fcm_options"]["link"], "https://a.example");
    let none = json!({"message": {"apns": null}});
    let body = encoded(&fixture::with_vendor(NAME, &none)).unwrap();
    assert!(body["message"].get("apns").is_none());
}

/// What leaves room for Android's fields only is still sent, with the headers for iOS.
#[test]
fn a_long_message_leaves_out_what_apple_would_not_have_room_for() {
    let of_len = |len: usize| {
        let mut message = fixture::message();
        message.data = json!({"x": "y".repeat(len)}).as_object().cloned();
        encoded(&fixture::of(message)).map(|body| body["message"].clone())
    };
    let mut left_out = 0;
    for len in 3500..4000 {
        let Ok(message) = of_len(len) else { break };
        let size = |part: &Value| part.to_string().len();
        let android = size(&message["data"]) + size(&message["notification"]);
        assert!(message["apns"]["headers"].is_object());
        match message["apns"].get("payload") {
            Some(payload) => assert!(android + size(payload) <= CAPABILITY.payload_bytes_max),
            None => left_out += 1,
        }
    }
    assert!((50..200).contains(&left_out), "{left_out}");
}

#[test]
fn data_that_google_would_refuse_is_never_sent() {
    for (bad, word) in [
        (json!({"data": {"n": 1}}), "\"n\""),
        (json!({"data": {"o": {"a": "b"}}}), "\"o\""),
        (json!({"data": "text"}), "vendor.fcm.data"),
        (json!({"data": {"from": "x"}}), "from"),
        (json!({"data": {"message_type": "x"}}), "message_type"),
        (json!({"data": {"google.c.a.e": "1"}}), "google."),
        (json!({"data": {"gcm.n.e": "1"}}), "gcm."),
        (json!({"message": {"data": {"n": true}}}), "\"n\""),
        (
            json!({"android": {"data": {"n": 1}}}),
            "vendor.fcm.android.data",
        ),
        (
            json!({"webpush": {"data": {"from": "1"}}}),
            "vendor.fcm.webpush.data",
        ),
        (json!({"message": 5}), "vendor.fcm.message"),
    ] {
        let (reason, words) = encoded(&fixture::with_vendor(NAME, &bad)).unwrap_err();
        assert_eq!(reason, Reason::PayloadRejected, "{bad}");
        assert!(words.contains(word), "{bad}: {words}");
    }
    let parts = json!({"android": {"data": {"own": "1"}}, "webpush": {"data": {"own": "2"}}});
    let body = encoded(&fixture::with_vendor(NAME, &parts)).unwrap();
    let id = "018f0000-0000-7000-8000-000000000001";
    let (android, webpush) = (&body["message"]["android"], &body["message"]["webpush"]);
    assert_eq!(android["data"], json!({"own": "1", "hy_id": id}));
    assert_eq!(webpush["data"], json!({"own": "2", "hy_id": id}));
    let good = json!({"data": {"hy_url": null, "gcmx": "1", "from_whom": "2"}});
    let body = encoded(&fixture::with_vendor(NAME, &good)).unwrap();
    assert_eq!(body["message"]["data"]["from_whom"], "2");
    assert!(body["message"]["data"].get("hy_url").is_none());
}

#[test]
fn classes_choose_priority_and_channel() {
    use hongyan_core::{Class, ClassDetail};
    for (class, detail, priority, channel) in [
        (Class::Im, None, "HIGH", None),
        (Class::Transaction, None, "HIGH", Some("orders")),
        (
            Class::Transaction,
            Some(ClassDetail::Finance),
            "HIGH",
            Some("money"),
        ),
        (Class::Subscription, None, "NORMAL", None),
        (Class::Marketing, None, "NORMAL", None),
    ] {
        let mut message = fixture::message();
        (message.class, message.class_detail) = (class, detail);
        let body = encoded(&fixture::of(message)).unwrap();
        let android = &body["message"]["android"];
        assert_eq!(android["priority"], priority, "{class:?}");
        assert_eq!(
            android["notification"]
                .get("channel_id")
                .and_then(Value::as_str),
            channel
        );
    }
}

#[test]
fn the_senders_fields_never_change_the_target() {
    let extra = json!({"token": "X", "topic": "all", "android": {"ttl": "5s"}, "data": {"hy_id": "x", "own": "1"}});
    let body = encoded(&fixture::with_vendor(NAME, &extra)).unwrap();
    let message = &body["message"];
    assert!(message.get("topic").is_none());
    assert_eq!(message["android"]["ttl"], "5s");
    assert_eq!(message["data"]["own"], "1");
    assert_eq!(
        message["data"]["hy_id"],
        "018f0000-0000-7000-8000-000000000001"
    );
    let whole =
        json!({"validate_only": true, "message": {"fcm_options": {"analytics_label": "a"}}});
    let body = encoded(&fixture::with_vendor(NAME, &whole)).unwrap();
    assert_eq!(body["validate_only"], true);
    assert_eq!(body["message"]["fcm_options"]["analytics_label"], "a");
}

#[test]
fn too_large_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(4000)}).as_object().cloned();
    assert_eq!(
        encoded(&fixture::of(message)).unwrap_err().0,
        Reason::PayloadTooLarge
    );
}

fn error(status: u16, rpc: &str, code: &str, message: &str, more: Value) -> Answer {
    let mut details = Vec::new();
    if !code.is_empty() {
        details.push(json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}));
    }
    if !more.is_null() {
        details.push(more);
    }
    let body =
        json!({"error": {"code": status, "status": rpc, "message": message, "details": details}});
    fixture::answer(status, &body.to_string())
}

#[test]
fn verdict_table() {
    let check = |status: u16, rpc: &str, code: &str, message: &str, more: Value, want: &str| {
        let verdict = decode(&error(status, rpc, code, message, more), fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {rpc} {code}");
    };
    let no = || Value::Null;
    let field = |f: &str| json!({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": f}]});
    let info = |r: &str| json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": r});
    let bad_token = "The registration token is not a valid FCM registration token";
    check(
        400,
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        bad_token,
        no(),
        "token_dead token_invalid",
    );
    check(
        400,
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "bad",
        field("message.token"),
        "token_dead token_invalid",
    );
    check(
        400,
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "bad",
        field("message.data[0].value"),
        "refused payload_rejected",
    );
    check(
        400,
        "INVALID_ARGUMENT",
        "",
        "bad",
        field("message.android"),
        "refused payload_rejected",
    );
    check(
        400,
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "Message too big",
        no(),
        "refused payload_rejected",
    );
    check(
        401,
        "UNAUTHENTICATED",
        "THIRD_PARTY_AUTH_ERROR",
        "",
        no(),
        "credential_bad",
    );
    check(
        401,
        "UNAUTHENTICATED",
        "",
        "",
        info("ACCESS_TOKEN_EXPIRED"),
        "retry vendor_unavailable not_taken",
    );
    check(401, "UNAUTHENTICATED", "", "", no(), "credential_bad");
    check(
        403,
        "PERMISSION_DENIED",
        "SENDER_ID_MISMATCH",
        "SenderId mismatch",
        no(),
        "token_dead token_invalid",
    );
    check(403, "PERMISSION_DENIED", "", "", no(), "credential_bad");
    check(
        404,
        "NOT_FOUND",
        "UNREGISTERED",
        "Requested entity was not found.",
        no(),
        "token_dead token_invalid",
    );
    check(404, "NOT_FOUND", "", "", no(), "credential_bad");
    check(
        429,
        "RESOURCE_EXHAUSTED",
        "QUOTA_EXCEEDED",
        "",
        no(),
        "retry vendor_rate_limited 60s not_taken",
    );
    // Which quota it is only the failure's own words tell.
    let quota = |of: &str| {
        json!({
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"subject": "project:p", "description": of}],
        })
    };
    for (of, want) in [
        (
            "Messages per minute per project",
            "retry vendor_rate_limited 60s not_taken",
        ),
        ("Device message rate exceeded", "device_limited 60s"),
    ] {
        check(
            429,
            "RESOURCE_EXHAUSTED",
            "QUOTA_EXCEEDED",
            "",
            quota(of),
            want,
        );
    }
    let delay = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"});
    check(
        429,
        "RESOURCE_EXHAUSTED",
        "",
        "",
        delay,
        "retry vendor_rate_limited 7s not_taken",
    );
    check(
        500,
        "INTERNAL",
        "INTERNAL",
        "",
        no(),
        "retry vendor_unavailable not_taken",
    );
    check(
        503,
        "UNAVAILABLE",
        "UNAVAILABLE",
        "",
        no(),
        "retry vendor_unavailable not_taken",
    );
    check(
        400,
        "",
        "UNSPECIFIED_ERROR",
        "",
        no(),
        "retry vendor_unavailable not_taken",
    );
    let plain = |status, body, want: &str| {
        let verdict = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {body}");
    };
    plain(200, r#"{"name":"projects/p/messages/1"}"#, "accepted");
    plain(200, "<html>", "retry vendor_unavailable maybe_taken");
    plain(502, "<html>", "retry vendor_unavailable not_taken");
    plain(503, "", "retry vendor_unavailable not_taken");
    plain(400, "", "refused payload_rejected");
    plain(403, "<html>", "credential_bad");
    plain(302, "", "retry vendor_unavailable maybe_taken");
}

#[test]
fn a_batch_of_foreign_tokens_kills_none() {
    let answer = error(
        403,
        "PERMISSION_DENIED",
        "SENDER_ID_MISMATCH",
        "SenderId mismatch",
        Value::Null,
    );
    let verdict = decode(&answer, fixture::NOW);
    let all = vendor::spare_tokens(vec![verdict; 10], wrong_project);
    assert_eq!(fixture::words(&all[0]), "refused token_environment");
}

#[test]
fn the_key_file_may_be_wrapped() {
    let vendor = Fcm::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert!(!shown.contains_key("private_key"));
    assert_eq!(shown["project_id"], "demo-1");
    let wrapped = json!({"service_account": config()});
    assert_eq!(
        vendor.check_config(&wrapped).unwrap()["private_key_id"],
        "k1"
    );
    let text = json!({"service_account": config().to_string()});
    assert!(vendor.check_config(&text).is_ok());
    let typo = json!({"service_account": config(), "android_chanels": {"im": "chats"}});
    let faults = vendor.check_config(&typo).unwrap_err();
    assert_eq!(fixture::paths(&faults), ["android_chanels"]);
    let faults = vendor
        .check_config(
            &json!({"service_account": {"project_id": "a/b"}, "android_channels": {"news": "n"}}),
        )
        .unwrap_err();
    assert_eq!(
        fixture::paths(&faults),
        [
            "android_channels/news",
            "service_account/project_id",
            "service_account/client_email",
            "service_account/private_key"
        ]
    );
}
